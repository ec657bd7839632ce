"""Autocorrelation functions and power spectra of vector time series, many replicas at once (Wiener-Khinchin by FFT).

| formula | variable |
|---|---|
| x_r(k dt), component a | series[k, r, a] |
| C_r(l dt) = 1/(S-l) sum_k sum_a x_ra(k) x_ra(k+l) | autocorrelation(...)[l, r] |
| w(tau), the lag window, w(0) = 1 | Window.values |
| S_r(omega) = int dtau exp(-i omega tau) w(tau) C_r(tau) | power_spectrum(...)[1][:, r] |

The components are summed before anything else is done to them, and nothing is ever divided by a standard deviation: the
relative weight of two lines polarised along different axes is physics.

Source: R. B. Blackman, J. W. Tukey, The Measurement of Power Spectra, Dover 1958 (lag windows); F. J. Harris,
Proc. IEEE 66, 51 (1978) (the windows).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import ceil, floor, isfinite, log, log10, pi, sqrt

import numpy as np
from numpy.fft import irfft, rfft
from scipy.fft import next_fast_len

from densnet.errors import ConfigError, SpectrumError
from densnet.units import CM1_PER_AU, PS_PER_AU

FFT_WORKSPACE = 1 << 28  # bytes; replicas are transformed in groups that fit
GAUSSIAN_SUPPORT = 4.0  # standard deviations; the window has fallen to 3e-4 there


class WindowKind(Enum):
    """Shape of the lag window and so of a sharp line in the spectrum."""

    HANN = "hann"
    BLACKMAN = "blackman"
    GAUSSIAN = "gaussian"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(f"window is '{value}'; expected one of {', '.join(k.value for k in cls)}; correct the setting")


# Full width at half maximum of the transform of the symmetric window on [-T, T], times T, in cycles. Hann: its transform
# sinc(x)/(1-x^2), x = 2 T f, is exactly 1/2 at x = 1. Blackman: root of its transform (tests repeat it numerically).
HANN_WIDTH = 1.0
BLACKMAN_WIDTH = 1.1493999174512544


@dataclass(frozen=True)
class Window:
    """A lag window named by the resolution it gives: the full width at half maximum, in cm^-1, of a sharp line.

    The window is the right half of a symmetric one: it starts at exactly 1 for zero lag and falls to zero at `support`. (A
    full window laid over a one-sided correlation function would start at 0 and destroy the band integrals.)
    Raises SpectrumError if the resolution is not a positive number.
    """

    kind: WindowKind
    resolution_cm1: float

    def __post_init__(self) -> None:
        if not (isfinite(self.resolution_cm1) and self.resolution_cm1 > 0.0):
            raise SpectrumError(
                f"resolution is {self.resolution_cm1} cm^-1; expected a positive number; 5 to 20 suits most molecules"
            )

    @property
    def support(self) -> float:
        """Longest lag the window lets through, atomic time; a trajectory must last at least this long."""
        angular = self.resolution_cm1 / CM1_PER_AU
        match self.kind:
            case WindowKind.HANN:
                return 2.0 * pi * HANN_WIDTH / angular
            case WindowKind.BLACKMAN:
                return 2.0 * pi * BLACKMAN_WIDTH / angular
            case WindowKind.GAUSSIAN:
                return GAUSSIAN_SUPPORT * sqrt(8.0 * log(2.0)) / angular

    def values(self, lag: np.ndarray) -> np.ndarray:
        """The window at lags >= 0 (any shape, atomic time): 1 at lag 0, 0 beyond the support."""
        x = np.asarray(lag, dtype=np.float64) / self.support
        match self.kind:
            case WindowKind.HANN:
                inside = 0.5 + 0.5 * np.cos(pi * x)
            case WindowKind.BLACKMAN:
                inside = 0.42 + 0.5 * np.cos(pi * x) + 0.08 * np.cos(2.0 * pi * x)
            case WindowKind.GAUSSIAN:
                inside = np.exp(-0.5 * (GAUSSIAN_SUPPORT * x) ** 2)
        return np.where(x < 1.0, inside, 0.0)

    def n_lags(self, time_step: float) -> int:
        """Number of lags 0, dt, 2 dt, ... inside the support."""
        return max(1, int(np.ceil(self.support / time_step - 1e-9)))

    def lags_within(self, frames: int, time_step: float) -> int:
        """n_lags, for a series of so many velocities. Raises SpectrumError for a bad time step or too few of them."""
        check_time_step(time_step)
        n_lags = self.n_lags(time_step)
        if frames < n_lags:
            have, need = frames * time_step * PS_PER_AU, n_lags * time_step * PS_PER_AU
            raise SpectrumError(
                f"trajectory lasts {have:.3g} ps; expected at least {_rounded_up(need)} ps for a resolution of "
                f"{self.resolution_cm1:g} cm^-1 with the {self.kind.value} window; "
                f"run longer or ask for {_rounded_up(self.resolution_cm1 * need / have)} cm^-1"
            )
        return n_lags


def check_time_step(time_step: float) -> None:
    """Raises SpectrumError unless it is positive and finite."""
    if not (isfinite(time_step) and time_step > 0.0):
        raise SpectrumError(
            f"time step is {time_step}; expected a positive atomic time between frames; repair the trajectory file"
        )


def _rounded_up(value: float) -> str:
    """Three significant digits, never less than the value: following an error message must lead out of the error."""
    unit = 10.0 ** (floor(log10(value)) - 2)
    return f"{ceil(value / unit) * unit:.3g}"


def derivative(series: np.ndarray, time_step: float) -> np.ndarray:
    """Forward difference (x[k+1] - x[k]) / dt of a series (S, R, C): (S-1, R, C), at the midpoints of the steps.

    Differencing multiplies the amplitude at angular frequency omega by 2 sin(omega dt/2)/dt instead of omega;
    `derivative_correction` undoes that exactly. The forward difference is chosen over the central one because its transfer
    function has no zero below the Nyquist frequency, and over multiplying the windowed dipole spectrum by omega^2 because
    that would amplify the window's leakage and bias the band integrals. A constant (the mean dipole) drops out by itself.
    """
    return np.diff(series, axis=0) / time_step


def derivative_correction(omega: np.ndarray, time_step: float) -> np.ndarray:
    """Factor (omega dt/2 / sin(omega dt/2))^2 from the power spectrum of `derivative` to that of the true derivative.

    omega: rad per atomic time, 0 <= omega <= pi/dt (Nyquist), where the factor reaches (pi/2)^2 and no more.
    """
    return 1.0 / np.sinc(np.asarray(omega) * time_step / (2.0 * pi)) ** 2


def autocorrelation(series: np.ndarray, n_lags: int) -> np.ndarray:
    """Unbiased autocorrelation, summed over the components: series (S, R, C), n_lags <= S -> (n_lags, R).

    Lag l averages over the S - l pairs there are, so lag 0 is the exact mean square and no lag is damped. The transform is
    padded to at least S + n_lags points so that the end of the series never meets its beginning.
    Raises SpectrumError if the series is shorter than n_lags.
    """
    n_frames, n_replicas, n_components = series.shape
    if not 1 <= n_lags <= n_frames:
        raise SpectrumError(f"{n_lags} lags wanted from {n_frames} frames; expected 1..{n_frames}; run longer")
    n_fft = _fast_length(n_frames + n_lags)
    group = max(1, FFT_WORKSPACE // (16 * n_fft * n_components))
    pairs = (n_frames - np.arange(n_lags))[:, None]
    correlation = np.empty((n_lags, n_replicas))
    for first in range(0, n_replicas, group):
        transform = rfft(series[:, first : first + group], n_fft, axis=0)
        power = (transform.real**2 + transform.imag**2).sum(axis=-1)
        correlation[:, first : first + group] = irfft(power, n_fft, axis=0)[:n_lags] / pairs
    return correlation


def power_spectrum(
    correlation: np.ndarray, time_step: float, window: Window, zero_padding: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """S(omega) = int_-inf^inf dtau exp(-i omega tau) w(tau) C(tau) of an even correlation function.

    correlation: (L, R) at lags 0, dt, ...; returns omega (K,) in rad per atomic time from 0 to Nyquist and S (K, R) in units
    of C times atomic time. (1/2 pi) times the integral of S over all omega, negative ones too, is C(0) for every window.
    zero_padding: the transform is this many times longer than the two-sided window; it interpolates, it adds no resolution.
    """
    n_lags = correlation.shape[0]
    n_fft = transform_length(n_lags, zero_padding)
    windowed = correlation * window.values(np.arange(n_lags) * time_step)[:, None]
    one_sided = rfft(windowed, n_fft, axis=0).real
    omega = 2.0 * pi * np.arange(one_sided.shape[0]) / (n_fft * time_step)
    return omega, time_step * (2.0 * one_sided - windowed[0])


def transform_length(n_lags: int, zero_padding: int) -> int:
    """Points of the transform that `power_spectrum` takes for this many lags."""
    return _fast_length(int(zero_padding) * 2 * max(n_lags, 2))


def _fast_length(n: int) -> int:
    return int(next_fast_len(n, real=True))  # type: ignore[arg-type]
