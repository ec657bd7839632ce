"""Error bands from independent samples of a curve: standard error or bootstrap, both by name and with a stated confidence.

STANDARD_ERROR: error s/sqrt(M); interval mean -+ t s/sqrt(M) with Student's t of M - 1 degrees of freedom.
BOOTSTRAP: M samples are drawn with replacement, many times; error: standard deviation of their means, times sqrt(M/(M-1)), which
undoes that resampling M values knows a variance of (M-1)/M; interval: quantiles of the means at levels widened for small M
("expanded percentile", Phi(-sqrt(M/(M-1)) t) in place of 0.025), added to the value. It follows the skew of the samples, which
intensities have: the energy of a mode is distributed exponentially over replicas.

Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, Chapman and Hall 1993; T. C. Hesterberg, Am. Stat. 69, 371
(2015), section 4.3 (expanded percentiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.stats import norm, t

from densnet.errors import ConfigError, SpectrumError

WORKSPACE = 1 << 25  # numbers of resampled curves held at a time


class ErrorOrigin(Enum):
    """Where the samples come from.

    REPLICAS: independent trajectories. BLOCKS: consecutive pieces of a single trajectory; blind to whatever does not relax
    within that trajectory, such as the energy of one mode at constant energy. NONE: a single trajectory too short for two
    blocks; the error is NaN.
    """

    REPLICAS = "replicas"
    BLOCKS = "blocks"
    NONE = "none"


class ErrorMethod(Enum):
    """How an error comes from samples; see the module."""

    STANDARD_ERROR = "standard_error"
    BOOTSTRAP = "bootstrap"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(f"error method is '{value}'; expected one of {', '.join(m.value for m in cls)}; correct the setting")


@dataclass(frozen=True)
class Uncertainty:
    """Method, confidence of the interval, and for the bootstrap the number of resamples and the seed that repeats them.

    Raises SpectrumError for a confidence outside 0..1 or fewer than 100 resamples.
    """

    method: ErrorMethod = ErrorMethod.STANDARD_ERROR
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise SpectrumError(f"confidence is {self.confidence}; expected a fraction between 0 and 1; 0.95 is usual")
        if self.resamples != int(self.resamples) or self.resamples < 100:
            raise SpectrumError(f"{self.resamples} bootstrap resamples wanted; expected a whole number >= 100; 2000 is usual")

    def error(self, samples: np.ndarray) -> np.ndarray:
        """Standard error of the mean of samples (M, ...) over the first axis; NaN for a single one."""
        if samples.shape[0] < 2 or self.method is ErrorMethod.STANDARD_ERROR:
            return standard_error(samples)
        n = samples.shape[0]
        means = (self._means(part) for part in self._parts(samples))
        error = np.concatenate([resampled.std(axis=0) for resampled in means]) * np.sqrt(n / (n - 1))
        return error.reshape(samples.shape[1:])

    def interval(self, value: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limit, of the shape of `value`, which the mean of the samples (M, ...) estimates."""
        n = samples.shape[0]
        if n < 2:
            return np.full(value.shape, np.nan), np.full(value.shape, np.nan)
        student = t.ppf(0.5 + 0.5 * self.confidence, n - 1)
        if self.method is ErrorMethod.STANDARD_ERROR:
            half = student * standard_error(samples)
            return value - half, value + half
        level = norm.cdf(-np.sqrt(n / (n - 1)) * student)
        means = (self._means(part) for part in self._parts(samples - samples.mean(axis=0)))
        limits = np.concatenate([np.quantile(resampled, [level, 1.0 - level], axis=0) for resampled in means], axis=1)
        low, high = limits.reshape(2, *samples.shape[1:])
        return value + low, value + high

    def _parts(self, samples: np.ndarray) -> list[np.ndarray]:
        flat = samples.reshape(samples.shape[0], -1)
        return np.array_split(flat, max(1, -(-flat.shape[1] * self.resamples // WORKSPACE)), axis=1)

    def _means(self, part: np.ndarray) -> np.ndarray:
        n = part.shape[0]
        # The same resamples for every point, so that a curve and the integral over it tell one story.
        drawn = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1.0 / n), size=int(self.resamples))
        return drawn @ part / n


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis; NaN for a single sample."""
    if samples.shape[0] < 2:
        return np.full(samples.shape[1:], np.nan)
    return samples.std(axis=0, ddof=1) / np.sqrt(samples.shape[0])


MAX_BLOCKS = 16


def independent_series(series: np.ndarray, shortest: int) -> tuple[np.ndarray, ErrorOrigin]:
    """What errors are taken from: the replicas of a series (S, R, C), or of a single one at most 16 blocks (S/n, n, C).

    No block is shorter than `shortest` frames.
    """
    n_frames, n_replicas, n_components = series.shape
    if n_replicas > 1:
        return series, ErrorOrigin.REPLICAS
    n_blocks = max(1, min(MAX_BLOCKS, n_frames // shortest))
    length = n_frames // n_blocks
    blocks = series[: n_blocks * length, 0].reshape(n_blocks, length, n_components).swapaxes(0, 1)
    return blocks, ErrorOrigin.BLOCKS if n_blocks > 1 else ErrorOrigin.NONE
