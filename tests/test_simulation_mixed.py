"""Replicas that are different molecules: every one moves as it would alone."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from simulation_potentials import prediction, settings

from densnet.errors import DataError, SimulationError
from densnet.simulation.engine import Replicas, simulate
from densnet.simulation.integrators import State, VelocityVerlet
from densnet.simulation.trajectory import read_trajectory
from densnet.simulation.velocities import angular_momentum, momentum, without_rigid_motion
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import BOLTZMANN, ELECTRON_MASS_PER_DALTON

TETRAHEDRON = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / sqrt(2.0)
ATOM = Molecule(np.array([18]), np.array([[3.0, 1.0, -2.0]]))
PAIR = Molecule(np.array([1, 17]), TETRAHEDRON[:2] + 5.0)
TRIANGLE = Molecule(np.array([8, 1, 1]), TETRAHEDRON[:3], 1)
FOUR = Molecule(np.array([6, 1, 9, 17]), TETRAHEDRON - 1.0)
LINE = Molecule(np.array([6, 8, 8]), np.array([[0.0, 0, 0], [0, 0, 2.0], [0, 0, -2.0]]))


class Simplices:
    """Springs of length 2 bohr between neighbours closer than 3 bohr at the start, in molecules of any size."""

    hash = "simplices"

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        position, owner = molecules.position, molecules.molecule
        same = (owner[:, None] == owner) & ~torch.eye(len(owner), dtype=torch.bool)
        i, j = same.nonzero(as_tuple=True)
        near = (position[i] - position[j]).norm(dim=1) < 3.0
        i, j = i[near], j[near]
        arm = position[i] - position[j]
        stretch = arm.norm(dim=1) - 2.0
        energy = torch.zeros(molecules.n, dtype=torch.float64).index_add_(0, owner[i], 0.25 * 0.3 * stretch**2)
        force = torch.zeros_like(position).index_add_(0, i, -(0.3 * stretch / arm.norm(dim=1))[:, None] * arm)
        charge = 0.01 * molecules.number.double() + position[:, 2]
        return prediction(energy, force, molecules.sum(position * molecules.number[:, None]), charge)


def run(path, molecules, resume=False, **changes):
    summary = simulate(Simplices(), molecules, settings(**changes), path, progress=False, resume=resume)
    return summary, read_trajectory(path)


def test_what_the_file_says(tmp_path):
    _, found = run(tmp_path / "run.h5", [TRIANGLE, PAIR, FOUR], replicas=5, steps=10, record_charges=True)
    assert found.mixed
    assert found.position.shape == (11, 5, 4, 3)
    assert found.number.tolist() == [[8, 1, 1, 0], [1, 17, 0, 0], [6, 1, 9, 17], [8, 1, 1, 0], [1, 17, 0, 0]]
    assert isinstance(found.charge, np.ndarray)
    assert found.charge.tolist() == [1, 0, 0, 1, 0]
    np.testing.assert_allclose(found.mass[1], np.array([1.008, 35.45, 0, 0]) * ELECTRON_MASS_PER_DALTON)
    padding = found.number == 0
    assert not found.position[:, padding].any()
    assert not found.velocity[:, padding].any()
    assert found.atomic_charge is not None
    expected = np.where(padding, 0.0, 0.01 * found.number + found.position[..., 2])
    np.testing.assert_allclose(found.atomic_charge, expected, rtol=0, atol=1e-15)
    start = found.molecule(replica=3)
    assert np.array_equal(start.position, TRIANGLE.position)
    assert (start.number.tolist(), start.charge) == ([8, 1, 1], 1)
    with pytest.raises(DataError, match="are different molecules; expected one molecule"):
        found.of_one_molecule()


@pytest.mark.parametrize("ensemble", ["nve", "nose_hoover"])
def test_every_replica_moves_as_it_would_alone(tmp_path, ensemble):
    """Against plain velocity Verlet by hand; a chain's replica against its total momentum, angular momentum and energy."""
    molecules = [TRIANGLE, PAIR, FOUR]
    _, found = run(tmp_path / "run.h5", molecules, replicas=3, steps=60, ensemble=ensemble, equilibration_steps=20)
    assert found.conserved is not None
    assert found.kinetic_temperature is not None
    for r, molecule in enumerate(molecules):
        atoms = len(molecule.number)
        mass = torch.as_tensor(found.mass[r, :atoms])
        alone = Replicas(Simplices(), [molecule], "cpu")
        position, velocity = (torch.as_tensor(x[0, r : r + 1, :atoms].copy()) for x in (found.position, found.velocity))
        scale = (mass[:, None] * velocity.abs()).sum()
        assert momentum(velocity, mass).abs().max() < 1e-12 * scale
        assert angular_momentum(position, velocity, mass).abs().max() < 1e-11 * scale
        freedom = 3 * atoms - (5 if atoms == 2 else 6)
        kelvin = (mass[:, None] * velocity**2).sum() / (freedom * BOLTZMANN)
        assert found.kinetic_temperature[0, r] == pytest.approx(kelvin.item(), rel=1e-12)
        if ensemble == "nve":
            state = State(position, velocity, alone(position))
            for _ in range(60):
                state = VelocityVerlet(found.integration_step, mass).step(state, alone)
            np.testing.assert_allclose(found.position[60, r, :atoms], state.position[0], rtol=0, atol=1e-12)
        assert np.abs(found.position[60, r] - found.position[0, r]).max() > 1e-3
    assert np.ptp(found.conserved, axis=0).max() < 0.05 * BOLTZMANN * 300.0


def test_temperature_of_every_molecule(tmp_path):
    """3N - 6, 3N - 5 (two atoms, and a line of three) and no degrees of freedom at all."""
    molecules = [TRIANGLE, PAIR, FOUR, ATOM, LINE]
    summary, found = run(tmp_path / "run.h5", molecules, replicas=2000, steps=1)
    assert found.kinetic_temperature is not None
    for index, freedom in enumerate((3, 1, 6, 0, 4)):
        kelvin = found.kinetic_temperature[0, index::5]
        assert abs(kelvin.mean() - (300.0 if freedom else 0.0)) <= 4.0 * 300.0 * sqrt(2.0 / max(freedom, 1) / 400) * bool(freedom)
    assert summary.mean_temperature == pytest.approx(240.0, rel=0.05)


def test_langevin_thermalises_all_of_them(tmp_path):
    """All 3N degrees of freedom of each molecule, error bars from its replicas."""
    options = {"replicas": 300, "ensemble": "langevin", "friction_per_fs": 0.05}
    _, found = run(tmp_path / "run.h5", [TRIANGLE, PAIR, FOUR], equilibration_steps=200, steps=200, record_every=4, **options)
    assert found.kinetic_temperature is not None
    for index in range(3):
        per_replica = found.kinetic_temperature[:, index::3].mean(axis=0)
        error = per_replica.std() / 10.0
        assert error < 15.0
        assert abs(per_replica.mean() - 300.0) < 4.0 * error + 3.0  # the steps of BAOAB cool by (w dt)^2/4, 1 percent at most


def test_drift_is_per_atom_of_each(tmp_path):
    """A leak of 1e-7 hartree per atom and step in every molecule is that drift, whatever the sizes."""

    class Leaking(Simplices):
        calls = 0

        def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
            exact = super().predict(molecules, forces)
            self.calls += 1
            atoms = torch.bincount(molecules.molecule)
            return Prediction(exact.energy + 1e-7 * self.calls * atoms, exact.force, exact.dipole, exact.density)

    options = settings(steps=200, replicas=4, temperature=1e-9)
    summary = simulate(Leaking(), [PAIR, FOUR], options, tmp_path / "run.h5", progress=False)
    expected = 1e-7 * 27211.386245988 / 0.5e-3
    assert summary.drift_meV_per_atom_per_ps == pytest.approx(expected, rel=1e-6)


def test_it_continues_bit_for_bit(tmp_path):
    options = {"ensemble": "nose_hoover", "replicas": 3, "equilibration_steps": 10, "record_charges": True}
    _, whole = run(tmp_path / "whole.h5", [TRIANGLE, PAIR], steps=90, **options)
    run(tmp_path / "run.h5", [TRIANGLE, PAIR], steps=40, **options)
    _, longer = run(tmp_path / "run.h5", [TRIANGLE, PAIR], steps=90, resume=True, **options)
    for name in ("position", "velocity", "energy", "dipole", "conserved", "atomic_charge"):
        assert np.array_equal(getattr(longer, name), getattr(whole, name))
    with pytest.raises(SimulationError, match="was run with molecules="):
        run(tmp_path / "run.h5", [TRIANGLE, FOUR], steps=95, resume=True, **options)


def test_a_molecule_without_a_replica_is_refused(tmp_path):
    with pytest.raises(SimulationError, match=r"replicas is 2 and molecule 6 1 9 17 \(0 e\) would get none"):
        run(tmp_path / "run.h5", [TRIANGLE, PAIR, FOUR], replicas=2)
    _, found = run(tmp_path / "other.h5", [TRIANGLE, PAIR, TRIANGLE, PAIR], replicas=2, steps=1)
    assert found.mixed


def test_rigid_motion_of_padded_molecules():
    """The projection of each molecule alone, to round-off, linear ones and atoms included."""
    molecules = [FOUR, LINE, PAIR, ATOM, TRIANGLE]
    replicas = Replicas(Simplices(), molecules, "cpu")
    assert replicas.n_rotations.tolist() == [3, 2, 2, 0, 3]
    generator = torch.Generator().manual_seed(3)
    velocity = torch.randn(replicas.start.shape, generator=generator, dtype=torch.float64) * (replicas.mass > 0)[..., None]
    found = without_rigid_motion(replicas.start, velocity, replicas.mass, replicas.n_rotations)
    for r, molecule in enumerate(molecules):
        atoms = len(molecule.number)
        alone = without_rigid_motion(
            replicas.start[r : r + 1, :atoms], velocity[r : r + 1, :atoms], replicas.mass[r, :atoms],
            int(replicas.n_rotations[r]),
        )  # fmt: skip
        np.testing.assert_allclose(found[r, :atoms], alone[0], rtol=0, atol=1e-13)
        assert not found[r, atoms:].any()
