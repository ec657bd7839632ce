"""Files of which only the form is known, JSON and settings, as tables: whatever stands in them is shown, in their own order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from densnet.report.blocks import Block, Cell, Fold, Table, cell, columns, heading

LONG_LIST = 12  # values; longer lists get a table of their own


def record(caption: str, content: Any) -> list[Block]:
    """Every value of a JSON document: single values in one table, lists of records and nested records in tables of their own."""
    if isinstance(content, Mapping):
        plain = {name: value for name, value in content.items() if _is_plain(value)}
        blocks: list[Block] = []
        if plain:
            blocks.append(columns(caption, ("Quantity", "Value"), ((heading(str(n)), _listed(v)) for n, v in plain.items())))
        for name, value in content.items():
            if name not in plain:
                blocks += record(f"{caption}: {heading(str(name))}", value)
        return blocks
    if isinstance(content, list) and content and all(isinstance(row, Mapping) for row in content):
        return _table_of_records(caption, content)
    if isinstance(content, list):
        table = columns(caption, ("Number", "Value"), ((i, value) for i, value in enumerate(content, start=1)))
        return [Fold(f"{caption}, {len(content)} values", (table,))]
    return [columns(caption, ("Quantity", "Value"), [("Value", content)])]


def _table_of_records(caption: str, rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    names = list(dict.fromkeys(name for row in rows for name in row if _is_plain(row[name])))
    blocks: list[Block] = [columns(caption, [heading(n) for n in names], ([row.get(n) for n in names] for row in rows))]
    for i, row in enumerate(rows, start=1):
        for name, value in row.items():
            if name not in names:
                blocks.append(Fold(f"{caption}, row {i}: {heading(name)}", tuple(record(heading(name), value))))
    return blocks


def settings(caption: str, content: Any) -> Table:
    """Nested settings as a table of the names one would type on the command line."""
    rows = tuple((Cell(name), cell(value)) for name, value in _flat("", content))
    return Table(caption, ("Setting", "Value"), rows)


def _flat(prefix: str, content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping) and content:
        for name, value in content.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), value)
    elif isinstance(content, list) and any(isinstance(v, (Mapping, list)) for v in content):
        for i, value in enumerate(content):
            yield from _flat(f"{prefix}[{i}]", value)
    else:
        yield prefix, content


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= LONG_LIST and not any(isinstance(v, (Mapping, list)) for v in value)
    return not isinstance(value, Mapping)


def _listed(value: Any) -> Any:
    """A list of numbers as one cell that keeps all digits."""
    if isinstance(value, list) and value and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value):
        cells = [cell(v) for v in value]
        return Cell(", ".join(c.text for c in cells), ", ".join(c.exact or c.text for c in cells))
    return value
