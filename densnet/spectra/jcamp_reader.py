"""JCAMP-DX files: which spectrum is in them, in which units, and whether header and data agree.

The data are decoded by the package jcamp. It prints faults where it should stop, takes the axis from the header alone, reads
only the plainest spelling of a label, and mistakes some compressed forms; so it is given a clean block, and what it returns
is held against NPOINTS, FIRSTX, LASTX, DELTAX, FIRSTY, LASTY, MAXY, MINY and the abscissas at the starts of the lines.

Source: R. S. McDonald, P. A. Wilks, Appl. Spectrosc. 42, 151 (1988) (JCAMP-DX 4.24, the format).
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import jcamp
import numpy as np

from densnet.errors import SpectrumError

CURVE = "XYDATA"
EVEN_FORM = "(X++(Y..Y))"
OTHER_DATA = {
    "XYPOINTS": "separate points",
    "PEAKTABLE": "a peak table",
    "PEAKASSIGNMENTS": "peak assignments",
    "NTUPLES": "n-tuples",
    "DATATABLE": "n-tuples",
    "RADATA": "an interferogram",
}
ORDINATE_TOLERANCE = 0.01  # of the range of the ordinate; headers round
ABSCISSA_STEPS = 1.5  # files of large collections have headers and lines that differ by one point
PLAIN_NUMBERS = re.compile(r"[\s\d.,;+\-Ee]*")


@dataclass(frozen=True)
class JcampSpectrum:
    """A curve as it stands in the file: x, y (K,) with factors applied, in the units that the header names.

    header: labels in capitals without blanks and signs, as the standard compares them; notes: what was found wrong and how
    it was taken.
    """

    x: np.ndarray
    y: np.ndarray
    header: dict[str, str]
    notes: tuple[str, ...]


def read_jcamp(path: Path, block: int | None = None) -> JcampSpectrum:
    """The curve of a JCAMP-DX file; of several, the one numbered block (from 1).

    Raises SpectrumError in one line: no curve, several and none chosen, unreadable or inconsistent data.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    blocks = [found for found in map(_records, _split(lines)) if any(label in found for label in (CURVE, *OTHER_DATA))]
    if not blocks:
        raise SpectrumError(f"{path} holds no JCAMP-DX data (##XYDATA=); expected an infrared spectrum; check the file")
    if block is None and len(blocks) > 1:
        titles = "; ".join(f"{i} {b.get('TITLE', ['untitled'])[0]}" for i, b in enumerate(blocks, start=1))
        raise SpectrumError(f"{path} holds {len(blocks)} spectra ({titles}); expected one; choose with block=1 to {len(blocks)}")
    if block is not None and not 1 <= block <= len(blocks):
        raise SpectrumError(f"block is {block}; {path} holds {len(blocks)}; choose 1 to {len(blocks)}")
    return _curve(blocks[(block or 1) - 1], path)


def _split(lines: list[str]) -> list[list[str]]:
    """Lines of each block. A linking block has no data of its own, so cutting at every title is enough."""
    blocks: list[list[str]] = []
    for line in lines:
        if line.lstrip().startswith("##") and _label(line) == "TITLE":
            blocks.append([])
        if blocks:
            blocks[-1].append(line)
    return blocks


def _label(line: str) -> str:
    return re.sub(r"[\s\-/_]", "", line.split("=", 1)[0].lstrip().removeprefix("##")).upper()


def _records(lines: list[str]) -> dict[str, list[str]]:
    """Label -> lines of its value, comments ($$) taken away. The first of two equal labels counts."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (raw.split("$$", 1)[0].rstrip() for raw in lines):
        if line.lstrip().startswith("##"):
            label, _, value = line.partition("=")
            current = [value.strip()]
            if _label(label) == "END":
                break
            found.setdefault(_label(label), current)
        elif line.strip():
            current.append(line)
    return found


def _curve(records: dict[str, list[str]], path: Path) -> JcampSpectrum:
    if CURVE not in records:
        kind = next(words for label, words in OTHER_DATA.items() if label in records)
        raise SpectrumError(f"{path} holds {kind}, no curve; expected ##XYDATA={EVEN_FORM}; export the full spectrum or a CSV")
    form, *data = records[CURVE]
    if re.sub(r"\s", "", form).upper().split(",")[0] != EVEN_FORM.upper():
        raise SpectrumError(f"{path} has ##XYDATA={form}; expected {EVEN_FORM}; export the full spectrum or a CSV")
    if not data:
        raise SpectrumError(f"{path} has no data below ##XYDATA; expected a spectrum; the file is cut off or empty")
    if "?" in "".join(data):
        raise SpectrumError(f"{path} has missing points ('?'); expected a number at each; cut the range or export a CSV")
    header = {label: " ".join(lines) for label, lines in records.items() if label != CURVE}
    first, last = _number(header, "FIRSTX", path), _number(header, "LASTX", path)
    n_stated = _number(header, "NPOINTS", path)
    x_factor, y_factor = (_number(header, label, path, 1.0) for label in ("XFACTOR", "YFACTOR"))
    if n_stated < 3 or n_stated != int(n_stated) or x_factor == 0.0 or y_factor == 0.0 or first == last:
        raise SpectrumError(
            f"{path}: NPOINTS {n_stated:g}, FIRSTX {first:g}, LASTX {last:g}, XFACTOR {x_factor:g}, YFACTOR {y_factor:g}; "
            "expected at least 3 points on an axis, factors not 0; correct the header"
        )
    clean = [f"##{label}={value!r}" for label, value in (("FIRSTX", first), ("LASTX", last), ("XFACTOR", x_factor))]
    clean += [f"##YFACTOR={y_factor!r}", f"##NPOINTS={int(n_stated)}", f"##XYDATA={EVEN_FORM}", *data]
    try:
        with redirect_stdout(io.StringIO()):  # its printed complaints are found again, and stop the program, below
            y = np.asarray(jcamp.read(clean)["y"], dtype=np.float64)
            starts = np.array([jcamp.parse(line)[0] for line in data]) * x_factor
    except Exception as error:  # the package raises bare Exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpectrumError(f"{path} cannot be decoded ({reason}); expected plain numbers or DIFDUP; export a CSV") from error
    if not np.isfinite(y).all():
        raise SpectrumError(f"{path} holds NaN or infinity; expected numbers; repair the file")
    plain = all(PLAIN_NUMBERS.fullmatch(line) for line in data)
    x, notes = _axis(first, last, int(n_stated), y.size, starts, data if plain else None, header, path)
    _check_ordinate(y, header, path, plain)
    return JcampSpectrum(x, y, header, tuple(notes))


def _axis(
    first: float, last: float, n_stated: int, n: int, starts: np.ndarray, plain: list[str] | None, header: dict[str, str],
    path: Path,
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """The abscissas and what is worth knowing about them. The header's, as the standard says, unless its NPOINTS is wrong."""
    step = (last - first) / (n_stated - 1)
    stated = _number(header, "DELTAX", path, step)
    notes = []
    if plain is None:
        if n != n_stated:
            raise SpectrumError(
                f"{path}: {n} points decoded from the compressed form, NPOINTS is {n_stated}; the file is cut off or in a form "
                "that the reader does not know; export plain numbers or a CSV"
            )
        if abs(starts[0] - first) > ABSCISSA_STEPS * abs(step) or abs(starts[-1] - last) > abs(last - first):
            raise SpectrumError(f"{path}: the lines start at {starts[0]:g}, FIRSTX is {first:g}; correct XFACTOR or FIRSTX")
        x = np.linspace(first, last, n)
    else:
        counts = [len(jcamp.parse(line)) - 1 for line in plain]
        index = np.concatenate([[0], np.cumsum(counts[:-1])])
        if n != n_stated:
            slope, start = np.polyfit(index, starts, 1) if index.size > 2 else (np.nan, np.nan)
            x = start + slope * np.arange(n)
            if not np.abs(starts - x[index]).max() < ABSCISSA_STEPS * abs(slope):
                raise SpectrumError(
                    f"{path}: {n} points, NPOINTS is {n_stated}, and the abscissas at the line starts are not evenly spaced; "
                    "lines are missing; get the whole file"
                )
            notes.append(f"NPOINTS is {n_stated}, the data have {n} points: axis taken from the abscissas of the lines")
            step = slope
        else:
            x = np.linspace(first, last, n)
        off = float(np.abs(starts - x[index]).max())
        if off > ABSCISSA_STEPS * abs(step):
            raise SpectrumError(
                f"{path}: abscissas at the line starts are up to {off:g} from the axis of FIRSTX, LASTX and NPOINTS "
                f"(step {step:g}); expected the same; correct the header or XFACTOR"
            )
        if off > 0.5 * abs(step):
            notes.append(f"header and lines differ by up to {off:g} in the abscissa ({off / abs(step):.1f} steps): header taken")
    if abs(abs(stated) - abs(step)) * n > ABSCISSA_STEPS * abs(step):
        notes.append(f"DELTAX is {stated:g}, FIRSTX, LASTX and NPOINTS give {step:g}: DELTAX ignored")
    return x, notes


def _check_ordinate(y: np.ndarray, header: dict[str, str], path: Path, plain: bool) -> None:
    decoded = {"FIRSTY": y[0], "LASTY": y[-1], "MAXY": y.max(), "MINY": y.min()}
    allowed = ORDINATE_TOLERANCE * float(np.ptp(y)) or ORDINATE_TOLERANCE * abs(float(y[0]))
    for label, value in decoded.items():
        stated = _number(header, label, path, float(value))
        if abs(stated - value) > allowed:
            cause = "YFACTOR or the header is wrong" if plain else "YFACTOR is wrong or the compressed form was not understood"
            raise SpectrumError(f"{path}: {label} is {stated:g}, the data give {value:g}; {cause}; correct it or export a CSV")


def _number(header: dict[str, str], label: str, path: Path, default: float | None = None) -> float:
    text = header.get(label)
    if text is None and default is not None:
        return default
    try:
        value = float(text) if text else np.nan
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        found = "missing" if text is None else f"'{text}'"
        raise SpectrumError(f"{path}: ##{label} is {found}; expected a number; correct the header")
    return value
