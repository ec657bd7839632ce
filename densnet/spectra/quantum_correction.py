"""Quantum corrections: from the classical dipole correlation function to an estimate of the quantum one.

The absorption cross-section is omega (1 - exp(-x)) / (6 hbar c eps0) I(omega), with x = beta hbar omega and I the transform of
the quantum correlation function <mu(0) . mu(t)>. Classical dynamics gives an even I_cl; the correction puts I = Q I_cl in place
of I. Absorption and emission obey detailed balance if I(-omega) = exp(-x) I(omega).

| name | I(omega) | detailed balance | exact for |
|---|---|---|---|
| NONE | I_cl | no | hbar = 0 |
| STANDARD | 2/(1 + exp(-x)) I_cl | yes | I_cl the symmetrised quantum spectrum |
| HARMONIC | x/(1 - exp(-x)) I_cl | yes | harmonic molecules with a linear dipole |
| SCHOFIELD | exp(x/2) I_cl | yes | I_cl the spectrum at complex time t + i hbar beta/2 |
| EGELSTAFF | exp(x/2) int dt exp(-i omega t) C_cl(sqrt(t^2 + (hbar beta/2)^2)) | yes | translation of free particles |

With HARMONIC hbar cancels, so it is also what the limit hbar -> 0 of the whole formula gives, and it is the default. NONE falls
below it by (1 - exp(-x))/x, 14- to 18-fold for X-H stretches at 300 K; STANDARD by (1 - exp(-x))/x 2/(1 + exp(-x)), 7- to 9-fold;
SCHOFIELD exceeds it by sinh(x/2)/(x/2), 90- to 500-fold there. EGELSTAFF raises lines like SCHOFIELD and takes from the spectrum
below them, where it can become negative.

Source: R. Ramirez, T. Lopez-Ciudad, P. Kumar, D. Marx, J. Chem. Phys. 121, 3973 (2004) (all but Egelstaff's, and that harmonic is
the one to take for infrared spectra); P. Schofield, Phys. Rev. Lett. 4, 239 (1960); P. A. Egelstaff, Adv. Phys. 11, 203 (1962);
S. A. Egorov, K. F. Everitt, J. L. Skinner, J. Phys. Chem. A 103, 9494 (1999) (all five compared); J. S. Bader, B. J. Berne,
J. Chem. Phys. 100, 8359 (1994) (harmonic).
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.fft import irfft, rfft
from scipy.interpolate import CubicSpline

from densnet.errors import ConfigError

OVERSAMPLING = 16  # points between frames where Egelstaff's time axis is interpolated


class QuantumCorrection(Enum):
    """Quantum corrections by name; the table of the module says what each does."""

    NONE = "none"
    HARMONIC = "harmonic"
    STANDARD = "standard"
    SCHOFIELD = "schofield"
    EGELSTAFF = "egelstaff"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(
            f"quantum correction is '{value}'; expected one of {', '.join(q.value for q in cls)}; correct the setting"
        )

    @property
    def formula(self) -> str:
        """I(omega) in one line, for the files that hold a spectrum; x = beta hbar omega."""
        match self:
            case QuantumCorrection.NONE:
                return "I = I_cl"
            case QuantumCorrection.HARMONIC:
                return "I = x/(1 - exp(-x)) I_cl"
            case QuantumCorrection.STANDARD:
                return "I = 2/(1 + exp(-x)) I_cl"
            case QuantumCorrection.SCHOFIELD:
                return "I = exp(x/2) I_cl"
            case QuantumCorrection.EGELSTAFF:
                return "I = exp(x/2) FT[C_cl(sqrt(t^2 + (hbar beta/2)^2))]"

    def factor(self, x: np.ndarray) -> np.ndarray:
        """Prefactor Q at x = beta hbar omega of either sign; that of EGELSTAFF stands before the transform on its time axis."""
        match self:
            case QuantumCorrection.NONE:
                return np.ones_like(x)
            case QuantumCorrection.HARMONIC:
                return 1.0 / net_absorption(x)
            case QuantumCorrection.STANDARD:
                return 2.0 / (1.0 + np.exp(-x))
            case QuantumCorrection.SCHOFIELD | QuantumCorrection.EGELSTAFF:
                return np.exp(0.5 * x)


def net_absorption(x: np.ndarray) -> np.ndarray:
    """(1 - exp(-x))/x, absorption less stimulated emission; 1 at x = 0, either sign."""
    safe = np.where(x != 0.0, x, 1.0)
    return np.where(x != 0.0, -np.expm1(-safe) / safe, 1.0)


def on_egelstaff_time_axis(power: np.ndarray, n_fft: int, time_step: float, beta: float) -> np.ndarray:
    """Power spectrum of the velocity of x after C_x(t) has become C_x(sqrt(t^2 + tau^2)), tau = hbar beta/2.

    power: (n_fft // 2 + 1, R) transform of the even function C_v(t) = -C_x''(t), which is zero beyond n_fft time_step/2, at
    omega = 2 pi k/(n_fft time_step); the result is the transform of

        -d^2/dt^2 C_x(u) = C_v(u) t^2/u^2 + tau^2/u^3 int_0^u C_v(s) ds,        u = sqrt(t^2 + tau^2),

    at the same frequencies: all of it from the velocity, so that the mean of x, a permanent dipole, does not enter.
    C_v is interpolated between frames by its own Fourier series, and between the points of that by cubic splines.
    """
    tau = 0.5 * beta  # hbar = 1
    lags = np.arange(n_fft // 2 + 1)
    dense = irfft(power, n_fft * OVERSAMPLING, axis=0)[: OVERSAMPLING * lags[-1] + 1] * (OVERSAMPLING / time_step)
    grid = np.arange(dense.shape[0]) * (time_step / OVERSAMPLING)
    velocity = CubicSpline(grid, dense, axis=0)
    time = lags * time_step
    u = np.minimum(np.sqrt(time**2 + tau**2), grid[-1])[:, None]
    ratio = time[:, None] / u
    warped = velocity(u[:, 0]) * ratio**2 + velocity.antiderivative()(u[:, 0]) * tau**2 / u**3
    even = np.concatenate([warped, warped[1 : n_fft - lags[-1]][::-1]], axis=0)
    return time_step * rfft(even, n_fft, axis=0).real
