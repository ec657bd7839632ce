"""How alike two infrared spectra are: stick spectra mode by mode, curves by their correlation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import log, pi, sqrt

import numpy as np
from scipy.optimize import linear_sum_assignment

from densnet.errors import ConfigError, SpectrumError
from densnet.spectra.harmonic import NormalModes

STRONG_KM_MOL = 1.0  # relative intensity deviations are meaningless for reference lines weaker than this
COMMON_POINTS_PER_WIDTH = 5


class LineShape(Enum):
    """Area-normalised line shapes, named by full width at half maximum."""

    LORENTZIAN = "lorentzian"
    GAUSSIAN = "gaussian"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(f"line shape is '{value}'; expected one of {', '.join(k.value for k in cls)}; correct the setting")

    def values(self, offset: np.ndarray, fwhm: float) -> np.ndarray:
        """The shape at a distance from its centre; 1/unit of offset."""
        match self:
            case LineShape.LORENTZIAN:
                return (0.5 * fwhm / pi) / (offset**2 + (0.5 * fwhm) ** 2)
            case LineShape.GAUSSIAN:
                width = fwhm / sqrt(8.0 * log(2.0))
                return np.exp(-0.5 * (offset / width) ** 2) / (width * sqrt(2.0 * pi))


class Matching(Enum):
    """How modes of two molecules were paired."""

    OVERLAP = "overlap of modes"
    ORDER = "order of frequency"


@dataclass(frozen=True)
class HarmonicComparison:
    """Deviations of a model's normal modes from a reference's, in the reference's order of frequency.

    match: (n,) index of the model mode paired with each reference mode; frequency_deviation_cm1, intensity_deviation_km_mol:
    (n,) model minus reference; max_intensity_relative: largest |deviation|/reference among reference lines of at least
    1 km/mol, NaN if there are none; pearson: correlation of the two broadened spectra; shape, fwhm_cm1: the broadening.
    """

    match: np.ndarray
    matching: Matching
    frequency_deviation_cm1: np.ndarray
    intensity_deviation_km_mol: np.ndarray
    max_intensity_relative: float
    pearson: float
    shape: LineShape
    fwhm_cm1: float

    @property
    def max_frequency_deviation_cm1(self) -> float:
        return float(np.abs(self.frequency_deviation_cm1).max())

    @property
    def mean_frequency_deviation_cm1(self) -> float:
        """Mean absolute deviation."""
        return float(np.abs(self.frequency_deviation_cm1).mean())

    @property
    def max_intensity_deviation_km_mol(self) -> float:
        return float(np.abs(self.intensity_deviation_km_mol).max())


def broaden(
    frequency_cm1: np.ndarray,
    intensity_km_mol: np.ndarray,
    grid_cm1: np.ndarray,
    fwhm_cm1: float,
    shape: LineShape = LineShape.LORENTZIAN,
) -> np.ndarray:
    """Sticks (n,) to a curve on grid_cm1 (K,), km/mol per cm^-1, whose area is the sum of the sticks.

    Raises SpectrumError if the width is not positive.
    """
    _check_width(fwhm_cm1)
    return shape.values(np.asarray(grid_cm1)[:, None] - np.asarray(frequency_cm1), fwhm_cm1) @ np.asarray(intensity_km_mol)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two curves (K,) on one grid; NaN if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0.0 else float("nan")


def curve_similarity(
    wavenumber_a: np.ndarray, curve_a: np.ndarray, wavenumber_b: np.ndarray, curve_b: np.ndarray, spacing_cm1: float = 1.0
) -> float:
    """Pearson correlation of two curves, each on its own ascending axis (cm^-1), over the range they share.

    Both are interpolated linearly to a common grid of the given spacing. Raises SpectrumError if they share no range.
    """
    low, high = max(wavenumber_a[0], wavenumber_b[0]), min(wavenumber_a[-1], wavenumber_b[-1])
    if not high - low >= 2.0 * spacing_cm1:
        raise SpectrumError(
            f"spectra cover {wavenumber_a[0]:g}..{wavenumber_a[-1]:g} and {wavenumber_b[0]:g}..{wavenumber_b[-1]:g} cm^-1; "
            "expected a common range on ascending axes; check the axes and their units"
        )
    grid = np.arange(low, high + 0.5 * spacing_cm1, spacing_cm1).clip(max=high)
    return pearson(np.interp(grid, wavenumber_a, curve_a), np.interp(grid, wavenumber_b, curve_b))


def compare_modes(
    model: NormalModes, reference: NormalModes, fwhm_cm1: float = 15.0, shape: LineShape = LineShape.LORENTZIAN
) -> HarmonicComparison:
    """Model against reference normal modes of the same molecule, atoms in the same order, any orientation.

    Modes are paired so that the summed squared overlap of their vectors is largest (after superposing the geometries); if the
    two have different numbers of rigid motions, in order of frequency as far as both go.
    Raises SpectrumError if the molecules differ or the width is not positive.
    """
    if not np.array_equal(model.number, reference.number):
        raise SpectrumError(
            f"model modes are of atoms {model.number.tolist()}, reference modes of {reference.number.tolist()}; "
            "expected the same molecule in the same atom order; use the same geometry for both"
        )
    _check_width(fwhm_cm1)
    match, matching = _pair(model, reference)
    frequency = model.frequency_cm1[match] - reference.frequency_cm1[: match.size]
    intensity = model.intensity_km_mol[match] - reference.intensity_km_mol[: match.size]
    strong = reference.intensity_km_mol[: match.size] >= STRONG_KM_MOL
    relative = np.abs(intensity[strong]) / reference.intensity_km_mol[: match.size][strong]
    ends = np.concatenate([model.frequency_cm1, reference.frequency_cm1])
    low, high = ends.min() - 10.0 * fwhm_cm1, ends.max() + 10.0 * fwhm_cm1
    grid = np.linspace(low, high, int((high - low) / fwhm_cm1 * COMMON_POINTS_PER_WIDTH) + 2)
    curves = (broaden(m.frequency_cm1, m.intensity_km_mol, grid, fwhm_cm1, shape) for m in (model, reference))
    return HarmonicComparison(
        match=match,
        matching=matching,
        frequency_deviation_cm1=frequency,
        intensity_deviation_km_mol=intensity,
        max_intensity_relative=float(relative.max()) if relative.size else float("nan"),
        pearson=pearson(*curves),
        shape=shape,
        fwhm_cm1=fwhm_cm1,
    )


def _check_width(fwhm_cm1: float) -> None:
    if not fwhm_cm1 > 0.0:
        raise SpectrumError(f"line width is {fwhm_cm1} cm^-1; expected a positive number; 10 to 20 suits a comparison")


def _pair(model: NormalModes, reference: NormalModes) -> tuple[np.ndarray, Matching]:
    if model.n_rigid != reference.n_rigid:
        return np.arange(min(model.frequency_cm1.size, reference.frequency_cm1.size)), Matching.ORDER
    rotation = _superposition(model.position, reference.position, reference.mass)
    n_modes = model.frequency_cm1.size
    turned = np.einsum("ij,ajm->aim", rotation, model.vector.reshape(-1, 3, n_modes)).reshape(-1, n_modes)
    _, match = linear_sum_assignment((reference.vector.T @ turned) ** 2, maximize=True)
    return match, Matching.OVERLAP


def _superposition(moving: np.ndarray, fixed: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Proper rotation (3, 3) that best lays moving (N, 3) on fixed (N, 3), mass-weighted (Kabsch, Acta Cryst. A32, 922)."""
    moving, fixed = moving - mass @ moving / mass.sum(), fixed - mass @ fixed / mass.sum()
    u, _, vt = np.linalg.svd(fixed.T @ (mass[:, None] * moving))
    return u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
