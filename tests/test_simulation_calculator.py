"""The ASE calculator: units, infrared intensities, charge, and the same dynamics as the engine."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase import units as ase_units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from ase.data import atomic_masses
from ase.md.verlet import VelocityVerlet
from ase.vibrations import Infrared
from simulation_potentials import WATER, Flowing, Springs, settings

from densnet.errors import StructureError
from densnet.simulation.calculator import DensNetCalculator
from densnet.simulation.engine import simulate
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import (
    ANGSTROM_PER_BOHR,
    CM1_PER_AU,
    DEBYE_PER_AU,
    E_ANGSTROM_PER_AU,
    ELECTRON_MASS_PER_DALTON,
    EV_PER_HARTREE,
    FS_PER_AU,
)


def atoms_of(molecule: Molecule, potential=None) -> Atoms:
    atoms = Atoms(molecule.number, molecule.position * ANGSTROM_PER_BOHR)
    atoms.calc = DensNetCalculator(potential or Springs(molecule))
    return atoms


def test_units_by_hand():
    """H2 on a spring stretched by 0.1 bohr: E = k/2 0.01 hartree, F = k 0.1 hartree/bohr."""
    rest = Molecule(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 1.4]]))
    stretched = rest.moved(np.array([[0.0, 0, 0], [0, 0, 1.5]]))
    atoms = atoms_of(stretched, Springs(rest, k=0.4, charges=(-0.3, 0.3)))
    assert atoms.get_potential_energy() == pytest.approx(0.5 * 0.4 * 0.01 * 27.211386246, rel=1e-9)
    assert atoms.get_forces()[1, 2] == pytest.approx(-0.4 * 0.1 * 27.211386246 / 0.529177210544, rel=1e-9)
    assert atoms.get_dipole_moment() == pytest.approx([0, 0, 0.3 * 1.5 * 0.529177210544], rel=1e-9)
    assert set(atoms.calc.results) == set(DensNetCalculator.implemented_properties) - {"charges"}
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_charges()


def test_charges_of_the_functions(model, water):
    """In e, atom by atom as the model gives them, from the same pass; they sum to the charge of an ion too."""
    for charge in (0, 1):
        atoms = atoms_of(water, model)
        atoms.info["charge"] = charge
        expected = model.predict(Molecules.of([Molecule(water.number, water.position, charge)])).charge
        np.testing.assert_allclose(atoms.get_charges(), expected, rtol=0, atol=1e-12)
        assert atoms.get_charges().sum() == pytest.approx(charge, abs=1e-10)
        assert set(atoms.calc.results) == set(DensNetCalculator.implemented_properties)
    flowing = Flowing(WATER)
    atoms = atoms_of(WATER, flowing)
    atoms.get_charges(), atoms.get_forces()
    assert flowing.calls == 1


def test_forces_are_the_slope_of_the_energy():
    atoms = atoms_of(WATER.moved(WATER.position + 0.2 * np.sin(np.arange(9)).reshape(3, 3)), Springs(WATER))
    np.testing.assert_allclose(calculate_numerical_forces(atoms, eps=1e-4), atoms.get_forces(), rtol=0, atol=1e-6)
    assert np.abs(atoms.get_forces()).max() > 0.1


def test_everything_comes_from_one_pass():
    springs = Springs(WATER)
    atoms = atoms_of(WATER, springs)
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_dipole_moment()
    assert springs.calls == 1


def test_infrared_of_a_diatomic(tmp_path, monkeypatch):
    """w = sqrt(k/mu), |d dipole/dQ|^2 = q^2/mu: analytic, through ase.vibrations.Infrared."""
    monkeypatch.chdir(tmp_path)
    k, q = 0.35, 0.25
    molecule = Molecule(np.array([1, 9]), np.array([[0.0, 0, 0], [0, 0, 1.75]]))
    infrared = Infrared(atoms_of(molecule, Springs(molecule, k=k, charges=(q, -q))))
    infrared.run()
    frequencies = infrared.get_frequencies().real
    reduced = 1.0 / (1.0 / atomic_masses[[1, 9]]).sum()
    expected = np.sqrt(k / (reduced * ELECTRON_MASS_PER_DALTON)) * CM1_PER_AU
    assert frequencies[-1] == pytest.approx(expected, rel=1e-5)
    expected_intensity = (q * DEBYE_PER_AU / ANGSTROM_PER_BOHR) ** 2 / reduced
    assert infrared.intensities[-1] == pytest.approx(expected_intensity, rel=1e-4)


def test_ase_dynamics_is_the_engine(tmp_path):
    """50 steps from the same start: ASE's velocity Verlet through the calculator, in angstrom and eV."""
    springs = Springs(WATER)
    simulate(springs, WATER, settings(steps=50, temperature=400.0, replicas=2), tmp_path / "run.h5", progress=False)
    trajectory = read_trajectory(tmp_path / "run.h5")
    atoms = atoms_of(WATER, springs)
    atoms.set_velocities(trajectory.velocity[0, 1] * ANGSTROM_PER_BOHR / FS_PER_AU / ase_units.fs)
    dynamics = VelocityVerlet(atoms, timestep=0.5 * ase_units.fs)
    for frame in range(51):
        np.testing.assert_allclose(atoms.positions, trajectory.position[frame, 1] * ANGSTROM_PER_BOHR, rtol=0, atol=1e-8)
        assert atoms.get_potential_energy() == pytest.approx(trajectory.energy[frame, 1] * EV_PER_HARTREE, abs=1e-7)
        np.testing.assert_allclose(atoms.get_dipole_moment(), trajectory.dipole[frame, 1] * E_ANGSTROM_PER_AU, rtol=0, atol=1e-8)
        dynamics.run(1)
    assert np.abs(trajectory.position[50, 1] - trajectory.position[0, 1]).max() > 0.01


class ChargedSprings(Springs):
    """Energy shifted by one hartree per charge."""

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        plain = super().predict(molecules, forces)
        return Prediction(plain.energy + molecules.charge, plain.force, plain.dipole, plain.density)


def test_charge_comes_from_info_and_changes_are_noticed():
    atoms = atoms_of(WATER, ChargedSprings(WATER))
    neutral = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    assert atoms.get_potential_energy() - neutral == pytest.approx(EV_PER_HARTREE, rel=1e-12)
    atoms.info["charge"] = -2.0
    assert atoms.get_potential_energy() - neutral == pytest.approx(-2 * EV_PER_HARTREE, rel=1e-12)


@pytest.mark.parametrize("charge", [0.5, "plus", None])
def test_a_charge_that_is_not_whole_is_refused(charge):
    atoms = atoms_of(WATER)
    atoms.info["charge"] = charge
    with pytest.raises(StructureError, match="expected a whole number"):
        atoms.get_potential_energy()


def test_periodic_and_overlapping_atoms_are_refused():
    atoms = atoms_of(WATER)
    atoms.pbc = (True, False, False)
    with pytest.raises(StructureError, match="periodic"):
        atoms.get_forces()
    atoms.pbc = False
    atoms.positions[1] = atoms.positions[0] + 0.1
    with pytest.raises(StructureError, match="angstrom apart"):
        atoms.get_forces()
