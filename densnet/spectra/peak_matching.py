"""Measured and computed bands side by side: peaks matched one to one, and the shares of absorption in named ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log, sqrt

import numpy as np
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment
from scipy.signal import find_peaks

from densnet.errors import SpectrumError
from densnet.spectra.bands import integrate
from densnet.spectra.experiment import ExperimentalSpectrum
from densnet.spectra.infrared import Spectrum

FWHM_PER_SIGMA = sqrt(8.0 * log(2.0))
GRID_PER_WIDTH = 10


@dataclass(frozen=True)
class Peaks:
    """Positions, cm^-1 ascending, and heights relative to the highest of them."""

    position_cm1: np.ndarray
    height: np.ndarray

    @staticmethod
    def of(position_cm1: np.ndarray, height: np.ndarray) -> Peaks:
        """Sorted and normalised. Raises SpectrumError unless there is one finite, non-negative height for each position."""
        position, height = np.asarray(position_cm1, dtype=np.float64), np.asarray(height, dtype=np.float64)
        if position.shape != height.shape or not (np.isfinite(position).all() and np.isfinite(height).all()):
            raise SpectrumError(f"{position.size} peaks have {height.size} heights; expected a finite one for each; check them")
        order = np.argsort(position)
        top = float(height.max(initial=0.0)) or 1.0
        return Peaks(position[order], np.maximum(height[order], 0.0) / top)


@dataclass(frozen=True)
class PeakPair:
    """deviation_cm1: computed minus measured; heights relative to the highest peak of each spectrum."""

    measured_cm1: float
    computed_cm1: float
    deviation_cm1: float
    measured_height: float
    computed_height: float


@dataclass(frozen=True)
class PeakTable:
    """Pairs in order of the measured position, and what found no partner within max_distance_cm1."""

    pairs: list[PeakPair]
    measured_alone_cm1: list[float]
    computed_alone_cm1: list[float]
    max_distance_cm1: float
    mean_deviation_cm1: float | None
    mean_absolute_deviation_cm1: float | None


@dataclass(frozen=True)
class NamedRange:
    """A stretch of the spectrum, cm^-1, that carries a name, such as a functional group."""

    name: str
    low_cm1: float
    high_cm1: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.low_cm1 < self.high_cm1:
            raise SpectrumError(
                f"range '{self.name}' goes from {self.low_cm1:g} to {self.high_cm1:g} cm^-1; expected 0 <= low < high; correct it"
            )


@dataclass(frozen=True)
class BandShare:
    """Part of the absorption between total_low and total_high that lies between low and high, measured and computed.

    computed_error: standard error by the jackknife over the replicas or blocks, None without an error band;
    measured_km_mol: None if the experiment is relative.
    """

    name: str
    low_cm1: float
    high_cm1: float
    measured: float
    computed: float
    computed_error: float | None
    difference: float
    measured_km_mol: float | None
    computed_km_mol: float
    computed_km_mol_error: float | None


def measured_peaks(
    experiment: ExperimentalSpectrum,
    resolution_cm1: float,
    range_cm1: tuple[float, float] | None = None,
    prominence: float = 0.02,
) -> Peaks:
    """Band maxima of a measured spectrum, smoothed to a resolution (full width of a Gaussian), by default in all its range.

    With the resolution of the computed spectrum, P, Q and R branches that the other shows as one band are one here too. A peak
    stands out by `prominence` times the highest point and is refined by a parabola.
    Raises SpectrumError for a resolution or prominence that is not positive.
    """
    if not (resolution_cm1 > 0.0 and prominence > 0.0):
        raise SpectrumError(
            f"resolution {resolution_cm1} cm^-1, prominence {prominence}; expected positive numbers; correct them"
        )
    low, high = range_cm1 or tuple(experiment.wavenumber_cm1[[0, -1]])
    spacing = resolution_cm1 / GRID_PER_WIDTH
    grid = np.arange(low, high, spacing)
    # Each measured point stands for the stretch up to its neighbours, however dense the points are.
    curve = gaussian_filter1d(experiment.on(grid), GRID_PER_WIDTH / FWHM_PER_SIGMA, mode="nearest")
    top, _ = find_peaks(curve, prominence=prominence * curve.max(), distance=GRID_PER_WIDTH)
    left, middle, right = curve[top - 1], curve[top], curve[top + 1]
    curvature = left - 2.0 * middle + right
    shift = np.where(curvature < 0.0, 0.5 * (left - right) / np.where(curvature < 0.0, curvature, -1.0), 0.0)
    return Peaks.of(grid[top] + shift * spacing, middle)


def match_peaks(measured: Peaks, computed: Peaks, max_distance_cm1: float) -> PeakTable:
    """Pair peaks one to one so that the sum of sqrt(h_m h_c) (1 - (d/D)^2) is largest, h heights, d distance, D the largest.

    Strong peaks are paired with strong ones first; none is paired over more than D.
    Raises SpectrumError if D is not positive.
    """
    if not max_distance_cm1 > 0.0:
        raise SpectrumError(f"largest distance of peaks is {max_distance_cm1} cm^-1; expected a positive number; 60 suits most")
    distance = computed.position_cm1 - measured.position_cm1[:, None]
    gain = np.sqrt(np.outer(measured.height, computed.height)) * (1.0 - (distance / max_distance_cm1) ** 2)
    near = (np.abs(distance) < max_distance_cm1) & (gain > 0.0)
    rows, columns = linear_sum_assignment(np.where(near, gain, 0.0), maximize=True)
    pairs = [
        PeakPair(
            measured_cm1=float(measured.position_cm1[i]),
            computed_cm1=float(computed.position_cm1[j]),
            deviation_cm1=float(distance[i, j]),
            measured_height=float(measured.height[i]),
            computed_height=float(computed.height[j]),
        )
        for i, j in sorted(zip(rows.tolist(), columns.tolist()))
        if near[i, j]
    ]
    taken = {p.measured_cm1 for p in pairs}, {p.computed_cm1 for p in pairs}
    deviations = np.array([p.deviation_cm1 for p in pairs])
    return PeakTable(
        pairs=pairs,
        measured_alone_cm1=[float(p) for p in measured.position_cm1 if float(p) not in taken[0]],
        computed_alone_cm1=[float(p) for p in computed.position_cm1 if float(p) not in taken[1]],
        max_distance_cm1=float(max_distance_cm1),
        mean_deviation_cm1=float(deviations.mean()) if pairs else None,
        mean_absolute_deviation_cm1=float(np.abs(deviations).mean()) if pairs else None,
    )


def band_shares(
    experiment: ExperimentalSpectrum, spectrum: Spectrum, ranges: Sequence[NamedRange], total_cm1: tuple[float, float]
) -> list[BandShare]:
    """For each named range its share of the absorption between the limits `total_cm1`, which both spectra must cover.

    Raises SpectrumError for a range outside of the limits, or no absorption between them.
    """
    low, high = total_cm1
    measured_total, (computed_total, _) = experiment.integrate(low, high), integrate(spectrum, low, high)
    if not (measured_total > 0.0 and computed_total > 0.0):
        raise SpectrumError(
            f"absorption between {low:g} and {high:g} cm^-1 is {measured_total:g} measured, {computed_total:g} computed; "
            "expected both above 0; change the range or the base line"
        )
    totals = _sample_areas(spectrum, low, high)
    shares = []
    for band in ranges:
        if band.low_cm1 < low or band.high_cm1 > high:
            raise SpectrumError(
                f"range '{band.name}', {band.low_cm1:g}..{band.high_cm1:g} cm^-1, is outside of {low:g}..{high:g}, which both "
                "spectra cover; expected one within; change it"
            )
        measured = experiment.integrate(band.low_cm1, band.high_cm1)
        computed, error = integrate(spectrum, band.low_cm1, band.high_cm1)
        spread = _jackknife(_sample_areas(spectrum, band.low_cm1, band.high_cm1), totals)
        shares.append(
            BandShare(
                name=band.name,
                low_cm1=float(band.low_cm1),
                high_cm1=float(band.high_cm1),
                measured=measured / measured_total,
                computed=computed / computed_total,
                computed_error=spread,
                difference=computed / computed_total - measured / measured_total,
                measured_km_mol=measured if experiment.absolute else None,
                computed_km_mol=computed,
                computed_km_mol_error=error if isfinite(error) else None,
            )
        )
    return shares


def _sample_areas(spectrum: Spectrum, low: float, high: float) -> np.ndarray:
    """(M,) area of each replica or block; in ratios of them the unit falls out."""
    grid = spectrum.wavenumber_cm1
    points = np.concatenate([[low], grid[(grid > low) & (grid < high)], [high]])
    return np.array([trapezoid(np.interp(points, grid, sample), points) for sample in spectrum.samples])


def _jackknife(part: np.ndarray, whole: np.ndarray) -> float | None:
    """Standard error of mean(part)/mean(whole), (M,) each: a ratio of correlated means has no error by replica."""
    n = part.size
    if n < 2:
        return None
    left_out = (part.sum() - part) / (whole.sum() - whole)
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
