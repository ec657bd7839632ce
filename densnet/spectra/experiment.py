"""Measured infrared spectra: JCAMP-DX or a table, in any usual unit, as absorbance over ascending wavenumber.

Absorbance belongs to a point of the axis, so no Jacobian goes with the change from wavelength to wavenumber; but areas of
bands are over wavenumber, never over wavelength.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.integrate import trapezoid

from densnet.errors import SpectrumError
from densnet.spectra.experiment_units import (
    AXIS_NAMES,
    ORDINATE_NAMES,
    AxisUnit,
    Cell,
    OrdinateUnit,
    absolute_factor,
    recognised,
    to_absorbance,
    to_wavenumber,
)
from densnet.spectra.infrared import KM_MOL_PER_EPSILON
from densnet.spectra.jcamp_reader import read_jcamp
from densnet.spectra.table_reader import read_table

log = logging.getLogger(__name__)

SMALLEST_TRANSMITTANCE = 0.005  # absorbance 2.3; below it, stray light and the zero line decide


@dataclass(frozen=True)
class ExperimentalSpectrum:
    """A measured spectrum over ascending wavenumber.

    wavenumber_cm1: (K,) ascending, the points as measured, not always evenly spaced; absorbance: (K,) molar absorptivity in
    L/mol/cm (decadic) if `absolute`, else decadic absorbance on a scale that is the experiment's own; saturated: (K,) True
    where the sample let no light through and the absorbance is a lower bound; title: of the file; source: the file and
    what it says of itself; notes: everything that was assumed, repaired or looks odd.
    """

    wavenumber_cm1: np.ndarray
    absorbance: np.ndarray
    absolute: bool
    saturated: np.ndarray
    title: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        return "L/mol/cm" if self.absolute else "absorbance"

    def on(self, grid_cm1: np.ndarray) -> np.ndarray:
        """The absorbance (M,) at wavenumbers within the measured range, linear between points.

        Raises SpectrumError outside of it: nothing is extrapolated.
        """
        low, high = self.wavenumber_cm1[[0, -1]]
        if grid_cm1.min() < low or grid_cm1.max() > high:
            raise SpectrumError(
                f"range is {grid_cm1.min():g}..{grid_cm1.max():g} cm^-1, the experiment covers {low:g}..{high:g}; "
                "expected a range within it; narrow the range"
            )
        return np.interp(grid_cm1, self.wavenumber_cm1, self.absorbance)

    def integrate(self, low_cm1: float, high_cm1: float) -> float:
        """Area of the stretch over wavenumber: km/mol if absolute, else absorbance times cm^-1.

        Raises SpectrumError for reversed limits or ones outside the measured range.
        """
        grid = self.wavenumber_cm1
        if not low_cm1 < high_cm1:
            raise SpectrumError(f"band limits are {low_cm1:g} and {high_cm1:g} cm^-1; expected low < high; swap them")
        points = np.concatenate([[low_cm1], grid[(grid > low_cm1) & (grid < high_cm1)], [high_cm1]])
        return float(trapezoid(self.on(points), points)) * (KM_MOL_PER_EPSILON if self.absolute else 1.0)


def read_experiment(
    path: Path | str,
    *,
    x_unit: str | None = None,
    y_unit: str | None = None,
    path_length_cm: float | None = None,
    pressure: str | None = None,
    temperature_kelvin: float | None = None,
    block: int | None = None,
    smallest_transmittance: float = SMALLEST_TRANSMITTANCE,
) -> ExperimentalSpectrum:
    """Read a JCAMP-DX file (its first characters are ##) or a table of two columns.

    x_unit: cm-1, micrometre or nanometre; y_unit: transmittance (a fraction), percent, absorbance, molefraction
    ((umol/mol)^-1 m^-1) or epsilon (L/mol/cm); both only where the file does not say, or says something wrong.
    path_length_cm, pressure ("30 mmHg", of the molecule; for molefraction the total one), temperature_kelvin: make the
    spectrum absolute; where not given they come from the header of a JCAMP-DX file, the temperature else is 298.15 K. Without
    path length or pressure the spectrum is relative. block: which of several spectra in the file, from 1.
    smallest_transmittance: below it the sample counts as opaque. What is assumed or repaired is logged and kept in `notes`.
    Raises SpectrumError or ConfigError in one line for whatever cannot be read or does not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise SpectrumError(f"{path} is not a file; expected a measured spectrum, JCAMP-DX or CSV; check the name")
    if not 0.0 < smallest_transmittance < 1.0:
        raise SpectrumError(f"smallest_transmittance is {smallest_transmittance}; expected between 0 and 1; 0.005 suits most")
    with path.open("rb") as file:
        is_jcamp = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"##", b"$$"))
    header: dict[str, str] = {}
    if is_jcamp:
        raw = read_jcamp(path, block)
        x, y, header, notes = raw.x, raw.y, raw.header, list(raw.notes)
        said = header.get("XUNITS"), header.get("YUNITS")
    else:
        table = read_table(path)
        x, y, notes, said = table.x, table.y, [], table.names or (None, None)
    axis = AxisUnit(x_unit) if x_unit else recognised(said[0], AXIS_NAMES, path, "x_unit")
    ordinate = OrdinateUnit(y_unit) if y_unit else recognised(said[1], ORDINATE_NAMES, path, "y_unit")
    _check_axis(x, axis, path)

    wavenumber = to_wavenumber(x, axis)
    if wavenumber[0] > wavenumber[-1]:
        wavenumber, y = wavenumber[::-1], y[::-1]
        notes.append("points in order of falling wavenumber: turned round")
    absorbance, saturated, seen = to_absorbance(y, ordinate, smallest_transmittance, path)
    factor, scale = absolute_factor(ordinate, Cell.of(header, ordinate, path_length_cm, pressure, temperature_kelvin))
    notes += [*seen, *scale]
    for note in notes:
        log.warning("%s: %s", path.name, note)
    return ExperimentalSpectrum(
        wavenumber_cm1=np.ascontiguousarray(wavenumber),
        absorbance=np.ascontiguousarray(absorbance * (factor or 1.0)),
        absolute=factor is not None,
        saturated=saturated,
        title=header.get("TITLE", path.stem),
        source="; ".join([path.name, axis.value, ordinate.value, *(header[k] for k in ("ORIGIN", "STATE") if k in header)]),
        notes=tuple(notes),
    )


def _check_axis(x: np.ndarray, axis: AxisUnit, path: Path) -> None:
    if x.min() <= 0.0:
        raise SpectrumError(f"{path}: the axis holds {x.min():g} {axis.value}; expected positive values; check x_unit and file")
    step = np.diff(x)
    direction = np.sign(x[-1] - x[0])
    wrong = np.flatnonzero(np.sign(step) != direction) if direction else np.array([0])
    if wrong.size:
        k = int(wrong[0])
        raise SpectrumError(
            f"{path}: the axis goes from {x[k]:g} to {x[k + 1]:g} {axis.value} at point {k + 2}; expected one direction without "
            "repeats; remove overlapping or repeated stretches"
        )
