"""Spectra in text tables of two columns (CSV, tabs, blanks), with or without names of the columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densnet.errors import SpectrumError


@dataclass(frozen=True)
class Table:
    """x, y (K,) in file order; names of the two columns, None if the file has none."""

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, str] | None


def read_table(path: Path) -> Table:
    """Two columns of numbers, separated by semicolons, tabs, commas or blanks; a comma is a decimal sign beside the first two.

    Lines that start with # are comments; one line of names may come first.
    Raises SpectrumError: no numbers, not two columns, text among the numbers, NaN or infinity.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    lines = [(i, line) for i, line in lines if not line.startswith("#")]
    if not lines:
        raise SpectrumError(f"{path} is empty; expected two columns of numbers; check the file")
    sample = lines[-1][1]
    separator = next((s for s in (";", "\t") if s in sample), "," if "," in sample else None)
    decimal_comma = separator in (";", "\t")
    names: tuple[str, str] | None = None
    rows = []
    for i, line in lines:
        cells = [cell.strip().strip("\"'") for cell in (line.split(separator) if separator else line.split())]
        if not rows and names is None and not _is_number(cells[0], decimal_comma):
            # Names may hold blanks; the columns of blank-separated tables are told apart by two or more of them.
            cells = cells if separator or len(cells) == 2 else re.split(r"\s{2,}", line)
            names = (cells[0], cells[1]) if len(cells) == 2 else None
            if names is None:
                raise SpectrumError(f"{path} line {i} has {len(cells)} names; expected two columns; remove the others")
            continue
        if len(cells) != 2:
            raise SpectrumError(f"{path} line {i} has {len(cells)} columns; expected two; remove the others")
        if not all(_is_number(cell, decimal_comma) for cell in cells):
            raise SpectrumError(f"{path} line {i} is '{line[:60]}'; expected two numbers; correct or remove it")
        rows.append([_value(cell, decimal_comma) for cell in cells])
    if len(rows) < 3:
        raise SpectrumError(f"{path} has {len(rows)} points; expected at least 3; check the file")
    x, y = np.array(rows).T
    bad = ~(np.isfinite(x) & np.isfinite(y))
    if bad.any():
        raise SpectrumError(f"{path} has {bad.sum()} points with NaN or infinity; expected numbers; remove them")
    return Table(x, y, names)


def _value(cell: str, decimal_comma: bool) -> float:
    return float(cell.replace(",", ".") if decimal_comma else cell)


def _is_number(cell: str, decimal_comma: bool) -> bool:
    try:
        _value(cell, decimal_comma)
    except ValueError:
        return False
    return True
