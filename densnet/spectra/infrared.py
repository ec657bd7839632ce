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

Sum rule: for a harmonic molecule the integral over a band is N_A |dmu/dQ|^2/(12 eps0 c^2) at any temperature.
Source: D. A. McQuarrie, Statistical Mechanics, chapter 21 (line shape); R. Ramirez, T. Lopez-Ciudad, P. Kumar, D. Marx,
J. Chem. Phys. 121, 3973 (2004) (quantum corrections).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import ceil, floor, isfinite, log, log10, pi

import numpy as np

from densnet.errors import ConfigError, SpectrumError
from densnet.spectra.correlation import Window, WindowKind, autocorrelation, derivative, derivative_correction, power_spectrum
from densnet.units import ATOMIC_TIME_SI, AVOGADRO, BOHR_SI, BOLTZMANN, CM1_PER_AU, FS_PER_AU, PS_PER_AU, SPEED_OF_LIGHT

LIGHT_SPEED = SPEED_OF_LIGHT * ATOMIC_TIME_SI / BOHR_SI  # bohr per atomic time
FOUR_PI_EPS0_FREE = 4.0 * pi / 6.0  # 1/(6 eps0) where 4 pi eps0 = 1
EPSILON_PER_M2 = 10.0 * AVOGADRO / log(10.0)  # L/mol/cm in one m^2: 1 m^2/mol = 10 L/mol/cm
KM_MOL_PER_EPSILON = log(10.0) / 100.0  # km/mol per cm^-1 in one L/mol/cm
MAX_BLOCKS = 16


class QuantumCorrection(Enum):
    """Q(omega) that turns the classical dipole correlation spectrum into an estimate of the quantum one.

    The exact cross-section is omega (1 - exp(-x)) / (6 hbar c eps0) times the quantum correlation spectrum, x = beta hbar
    omega. HARMONIC, Q = x/(1 - exp(-x)), is exact for a harmonic molecule and makes hbar cancel; it is therefore also what the
    purely classical limit hbar -> 0 of the whole formula gives. NONE, Q = 1, puts the classical correlation function
    unchanged into the quantum formula; it falls below HARMONIC by (1 - exp(-x))/x, 14- to 18-fold for X-H stretches at 300 K.
    """

    NONE = "none"
    HARMONIC = "harmonic"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(
            f"quantum correction is '{value}'; expected one of {', '.join(q.value for q in cls)}; correct the setting"
        )

    def factor(self, x: np.ndarray) -> np.ndarray:
        """Q at x = beta hbar omega >= 0."""
        match self:
            case QuantumCorrection.NONE:
                return np.ones_like(x)
            case QuantumCorrection.HARMONIC:
                return 1.0 / _detailed_balance(x)


class ErrorOrigin(Enum):
    """Where the error band comes from.

    REPLICAS: spread of independent trajectories. BLOCKS: spread of consecutive pieces of a single trajectory; blind to
    whatever does not relax within that trajectory, such as the energy of one mode at constant energy. NONE: a single
    trajectory too short for two blocks; the error is NaN.
    """

    REPLICAS = "replicas"
    BLOCKS = "blocks"
    NONE = "none"


@dataclass(frozen=True)
class Recipe:
    """How a spectrum is made from dipoles.

    window: lag window and with it the resolution; zero_padding: interpolation factor, at least 1; max_cm1: highest
    wavenumber. Raises SpectrumError for a zero padding below 1 or a max_cm1 that is not positive.
    """

    window: Window
    quantum_correction: QuantumCorrection = QuantumCorrection.HARMONIC
    zero_padding: int = 4
    max_cm1: float = 4500.0

    def __post_init__(self) -> None:
        if self.zero_padding != int(self.zero_padding) or self.zero_padding < 1:
            raise SpectrumError(f"zero padding is {self.zero_padding}; expected a whole number >= 1; 4 draws smooth lines")
        if not self.max_cm1 > 0.0:
            raise SpectrumError(f"highest wavenumber is {self.max_cm1} cm^-1; expected a positive number; 4500 shows everything")

    @staticmethod
    def named(
        window: str, resolution_cm1: float, quantum_correction: str = "harmonic", zero_padding: int = 4, max_cm1: float = 4500.0
    ) -> Recipe:
        """The same from the names that configuration files use. Raises ConfigError for an unknown name."""
        kind = Window(WindowKind(window), resolution_cm1)
        return Recipe(kind, QuantumCorrection(quantum_correction), zero_padding, max_cm1)


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


def infrared_spectrum(dipole: np.ndarray | None, time_step: float, temperature: float, recipe: Recipe) -> Spectrum:
    """The absolute infrared spectrum from 0 to recipe.max_cm1.

    dipole: (S, R, 3) e bohr at S frames of R replicas; time_step: atomic time between frames; temperature: kelvin, of the
    ensemble the frames were drawn from (the intensity is proportional to 1/T, so a wrong one rescales everything).
    Raises SpectrumError: no dipoles, wrong shape, NaN, non-positive time step or temperature, frames too far apart for
    max_cm1, or a trajectory shorter than the window.
    """
    dipole = _checked(dipole, time_step, temperature, recipe)
    n_frames, n_replicas, _ = dipole.shape
    beta = 1.0 / (BOLTZMANN * temperature)
    velocity = derivative(dipole, time_step)
    n_lags = recipe.window.n_lags(time_step)

    def spectra_of(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        omega, power = power_spectrum(autocorrelation(part, n_lags), time_step, recipe.window, recipe.zero_padding)
        keep = omega * CM1_PER_AU <= recipe.max_cm1
        omega, power = omega[keep], power[keep]
        x = beta * omega  # hbar = 1
        scale = FOUR_PI_EPS0_FREE / LIGHT_SPEED * beta * derivative_correction(omega, time_step)
        scale = scale * _detailed_balance(x) * recipe.quantum_correction.factor(x)
        return omega * CM1_PER_AU, (power * scale[:, None]).T * (BOHR_SI**2 * EPSILON_PER_M2)

    wavenumber, samples = spectra_of(velocity)
    epsilon = samples.mean(axis=0)
    origin = ErrorOrigin.REPLICAS
    if n_replicas == 1:
        n_blocks = min(MAX_BLOCKS, velocity.shape[0] // n_lags)
        origin = ErrorOrigin.BLOCKS if n_blocks >= 2 else ErrorOrigin.NONE
        length = velocity.shape[0] // n_blocks
        blocks = velocity[: n_blocks * length, 0].reshape(n_blocks, length, 3).swapaxes(0, 1)
        samples = spectra_of(blocks)[1]
    return Spectrum(
        wavenumber_cm1=wavenumber,
        epsilon=epsilon,
        epsilon_error=standard_error(samples),
        samples=samples,
        recipe=recipe,
        temperature=float(temperature),
        time_step=float(time_step),
        n_frames=n_frames,
        n_replicas=n_replicas,
        error_origin=origin,
    )


def _detailed_balance(x: np.ndarray) -> np.ndarray:
    """(1 - exp(-x))/x, 1 at x = 0."""
    safe = np.where(x > 0.0, x, 1.0)
    return np.where(x > 0.0, -np.expm1(-safe) / safe, 1.0)


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis; NaN for a single sample."""
    if samples.shape[0] < 2:
        return np.full(samples.shape[1:], np.nan)
    return samples.std(axis=0, ddof=1) / np.sqrt(samples.shape[0])


def _rounded_up(value: float) -> str:
    """Three significant digits, never less than the value: following an error message must lead out of the error."""
    unit = 10.0 ** (floor(log10(value)) - 2)
    return f"{ceil(value / unit) * unit:.3g}"


def _checked(dipole: np.ndarray | None, time_step: float, temperature: float, recipe: Recipe) -> np.ndarray:
    window, max_cm1 = recipe.window, recipe.max_cm1
    if dipole is None:
        raise SpectrumError("the trajectory holds no dipoles; expected one per frame; simulate with a model that gives dipoles")
    dipole = np.asarray(dipole, dtype=np.float64)
    if dipole.ndim != 3 or dipole.shape[2] != 3 or dipole.shape[0] < 2 or dipole.shape[1] < 1:
        raise SpectrumError(f"dipoles have shape {dipole.shape}; expected (frames >= 2, replicas >= 1, 3); record more frames")
    if not (isfinite(time_step) and time_step > 0.0):
        raise SpectrumError(
            f"time step is {time_step}; expected a positive atomic time between frames; repair the trajectory file"
        )
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
    frames = dipole.shape[0] - 1
    if frames < window.n_lags(time_step):
        have, need = frames * time_step * PS_PER_AU, window.n_lags(time_step) * time_step * PS_PER_AU
        raise SpectrumError(
            f"trajectory lasts {have:.3g} ps; expected at least {_rounded_up(need)} ps for a resolution of "
            f"{window.resolution_cm1:g} cm^-1 with the {window.kind.value} window; "
            f"run longer or ask for {_rounded_up(window.resolution_cm1 * need / have)} cm^-1"
        )
    return dipole
