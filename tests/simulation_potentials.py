"""Potentials with exact answers, behind the same `predict` as a model."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from densnet.simulation.settings import SimulationSettings
from densnet.structures import Density, Molecule, Molecules, Prediction

WATER = Molecule(np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [1.43, 1.11, 0.0], [-1.43, 1.11, 0.0]]))


def settings(**changes) -> SimulationSettings:
    """A short run; every test names what matters to it."""
    values = {"ensemble": "nve", "time_step_fs": 0.5, "steps": 100, "temperature": 300.0, "friction_per_fs": 0.02}
    return SimulationSettings(**(values | changes))


def prediction(energy: Tensor, force: Tensor, dipole: Tensor, charge: Tensor | None = None) -> Prediction:
    nothing = energy.new_zeros((0, 0))
    return Prediction(energy, force.reshape(-1, 3), dipole, Density(nothing, nothing), charge)


@dataclass
class Springs:
    """Springs between all pairs of atoms, and point charges: E = sum k/2 (r_ij - length_ij)^2, dipole = sum q r.

    Invariant under rotation and translation; k in hartree/bohr^2, charges summing to 0 make a dipole without an origin.
    """

    molecule: Molecule
    k: float = 0.5
    charges: tuple[float, ...] = (-0.6, 0.3, 0.3)
    hash: str = "springs"
    calls: int = 0

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        self.calls += 1
        position = molecules.position.reshape(molecules.n, -1, 3)
        rest = torch.as_tensor(self.molecule.position)
        i, j = torch.triu_indices(len(rest), len(rest), 1)
        arm = position[:, i] - position[:, j]
        distance = arm.norm(dim=-1)
        stretch = distance - (rest[i] - rest[j]).norm(dim=-1)
        pull = (self.k * stretch / distance)[..., None] * arm
        force = torch.zeros_like(position).index_add_(1, i, -pull).index_add_(1, j, pull)
        dipole = torch.einsum("n,bnx->bx", torch.tensor(self.charges, dtype=torch.float64), position)
        return prediction(0.5 * self.k * (stretch**2).sum(dim=-1), force, dipole)


@dataclass
class Trap:
    """Every atom tied to the origin: E = k/2 sum r^2; dipole = sum r."""

    k: float
    hash: str = "trap"

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        position = molecules.position.reshape(molecules.n, -1, 3)
        energy = 0.5 * self.k * (position**2).sum(dim=(-2, -1))
        return prediction(energy, -self.k * position, position.sum(dim=1))


@dataclass
class Leaking(Springs):
    """Springs whose energy rises by `leak` hartree at every call: an exact drift."""

    leak: float = 1e-6

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        exact = super().predict(molecules, forces)
        return Prediction(exact.energy + self.leak * self.calls, exact.force, exact.dipole, exact.density)


@dataclass
class Flowing(Springs):
    """Springs with charges of atoms that follow the geometry: q_i + 0.1 (x_i - mean x), another for every atom."""

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        x = molecules.position.reshape(molecules.n, -1, 3)[..., 0]
        charge = torch.tensor(self.charges, dtype=torch.float64) + 0.1 * (x - x.mean(dim=1, keepdim=True))
        return replace(super().predict(molecules, forces), charge=charge.reshape(-1))


@dataclass
class Failing(Flowing):
    """Springs that give NaN for one quantity of one replica at one call."""

    at_call: int = 31
    replica: int = 2
    what: str = "force"

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        exact = super().predict(molecules, forces)
        if self.calls == self.at_call:
            getattr(exact, self.what).reshape(molecules.n, -1)[self.replica] = torch.nan
        return exact


@dataclass
class Suicidal(Flowing):
    """Springs that kill their process, as the operating system would, at one call."""

    at_call: int = field(default=0)

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        if self.calls == self.at_call:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(molecules, forces)
