"""Units of measured infrared spectra: what files call them, and the way to absorbance, wavenumber and absolute scale.

    A = -log10 T                        absorbance of a transmittance
    nu~ = 10^4 / lambda                 cm^-1 from micrometres (10^7 from nanometres)
    epsilon = A / (c l), c = p/(RT)     molar absorptivity, L/mol/cm, from partial pressure p and path length l
    epsilon = 10 alpha / (10^-6 P/(RT)) from alpha in (umol/mol)^-1 m^-1 at total pressure P; 1 m^2/mol = 10 L/mol/cm

Source: ideal gas; IUPAC Green Book, 3rd edition, section 2.7 (absorption); P. M. Chu, F. R. Guenther, G. C. Rhoderick,
W. J. Lafferty, J. Res. NIST 104, 59 (1999) (the unit of the quantitative database).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy import constants

from densnet.errors import ConfigError, SpectrumError
from densnet.units import AVOGADRO, BOLTZMANN_SI

GAS_CONSTANT = AVOGADRO * BOLTZMANN_SI  # J/mol/K
LARGEST_FRACTION = 1.5  # a transmittance above is no fraction; a percentage that stays below is one
COLDEST_KELVIN, HOTTEST_KELVIN = 150.0, 550.0  # of a gas cell; beyond them a unit was mistaken
ASSUMED_KELVIN = 298.15
CELSIUS = {"c": 1.0, "": 1.0, "degc": 1.0, "degrees": 1.0, "celsius": 1.0}
PASCAL = {
    "pa": 1.0, "hpa": 100.0, "mbar": 100.0, "kpa": 1000.0, "bar": constants.bar, "atm": constants.atm,
    "mmhg": constants.mmHg, "torr": constants.torr,
}  # fmt: skip
CENTIMETRE = {"mm": 0.1, "cm": 1.0, "m": 100.0}
QUANTITY = r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([a-zA-Z]*)"


class AxisUnit(Enum):
    """Units of the abscissa."""

    WAVENUMBER = "cm-1"
    MICROMETRE = "micrometre"
    NANOMETRE = "nanometre"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(f"unit of the axis is '{value}'; expected one of {', '.join(u.value for u in cls)}; correct x_unit")


class OrdinateUnit(Enum):
    """Units of the ordinate. MOLE_FRACTION: (umol/mol)^-1 m^-1, decadic; EPSILON: L/mol/cm, decadic."""

    TRANSMITTANCE = "transmittance"
    PERCENT = "percent"
    ABSORBANCE = "absorbance"
    MOLE_FRACTION = "molefraction"
    EPSILON = "epsilon"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(f"unit of the ordinate is '{value}'; expected one of {', '.join(u.value for u in cls)}; correct y_unit")


# How files spell them, in small letters without blanks, underscores, brackets and carets.
AXIS_NAMES = {
    AxisUnit.WAVENUMBER: {"1/cm", "cm-1", "cm1", "wavenumber", "wavenumbers", "wavenumbercm-1", "wavenumber/cm-1",
                          "wavenumbercm1", "wavenumber1/cm", "wavenumberscm-1", "wavenumbers1/cm"},
    AxisUnit.MICROMETRE: {"micrometer", "micrometers", "micrometre", "micrometres", "micron", "microns", "um", "µm", "μm",
                          "wavelengthum", "wavelengthµm", "wavelengthμm", "wavelength/um", "wavelength/µm", "wavelength/μm",
                          "wavelengthmicrometers", "wavelengthmicrometres", "wavelengthmicrons"},
    AxisUnit.NANOMETRE: {"nanometer", "nanometers", "nanometre", "nanometres", "nm", "wavelengthnm", "wavelength/nm"},
}  # fmt: skip
ORDINATE_NAMES = {
    OrdinateUnit.TRANSMITTANCE: {"transmittance", "transmission"},
    OrdinateUnit.PERCENT: {"%t", "t%", "%transmittance", "transmittance%", "transmittance/%", "percenttransmittance",
                           "transmittancepercent", "%transmission", "transmission%", "percenttransmission"},
    OrdinateUnit.ABSORBANCE: {"absorbance", "abs"},
    OrdinateUnit.MOLE_FRACTION: {"micromol/mol-1m-1base10", "umol/mol-1m-1base10", "µmol/mol-1m-1base10"},
    OrdinateUnit.EPSILON: {"epsilon", "epsilonlmolcm", "epsilonl/mol/cm", "molarabsorptivity", "l/mol/cm"},
}  # fmt: skip

Unit = TypeVar("Unit", AxisUnit, OrdinateUnit)


def recognised(said: str | None, names: dict[Unit, set[str]], path: Path, setting: str) -> Unit:
    """The unit that a file names. Raises SpectrumError if it names none or an unknown one."""
    plain = re.sub(r"[\s_()\[\]{}^]", "", said or "").lower()
    for unit, spellings in names.items():
        if plain in spellings:
            return unit
    found = f"unit '{said}', which is not known" if said else "no unit"
    raise SpectrumError(f"{path} has {found}; expected {', '.join(u.value for u in names)}; set {setting} to what it is")


def to_wavenumber(x: np.ndarray, unit: AxisUnit) -> np.ndarray:
    """cm^-1 in the order of x (K,), positive values in `unit`."""
    match unit:
        case AxisUnit.WAVENUMBER:
            return x
        case AxisUnit.MICROMETRE:
            return 1e4 / x
        case AxisUnit.NANOMETRE:
            return 1e7 / x


def to_absorbance(y: np.ndarray, unit: OrdinateUnit, smallest: float, path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Absorbance (K,), where it is only a lower bound (K,), and notes; absorptivities come back as they are.

    Transmittance below `smallest`, zero and negative ones with it, counts as `smallest`. One above 1 is noise about the base
    line and gives a negative absorbance, which stays. Raises SpectrumError if the values cannot be what the unit says.
    """
    dark = np.zeros(y.size, dtype=bool)
    if not (y != y[0]).any():
        raise SpectrumError(f"{path}: all ordinates are {y[0]:g}; expected a spectrum; check the file")
    if unit not in (OrdinateUnit.TRANSMITTANCE, OrdinateUnit.PERCENT):
        if y.max() <= 0.0:
            raise SpectrumError(f"{path}: highest {unit.value} is {y.max():g}; expected a positive one; check y_unit")
        below = int((y < 0.0).sum())
        lowest = f"{below} of {y.size} points are below zero, the lowest at {y.min() / y.max():.2g} of the highest: kept"
        return y, dark, [lowest] if below else []
    is_percent = unit is OrdinateUnit.PERCENT
    if is_percent != bool(y.max() > LARGEST_FRACTION):
        other = OrdinateUnit.TRANSMITTANCE if is_percent else OrdinateUnit.PERCENT
        meant = "per cent" if is_percent else "a fraction"
        raise SpectrumError(
            f"{path}: transmittance goes up to {y.max():g} but should be {meant}; expected the unit and the values to agree; "
            f"set y_unit={other.value} if that is what it is"
        )
    fraction = y / 100.0 if is_percent else y
    dark = fraction < smallest
    notes = []
    if dark.any():
        notes.append(
            f"{dark.sum()} of {y.size} points are opaque (transmittance below {smallest:g}, {(y <= 0.0).sum()} not above zero): "
            f"absorbance there is a lower bound, {-np.log10(smallest):.3g}"
        )
    if (fraction > 1.0).any():
        notes.append(
            f"{(fraction > 1.0).sum()} of {y.size} points have a transmittance above 1 (up to {fraction.max():.3f}): "
            "negative absorbance, kept"
        )
    return -np.log10(np.maximum(fraction, smallest)), dark, notes


@dataclass(frozen=True)
class Cell:
    """The gas cell, as far as known: path length in cm, pressure in Pa (for molefraction the total one), temperature in K."""

    path_length_cm: float | None
    pressure_pascal: float | None
    temperature_kelvin: float | None

    @staticmethod
    def of(
        header: dict[str, str], unit: OrdinateUnit, path_length_cm: float | None, pressure: str | None, kelvin: float | None
    ) -> Cell:
        """From settings, and where they are None from the header of a JCAMP-DX file.

        Raises SpectrumError for settings that are no positive quantities.
        """
        given = parse_quantity(pressure, PASCAL) if pressure is not None else None
        for name, value in (("path length", path_length_cm), ("pressure", given if pressure is not None else 1.0),
                            ("temperature", kelvin)):  # fmt: skip
            if value is None and name == "pressure":
                raise SpectrumError(
                    f"pressure is '{pressure}'; expected a number and Pa, kPa, mbar, atm, mmHg or torr; correct it"
                )
            if value is not None and not (isfinite(value) and value > 0.0):
                raise SpectrumError(f"{name} is {value}; expected a positive number; correct the setting")
        if given is None:
            total = unit is OrdinateUnit.MOLE_FRACTION
            said = header.get("PRESSURE") if total else header.get("PARTIALPRESSURE") or _state_pressure(header)
            given = parse_quantity(said, PASCAL)
        if kelvin is None and (said := parse_quantity(header.get("TEMPERATURE"), CELSIUS)) is not None:
            kelvin = said + constants.zero_Celsius  # the standard's unit is the degree Celsius
        elif kelvin is None:
            kelvin = parse_quantity(header.get("TEMPERATURE"), {"k": 1.0, "kelvin": 1.0})
        if kelvin is not None and not COLDEST_KELVIN < kelvin < HOTTEST_KELVIN:
            raise SpectrumError(
                f"the temperature makes {kelvin:g} K; expected that of a gas cell, {COLDEST_KELVIN:g} to {HOTTEST_KELVIN:g} K "
                "(JCAMP-DX counts in degrees Celsius); set measured.temperature_kelvin"
            )
        return Cell(path_length_cm or parse_quantity(header.get("PATHLENGTH"), CENTIMETRE), given, kelvin)


def absolute_factor(unit: OrdinateUnit, cell: Cell) -> tuple[float | None, list[str]]:
    """What absorbance, or an absorptivity of this unit, is to be multiplied with to give L/mol/cm, and notes about it.

    None if the cell is not known well enough: the spectrum is relative.
    """
    if unit is OrdinateUnit.EPSILON:
        return 1.0, []
    pressure, length, kelvin = cell.pressure_pascal, cell.path_length_cm, cell.temperature_kelvin
    total = unit is OrdinateUnit.MOLE_FRACTION
    missing = [name for name, value in (("path length", 1.0 if total else length), ("pressure", pressure)) if value is None]
    if pressure is None or (length is None and not total):
        return None, [f"{' and '.join(missing)} not known: intensities are relative"]
    notes = []
    if kelvin is None:
        kelvin = ASSUMED_KELVIN
        notes.append(f"temperature not known: {kelvin:g} K assumed for the density of the gas")
    density = pressure / (GAS_CONSTANT * kelvin)  # mol/m^3
    if total:
        notes.append(f"absolute: mole fraction at {pressure / 1000.0:.4g} kPa and {kelvin:.5g} K")
        return 10.0 / (1e-6 * density), notes
    notes.append(f"absolute: {pressure:.5g} Pa of ideal gas at {kelvin:.5g} K, path {length:g} cm")
    return 1.0 / (density / 1000.0 * float(length or 0.0)), notes


def parse_quantity(text: str | None, units: dict[str, float]) -> float | None:
    """A positive number with one of these units (small letters), times the unit; None if the text is something else."""
    found = re.match(r"\s*" + QUANTITY, text or "")
    if found is None or found.group(2).lower() not in units:
        return None
    return float(found.group(1)) * units[found.group(2).lower()]


def _state_pressure(header: dict[str, str]) -> str | None:
    """The partial pressure in a state like 'GAS (30 mmHg, N2 ADDED, TOTAL PRESSURE 600 mmHg)'."""
    found = re.search(r"\(\s*" + QUANTITY, header.get("STATE", ""))
    return f"{found.group(1)} {found.group(2)}" if found else None
