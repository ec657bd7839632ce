"""Other results in a folder, by name: comparison with experiment, assignment, convergence, and whatever else is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from densnet.errors import DataError
from densnet.report import charts
from densnet.report.blocks import Block, Chart, Fold, Picture, Section, Words, cell, columns, heading
from densnet.report.parts import Part, data_uri
from densnet.report.records import record
from densnet.report.sources import Columns, columns_of, read, rows

TITLES = {
    "comparison": "Comparison with experiment",
    "assignment": "Assignment of the bands",
    "convergence": "Convergence with the length of the run",
    "vdos": "Vibrational density of states",
    "power": "Vibrational density of states",
    "modes": "Harmonic analysis",
}
NAMES = {"md": "molecular dynamics"}
LEFT_OUT = ("ir", "evaluation", "frames", "parity", "harmonic", "identity")  # have sections of their own
MOST_BYTES, MOST_ROWS = 1_000_000, 500
GRID, SPREAD = "wavenumber_cm1", ("_error", "_lower", "_upper")


def extra_parts(folder: Path, taken: tuple[str, ...] = LEFT_OUT) -> list[Part]:
    """A part for every name `x` of x.json and x.csv in the folder, with x.png if there is one.

    Raises DataError if such a file cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with results; check the path")
    found = {p.stem for p in folder.iterdir() if p.is_file() and p.suffix in (".json", ".csv") and p.stem not in taken}
    order = [*(name for name in TITLES if name in found), *sorted(found - set(TITLES))]
    return [_part(folder, name) for name in order]


def _part(folder: Path, name: str) -> Part:
    blocks: list[Block] = []
    sources = []
    title = TITLES.get(name, heading(name))
    for suffix in (".csv", ".png", ".json"):
        path = folder / f"{name}{suffix}"
        if not path.is_file():
            continue
        source = read(path)
        if suffix == ".png" and name != "comparison" and any(isinstance(b, Chart) for b in blocks):
            continue
        if suffix == ".png":
            blocks.append(Picture(f"{title}.", f"Figure {path.name}, written with the tables that follow", data_uri(source)))
            continue
        sources.append(source)
        if suffix == ".json" and len(source.content) > MOST_BYTES:
            blocks.append(Words(f"{path.name} is too long for a page ({len(source.content) / 1e6:.1f} MB) and not shown."))
        elif suffix == ".json":
            blocks += record(title, source.json())
        elif GRID in (head := rows(source)[0]) and len(head) > 1:
            curves = columns_of(source)
            blocks.append(_curves(f"{folder.name}-{name}", title, curves))
            blocks += (
                [Fold(f"Notes in {path.name}", (columns("Notes", ("Note",), [(note,) for note in curves.notes]),))]
                if curves.notes
                else []
            )
        else:
            blocks.append(_table(title, source.path.name, *rows(source)[:2]))
    blocks.sort(key=lambda block: (not isinstance(block, Chart), not isinstance(block, Picture)))
    return Part(Section(f"{folder.name}-{name}", title, tuple(blocks)), (), tuple(sources))


def _curves(chart: str, title: str, curves: Columns) -> Chart:
    """Every column against the wavenumber; x_lower and x_upper, or x_error, are the error band of x."""
    grid = curves.values[:, curves.names.index(GRID)]
    spread = {f"{n}{suffix}" for n in curves.names for suffix in SPREAD}
    names = [n for n in curves.names if n != GRID and n not in spread]
    data: list[dict[str, Any]] = []
    for name, colour in zip(names, charts.LINES * len(names)):
        values, error, lower, upper = (curves.column(f"{name}{suffix}") for suffix in ("", *SPREAD))
        assert values is not None
        shown, band = NAMES.get(name, name.replace("_", " ")), "interval"
        if (lower is None or upper is None) and error is not None:
            lower, upper, band = values - error, values + error, "±1 standard error"
        if lower is not None and upper is not None and np.isfinite(lower).any():
            data += [{**t, "showlegend": False} for t in charts.band(grid, lower, upper, f"{shown}, {band}", colour)]
        hover = f"%{{x:.1f}} cm⁻¹<br>%{{y:.4g}}<extra>{charts.escape(shown)}</extra>"
        data.append(charts.line(grid, values, shown, colour, hover))
    extent = [float(np.nanmin(grid)), float(np.nanmax(grid))]
    shape = charts.layout(
        hovermode="closest", showlegend=True, margin={"l": 64, "r": 12, "t": 34, "b": 48},
        xaxis=charts.axis("Wavenumber / cm⁻¹", range=extent), yaxis=charts.axis("", rangemode="tozero"),
    )  # fmt: skip
    alt = f"Line chart of {', '.join(names)} from {extent[0]:.0f} to {extent[1]:.0f} per centimetre"
    shaded = ["The shaded bands are errors"] if any("fill" in trace for trace in data) else []
    caption = ". ".join([title, *curves.notes[:1], *shaded, "Drag to zoom, double-click to see all."])
    return Chart(chart, caption, alt, {"data": data, "layout": shape}, 460, flips=True)


def _table(title: str, name: str, head: tuple[str, ...], body: list[list[str]]) -> Block:
    if len(body) > MOST_ROWS:
        return Words(f"{name} has {len(body)} rows, too many for a page; it is among the files below.")
    whole = columns(title, [heading(n) for n in head], ([_value(c) for c in row] for row in body))
    return Fold(f"{name}, {len(body)} rows", (whole,))


def _value(text: str) -> object:
    try:
        return cell(float(text)) if text.strip() else cell("")
    except ValueError:
        return cell(text)
