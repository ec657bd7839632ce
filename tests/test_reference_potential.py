"""Kohn-Sham and GFN2-xTB behind the interface of a model: the labels' numbers, slopes, origins, and a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from pyscf import dft, gto
from simulation_potentials import settings
from tblite.interface import Calculator
from tblite.library import ffi

from densnet.data.labels import Label, Level
from densnet.errors import ConfigError, SimulationError, StructureError
from densnet.reference.kohn_sham import ScfSettings, compute_label
from densnet.reference.potential import KohnShamPotential, XtbPotential
from densnet.simulation.calculator import DensNetCalculator
from densnet.simulation.engine import simulate
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR, E_ANGSTROM_PER_AU

CHEAP = Level(ao_basis="sto-3g", grid_level=1)
WATER = Molecule(np.array([8, 1, 1]), np.array([[0.3, -0.1, 0.2], [0.5, 1.7, 0.6], [1.9, -0.7, -0.1]]))
HYDROXIDE = Molecule(np.array([8, 1]), np.array([[4.0, 0.2, -0.1], [3.9, 1.5, 1.2]]), -1)


def kohn_sham(level: Level = CHEAP, **options) -> KohnShamPotential:
    return KohnShamPotential(level, **options)


def moved(molecule: Molecule, amount: float, seed: int = 0) -> Molecule:
    return molecule.moved(molecule.position + np.random.default_rng(seed).normal(scale=amount, size=molecule.position.shape))


@pytest.mark.parametrize(
    # The Kohn-Sham gradient lacks the response of the grid, 1e-5 hartree/bohr here; a wrong sign or unit is 1e-2.
    ("potential", "tolerance"),
    [(XtbPotential(), 1e-6), (kohn_sham(replace(CHEAP, grid_level=4, conv_tol=1e-11), warm_start=False), 3e-5)],
    ids=["xtb", "kohn_sham"],
)
def test_forces_are_the_slope_of_the_energy(potential, tolerance) -> None:
    step, places = 0.001, ((0, 2), (1, 1), (2, 0))
    force = potential.predict(Molecules.of([WATER])).force
    shifted = []
    for atom, axis in places:
        for sign in (1, -1):
            position = WATER.position.copy()
            position[atom, axis] += sign * step
            shifted.append(WATER.moved(position))
    energy = potential.predict(Molecules.of(shifted), forces=False)
    assert energy.force is None
    slope = energy.energy.reshape(-1, 2)
    for (atom, axis), (up, down) in zip(places, slope.tolist()):
        assert force[atom, axis].item() == pytest.approx(-(up - down) / (2 * step), abs=tolerance)


def test_kohn_sham_gives_the_numbers_of_the_labels() -> None:
    """A mixed batch; the first call is the label itself, the next starts from its density and agrees to the threshold."""
    potential = kohn_sham(replace(CHEAP, conv_tol=1e-11))
    for amount, tolerance in ((0.0, 0.0), (0.05, 2e-7)):
        batch = [moved(WATER, amount), moved(HYDROXIDE, amount)]
        found = potential.predict(Molecules.of(batch))
        assert found.force is not None
        assert found.force.dtype == found.energy.dtype == found.dipole.dtype == torch.float64
        labels = [compute_label(m, potential.level) for m in batch]
        assert all(isinstance(label, Label) for label in labels)
        np.testing.assert_allclose(found.energy, [label.energy for label in labels], rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.force, np.concatenate([label.force for label in labels]), rtol=0, atol=10 * tolerance)
        np.testing.assert_allclose(found.dipole[0], labels[0].dipole, rtol=0, atol=1e-12 + 10 * tolerance)


def test_warm_start_saves_cycles_and_can_be_switched_off(monkeypatch) -> None:
    cycles: list[int] = []
    kernel = dft.rks.RKS.kernel

    def counted(self, *arguments, **options):
        energy = kernel(self, *arguments, **options)
        cycles.append(self.cycles)
        return energy

    monkeypatch.setattr(dft.rks.RKS, "kernel", counted)
    first, second = Molecules.of([WATER]), Molecules.of([moved(WATER, 0.01)])
    warm, cold = kohn_sham(), kohn_sham(warm_start=False)
    for potential in (warm, cold):
        potential.predict(first)
        last = potential.predict(second)
    assert cycles[1] < cycles[3]
    assert cycles[2] == cycles[0]
    fresh = kohn_sham().predict(second)
    assert torch.equal(last.energy, fresh.energy)
    assert torch.equal(last.force, fresh.force)


@pytest.mark.parametrize("potential", [XtbPotential(), kohn_sham()], ids=["xtb", "kohn_sham"])
def test_the_dipole_of_an_ion_moves_with_it(potential) -> None:
    shift = np.array([1.0, -2.0, 3.0])
    ions = Molecules.of([HYDROXIDE, HYDROXIDE.moved(HYDROXIDE.position + shift)])
    here, there = potential.predict(ions).dipole
    np.testing.assert_allclose(here, there, atol=2e-4)
    assert here.norm() > 0.1


@pytest.mark.parametrize("make", [XtbPotential, kohn_sham], ids=["xtb", "kohn_sham"])
def test_charges_of_the_same_atoms_are_told_apart(make) -> None:
    molecules = [WATER, replace(WATER, charge=2), WATER]
    alone = [make().predict(Molecules.of([molecule])).energy.item() for molecule in molecules]
    potential = make()
    one_by_one = [potential.predict(Molecules.of([molecule])).energy.item() for molecule in molecules]
    assert one_by_one == pytest.approx(alone, abs=1e-8)
    assert potential.predict(Molecules.of(molecules)).energy.tolist() == pytest.approx(alone, abs=1e-8)
    assert abs(alone[0] - alone[1]) > 0.5


def test_dipoles_against_the_programs_themselves() -> None:
    """PySCF's own dipole about the centre of nuclear charge; xTB's as the slope of its energy in an electric field."""
    for molecule in (WATER, HYDROXIDE):
        atoms = list(zip(molecule.number.tolist(), molecule.position.tolist()))
        mf = dft.RKS(gto.M(atom=atoms, unit="Bohr", basis="sto-3g", charge=molecule.charge, verbose=0), xc="pbe").density_fit()
        mf.grids.level, mf.conv_tol = 1, 1e-11
        mf.kernel()
        centre = molecule.number @ molecule.position / molecule.number.sum()
        expected = mf.dip_moment(unit="AU", origin=centre, verbose=0)
        found = kohn_sham(replace(CHEAP, conv_tol=1e-11)).predict(Molecules.of([molecule])).dipole[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)

        slope = []
        for axis in np.eye(3):
            energies = []
            for sign in (1, -1):
                calculator = Calculator("GFN2-xTB", molecule.number, molecule.position - centre, charge=float(molecule.charge))
                calculator.set("verbosity", 0)
                calculator.set("accuracy", 0.01)
                calculator.add("electric-field", ffi.new("double[3]", (sign * 1e-3 * axis).tolist()))
                energies.append(calculator.singlepoint().get("energy"))
            slope.append(-(energies[0] - energies[1]) / 2e-3)
        found = XtbPotential().predict(Molecules.of([molecule])).dipole[0]
        np.testing.assert_allclose(found, slope, atol=2e-3)


def test_hashes_name_method_and_settings() -> None:
    others = [kohn_sham(), kohn_sham(replace(CHEAP, xc="pbe0")), kohn_sham(replace(CHEAP, grid_level=2)), XtbPotential()]
    assert len({potential.hash for potential in others}) == 4
    assert kohn_sham().hash == kohn_sham(warm_start=False, scf=ScfSettings(max_cycle=7)).hash
    assert all(len(potential.hash) == 16 for potential in others)


def test_a_run_conserves_energy_and_continues_on_the_same_method_only(tmp_path: Path) -> None:
    short = settings(time_step_fs=0.2, steps=40, replicas=2, temperature=200.0, record_every=2, flush_every=5)
    simulate(XtbPotential(), WATER, short, tmp_path / "run.h5", progress=False)
    simulate(XtbPotential(), WATER, replace(short, steps=80), tmp_path / "run.h5", progress=False, resume=True)
    simulate(XtbPotential(), WATER, replace(short, steps=80), tmp_path / "whole.h5", progress=False)
    run, whole = read_trajectory(tmp_path / "run.h5"), read_trajectory(tmp_path / "whole.h5")
    np.testing.assert_array_equal(run.position, whole.position)
    np.testing.assert_array_equal(run.dipole, whole.dipole)
    kinetic = 0.5 * np.einsum("srnx,n->sr", run.velocity**2, run.mass)
    total = run.energy + kinetic
    assert (np.ptp(total, axis=0) < 0.02 * np.ptp(kinetic, axis=0)).all()
    with pytest.raises(SimulationError, match="model_hash"):
        simulate(kohn_sham(), WATER, replace(short, steps=90), tmp_path / "run.h5", progress=False, resume=True)


def test_the_ase_calculator_takes_them() -> None:
    atoms = Atoms(WATER.number, WATER.position * ANGSTROM_PER_BOHR)
    atoms.calc = DensNetCalculator(XtbPotential())
    dipole = XtbPotential().predict(Molecules.of([WATER])).dipole[0].numpy()
    np.testing.assert_allclose(atoms.get_dipole_moment(), dipole * E_ANGSTROM_PER_AU, atol=1e-6)
    assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-6


@pytest.mark.parametrize(
    ("potential", "molecule", "error", "message"),
    [
        (kohn_sham(scf=ScfSettings(max_cycle=1)), WATER, SimulationError, "pbe/sto-3g failed for molecule 0 .*not converged"),
        (XtbPotential(max_cycle=2), WATER, SimulationError, "GFN2-xTB failed for molecule 0 .*not converged in 2 cycles"),
        (kohn_sham(), replace(WATER, charge=1), StructureError, "9 electrons at charge .1; expected an even number"),
        (XtbPotential(), replace(WATER, charge=1), StructureError, "9 electrons at charge .1; expected an even number"),
        (XtbPotential(), replace(WATER, number=np.array([110, 1, 1])), StructureError, "cannot treat the molecule"),
        (kohn_sham(replace(CHEAP, xc="nonsense")), WATER, ConfigError, "functional nonsense is unknown"),
    ],
)
def test_what_cannot_be_computed_is_said_in_one_line(potential, molecule, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        potential.predict(Molecules.of([molecule]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [XtbPotential, kohn_sham], ids=["xtb", "kohn_sham"])
def test_a_molecule_that_fails_gets_nan_and_the_others_their_numbers(make) -> None:
    """Atoms on top of each other in the second of three; all of them so is an error."""
    three = Molecules.of([WATER, WATER, WATER])
    position = three.position.clone()
    position[4] = position[3] + 0.05
    found, alone = make().predict(three.at(position)), make().predict(Molecules.of([WATER]))
    for b in (0, 2):
        assert abs(float(found.energy[b] - alone.energy[0])) < 1e-7
        assert (found.force[3 * b : 3 * b + 3] - alone.force).abs().max() < 1e-5
    assert found.energy[1].isnan()
    assert found.force[3:6].isnan().all()
    assert found.dipole[1].isnan().all()
    with pytest.raises(StructureError, match="apart"):
        make().predict(three.at(torch.zeros_like(position)))


def test_dynamics_freezes_the_replica_that_fails(tmp_path: Path) -> None:
    """Two starts, one of them with a bond at half its length and a long step: the other replica ends the run alive."""
    squeezed = WATER.moved(WATER.position[0] + (WATER.position - WATER.position[0]) * 0.5)
    wild = settings(replicas=2, steps=30, time_step_fs=2.0, equilibration_steps=0, max_energy_jump_ev=3.0)
    summary = simulate(XtbPotential(), [WATER, squeezed], wild, tmp_path / "run.h5", progress=False)
    assert summary.frozen_replicas == 1
    trajectory = read_trajectory(tmp_path / "run.h5")
    assert trajectory.frozen_from[0] == -1
    assert np.isfinite(trajectory.energy[:, 0]).all()
