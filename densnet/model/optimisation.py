"""Geometry optimisation on a model: quasi-Newton steps in a trust region, started from the model's own Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from densnet.errors import ConfigError, ModelError, StructureError
from densnet.structures import Molecule
from densnet.units import ANGSTROM_PER_BOHR

FIRST_TRUST, MAX_TRUST, LEAST_TRUST = 0.3, 0.6, 1e-7  # bohr, length of a step of all atoms together
SOFTEST = 1e-4  # hartree/bohr^2; softer directions of the Hessian are stiffened to this
NOISE = 1e-10  # hartree; a rise of the energy below this is round-off
RENEW_EVERY = 25  # steps after which the Hessian is computed again
LINEAR = 1e-3  # as in densnet.spectra.harmonic
BOND = 1.3  # atoms closer than this times the sum of their covalent radii are bonded

Surface = Callable[[Molecule], tuple[float, np.ndarray]]  # energy, hartree, and gradient (3N,), hartree/bohr
Curvature = Callable[[Molecule], np.ndarray]  # Hessian (3N, 3N), hartree/bohr^2


@dataclass(frozen=True)
class OptimisationSettings:
    """fmax: largest component of the force at the end, hartree/bohr; max_steps: evaluations of energy and force;

    follow: leave saddle points along their imaginary mode; max_follow: how often; kick: bohr, how far the atom that moves
    most goes then. Raises ConfigError for values that are not positive.
    """

    fmax: float = 1e-6
    max_steps: int = 300
    follow: bool = False
    max_follow: int = 5
    kick: float = 0.2

    def __post_init__(self) -> None:
        if not min(self.fmax, self.max_steps, self.max_follow, self.kick) > 0:
            raise ConfigError(
                f"optimisation has fmax={self.fmax:g}, max_steps={self.max_steps}, max_follow={self.max_follow}, "
                f"kick={self.kick:g}; expected positive numbers; correct them"
            )


def internal_directions(position: np.ndarray) -> np.ndarray:
    """Orthonormal (3N, 3N - 6) directions without translation and rotation; 3N - 5 for linear, 3N - 3 for single atoms."""
    centred = position - position.mean(axis=0)
    shift = np.tile(np.eye(3), (len(position), 1)) / np.sqrt(len(position))
    turn = np.stack([np.cross(axis, centred).ravel() for axis in np.eye(3)], axis=-1)
    left, size, _ = np.linalg.svd(turn, full_matrices=False)
    rigid = np.concatenate([shift, left[:, size > LINEAR * max(size[0], 1e-12)]], axis=1)
    return np.linalg.svd(rigid, full_matrices=True)[0][:, rigid.shape[1] :]


def descend(surface: Surface, curvature: Curvature, start: Molecule, settings: OptimisationSettings) -> tuple[Molecule, int]:
    """The stationary point below `start`, and how many steps it took.

    BFGS (J. Nocedal and S. Wright, Numerical Optimization, 2006, eq. 6.19) on the Hessian with the absolute values of its
    eigenvalues, so that steps go downhill along negative curvature, too. By symmetry the end may still be a saddle point: a
    force that is zero in some direction stays zero.
    Raises ModelError if the force is not reached within max_steps, or no step lowers the energy any more.
    """
    here, (energy, gradient) = start, surface(start)
    hessian, age, trust = _positive(curvature(start)), 0, FIRST_TRUST
    for step in range(settings.max_steps):
        inside = internal_directions(here.position)
        slope = inside.T @ gradient
        if np.abs(inside @ slope).max(initial=0.0) < settings.fmax:
            return here, step
        value, vector = np.linalg.eigh(inside.T @ hessian @ inside)
        move = inside @ (vector @ _restricted(vector.T @ slope, np.maximum(value, SOFTEST), trust))
        length = float(np.linalg.norm(move))
        try:
            there = here.moved(here.position + move.reshape(-1, 3))
            next_energy, next_gradient = surface(there)
        except StructureError:  # atoms on top of each other: too far
            there, next_energy, next_gradient = here, np.inf, gradient
        gain, expected = energy - next_energy, -(gradient @ move + 0.5 * move @ hessian @ move)
        if not gain > -NOISE:  # also for NaN
            trust = 0.25 * length
            if trust < LEAST_TRUST:
                raise _unfinished(gradient, step, settings)
            if age:
                hessian, age = _positive(curvature(here)), 0
            continue
        if gain > 0.75 * expected and length > 0.9 * trust:
            trust = min(2.0 * trust, MAX_TRUST)
        elif gain < 0.25 * expected and expected > NOISE:
            trust = 0.5 * length
        change = next_gradient - gradient
        here, energy, gradient, age = there, next_energy, next_gradient, age + 1
        if age >= RENEW_EVERY:
            hessian, age = _positive(curvature(here)), 0
        elif move @ change > 1e-3 * (move @ hessian @ move):  # else the update would lose positive definiteness
            u = hessian @ move
            hessian = hessian + np.outer(change, change) / (change @ move) - np.outer(u, u) / (move @ u)
    raise _unfinished(gradient, settings.max_steps, settings)


def changed_bonds(before: Molecule, after: Molecule) -> list[tuple[int, int]]:
    """Pairs of atoms that are bonded in one geometry and not in the other, by covalent radii (ASE's table)."""
    radius = covalent_radii[before.number] / ANGSTROM_PER_BOHR
    reach = BOND * (radius[:, None] + radius)
    bonded = [np.linalg.norm(m.position[:, None] - m.position, axis=-1) < reach for m in (before, after)]
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(bonded[0] ^ bonded[1], 1))]


def _positive(hessian: np.ndarray) -> np.ndarray:
    value, vector = np.linalg.eigh(0.5 * (hessian + hessian.T))
    return (vector * np.maximum(np.abs(value), SOFTEST)) @ vector.T


def _restricted(slope: np.ndarray, value: np.ndarray, trust: float) -> np.ndarray:
    """The step -slope/(value + s) in eigenvectors of the Hessian, with the least s >= 0 that keeps it within the trust radius."""
    if np.linalg.norm(slope / value) <= trust:
        return -slope / value
    low, high = 0.0, float(np.linalg.norm(slope) / trust)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.linalg.norm(slope / (value + middle)) > trust else (low, middle)
    return -slope / (value + high)


def _unfinished(gradient: np.ndarray, steps: int, settings: OptimisationSettings) -> ModelError:
    return ModelError(
        f"geometry optimisation still has a force of {np.abs(gradient).max():.1e} hartree/bohr after {steps} steps; "
        f"expected {settings.fmax:.0e}; start from a geometry the model was trained around, or raise max_steps or fmax"
    )
