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
    if n < 2:
        raise SpectrumError(f"{n} atom has no vibrations; expected a molecule of at least two; choose another molecule")
    stride = -(-position.shape[0] // MAX_FRAMES)
    position, velocity = position[::stride], velocity[::stride]
    centred = position - np.einsum("a,srai->sri", mass / mass.sum(), position)[:, :, None]
    momentum = mass[:, None] * velocity
    kinetic = 0.5 * (momentum * velocity).sum(axis=(2, 3))
    total = momentum.sum(axis=2)
    kinetic -= 0.5 * (total**2).sum(axis=2) / mass.sum()
    angular = np.cross(centred, momentum).sum(axis=2)
    second = np.einsum("a,srai,sraj->srij", mass, centred, centred)
    inertia = np.trace(second, axis1=2, axis2=3)[..., None, None] * np.eye(3) - second
    kinetic -= 0.5 * np.einsum("sri,srij,srj->sr", angular, np.linalg.pinv(inertia, rcond=1e-10, hermitian=True), angular)
    per_replica = 2.0 * kinetic.mean(axis=0) / (BOLTZMANN * (3 * n - (5 if n == 2 else 6)))
    spread = per_replica.std(ddof=1) / np.sqrt(per_replica.size) if per_replica.size > 1 else np.nan
    return float(per_replica.mean()), float(spread)
