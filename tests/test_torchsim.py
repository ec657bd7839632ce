"""The TorchSim adapter: units, charge, and the same trajectory as densnet's own dynamics."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_masses
from simulation_potentials import WATER, Flowing, Springs, settings

from densnet.errors import ConfigError, StructureError
from densnet.model.checkpoint import load_model
from densnet.simulation.engine import simulate
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import ANGSTROM_PER_BOHR, E_ANGSTROM_PER_AU, ELECTRON_MASS_PER_DALTON, EV_PER_HARTREE

ROOT = Path(__file__).parents[1]


def test_without_torchsim_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_sim", None)
    monkeypatch.setitem(sys.modules, "torch_sim.models.interface", None)
    monkeypatch.delitem(sys.modules, "densnet.simulation.torchsim", raising=False)
    with pytest.raises(ConfigError, match="pip install torch-sim-atomistic") as caught:
        importlib.import_module("densnet.simulation.torchsim")
    assert "\n" not in str(caught.value)


@pytest.fixture
def torch_sim():
    return pytest.importorskip("torch_sim", reason="TorchSim is not installed: pip install torch-sim-atomistic (Python >= 3.12)")


def state_of(torch_sim, *molecules: Molecule, **info: object):
    atoms = [Atoms(m.number, m.position * ANGSTROM_PER_BOHR, info=dict(info)) for m in molecules]
    keys = {"system_extras_map": {"charge": "charge"}} if info else {}
    return torch_sim.io.atoms_to_state(atoms, torch.device("cpu"), torch.float64, **keys)


def test_units_by_hand(torch_sim) -> None:
    """Two H2 on springs stretched by 0.1 and 0.2 bohr: E = k/2 x^2, F = k x."""
    from densnet.simulation.torchsim import DensNetModel

    rest = Molecule(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 1.4]]))
    stretched = [rest.moved(np.array([[0.0, 0, 0], [0, 0, 1.4 + x]])) for x in (0.1, 0.2)]
    state = state_of(torch_sim, *stretched)
    before = state.positions.clone()
    found = DensNetModel(Springs(rest, k=0.4, charges=(-0.3, 0.3)))(state)
    assert found["energy"].tolist() == pytest.approx([0.2 * 0.01 * 27.211386246, 0.2 * 0.04 * 27.211386246], rel=1e-9)
    slope = 0.4 * 27.211386246 / 0.529177210544
    assert found["forces"][:, 2].tolist() == pytest.approx([0.1 * slope, -0.1 * slope, 0.2 * slope, -0.2 * slope], rel=1e-9)
    assert found["dipole"][:, 2].tolist() == pytest.approx([0.3 * 1.5 * 0.529177210544, 0.3 * 1.6 * 0.529177210544], rel=1e-9)
    assert torch.equal(before, state.positions)


class Charged(Springs):
    """Energy shifted by one hartree per charge."""

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        plain = super().predict(molecules, forces)
        return Prediction(plain.energy + molecules.charge, plain.force, plain.dipole, plain.density)


def test_charge_and_refusals(torch_sim) -> None:
    from densnet.simulation.torchsim import DensNetModel

    model = DensNetModel(Charged(WATER))
    neutral, charged = model(state_of(torch_sim, WATER, WATER)), model(state_of(torch_sim, WATER, WATER, charge=-1.0))
    shift = charged["energy"] - neutral["energy"]
    assert shift.tolist() == pytest.approx([-EV_PER_HARTREE] * 2, rel=1e-12)
    with pytest.raises(StructureError, match="expected whole numbers"):
        model(state_of(torch_sim, WATER, WATER, charge=0.5))
    periodic = state_of(torch_sim, WATER)
    periodic.pbc = True
    with pytest.raises(StructureError, match="periodic"):
        model(periodic)


def test_charges_of_atoms(torch_sim) -> None:
    """In e, kept as an atom extra; a potential without them says nothing."""
    from densnet.simulation.torchsim import DensNetModel

    both = [WATER, WATER.moved(WATER.position * 1.1)]
    state, expected = state_of(torch_sim, *both), Flowing(WATER).predict(Molecules.of(both)).charge
    assert expected is not None
    found = DensNetModel(Flowing(WATER))(state)
    assert found["charges"].tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    state.store_model_extras(found)
    assert state.charges.shape == (6,)
    assert "charges" not in DensNetModel(Springs(WATER))(state_of(torch_sim, *both))


def test_the_same_trajectory_as_densnet(torch_sim, tmp_path: Path) -> None:
    """20 steps of velocity Verlet, three replicas of ethanol on the shipped model in float64, dipoles included."""
    from torch_sim.integrators.md import MDState
    from torch_sim.integrators.nve import nve_step

    from densnet.data.geometry import load_geometry
    from densnet.simulation.torchsim import DensNetModel

    model = load_model(ROOT / "models/ethanol-preview").double()
    run = settings(steps=20, replicas=3, temperature=300.0, record_every=1)
    simulate(model, load_geometry("ethanol"), run, tmp_path / "run.h5", progress=False)
    ours = read_trajectory(tmp_path / "run.h5")
    assert ours.dipole is not None

    start = [Molecule(ours.number, ours.position[0, r]) for r in range(3)]
    state = state_of(torch_sim, *start)
    # TorchSim's unit of time, angstrom sqrt(dalton / eV), in atomic time.
    time = np.sqrt(EV_PER_HARTREE * ELECTRON_MASS_PER_DALTON) / ANGSTROM_PER_BOHR
    velocity = torch.as_tensor(ours.velocity[0].reshape(-1, 3)) * ANGSTROM_PER_BOHR * time
    mass = torch.as_tensor(np.tile(atomic_masses[ours.number], 3))
    adapter = DensNetModel(model)
    first = adapter(state)
    state.masses = mass
    md = MDState.from_state(state, momenta=velocity * mass[:, None], energy=first["energy"], forces=first["forces"])
    for step in range(1, 21):
        md = nve_step(md, adapter, dt=run.time_step / time)
        np.testing.assert_allclose(md.positions / ANGSTROM_PER_BOHR, ours.position[step].reshape(-1, 3), rtol=0, atol=1e-8)
        np.testing.assert_allclose(md.energy / EV_PER_HARTREE, ours.energy[step], rtol=0, atol=1e-8)
        np.testing.assert_allclose(md.dipole / E_ANGSTROM_PER_AU, ours.dipole[step], rtol=0, atol=1e-5)
    assert np.abs(ours.position[20] - ours.position[0]).max() > 0.05
