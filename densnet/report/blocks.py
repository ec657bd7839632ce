"""What a page is made of: headings, words, tables, charts and pictures. Plain text everywhere; the template escapes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Suffixes of names in our files, and how people write them.
UNITS = {
    "_L_mol_cm": "L mol⁻¹ cm⁻¹",
    "_km_mol_cm": "km mol⁻¹ cm",
    "_km_mol": "km mol⁻¹",
    "_meV_per_atom_per_ps": "meV atom⁻¹ ps⁻¹",
    "_meV_per_A": "meV Å⁻¹",
    "_e_bohr3": "e bohr⁻³",
    "_kj_mol": "kJ mol⁻¹",
    "_eV_A": "eV Å⁻¹",
    "_mD_A": "mD Å",
    "_angstrom": "Å",
    "_percent": "%",
    "_kelvin": "K",
    "_cm1": "cm⁻¹",
    "_meV": "meV",
    "_amu": "u",
    "_m2": "m²",
    "_mD": "mD",
    "_ps": "ps",
    "_fs": "fs",
    "_D": "D",
    "_A": "Å",
    "_K": "K",
    "_e": "e",
    "_s": "s",
}
WHOLE = {"km_mol": "Area / km mol⁻¹", "error_km_mol": "Error / km mol⁻¹"}  # names that are a unit
ABSENT = "–"
ABBREVIATIONS = {"mae": "MAE", "nmae": "NMAE", "rmsd": "RMSD", "rmse": "RMSE", "dft": "DFT", "md": "MD", "scf": "SCF"}


@dataclass(frozen=True)
class Cell:
    """text: as people read it; exact: the number behind it with all its digits, None for words."""

    text: str
    exact: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows are as long as the headings; the first cell of a row is its heading."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: str = "table"

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Columns of numbers, to be set flush right."""
        columns = zip(*self.rows) if self.rows else [()] * len(self.head)
        return tuple(_numeric(column) for column in columns)


def _numeric(column: Sequence[Cell]) -> bool:
    return any(c.exact is not None for c in column) and all(c.exact is not None or c.text in ("", ABSENT) for c in column)


@dataclass(frozen=True)
class Zoom:
    """A button that shows this stretch of the horizontal axis."""

    label: str
    low: float
    high: float


@dataclass(frozen=True)
class Chart:
    """name: identifies it on the page; figure: data and layout as Plotly's JSON has them, colours as var(--name) of the style

    sheet; alt: what it shows, for those who cannot see it; height: pixels; zooms: buttons; flips: can turn the horizontal axis;

    title: a line above it.
    """

    name: str
    caption: str
    alt: str
    figure: dict[str, Any]
    height: int
    zooms: tuple[Zoom, ...] = ()
    flips: bool = False
    title: str = ""
    kind: str = "chart"


@dataclass(frozen=True)
class Charts:
    """Small ones, side by side where there is room."""

    items: tuple[Chart, ...]
    kind: str = "charts"


@dataclass(frozen=True)
class Picture:
    """uri: data: and the bytes."""

    caption: str
    alt: str
    uri: str
    kind: str = "picture"


@dataclass(frozen=True)
class Words:
    """A paragraph; a warning stands out."""

    text: str
    warning: bool = False
    kind: str = "words"


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line to click on; open from the start or not."""

    summary: str
    blocks: tuple[Block, ...]
    open: bool = False
    kind: str = "fold"


@dataclass(frozen=True)
class Download:
    """An input, to be saved from the page. uri: data: and the bytes, None where the page does not carry it."""

    name: str
    path: str
    size: str
    sha256: str
    uri: str | None


@dataclass(frozen=True)
class Downloads:
    items: tuple[Download, ...]

    @property
    def carried(self) -> bool:
        return any(item.uri is not None for item in self.items)

    kind: str = "downloads"


Block = Table | Chart | Charts | Picture | Words | Fold | Downloads


@dataclass(frozen=True)
class Key:
    """A figure to read first: label, value with unit, and what it means."""

    label: str
    value: Cell
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """name: anchor on the page."""

    name: str
    title: str
    blocks: tuple[Block, ...] = field(default=())


def number(value: float, digits: int = 5) -> Cell:
    """A number rounded for the eye. Not finite: words."""
    if not math.isfinite(value):
        return Cell(ABSENT)
    if isinstance(value, int):
        return Cell(_minus(str(value)), str(value))
    text = f"{value:.{digits}g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{value:.0f}"
    return Cell(_minus(text), repr(float(value)))


def cell(value: object) -> Cell:
    """Anything that stands in JSON or YAML and is no table of its own."""
    if value is None:
        return Cell(ABSENT)
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (list, tuple)):
        return Cell(", ".join(cell(v).text for v in value) or "none")
    return Cell(str(value))


def heading(name: str) -> str:
    """A name in a file, `energy_mae_meV`, for people: `Energy MAE / meV`."""
    if name in WHOLE:
        return WHOLE[name]
    unit = ""
    for suffix, meaning in UNITS.items():
        if name.endswith(suffix) and len(name) > len(suffix):
            name, unit = name.removesuffix(suffix), f" / {meaning}"
            break
    words = " ".join(ABBREVIATIONS.get(word, word) for word in name.replace("/", " ").split("_"))
    return words[:1].upper() + words[1:] + unit


def columns(caption: str, head: Sequence[str], values: Iterable[Sequence[object]], digits: Sequence[int] = ()) -> Table:
    """A table of numbers and words. Columns of floats get as many decimals as their largest number needs to show `digits` digits

    (5 unless told), if the smallest then still shows two.
    """
    by_column = list(zip(*values))
    wanted = [*digits, *([5] * (len(by_column) - len(digits)))]
    return Table(caption, tuple(head), tuple(zip(*(_column(c, d) for c, d in zip(by_column, wanted)))))


def _column(values: Sequence[object], digits: int) -> list[Cell]:
    floats = [abs(v) for v in values if isinstance(v, float) and math.isfinite(v) and v]
    plain = all(v is None or isinstance(v, float) or v == "" for v in values)
    if not plain or not floats:
        return [v if isinstance(v, Cell) else cell(v) for v in values]
    decimals = max(0, digits - 1 - math.floor(math.log10(max(floats))))
    if decimals > 12 or min(floats) * 10**decimals < 10.0:
        return [number(v, digits) if isinstance(v, float) else cell(v) for v in values]
    finite = [v if isinstance(v, float) and math.isfinite(v) else None for v in values]
    return [Cell(ABSENT) if v is None else Cell(_minus(f"{v:.{decimals}f}"), repr(v)) for v in finite]


def _minus(text: str) -> str:
    return text.replace("-", "−")
