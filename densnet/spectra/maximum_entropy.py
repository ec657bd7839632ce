"""Maximum-entropy spectra (Burg): the correlation function beyond the lags that a short trajectory tells.

Of all spectra with the same correlation function up to lag p dt, the one of maximum entropy is that of an autoregressive process

    x(k) = sum_j a_j x(k-j) + noise,    so    C(l) = sum_j a_j C(l-j)    for l > p

Burg's recursion finds it from the trajectory itself without a window. Here C, known to lag p and continued by the recursion, is
handed to the same lag window, quantum correction and units as the correlation function of the Fourier estimate: lines get the
stated resolution, so that they cannot fall between the points of the grid, and since C(0) is the mean square of the data, band
integrals are absolute. What is gained: lines sharper than the trajectory is long. What is lost: an order too low merges lines,
one too high splits them and follows the noise; the error band over replicas knows only part of that.

| formula | variable |
|---|---|
| p dt, the memory of the process | MaximumEntropy.memory |
| p | MaximumEntropy.order |
| reflection coefficients | reflection |
| a_j | coefficient |
| C(l) | result of extrapolated_autocorrelation |

Source: J. P. Burg, Maximum entropy spectral analysis, thesis, Stanford 1975; P. J. Brockwell, R. A. Davis, Introduction to Time
Series and Forecasting, Springer 2016, section 5.1.2. Burg's and Levinson's recursions are those of statsmodels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, pi

import numpy as np
from scipy.signal import lfilter, lfiltic

from densnet.errors import ConfigError, SpectrumError
from densnet.units import CM1_PER_AU, FS_PER_AU, PS_PER_AU

HIGHEST_CM1 = 5000.0  # no vibration lies above
# Burg's recursion breaks down on spectra that are zero over a range, so the series get this much white noise (of their mean
# square), which is taken from C(0) again. Always the same numbers: the same data give the same spectrum.
WHITE = 1e-6


@dataclass(frozen=True)
class MaximumEntropy:
    """Estimate by Burg's method. memory: longest lag, atomic time, that the autoregressive process looks back.

    Frames closer than vibrations need (1/2 period of the highest one) are passed over: a process that looks back a given time
    over fewer frames is better conditioned, and noise above all bands costs it no coefficients.
    Raises SpectrumError if the memory is not a positive number.
    """

    memory: float

    def __post_init__(self) -> None:
        if not (isfinite(self.memory) and self.memory > 0.0):
            raise SpectrumError(
                f"memory of maximum entropy is {self.memory * FS_PER_AU:g} fs; expected a positive number; 500 is usual"
            )

    def stride(self, time_step: float, max_cm1: float) -> int:
        """Every how-manieth frame is taken, so that max_cm1 and every vibration stay below the Nyquist frequency."""
        return max(1, int(pi / time_step * CM1_PER_AU / max(max_cm1, HIGHEST_CM1)))

    def check_length(self, n_frames: int, time_step: float, max_cm1: float) -> None:
        """Raises SpectrumError for a trajectory shorter than twice the memory."""
        stride = self.stride(time_step, max_cm1)
        steps = (n_frames - 1) // stride
        if steps < 2 * self.order(stride * time_step):
            have, need = steps * stride * time_step * PS_PER_AU, 2.0 * self.memory * PS_PER_AU
            raise SpectrumError(
                f"trajectory lasts {have:.3g} ps; expected twice the memory of maximum entropy, {need:.3g} ps; "
                f"run longer or lower memory_fs to {0.4 * have * 1e3:.3g}"
            )

    def order(self, time_step: float) -> int:
        """Number of coefficients for frames that are time_step apart."""
        return max(1, round(self.memory / time_step))


def extrapolated_autocorrelation(series: np.ndarray, n_lags: int, order: int) -> np.ndarray:
    """Autocorrelation summed over the components, (n_lags, R), of autoregressive processes fitted to every replica and component.

    series: (S, R, C) with 2 order <= S; any n_lags >= 1, also beyond S. The series are taken as they are, no mean subtracted.
    Raises SpectrumError if the order does not fit the series, ConfigError if statsmodels is not installed.
    """
    n_frames, n_replicas, n_components = series.shape
    if not 1 <= order <= n_frames // 2:
        raise SpectrumError(f"order {order} wanted from {n_frames} frames; expected 1..{n_frames // 2}; run longer")
    noise = np.random.default_rng(0).normal(scale=np.sqrt(WHITE), size=n_frames)
    correlation = np.zeros((n_lags, n_replicas))
    for replica in range(n_replicas):
        for component in range(n_components):
            correlation[:, replica] += _of_one(series[:, replica, component], noise, n_lags, order)
    return correlation


def _of_one(x: np.ndarray, noise: np.ndarray, n_lags: int, order: int) -> np.ndarray:
    try:
        from statsmodels.tsa.stattools import levinson_durbin_pacf, pacf_burg
    except ImportError as error:
        raise ConfigError(
            "maximum entropy needs statsmodels, which is not installed; pip install 'densnet[maximum_entropy]', "
            "or take spectrum=gaussian"
        ) from error
    mean_square = float(x @ x) / x.size
    if mean_square == 0.0:
        return np.zeros(n_lags)
    scale = np.sqrt(mean_square)
    # The part of the noise that the data happen to contain would change C(0) by a cross term.
    white = noise - (noise @ x) / (x @ x) * x
    white *= np.sqrt(WHITE * x.size / (white @ white))
    reflection, _ = pacf_burg(x / scale + white, nlags=order, demean=False)
    coefficient, known = levinson_durbin_pacf(reflection)
    known = (1.0 + WHITE) * known
    if n_lags > known.size:
        polynomial = np.concatenate([[1.0], -coefficient])
        state = lfiltic([1.0], polynomial, known[::-1])
        beyond, _ = lfilter([1.0], polynomial, np.zeros(n_lags - known.size), zi=state)
        known = np.concatenate([known, beyond])
    known[0] -= WHITE
    return mean_square * known[:n_lags]
