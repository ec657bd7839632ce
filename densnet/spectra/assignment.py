"""Which normal modes a band of a trajectory is made of: velocities and dipoles projected on the modes of its minima.

| formula | variable |
|---|---|
| dQ_k/dt = sum_A sqrt(m_A) L_Ak . dx_A/dt, x in the Eckart frame | Projection.velocity |
| g_k(nu) = 1/(pi c kT) int dt exp(-iwt) <Q'_k(0) Q'_k(t)> | ModeSpectra.density, degrees of freedom per cm^-1 |
| int_0^inf g_k dnu = <Q'_k^2>/kT = 1 by equipartition | ModeSpectra.freedom |
| u_k(t) = C (dmu/dQ_k) Q'_k(t), in the laboratory | what mode k adds to dmu/dt |
| A_k(nu) = N_A/(12 eps0 c^2) 1/(pi c kT) int dt exp(-iwt) <mu'(0) . u_k(t)> | ModeInfrared.density, km/mol per cm^-1 |

The shares A_k add up to the infrared spectrum (harmonic quantum correction): what is left, ModeInfrared.rest, is what the
modes with constant dmu/dQ do not explain: rotation of the permanent dipole, dipoles that are not linear in Q, and frames
that lie too far from every reference. The cross terms of two modes are split evenly between them; a share may be negative.
Nothing is rescaled, so that <Q'^2>/kT says how well a straight-line mode describes what the molecule does.

Within one image of a reference (densnet.spectra.projection) the modes are fixed, so the correlation functions of velocities
average over the pairs of frames that belong to the same image; where visits are so short that a lag has no pair, it counts as
zero, and lines are wider than the window's. The dipole u_k needs no such care: any image gives it.

Source: G. Mathias, M. D. Baer, J. Chem. Theory Comput. 7, 2028 (2011) and with S. D. Ivanov, A. Witt, D. Marx, ibid. 8, 224
(2012) (modes of trajectories, several references); M. Martinez, M.-P. Gaigeot, D. Borgis, R. Vuilleumier, J. Chem. Phys. 125,
144106 (2006) (mode-projected correlation functions).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.fft import irfft, rfft
from scipy.fft import next_fast_len

from densnet.errors import SpectrumError
from densnet.spectra.correlation import Window, autocorrelation, derivative, derivative_correction, power_spectrum
from densnet.spectra.harmonic import KM_MOL_PER_AU
from densnet.spectra.projection import Projection
from densnet.units import BOLTZMANN, CM1_PER_AU

MAX_GROUPS = 16  # replicas are averaged in this many groups for the errors


@dataclass(frozen=True)
class ModeSpectra:
    """Velocity power spectra of the modes of C references.

    wavenumber_cm1: (K,); density, error: (C, n, K) degrees of freedom per cm^-1 while the molecule belongs to the reference,
    and standard error (jackknife over replicas; NaN for one); freedom: (C, n) <(dQ/dt)^2>/kT; population: (C,). NaN for a
    reference that no frame belongs to.
    """

    wavenumber_cm1: np.ndarray
    density: np.ndarray
    error: np.ndarray
    freedom: np.ndarray
    population: np.ndarray

    @property
    def weighted(self) -> np.ndarray:
        """(C, n, K) density times population: these add up to the spectrum of all frames that belong to a reference."""
        return np.nan_to_num(self.density) * self.population[:, None, None]


@dataclass(frozen=True)
class ModeInfrared:
    """The infrared spectrum, km/mol per cm^-1, shared out to the modes of C references.

    wavenumber_cm1: (K,); samples: (G, C, n, K) of G groups of replicas; total_samples: (G, K) the whole spectrum, harmonic
    quantum correction.
    """

    wavenumber_cm1: np.ndarray
    samples: np.ndarray
    total_samples: np.ndarray

    @property
    def density(self) -> np.ndarray:
        """(C, n, K)"""
        return self.samples.mean(axis=0)

    @property
    def total(self) -> np.ndarray:
        """(K,)"""
        return self.total_samples.mean(axis=0)

    @property
    def rest(self) -> np.ndarray:
        """(K,) total minus all modes."""
        return self.total - self.density.sum(axis=(0, 1))


def mode_spectra(
    projection: Projection,
    time_step: float,
    temperature: float,
    window: Window,
    *,
    zero_padding: int = 4,
    max_cm1: float = 4500.0,
) -> ModeSpectra:
    """Velocity power spectrum of every mode, absolutely normalised; time_step: atomic time; temperature: kelvin.

    Raises SpectrumError if the trajectory is shorter than the window.
    """
    n_lags = window.lags_within(projection.velocity.shape[0], time_step)
    n_references, n_modes = len(projection.references), projection.velocity.shape[2]
    groups = _groups(projection.image.shape[1])
    products = np.zeros((len(groups), n_references, n_lags, n_modes))
    pairs = np.zeros((len(groups), n_references, n_lags, 1))
    for g, replicas in enumerate(groups):
        for i, image in enumerate(projection.images):
            for r in replicas[(projection.image[:, replicas] == i).any(axis=0)]:
                inside = (projection.image[:, r] == i)[:, None].astype(np.float64)
                products[g, image.reference] += _sums(inside * projection.velocity[:, r], n_lags)
                pairs[g, image.reference] += np.rint(_sums(inside, n_lags))

    def spectrum(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        known = np.where(bottom > 0.0, top / np.where(bottom > 0.0, bottom, 1.0), 0.0)
        correlation = np.where(bottom[:, :1] > 0.0, known, np.nan)
        flat = correlation.swapaxes(0, 1).reshape(n_lags, -1)
        power = power_spectrum(flat, time_step, window, zero_padding)[1][keep]
        return (power / (pi * CM1_PER_AU * BOLTZMANN * temperature)).T.reshape(n_references, n_modes, -1)

    omega = power_spectrum(np.zeros((n_lags, 1)), time_step, window, zero_padding)[0]
    keep = omega * CM1_PER_AU <= max_cm1
    top, bottom = products.sum(axis=0), pairs.sum(axis=0)
    visited = bottom[:, 0, 0] > 0.0
    density = np.where(visited[:, None, None], spectrum(top, bottom), np.nan)
    error = np.full_like(density, np.nan)
    n = len(groups)
    if n > 1:
        left_out = np.stack([spectrum(top - products[g], bottom - pairs[g]) for g in range(n)])
        error = np.sqrt((n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
        error[~visited] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = top[:, 0] / bottom[:, 0] / (BOLTZMANN * temperature)
    return ModeSpectra(omega[keep] * CM1_PER_AU, density, error, freedom, projection.population)


def mode_infrared(
    projection: Projection,
    dipole: np.ndarray | None,
    time_step: float,
    temperature: float,
    window: Window,
    *,
    zero_padding: int = 4,
    max_cm1: float = 4500.0,
    integration_step: float | None = None,
) -> ModeInfrared:
    """Share the infrared spectrum out to the modes.

    dipole: (S, R, 3) e bohr; integration_step: atomic time, of velocity Verlet; its velocities are central differences, by
    sin(wh)/wh too small, which is then undone. Raises SpectrumError: no dipole or wrong shape, trajectory too short.
    """
    n_frames, n_replicas, n_modes = projection.velocity.shape
    found = "none" if dipole is None else np.shape(dipole)
    if dipole is None or found != (n_frames, n_replicas, 3):
        raise SpectrumError(f"dipoles have shape {found}; expected {(n_frames, n_replicas, 3)} as the trajectory; record them")
    n_lags = window.lags_within(n_frames - 1, time_step)
    moving = derivative(np.asarray(dipole, dtype=np.float64), time_step)
    groups = _groups(n_replicas)
    derivatives = np.stack([i.dipole_derivative(projection.references[i.reference].modes) for i in projection.images])
    owner = projection.reference
    n_references = len(projection.references)
    omega, whole = power_spectrum(autocorrelation(moving, n_lags), time_step, window, zero_padding)
    keep = omega * CM1_PER_AU <= max_cm1
    omega = omega[keep]
    scale = KM_MOL_PER_AU / (pi * CM1_PER_AU * BOLTZMANN * temperature)
    total = (whole[keep] * (scale * derivative_correction(omega, time_step))[:, None]).T
    single = scale * np.sqrt(derivative_correction(omega, time_step))
    if integration_step is not None:
        single = single / np.sinc(omega * integration_step / pi)
    samples = np.zeros((len(groups), n_references, n_modes, omega.size))
    for g, replicas in enumerate(groups):
        for r in replicas:
            towards = np.einsum("sij,smj->smi", projection.rotation[:, r], derivatives[projection.image[:, r]], optimize=True)
            part = towards * projection.velocity[:, r, :, None]
            for c in np.unique(owner[:, r][owner[:, r] >= 0]):
                mine = part * (owner[:, r] == c)[:, None, None]
                samples[g, c] += _cross(moving[:, r], mine, n_lags, time_step, window, zero_padding)[keep].T * single
        samples[g] /= len(replicas)
    # Groups may differ by one replica in size; weighting keeps their plain mean that over replicas.
    weight = np.array([len(replicas) * len(groups) / n_replicas for replicas in groups])
    totals = np.stack([total[replicas].mean(axis=0) for replicas in groups])
    return ModeInfrared(omega * CM1_PER_AU, samples * weight[:, None, None, None], totals * weight[:, None])


def _cross(moving: np.ndarray, part: np.ndarray, n_lags: int, time_step: float, window: Window, zero_padding: int) -> np.ndarray:
    """Cross-spectra of a series (S - 1, 3) at the midpoints of the frames with parts (S, n, 3) at the frames: (K, n)."""
    n_frames = len(part)
    n_fft = int(next_fast_len(n_frames + n_lags, real=True))  # type: ignore[arg-type]
    product = np.einsum("ki,kmi->km", rfft(moving, n_fft, axis=0).conj(), rfft(part, n_fft, axis=0))
    circular = irfft(product, n_fft, axis=0)
    lag = np.arange(1 - n_lags, n_lags + 1)  # frames; the time between is half a frame less
    correlation = circular[lag] / np.where(lag > 0, n_frames - lag, n_frames - 1 + lag)[:, None]
    windowed = correlation * window.values(np.abs(lag - 0.5) * time_step)[:, None]
    n_out = int(next_fast_len(int(zero_padding) * 2 * max(n_lags, 2), real=True))  # type: ignore[arg-type]
    laid = np.zeros((n_out, windowed.shape[1]))
    np.add.at(laid, lag % n_out, windowed)
    half = np.exp(1j * pi * np.arange(n_out // 2 + 1) / n_out)[:, None]
    return time_step * (rfft(laid, axis=0) * half).real


def _sums(series: np.ndarray, n_lags: int) -> np.ndarray:
    """sum_t x(t) x(t + l) of every column: (S, n) -> (n_lags, n)."""
    n_fft = int(next_fast_len(len(series) + n_lags, real=True))  # type: ignore[arg-type]
    transform = rfft(series, n_fft, axis=0)
    return irfft(transform.real**2 + transform.imag**2, n_fft, axis=0)[:n_lags]


def _groups(n_replicas: int) -> list[np.ndarray]:
    return np.array_split(np.arange(n_replicas), min(n_replicas, MAX_GROUPS))
