"""The engine beside ASE's integrator on the same potential, and what its progress bar says."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from simulation_potentials import WATER, Springs, prediction, settings

from densnet.simulation.engine import simulate
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecules


class Atomic(Calculator):
    """A potential for ASE with every quantity in atomic units, so that no other constants come in."""

    implemented_properties = ("energy", "forces")

    def __init__(self, potential, molecule) -> None:
        super().__init__()
        self.potential, self.batch = potential, Molecules.of([molecule])

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, list(properties), system_changes)
        found = self.potential.predict(self.batch.at(torch.as_tensor(self.atoms.positions)))
        self.results = {"energy": found.energy.item(), "forces": found.force.numpy()}


def assert_same_as_ase(potential, molecule, found, replica: int, tolerance: float) -> None:
    atoms = Atoms(molecule.number, found.position[0, replica], masses=found.mass, calculator=Atomic(potential, molecule))
    atoms.set_velocities(found.velocity[0, replica])
    dynamics = VelocityVerlet(atoms, timestep=found.integration_step)
    for frame in range(len(found.energy)):
        np.testing.assert_allclose(found.position[frame, replica], atoms.positions, rtol=0, atol=tolerance)
        assert found.energy[frame, replica] == pytest.approx(atoms.get_potential_energy(), rel=0, abs=tolerance)
        np.testing.assert_allclose(found.velocity[frame, replica], atoms.get_velocities(), rtol=0, atol=tolerance)
        dynamics.run(1)
    assert np.abs(found.position[-1, replica] - found.position[0, replica]).max() > 0.01


def test_a_hundred_steps_are_those_of_ase(tmp_path):
    simulate(Springs(WATER), WATER, settings(steps=100, replicas=3, equilibration_steps=50), tmp_path / "run.h5", progress=False)
    assert_same_as_ase(Springs(WATER), WATER, read_trajectory(tmp_path / "run.h5"), 1, 1e-10)


def test_a_hundred_steps_of_a_density_network_are_those_of_ase(tmp_path, model, water):
    """An untrained network in float64, its wild surface tamed by a short step; one of two replicas against a batch of one."""
    options = settings(steps=100, replicas=2, time_step_fs=0.02, max_temperature=1e7, max_energy_jump_ev=1e3)
    simulate(model, water, options, tmp_path / "run.h5", progress=False)
    assert_same_as_ase(model, water, read_trajectory(tmp_path / "run.h5"), 1, 1e-10)


def test_the_progress_bar_says_how_fast(tmp_path, capfd):
    """Steps per second, nanoseconds per day of one replica and of all together."""
    simulate(Springs(WATER), WATER, settings(steps=400, replicas=5), tmp_path / "run.h5", progress=True)
    found = re.findall(r"step/s, (\S+) ns/day each, (\S+) ns/day by 5 replicas, \d+ K", capfd.readouterr().err)
    assert found
    each, together = map(float, found[-1])
    assert together == pytest.approx(5 * each, rel=0.02)


class Resident(Springs):
    """Springs on any device that make every transfer to the host an error until the next call, but where frames are recorded."""

    def predict(self, molecules: Molecules, forces: bool = True):
        device = molecules.position.device
        torch.cuda.set_sync_debug_mode("default")
        rest = torch.as_tensor(self.molecule.position, device=device)
        i, j = torch.triu_indices(3, 3, 1, device=device)
        position = molecules.position.reshape(molecules.n, 3, 3)
        arm = position[:, i] - position[:, j]
        stretch = arm.norm(dim=-1) - (rest[i] - rest[j]).norm(dim=-1)
        pull = (self.k * stretch / arm.norm(dim=-1))[..., None] * arm
        force = torch.zeros_like(position).index_add_(1, i, -pull).index_add_(1, j, pull)
        self.calls += 1
        found = prediction(0.5 * self.k * (stretch**2).sum(dim=-1), force, position.sum(dim=1))
        if self.calls % 50 not in (0, 1):
            torch.cuda.set_sync_debug_mode("error")
        return found


@pytest.mark.gpu
@pytest.mark.parametrize("ensemble", ["nve", "langevin", "nose_hoover"])
def test_a_step_asks_the_host_nothing(tmp_path, ensemble):
    """On a GPU: between two frames not one transfer, the watch over the replicas included."""
    potential = Resident(WATER)
    options = settings(ensemble=ensemble, steps=100, replicas=64, record_every=50)
    try:
        simulate(potential, WATER, options, tmp_path / "run.h5", progress=False, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert read_trajectory(tmp_path / "run.h5").energy.shape == (3, 64)
