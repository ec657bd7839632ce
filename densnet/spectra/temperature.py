"""The temperature the vibrations of a trajectory really have; an infrared intensity is only as right as its 1/T."""

from __future__ import annotations

import numpy as np

from densnet.errors import SpectrumError
from densnet.units import BOLTZMANN

MAX_FRAMES = 2000


def vibrational_temperature(mass: np.ndarray, position: np.ndarray, velocity: np.ndarray) -> tuple[float, float]:
    """Kinetic temperature of the internal motion, kelvin, and its standard error over replicas (NaN for one replica).

    mass: (N,) electron masses; position: (S, R, N, 3) bohr; velocity: (S, R, N, 3) atomic units.
    From the kinetic energy, P^2/2M of the centre of mass and L I^-1 L/2 of the rigid rotation are taken away; what is left
    is (3N - 6) k_B T/2 (3N - 5 for two atoms) by equipartition in any geometry, whether or not the molecule turns.
    Raises SpectrumError for a single atom.
    """
    n = mass.size
    stride = -(-position.shape[0] // MAX_FRAMES)
    inner = without_rigid_motion(mass, position[::stride], velocity[::stride])
    kinetic = np.einsum("a,srai,srai->r", mass, inner, inner) / inner.shape[0]
    per_replica = kinetic / (BOLTZMANN * (3 * n - (5 if n == 2 else 6)))
    spread = per_replica.std(ddof=1) / np.sqrt(per_replica.size) if per_replica.size > 1 else np.nan
    return float(per_replica.mean()), float(spread)


def without_rigid_motion(mass: np.ndarray, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Velocities v - V - w x r, V of the centre of mass and w = I^-1 L of every frame: no momentum, no angular momentum.

    mass: (N,) electron masses; position: (S, R, N, 3) bohr; velocity and result: (S, R, N, 3) atomic units. A linear molecule of
    three or more atoms is bent whenever it vibrates; what turns it about its axis then counts as rotation.
    Raises SpectrumError for a single atom.
    """
    if mass.size < 2:
        raise SpectrumError(f"{mass.size} atom has no vibrations; expected a molecule of at least two; choose another molecule")
    weight = mass / mass.sum()
    centred = position - np.einsum("a,srai->sri", weight, position)[:, :, None]
    inner = velocity - np.einsum("a,srai->sri", weight, velocity)[:, :, None]
    angular = np.einsum("a,srai->sri", mass, np.cross(centred, inner))
    second = np.einsum("a,srai,sraj->srij", mass, centred, centred)
    inertia = np.trace(second, axis1=2, axis2=3)[..., None, None] * np.eye(3) - second
    spin = np.einsum("srij,srj->sri", np.linalg.pinv(inertia, rcond=1e-10, hermitian=True), angular)
    return inner - np.cross(spin[:, :, None], centred)
