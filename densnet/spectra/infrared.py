"""Absolute infrared absorption of one molecule from the dipole along its classical trajectory.

    sigma(omega) = beta/(6 eps0 c) int dt exp(-i omega t) <mudot(0) . mudot(t)>          (harmonic quantum correction)
    epsilon = N_A sigma / ln 10,      A = N_A int sigma dnu~

| formula | variable |
|---|---|
| mu(t), e bohr | dipole[step, replica, xyz] |
| beta = 1/(k_B T) | beta, 1/hartree |
| 1/(6 eps0 c) = 4 pi/(6 c) with 4 pi eps0 = 1 | FOUR_PI_EPS0_FREE / LIGHT_SPEED, atomic units |
| Q(omega), the quantum correction | QuantumCorrection.factor |
| sigma, m^2 | Spectrum.cross_section |
| epsilon, L/mol/cm | Spectrum.epsilon |
| dA/dnu~ = N_A sigma = epsilon ln(10)/100, km/mol per cm^-1 | Spectrum.density_km_mol |

The correlation function is that of the data under a lag window, or by `Recipe.maximum_entropy` continued beyond it.
Sum rule: for a harmonic molecule the integral over a band is N_A |dmu/dQ|^2/(12 eps0 c^2) at any temperature.
Source: D. A. McQuarrie, Statistical Mechanics, chapter 21 (line shape); R. Ramirez, T. Lopez-Ciudad, P. Kumar, D. Marx,
J. Chem. Phys. 121, 3973 (2004) (quantum corrections).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, log, pi

import numpy as np

from densnet.errors import SpectrumError
from densnet.spectra.correlation import (
    Window,
    WindowKind,
    autocorrelation,
    check_time_step,
    derivative,
    derivative_correction,
    power_spectrum,
    transform_length,
)
from densnet.spectra.maximum_entropy import MaximumEntropy, extrapolated_autocorrelation
from densnet.spectra.quantum_correction import QuantumCorrection, net_absorption, on_egelstaff_time_axis
from densnet.spectra.uncertainty import ErrorMethod, ErrorOrigin, Uncertainty, independent_series
from densnet.units import ATOMIC_TIME_SI, AVOGADRO, BOHR_SI, BOLTZMANN, CM1_PER_AU, FS_PER_AU, SPEED_OF_LIGHT

LIGHT_SPEED = SPEED_OF_LIGHT * ATOMIC_TIME_SI / BOHR_SI  # bohr per atomic time
FOUR_PI_EPS0_FREE = 4.0 * pi / 6.0  # 1/(6 eps0) where 4 pi eps0 = 1
EPSILON_PER_M2 = 10.0 * AVOGADRO / log(10.0)  # L/mol/cm in one m^2: 1 m^2/mol = 10 L/mol/cm
KM_MOL_PER_EPSILON = log(10.0) / 100.0  # km/mol per cm^-1 in one L/mol/cm


@dataclass(frozen=True)
class Recipe:
    """How a spectrum is made from dipoles.

    window: lag window and with it the resolution; zero_padding: interpolation factor, at least 1; max_cm1: highest
    wavenumber; uncertainty: how the error band is made; maximum_entropy: None for the Fourier estimate.
    Raises SpectrumError for a zero padding below 1 or a max_cm1 that is not positive.
    """

    window: Window
    quantum_correction: QuantumCorrection = QuantumCorrection.HARMONIC
    zero_padding: int = 4
    max_cm1: float = 4500.0
    uncertainty: Uncertainty = field(default_factory=Uncertainty)
    maximum_entropy: MaximumEntropy | None = None

    def __post_init__(self) -> None:
        if self.zero_padding != int(self.zero_padding) or self.zero_padding < 1:
            raise SpectrumError(f"zero padding is {self.zero_padding}; expected a whole number >= 1; 4 draws smooth lines")
        if not self.max_cm1 > 0.0:
            raise SpectrumError(f"highest wavenumber is {self.max_cm1} cm^-1; expected a positive number; 4500 shows everything")

    @staticmethod
    def named(
        window: str,
        resolution_cm1: float,
        quantum_correction: str = "harmonic",
        zero_padding: int = 4,
        max_cm1: float = 4500.0,
        error: str = "standard_error",
        confidence: float = 0.95,
        bootstrap_resamples: int = 2000,
        bootstrap_seed: int = 0,
        memory_fs: float | None = None,
    ) -> Recipe:
        """The same from the names that configuration files use; with a memory by maximum entropy.

        Raises ConfigError for an unknown name.
        """
        return Recipe(
            Window(WindowKind(window), resolution_cm1),
            QuantumCorrection(quantum_correction),
            zero_padding,
            max_cm1,
            Uncertainty(ErrorMethod(error), confidence, bootstrap_resamples, bootstrap_seed),
            None if memory_fs is None else MaximumEntropy(memory_fs / FS_PER_AU),
        )


@dataclass(frozen=True)
class Spectrum:
    """An absolute infrared spectrum per molecule with the settings that made it.

    wavenumber_cm1: (K,) ascending from 0; epsilon, epsilon_error: (K,) molar absorptivity (decadic) and its standard error,
    L/mol/cm; samples: (M, K) epsilon of each replica or block (band integrals get their error from these, because
    neighbouring wavenumbers are correlated); recipe: how it was made;
    temperature: kelvin; time_step: atomic time; n_frames, n_replicas: of the trajectory; error_origin: what `samples` are.
    """

    wavenumber_cm1: np.ndarray
    epsilon: np.ndarray
    epsilon_error: np.ndarray
    samples: np.ndarray
    recipe: Recipe
    temperature: float
    time_step: float
    n_frames: int
    n_replicas: int
    error_origin: ErrorOrigin

    @property
    def density_km_mol(self) -> np.ndarray:
        """(K,) km/mol per cm^-1."""
        return self.epsilon * KM_MOL_PER_EPSILON

    @property
    def density_error_km_mol(self) -> np.ndarray:
        """(K,) standard error, km/mol per cm^-1."""
        return self.epsilon_error * KM_MOL_PER_EPSILON

    @property
    def cross_section(self) -> np.ndarray:
        """(K,) m^2 per molecule (napierian)."""
        return self.epsilon / EPSILON_PER_M2

    @cached_property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """(K,), (K,): limits of epsilon at recipe.uncertainty.confidence, L/mol/cm; NaN if there is no error band."""
        return self.recipe.uncertainty.interval(self.epsilon, self.samples)


def infrared_spectrum(dipole: np.ndarray | None, time_step: float, temperature: float, recipe: Recipe) -> Spectrum:
    """The absolute infrared spectrum from 0 to recipe.max_cm1.

    dipole: (S, R, 3) e bohr at S frames of R replicas; time_step: atomic time between frames; temperature: kelvin, of the
    ensemble the frames were drawn from (the intensity is proportional to 1/T, so a wrong one rescales everything).
    Raises SpectrumError: no dipoles, wrong shape, NaN, non-positive time step or temperature, frames too far apart for
    max_cm1, or a trajectory shorter than the window or, with maximum entropy, than twice its memory.
    """
    dipole = _checked(dipole, time_step, temperature, recipe)
    beta = 1.0 / (BOLTZMANN * temperature)
    burg = recipe.maximum_entropy
    stride = 1 if burg is None else burg.stride(time_step, recipe.max_cm1)
    step = stride * time_step
    velocity = derivative(dipole[::stride], step)
    n_lags = recipe.window.n_lags(step)

    def spectra_of(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if burg is None:
            correlation = autocorrelation(part, n_lags)
        else:
            correlation = extrapolated_autocorrelation(part, n_lags, burg.order(step))
        omega, power = power_spectrum(correlation, step, recipe.window, recipe.zero_padding)
        power = power * derivative_correction(omega, step)[:, None]
        if recipe.quantum_correction is QuantumCorrection.EGELSTAFF:
            power = on_egelstaff_time_axis(power, transform_length(n_lags, recipe.zero_padding), step, beta)
        keep = omega * CM1_PER_AU <= recipe.max_cm1
        omega, power = omega[keep], power[keep]
        x = beta * omega  # hbar = 1
        scale = FOUR_PI_EPS0_FREE / LIGHT_SPEED * beta * net_absorption(x) * recipe.quantum_correction.factor(x)
        return omega * CM1_PER_AU, (power * scale[:, None]).T * (BOHR_SI**2 * EPSILON_PER_M2)

    wavenumber, samples = spectra_of(velocity)
    epsilon = samples.mean(axis=0)
    parts, origin = independent_series(velocity, n_lags if burg is None else 2 * burg.order(step))
    if origin is not ErrorOrigin.REPLICAS:
        samples = spectra_of(parts)[1]
    return Spectrum(
        wavenumber_cm1=wavenumber,
        epsilon=epsilon,
        epsilon_error=recipe.uncertainty.error(samples),
        samples=samples,
        recipe=recipe,
        temperature=float(temperature),
        time_step=float(time_step),
        n_frames=dipole.shape[0],
        n_replicas=dipole.shape[1],
        error_origin=origin,
    )


def _checked(dipole: np.ndarray | None, time_step: float, temperature: float, recipe: Recipe) -> np.ndarray:
    window, max_cm1 = recipe.window, recipe.max_cm1
    if dipole is None:
        raise SpectrumError("the trajectory holds no dipoles; expected one per frame; simulate with a model that gives dipoles")
    dipole = np.asarray(dipole, dtype=np.float64)
    if dipole.ndim != 3 or dipole.shape[2] != 3 or dipole.shape[0] < 2 or dipole.shape[1] < 1:
        raise SpectrumError(f"dipoles have shape {dipole.shape}; expected (frames >= 2, replicas >= 1, 3); record more frames")
    check_time_step(time_step)
    if not (isfinite(temperature) and temperature > 0.0):
        raise SpectrumError(f"temperature is {temperature} K; expected a positive number; give the one the frames were drawn at")
    bad = ~np.isfinite(dipole).all(axis=2)
    if bad.any():
        frame, replica = np.argwhere(bad)[0]
        raise SpectrumError(
            f"dipole of replica {replica} is NaN or infinite from frame {frame} on; expected finite e bohr; "
            "cut the trajectory there or repair the simulation"
        )
    nyquist = pi / time_step * CM1_PER_AU
    if nyquist < max_cm1:
        longest = time_step * FS_PER_AU * nyquist / max_cm1
        raise SpectrumError(
            f"frames are {time_step * FS_PER_AU:.3g} fs apart and show nothing above {nyquist:.0f} cm^-1; expected {max_cm1:g}; "
            f"record at least every {longest:.3g} fs, or lower max_cm1 if no vibration lies above"
        )
    if recipe.maximum_entropy is not None:
        recipe.maximum_entropy.check_length(dipole.shape[0], time_step, max_cm1)
        return dipole
    window.lags_within(dipole.shape[0] - 1, time_step)
    return dipole
