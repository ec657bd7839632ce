"""What one reads off an infrared spectrum: integrated bands, peak positions, where the bands are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.integrate import trapezoid
from scipy.signal import find_peaks

from densnet.errors import SpectrumError
from densnet.spectra.infrared import KM_MOL_PER_EPSILON, Spectrum


@dataclass(frozen=True)
class Area:
    """An integrated band: value and standard error, limits of the interval at the spectrum's confidence; km/mol.

    All but the value are NaN if the spectrum has no error band.
    """

    value: float
    error: float
    lower: float
    upper: float


def area(spectrum: Spectrum, low_cm1: float, high_cm1: float) -> Area:
    """Integrated absorption between two wavenumbers with its error, taken from the same samples as the error band.

    Raises SpectrumError if the limits are reversed or outside the spectrum.
    """
    grid = spectrum.wavenumber_cm1
    if not grid[0] <= low_cm1 < high_cm1 <= grid[-1]:
        raise SpectrumError(
            f"band limits are {low_cm1:g} and {high_cm1:g} cm^-1; expected low < high within {grid[0]:g}..{grid[-1]:g}; "
            "correct the limits or compute the spectrum further"
        )
    edges = np.array([low_cm1, high_cm1])
    points = np.concatenate([edges[:1], grid[(grid > low_cm1) & (grid < high_cm1)], edges[1:]])

    def under(curve: np.ndarray) -> float:
        return float(trapezoid(np.interp(points, grid, curve), points)) * KM_MOL_PER_EPSILON

    value = under(spectrum.epsilon)
    samples = np.array([[under(sample)] for sample in spectrum.samples])
    uncertainty = spectrum.recipe.uncertainty
    lower, upper = uncertainty.interval(np.array([value]), samples)
    return Area(value, float(uncertainty.error(samples)[0]), float(lower[0]), float(upper[0]))


def integrate(spectrum: Spectrum, low_cm1: float, high_cm1: float) -> tuple[float, float]:
    """Value and standard error of `area`, km/mol."""
    found = area(spectrum, low_cm1, high_cm1)
    return found.value, found.error


def peaks(spectrum: Spectrum, prominence: float = 0.02, sigmas: float = 1.0, low_cm1: float = 0.0) -> np.ndarray:
    """Positions of the band maxima, cm^-1 ascending, refined by a parabola through the top three points.

    A maximum counts if it stands out from its surroundings by `prominence` times the highest point at or above low_cm1 and
    by `sigmas` standard errors, and if no higher one lies within the resolution. The side lobes of the Hann window rise to
    1 % of their line and stay below the default prominence; absorptivity below zero counts as zero. A stiff mode keeps its
    energy, so a line of a few replicas has a standard error near its height / sqrt(replicas): sigmas cannot ask for much.
    """
    start = int(np.searchsorted(spectrum.wavenumber_cm1, low_cm1))
    grid, curve, error = (a[start:] for a in (spectrum.wavenumber_cm1, spectrum.epsilon, spectrum.epsilon_error))
    if curve.size < 3 or curve.max() <= 0.0:
        return np.empty(0)
    spacing = grid[1] - grid[0]
    distance = max(1.0, spectrum.recipe.window.resolution_cm1 / spacing)
    top, found = find_peaks(np.maximum(curve, 0.0), prominence=prominence * curve.max(), distance=distance)
    certain = np.isnan(error[top]) | (found["prominences"] >= sigmas * error[top])
    top = top[certain]
    left, middle, right = curve[top - 1], curve[top], curve[top + 1]
    curvature = left - 2.0 * middle + right
    shift = np.where(curvature < 0.0, 0.5 * (left - right) / np.where(curvature < 0.0, curvature, -1.0), 0.0)
    return grid[top] + shift * spacing


def bands(spectrum: Spectrum, threshold: float = 0.01) -> list[tuple[float, float]]:
    """Limits (low, high), cm^-1, of the stretches of the spectrum above `threshold` times its highest point.

    Each stretch is widened by one resolution so that its integral holds the flanks; stretches that then touch are one.
    """
    grid, curve = spectrum.wavenumber_cm1, spectrum.epsilon
    if curve.max() <= 0.0:
        return []
    above = np.concatenate([[False], curve > threshold * curve.max(), [False]]).astype(int)
    first, last = np.flatnonzero(np.diff(above) == 1), np.flatnonzero(np.diff(above) == -1) - 1
    margin = spectrum.recipe.window.resolution_cm1
    found: list[tuple[float, float]] = []
    for a, b in zip(first, last):
        low, high = max(grid[0], grid[a] - margin), min(grid[-1], grid[b] + margin)
        if found and low <= found[-1][1]:
            low = found.pop()[0]
        found.append((float(low), float(high)))
    return found
