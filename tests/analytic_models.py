"""Molecules whose energy and dipole are formulas, with the interface of a model, so that answers are known in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from densnet.model.densnet import DensNet
from densnet.structures import Density, Molecule, Molecules, Prediction


class Analytic(torch.nn.Module):
    """energy: position (N, 3) to hartree; the dipole is that of fixed point charges, e."""

    hash = "analytic"

    def __init__(self, energy: Callable[[Tensor], Tensor], charges: list[float]) -> None:
        super().__init__()
        self.energy_of, self.calls = energy, 0
        self.charges = torch.nn.Parameter(torch.tensor(charges, dtype=torch.float64))

    def forward(self, molecules: Molecules, forces: bool = True, create_graph: bool = False) -> Prediction:
        self.calls += 1
        position = molecules.position
        if not position.requires_grad:
            position = position.detach().requires_grad_()
        energy = self.energy_of(position)[None]
        force = -torch.autograd.grad(energy.sum(), position, create_graph=create_graph, retain_graph=True)[0]
        empty = torch.zeros(len(position), 0)
        return Prediction(energy, force, (self.charges @ position)[None], Density(empty, empty))

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        result = self(molecules)
        assert result.force is not None
        return Prediction(result.energy.detach(), result.force.detach(), result.dipole.detach(), result.density)


def as_model(analytic: Analytic) -> DensNet:
    return analytic  # pyright: ignore[reportReturnType]


def angle(position: Tensor) -> Tensor:
    """At atom 0, between atoms 1 and 2."""
    a, b = position[1] - position[0], position[2] - position[0]
    return torch.atan2(torch.linalg.cross(a, b).norm(), a @ b)


def cosine(position: Tensor) -> Tensor:
    a, b = position[1] - position[0], position[2] - position[0]
    return (a @ b) / (a.norm() * b.norm())


R0, THETA0 = 1.81, 1.824  # bohr, radian
F_R, F_RR, F_A, F_RA = 0.54, -0.006, 0.16, 0.02  # hartree/bohr^2 (two), hartree/radian^2, hartree/bohr/radian


def valence_water(position: Tensor) -> Tensor:
    stretch = [(position[i] - position[0]).norm() - R0 for i in (1, 2)]
    bend = angle(position) - THETA0
    harmonic = 0.5 * F_R * (stretch[0] ** 2 + stretch[1] ** 2) + 0.5 * F_A * bend**2
    return harmonic + F_RR * stretch[0] * stretch[1] + F_RA * bend * (stretch[0] + stretch[1])


def double_well(position: Tensor) -> Tensor:
    """A bent triatomic whose straight geometry is a saddle point in two directions: 0.08 (cos theta + 0.5)^2."""
    stretch = [(position[i] - position[0]).norm() - R0 for i in (1, 2)]
    return 0.27 * (stretch[0] ** 2 + stretch[1] ** 2) + 0.08 * (cosine(position) + 0.5) ** 2


def water_geometry(theta: float = THETA0, length: float = R0) -> Molecule:
    across, along = np.sin(theta / 2) * length, np.cos(theta / 2) * length
    return Molecule(np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, across, along], [0.0, -across, along]]))
