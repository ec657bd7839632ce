"""Power spectra of velocities: how the motion of a molecule, of its elements or along any coordinates is spread over wavenumbers.

    g(nu~) = 2/(k_B T) sum_A m_A int dt cos(2 pi c nu~ t) w(t) <v_A(0) . v_A(t)> c

| formula | variable |
|---|---|
| v_A(t) | velocity[step, replica, atom, xyz], bohr per atomic time |
| w(t), the lag window | Window |
| one-sided spectrum with int_0^inf density dnu~ = <x^2> | power_spectra |
| T, the kinetic temperature of the vibrations | VibrationalDensity.temperature |
| g, degrees of freedom per cm^-1 | VibrationalDensity.total, element |

T is measured on the same velocities, so the vibrations integrate to 3N - 6 degrees of freedom (3N - 5 for two atoms) whatever the
units of mass, length and time and whatever temperature was wanted. With rigid motion kept, translation and rotation add what
they carry: 6 (5) more, 3N in all, in a trajectory whose rigid motion is at the same temperature, nothing where it was taken out
when the run started.

Rigid motion is taken out frame by frame, V of the centre of mass and I^-1 L x r, so that what is left has no momentum and no
angular momentum and its kinetic energy is that of the vibrations exactly.

Source: P. H. Berens, D. H. J. Mackay, G. M. White, K. R. Wilson, J. Chem. Phys. 79, 2375 (1983) (density of states from
velocities); M. Thomas, M. Brehm, R. Fligg, P. Voehringer, B. Kirchner, Phys. Chem. Chem. Phys. 15, 6608 (2013).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import pi

import numpy as np
from scipy.integrate import trapezoid

from densnet.errors import SpectrumError
from densnet.spectra.correlation import autocorrelation, power_spectrum
from densnet.spectra.infrared import Recipe
from densnet.spectra.maximum_entropy import extrapolated_autocorrelation
from densnet.spectra.temperature import without_rigid_motion
from densnet.spectra.uncertainty import ErrorOrigin, independent_series
from densnet.units import BOLTZMANN, CM1_PER_AU


@dataclass(frozen=True)
class VibrationalDensity:
    """Power spectrum of the mass-weighted velocities, in degrees of freedom per cm^-1.

    wavenumber_cm1: (K,) ascending from 0; elements: (E,) nuclear charges ascending; element, element_error: (E, K) share of each
    element; total, total_error: (K,) their sum; total_interval: (K,), (K,) limits at the confidence of the recipe; samples:
    (M, E, K) of each replica or block; temperature, temperature_error: kelvin, of the vibrations (NaN without an error band);
    degrees_of_freedom: of a thermal trajectory, 3N less those of rigid motion if it was removed; recipe: window, resolution,
    padding, maximum entropy and errors (the quantum correction does not enter); error_origin: what `samples` are.
    """

    wavenumber_cm1: np.ndarray
    elements: np.ndarray
    element: np.ndarray
    element_error: np.ndarray
    total: np.ndarray
    total_error: np.ndarray
    total_interval: tuple[np.ndarray, np.ndarray]
    samples: np.ndarray
    temperature: float
    temperature_error: float
    degrees_of_freedom: int
    rigid_motion_removed: bool
    recipe: Recipe
    time_step: float
    n_frames: int
    n_replicas: int
    error_origin: ErrorOrigin

    @property
    def integral(self) -> float:
        """Degrees of freedom found from 0 to the highest wavenumber."""
        return float(trapezoid(self.total, self.wavenumber_cm1))

    @property
    def element_integral(self) -> np.ndarray:
        """(E,) degrees of freedom of each element; 3 for every atom but for the share of rigid motion."""
        return trapezoid(self.element, self.wavenumber_cm1, axis=1)


def vibrational_density(
    number: np.ndarray,
    mass: np.ndarray,
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    n_replicas: int,
    time_step: float,
    recipe: Recipe,
    remove_rigid_motion: bool = True,
) -> VibrationalDensity:
    """Power spectrum of velocities per element and in total; module docstring for the normalisation.

    number, mass: (N,), electron masses; parts: position, velocity (S, r, N, 3) in atomic units of some of the n_replicas replicas
    at a time, all frames of each, so that no more than one part is in memory; time_step: atomic time.
    Raises SpectrumError for one atom, velocities that are all zero, or a trajectory shorter than the window.
    """
    elements, of_atom = np.unique(number, return_inverse=True)

    burg = recipe.maximum_entropy
    stride = 1 if burg is None else burg.stride(time_step, recipe.max_cm1)
    step = stride * time_step

    def shares(moving: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Wavenumbers (K,) and spectra (r, E, K) of mass-weighted velocities (S, r, 3N)."""
        of_element, omega = [], np.empty(0)
        for index in range(elements.size):
            chosen = moving[:, :, np.repeat(of_atom == index, 3)]
            if burg is None:
                correlation = autocorrelation(chosen, recipe.window.lags_within(moving.shape[0], step))
            else:
                correlation = extrapolated_autocorrelation(chosen, recipe.window.n_lags(step), burg.order(step))
            omega, power = power_spectrum(correlation, step, recipe.window, recipe.zero_padding)
            of_element.append(power.T / (pi * CM1_PER_AU))
        keep = omega * CM1_PER_AU <= recipe.max_cm1
        return omega[keep] * CM1_PER_AU, np.stack(of_element, axis=1)[:, :, keep]

    replicas: list[np.ndarray] = []
    kinetic: list[np.ndarray] = []
    grid, n_frames, blocks, origin = np.empty(0), 0, None, ErrorOrigin.REPLICAS
    for position, velocity in parts:
        inner = without_rigid_motion(mass, position, velocity)
        kinetic.append(np.einsum("a,srai,srai->r", mass, inner, inner) / velocity.shape[0])
        n_frames = velocity.shape[0]
        moving = np.sqrt(mass)[:, None] * (inner if remove_rigid_motion else velocity)
        moving = moving.reshape(*velocity.shape[:2], -1)[::stride]
        grid, found = shares(moving)
        replicas.append(found)
        if n_replicas == 1:
            shortest = recipe.window.n_lags(step) if burg is None else 2 * burg.order(step)
            pieces, origin = independent_series(moving, shortest)
            blocks = shares(pieces)[1]
    n_rigid = 5 if number.size == 2 else 6
    per_replica = np.concatenate(kinetic) / (BOLTZMANN * (3 * number.size - n_rigid))
    temperature = float(per_replica.mean())
    if not temperature > 0.0:
        raise SpectrumError("the velocities are all zero; expected a molecule that moves; give a trajectory of dynamics")
    whole = np.concatenate(replicas) / (BOLTZMANN * temperature)
    samples = whole if blocks is None else blocks / (BOLTZMANN * temperature)
    element, rule = whole.mean(axis=0), recipe.uncertainty
    total, sampled = element.sum(axis=0), samples.sum(axis=1)
    return VibrationalDensity(
        wavenumber_cm1=grid,
        elements=elements,
        element=element,
        element_error=rule.error(samples),
        total=total,
        total_error=rule.error(sampled),
        total_interval=rule.interval(total, sampled),
        samples=samples,
        temperature=temperature,
        temperature_error=float(rule.error(per_replica[:, None])[0]),
        degrees_of_freedom=3 * number.size - (n_rigid if remove_rigid_motion else 0),
        rigid_motion_removed=remove_rigid_motion,
        recipe=recipe,
        time_step=float(time_step),
        n_frames=n_frames,
        n_replicas=n_replicas,
        error_origin=origin,
    )
