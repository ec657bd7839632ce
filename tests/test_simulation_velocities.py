"""Thermal velocities and the rigid motion of a molecule."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from densnet.simulation.velocities import (
    angular_momentum,
    kinetic_energy,
    maxwell_boltzmann,
    momentum,
    rotations,
    without_rigid_motion,
)
from densnet.units import BOLTZMANN, ELECTRON_MASS_PER_DALTON

BENT = torch.tensor([[0.0, 0.0, 0.3], [1.4, 0.2, 1.1], [-1.4, 0.0, 1.2], [0.5, 1.9, -0.4]], dtype=torch.float64)
LINE = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64) * torch.tensor([[0.1], [-0.9], [1.3]]) + 5.0
ATOM = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
MASSES = torch.tensor([16.0, 1.0, 12.0, 2.0], dtype=torch.float64) * ELECTRON_MASS_PER_DALTON


@pytest.mark.parametrize(("position", "expected"), [(BENT, 3), (LINE, 2), (LINE[:2], 2), (ATOM, 0)])
def test_rotations(position, expected):
    assert rotations(position, MASSES[: len(position)]) == expected


@pytest.mark.parametrize("position", [BENT, LINE, LINE[:2], ATOM])
def test_thermal_velocities_have_no_rigid_motion_and_the_right_temperature(position):
    """Momentum and angular momentum vanish; K has mean f/2 kT and variance f/2 (kT)^2 with f = 3N - 3 - rotations."""
    mass, temperature, replicas = MASSES[: len(position)], 300.0, 20000
    n_rotations = rotations(position, mass)
    positions = position.expand(replicas, -1, -1)
    thermal = maxwell_boltzmann(mass, temperature, replicas, torch.Generator().manual_seed(5))
    velocity = without_rigid_motion(positions, thermal, mass, n_rotations)
    scale = (mass * thermal[0].norm(dim=-1)).sum()
    assert momentum(velocity, mass).abs().max() < 1e-12 * scale
    assert angular_momentum(positions, velocity, mass).abs().max() < 1e-11 * scale
    freedom = 3 * len(position) - 3 - n_rotations
    kinetic = kinetic_energy(velocity, mass) / (BOLTZMANN * temperature)
    error = sqrt(0.5 * freedom / replicas)
    assert abs(kinetic.mean().item() - 0.5 * freedom) <= 4.0 * error + 1e-12
    assert kinetic.var().item() == pytest.approx(0.5 * freedom, rel=0.1, abs=1e-12)


def test_the_projection_leaves_vibrations_alone():
    velocity = maxwell_boltzmann(MASSES, 300.0, 50, torch.Generator().manual_seed(5))
    positions = BENT.expand(50, -1, -1)
    once = without_rigid_motion(positions, velocity, MASSES, 3)
    assert torch.allclose(without_rigid_motion(positions, once, MASSES, 3), once, rtol=0, atol=1e-17)
    removed = velocity - once
    distance = BENT[None, :, None] - BENT[None, None]
    stretching = (distance * (removed[:, :, None] - removed[:, None])).sum(dim=-1)
    assert stretching.abs().max() < 1e-15


def test_a_linear_molecule_keeps_the_rotation_about_its_axis_when_bent():
    """There the moment of inertia is tiny and the motion is a bending vibration, not a rotation."""
    bent = LINE + torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.02, 0.0, 0.0]], dtype=torch.float64)
    mass = MASSES[:3]
    velocity = maxwell_boltzmann(mass, 300.0, 20000, torch.Generator().manual_seed(6))
    found = without_rigid_motion(bent.expand(20000, -1, -1), velocity, mass, 2)
    kinetic = kinetic_energy(found, mass) / (BOLTZMANN * 300.0)
    assert abs(kinetic.mean().item() - 2.0) < 4.0 * sqrt(2.0 / 20000)
