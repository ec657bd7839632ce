"""How alike a computed and a measured spectrum are, as they are and with the best uniform scale of the wavenumbers.

On a common, evenly spaced grid, negative values set to zero, p and q the two curves divided by their sums:

    Pearson      correlation of p and q
    cosine       p . q / (|p| |q|)
    SIS          1/(1 + SID),  SID = sum_i p_i ln(p_i/q_i) + q_i ln(q_i/p_i)     after broadening with a Gaussian
    Wasserstein  integral |P - Q| dnu~, P and Q the cumulated p and q: how far, in cm^-1, absorption must be moved

None depends on the scale of the intensities. The spectral information similarity (SIS) asks for a floor, for a point where
only one curve is zero would count without bound: 1e-10 of the sum, and a Gaussian of 10 cm^-1 standard deviation, as its
authors chose. SIS counts relative deviations also where little is absorbed, so a noisy base line lowers it.

The scale factor f multiplies the wavenumbers of the computed spectrum. It is searched within bounds for the largest
Pearson correlation of the broadened curves (a scan, then Brent's method around the best point). Both sets of figures always
stand side by side.

Source: C. McGill, M. Forsuelo, Y. Guan, W. H. Green, J. Chem. Inf. Model. 61, 2594 (2021) (SIS); C.-I. Chang, IEEE Trans. Inf.
Theory 46, 1927 (2000) (SID); Y. Rubner, C. Tomasi, L. J. Guibas, Int. J. Comput. Vision 40, 99 (2000) (earth mover's distance).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize_scalar
from scipy.stats import wasserstein_distance

from densnet.errors import SpectrumError
from densnet.spectra.compare import pearson

FLOOR = 1e-10  # of the sum of a curve
SUPPORT = 6.0  # standard deviations of the Gaussian that are summed
SCAN_STEP_CM1 = 2.0  # of the highest wavenumber, between two trial factors


@dataclass(frozen=True)
class Comparing:
    """How two spectra are compared.

    range_cm1: (low, high) of the measured axis, by default all that both cover at every factor; spacing_cm1: of the common grid;
    broadening_cm1: standard deviation of the Gaussian for SIS and for the search; noise_floor: values below this fraction of
    a curve's highest point count as zero; scale_bounds: smallest and largest factor tried.
    Raises SpectrumError for settings out of order.
    """

    range_cm1: tuple[float, float] | None = None
    spacing_cm1: float = 1.0
    broadening_cm1: float = 10.0
    noise_floor: float = 0.0
    scale_bounds: tuple[float, float] = (0.94, 1.06)

    def __post_init__(self) -> None:
        if self.range_cm1 is not None and not 0.0 <= self.range_cm1[0] < self.range_cm1[1]:
            raise SpectrumError(f"range is {list(self.range_cm1)} cm^-1; expected 0 <= low < high; correct it")
        if not (self.spacing_cm1 > 0.0 and self.broadening_cm1 >= 0.0 and 0.0 <= self.noise_floor < 1.0):
            raise SpectrumError(
                f"spacing {self.spacing_cm1:g}, broadening {self.broadening_cm1:g} cm^-1, noise floor {self.noise_floor:g}; "
                "expected spacing > 0, broadening >= 0, floor within 0..1; 1, 10 and 0 suit most"
            )
        if not 0.0 < self.scale_bounds[0] <= 1.0 <= self.scale_bounds[1]:
            raise SpectrumError(f"scale bounds are {list(self.scale_bounds)}; expected low <= 1 <= high; 0.94 and 1.06 suit most")


@dataclass(frozen=True)
class Similarity:
    """The figures at one scale factor; merit: Pearson correlation of the broadened curves, what the search maximises."""

    scale_factor: float
    pearson: float
    cosine: float
    sis: float
    wasserstein_cm1: float
    merit: float


@dataclass(frozen=True)
class SpectralSimilarity:
    """Figures without scaling and with the best factor, and what they are based on.

    at_bound: the best factor lies at a bound of the search and means little; negative_computed, negative_measured: area below
    zero, which counted as zero, relative to the area above; below_floor: fractions of the area taken away by the noise floor,
    computed and measured.
    """

    unscaled: Similarity
    scaled: Similarity
    at_bound: bool
    range_cm1: tuple[float, float]
    spacing_cm1: float
    broadening_cm1: float
    noise_floor: float
    scale_bounds: tuple[float, float]
    negative_computed: float
    negative_measured: float
    below_floor: tuple[float, float]


def spectral_similarity(
    computed_cm1: np.ndarray,
    computed: np.ndarray,
    measured_cm1: np.ndarray,
    measured: np.ndarray,
    settings: Comparing | None = None,
) -> SpectralSimilarity:
    """Compare two curves, (J,) and (K,), each over its own ascending wavenumbers and on its own scale.

    Both are interpolated linearly. Raises SpectrumError: axes that do not ascend, values that are not finite, no common range
    (at every factor within the bounds), or no absorption within it.
    """
    settings = settings or Comparing()
    for name, axis, curve in (("computed", computed_cm1, computed), ("measured", measured_cm1, measured)):
        if axis.shape != curve.shape or axis.size < 3 or not (np.diff(axis) > 0.0).all() or not np.isfinite(curve).all():
            raise SpectrumError(f"{name} spectrum has no ascending axis with a finite value each; expected one; check its source")
    low, high = _range(computed_cm1, measured_cm1, settings)
    grid = low + settings.spacing_cm1 * np.arange(int((high - low) / settings.spacing_cm1 + 1e-9) + 1)
    sigma = settings.broadening_cm1 / settings.spacing_cm1
    top = float(computed[(computed_cm1 >= low) & (computed_cm1 <= high)].max(initial=0.0))
    measured_raw = np.interp(grid, measured_cm1, measured)
    target, measured_negative, measured_floor = _positive(measured_raw, settings.noise_floor, None, "measured", (low, high))
    target_broad = _broadened(target, sigma)

    def at(factor: float) -> tuple[np.ndarray, float, float]:
        return _positive(np.interp(grid / factor, computed_cm1, computed), settings.noise_floor, top, "computed", (low, high))

    def merit(factor: float) -> float:
        return pearson(_broadened(at(factor)[0], sigma), target_broad)

    def figures(factor: float) -> Similarity:
        curve = at(factor)[0]
        broad = _broadened(curve, sigma)
        return Similarity(
            scale_factor=factor,
            pearson=_finite(pearson(curve, target)),
            cosine=float(curve @ target / (np.linalg.norm(curve) * np.linalg.norm(target))),
            sis=information_similarity(broad, target_broad),
            wasserstein_cm1=float(wasserstein_distance(grid, grid, curve, target)),
            merit=_finite(pearson(broad, target_broad)),
        )

    factor = _best_factor(merit, settings.scale_bounds, high)
    _, negative, floor = at(1.0)
    return SpectralSimilarity(
        unscaled=figures(1.0),
        scaled=figures(factor),
        at_bound=min(abs(factor - bound) for bound in settings.scale_bounds) < 1e-4,
        range_cm1=(float(low), float(high)),
        spacing_cm1=settings.spacing_cm1,
        broadening_cm1=settings.broadening_cm1,
        noise_floor=settings.noise_floor,
        scale_bounds=(float(settings.scale_bounds[0]), float(settings.scale_bounds[1])),
        negative_computed=negative,
        negative_measured=measured_negative,
        below_floor=(floor, measured_floor),
    )


def information_similarity(p: np.ndarray, q: np.ndarray) -> float:
    """SIS of two non-negative curves (K,) on one grid, already broadened; 1 if they are equal up to a factor."""
    p, q = (np.maximum(curve / curve.sum(), FLOOR) for curve in (p, q))
    p, q = p / p.sum(), q / q.sum()
    return float(1.0 / (1.0 + ((p - q) * np.log(p / q)).sum()))


def _range(computed: np.ndarray, measured: np.ndarray, settings: Comparing) -> tuple[float, float]:
    # A computed point at nu~ is drawn at f nu~, so at every factor the axis covers this much for certain.
    smallest, largest = settings.scale_bounds
    low, high = max(measured[0], computed[0] * largest), min(measured[-1], computed[-1] * smallest)
    wanted = settings.range_cm1 or (low, high)
    if not (low <= wanted[0] < wanted[1] <= high) or wanted[1] - wanted[0] < 10.0 * settings.spacing_cm1:
        raise SpectrumError(
            f"range is {wanted[0]:g}..{wanted[1]:g} cm^-1; both spectra, at scale factors {smallest:g} to {largest:g}, cover "
            f"{low:g}..{high:g}; expected a range within that; change range, scale bounds or axes"
        )
    return wanted


def _positive(
    curve: np.ndarray, floor: float, top: float | None, name: str, limits: tuple[float, float]
) -> tuple[np.ndarray, float, float]:
    """The curve with negative values and values below floor * top at zero; relative areas of what was taken away."""
    kept = np.maximum(curve, 0.0)
    total = float(kept.sum())
    above = np.where(kept >= floor * (float(kept.max()) if top is None else top), kept, 0.0)
    if not above.sum() > 0.0:
        raise SpectrumError(
            f"{name} spectrum absorbs nothing within {limits[0]:g}..{limits[1]:g} cm^-1; expected a band; change range or floor"
        )
    return above, float(np.maximum(-curve, 0.0).sum()) / total, 1.0 - float(above.sum()) / total


def _broadened(curve: np.ndarray, sigma_points: float) -> np.ndarray:
    return gaussian_filter1d(curve, sigma_points, mode="constant", truncate=SUPPORT) if sigma_points > 0.0 else curve


def _best_factor(merit, bounds: tuple[float, float], high: float) -> float:
    """Bands of different molecules cross as the factor grows, so a scan comes before the local search."""
    low, top = bounds
    trial = np.unique(np.append(np.linspace(low, top, int((top - low) * high / SCAN_STEP_CM1) + 2), 1.0))
    value = np.array([_finite(merit(f)) for f in trial])
    best = int(value.argmax())
    around = trial[max(best - 1, 0)], trial[min(best + 1, trial.size - 1)]
    if around[0] == around[1]:
        return float(trial[best])
    found = minimize_scalar(lambda f: -_finite(merit(f)), bounds=around, method="bounded", options={"xatol": 1e-6})
    return float(found.x) if -found.fun > value[best] else float(trial[best])


def _finite(value: float) -> float:
    """A correlation with a constant is undefined; it says as little as none."""
    return value if isfinite(value) else 0.0
