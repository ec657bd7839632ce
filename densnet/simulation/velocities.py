"""Velocities of R replicas: thermal ones, kinetic energy, and the translation and rotation of the whole molecule.

position and velocity: (R, N, 3) bohr and bohr per atomic time; mass: (N,) or (R, N) electron masses; all float64. Replicas may be
different molecules: an atom of mass 0 only pads a smaller one, and counts nowhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from densnet.units import BOLTZMANN

LINEAR = 1e-6  # smallest over largest moment of inertia below which a molecule counts as linear


def maxwell_boltzmann(mass: Tensor, temperature: float, replicas: int, generator: torch.Generator) -> Tensor:
    """Thermal velocities (R, N, 3): every component Gaussian with variance kT/m. temperature: kelvin."""
    shape = (replicas, mass.shape[-1], 3)
    xi = torch.randn(shape, generator=generator, dtype=mass.dtype, device=mass.device)
    return torch.where(mass > 0, BOLTZMANN * temperature / mass, 0.0).sqrt()[..., None] * xi


def kinetic_energy(velocity: Tensor, mass: Tensor) -> Tensor:
    """(R,) hartree."""
    return 0.5 * (mass[..., None] * velocity**2).sum(dim=(-2, -1))


def kinetic_temperature(velocity: Tensor, mass: Tensor, freedom: Tensor) -> Tensor:
    """2 K / (f k_B), (R,) kelvin; freedom f: (R,) degrees of freedom that move, counted as 1 where there are none."""
    return 2.0 * kinetic_energy(velocity, mass) / (freedom.clamp(min=1).to(velocity.dtype) * BOLTZMANN)


def momentum(velocity: Tensor, mass: Tensor) -> Tensor:
    """Total linear momentum, (R, 3) atomic units."""
    return (mass[..., None] * velocity).sum(dim=-2)


def angular_momentum(position: Tensor, velocity: Tensor, mass: Tensor) -> Tensor:
    """Total angular momentum about the centre of mass, (R, 3) atomic units."""
    arm = _centred(position, mass)
    return (mass[..., None] * torch.linalg.cross(arm, velocity)).sum(dim=-2)


def rotations(position: Tensor, mass: Tensor) -> int:
    """Rotational degrees of freedom of a molecule at position (N, 3): 0 for an atom, 2 if linear, else 3."""
    if mass.shape[0] == 1:
        return 0
    moment = torch.linalg.eigvalsh(_inertia(_centred(position[None], mass), mass))[0]
    return 2 if moment[0] < LINEAR * moment[2] else 3


def without_rigid_motion(position: Tensor, velocity: Tensor, mass: Tensor, n_rotations: int | Tensor) -> Tensor:
    """The velocities (R, N, 3) without total momentum and angular momentum.

    A projection orthogonal in the kinetic energy: thermal velocities stay exactly thermal in the 3N - 3 - n_rotations
    degrees of freedom that are left, so nothing is rescaled. With I w = L and V the velocity of the centre of mass:

        v_A <- v_A - V - w x (r_A - r_com)

    n_rotations, of all or (R,): as `rotations` gives for the geometry at rest; the axis of a linear molecule is left alone even
    when it is bent.
    """
    mass = mass.expand(position.shape[:-1])
    velocity = velocity - (momentum(velocity, mass) / mass.sum(dim=-1, keepdim=True))[:, None]
    arm = _centred(position, mass)
    moment, axes = torch.linalg.eigh(_inertia(arm, mass))
    count = torch.as_tensor(n_rotations, device=mass.device).expand(len(mass))
    # Moments rise along the axes: what does not turn comes first.
    turns = torch.arange(3, device=mass.device) >= 3 - count[:, None]
    along = torch.einsum("rik,ri->rk", axes, angular_momentum(position, velocity, mass))
    omega = torch.einsum("rik,rk->ri", axes, torch.where(turns, along / moment, 0.0))
    rigid = torch.linalg.cross(omega[:, None].expand_as(arm), arm)
    return torch.where(mass[..., None] > 0, velocity - rigid, 0.0)


def _centred(position: Tensor, mass: Tensor) -> Tensor:
    return position - (momentum(position, mass) / mass.sum(dim=-1)[..., None])[..., None, :]


def _inertia(arm: Tensor, mass: Tensor) -> Tensor:
    mass = mass.expand(arm.shape[:-1])
    square = (mass * (arm**2).sum(dim=-1)).sum(dim=-1)
    outer = torch.einsum("rn,rni,rnj->rij", mass, arm, arm)
    return square[:, None, None] * torch.eye(3, dtype=arm.dtype, device=arm.device) - outer
