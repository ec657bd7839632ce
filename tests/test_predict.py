"""python -m densnet.predict: what it reads, what it computes, what it writes, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from conftest import AO_BASIS, untrained

from densnet.basis.shells import Basis
from densnet.data.labels import Level
from densnet.errors import ConfigError, ModelError, StructureError
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, Provenance, load_model, save_model
from densnet.model.densnet import DensNet
from densnet.observables.cube import read_cube
from densnet.observables.multipoles import quadrupole
from densnet.observables.real_space import density_on_points
from densnet.predict.arguments import model_folder, with_molecule
from densnet.predict.comparison import Comparison, compare, level_of
from densnet.predict.frames import Failed, Frame, Predicted, Wanted, nuclear_centre, predict, read_frames, traceless
from densnet.predict.judgement import spread
from densnet.predict.output import atoms_of, check_cubes, entry
from densnet.reference.fitting import fit, project
from densnet.reference.kohn_sham import NoLabel, ScfSettings, compute_label
from densnet.structures import Density, Molecule, Molecules, Prediction
from densnet.units import (
    ANGSTROM_PER_BOHR,
    DEBYE_PER_AU,
    E_ANGSTROM_PER_AU,
    EV_PER_ANGSTROM_PER_AU,
    EV_PER_HARTREE,
    MEV_PER_HARTREE,
)

ROOT = Path(__file__).parents[1]
PLAIN = Wanted(charges=(), batch_size=2, progress=False)


def frames_of(*molecules: Molecule) -> list[Frame]:
    return [Frame(k, molecule) for k, molecule in enumerate(molecules)]


def predicted(model: DensNet, molecules: list[Molecule], wanted: Wanted = PLAIN) -> list[Predicted]:
    found = list(predict(model, [], frames_of(*molecules), None, wanted, "cpu"))
    assert all(isinstance(one, Predicted) for one in found)
    return [one for one in found if isinstance(one, Predicted)]


@pytest.fixture(scope="module")
def three(water: Molecule) -> list[Molecule]:
    """Water twice and a lone hydroxide, of another size and charged."""
    rng = np.random.default_rng(3)
    return [
        water,
        Molecule(water.number[:2], water.position[:2], -1),
        water.moved(water.position + rng.normal(size=(3, 3)) * 0.1),
    ]


def test_batches_give_what_single_molecules_give(model: DensNet, three: list[Molecule]) -> None:
    for found, molecule in zip(predicted(model, three), three):
        alone = model.predict(Molecules.of([molecule]))
        assert alone.force is not None
        assert found.energy == pytest.approx(float(alone.energy), abs=1e-10)
        assert found.force == pytest.approx(alone.force.numpy(), abs=1e-10)
        assert found.dipole == pytest.approx(alone.dipole[0].numpy(), abs=1e-10)


def test_second_moment_is_about_the_centre_of_nuclear_charge(model: DensNet, three: list[Molecule], basis: Basis) -> None:
    """From that about the origin by the shift of origin: M' = M - c mu - mu c + Q c c, for an ion as well."""
    for found, molecule in zip(predicted(model, three), three):
        batch = Molecules.of([molecule])
        origin = quadrupole(batch, found.density, basis)[0].numpy()
        c = nuclear_centre(molecule)
        mu = found.dipole + molecule.charge * c  # about the origin
        expected = origin - np.outer(c, mu) - np.outer(mu, c) + molecule.charge * np.outer(c, c)
        assert found.second_moment == pytest.approx(expected, abs=1e-9)
        assert np.trace(traceless(found.second_moment)) == pytest.approx(0, abs=1e-12)
    moment = np.diag([1.0, 2.0, 6.0])
    assert traceless(moment) == pytest.approx(np.diag([-3.0, -1.5, 4.5]))


def test_a_frame_that_fails_is_reported_and_the_others_go_on(model: DensNet, three: list[Molecule]) -> None:
    sulfur = Molecule(np.array([16, 1, 1]), three[0].position)
    broken = StructureError("atoms 0 and 1 are too close")
    frames = [Frame(0, three[0]), Frame(1, sulfur), Frame(2, broken), Frame(3, three[2])]
    found = list(predict(model, [], frames, None, PLAIN, "cpu"))
    assert [type(one) for one in found] == [Predicted, Failed, Failed, Predicted]
    assert [one.index for one in found] == [0, 1, 2, 3]
    assert isinstance(found[1], Failed)
    assert isinstance(found[2], Failed)
    assert "16" in found[1].reason
    assert "too close" in found[2].reason
    far = model.predict(Molecules.of([three[2]]))
    assert isinstance(found[3], Predicted)
    assert found[3].energy == pytest.approx(float(far.energy), abs=1e-10)


def test_values_that_are_not_finite_fail_the_frame(basis: Basis, water: Molecule) -> None:
    model = untrained(basis)
    with torch.no_grad():
        for parameter in model.energy.parameters():  # type: ignore[union-attr]
            parameter.fill_(torch.nan)
    found = list(predict(model, [], frames_of(water), None, PLAIN, "cpu"))
    assert isinstance(found[0], Failed)
    assert "not finite" in found[0].reason


def test_charges_sum_to_the_charge(model: DensNet, three: list[Molecule]) -> None:
    for found, molecule in zip(predicted(model, three, Wanted(progress=False)), three):
        assert found.hirshfeld is not None
        assert found.potential_derived is not None
        assert found.hirshfeld.sum() == pytest.approx(molecule.charge, abs=1e-5)
        assert found.potential_derived.sum() == pytest.approx(molecule.charge, abs=1e-5)


def test_units_outside(model: DensNet, three: list[Molecule], tmp_path: Path) -> None:
    """ASE reads back eV, eV/angstrom, e*angstrom; JSON says its units in the names."""
    found = predicted(model, three, Wanted(progress=False))
    ase.io.write(tmp_path / "out.xyz", [atoms_of(one) for one in found], format="extxyz")
    back = ase.io.read(tmp_path / "out.xyz", ":")
    assert isinstance(back, list)
    for atoms, one in zip(back, found):
        assert one.energy is not None
        assert one.force is not None
        assert atoms.get_potential_energy() == pytest.approx(one.energy * EV_PER_HARTREE, rel=1e-9)
        assert atoms.get_forces() == pytest.approx(one.force * EV_PER_ANGSTROM_PER_AU, abs=1e-7)
        assert atoms.get_dipole_moment() == pytest.approx(one.dipole * E_ANGSTROM_PER_AU, abs=1e-7)
        assert atoms.positions == pytest.approx(one.molecule.position * ANGSTROM_PER_BOHR, abs=1e-7)
        assert atoms.arrays["hirshfeld_charge"] == pytest.approx(one.hirshfeld, abs=1e-7)
        assert atoms.info["charge"] == one.molecule.charge
        said = json.loads(json.dumps(entry(one, None, [])))
        assert said["energy_eV"] == pytest.approx(one.energy * EV_PER_HARTREE)
        assert said["dipole_debye"] == pytest.approx((one.dipole * DEBYE_PER_AU).tolist())
        moment = traceless(one.second_moment) * DEBYE_PER_AU * ANGSTROM_PER_BOHR
        assert np.array(said["quadrupole_debye_angstrom"]) == pytest.approx(moment)
        assert atoms.info["quadrupole_debye_angstrom"] == pytest.approx(moment.ravel(), abs=1e-6)


def test_committee_spread_is_the_standard_deviation() -> None:
    empty = Density(torch.zeros(2, 0), torch.zeros(2, 0))

    def says(energy: float, force: float, dipole: float) -> Prediction:
        return Prediction(torch.tensor([energy]), torch.full((2, 3), force), torch.tensor([[dipole, 0.0, 0.0]]), empty)

    found = spread([says(1.0, 0.1, 0.0), says(1.2, 0.3, 0.4)])
    assert found.energy_mev == pytest.approx(0.2 / np.sqrt(2) * MEV_PER_HARTREE, rel=1e-5)
    assert found.force_mev_per_angstrom == pytest.approx(1e3 * 0.2 / np.sqrt(2) * EV_PER_ANGSTROM_PER_AU, rel=1e-5)
    assert found.force_worst_mev_per_angstrom == pytest.approx(np.sqrt(3) * found.force_mev_per_angstrom, rel=1e-5)
    assert found.dipole_millidebye == pytest.approx(1e3 * 0.4 / np.sqrt(2) * DEBYE_PER_AU, rel=1e-5)


def test_comparison_with_the_real_calculation(basis: Basis, water: Molecule) -> None:
    """A 'prediction' made of the label itself differs by the fit of the density alone; a known change is found as such."""
    level = Level(ao_basis=AO_BASIS, grid_level=2)
    label = compute_label(water, level)
    assert not isinstance(label, NoLabel)
    nao = int((np.sqrt(8 * label.density_matrix.size + 1) - 1) / 2)
    matrix = np.zeros((nao, nao))
    matrix[np.tril_indices(nao)] = label.density_matrix
    matrix = matrix + matrix.T - np.diag(np.diag(matrix))
    coefficient = fit(water, project(water, matrix, AO_BASIS, basis), label.dipole, basis).coefficient
    density = Density(torch.as_tensor(coefficient), torch.as_tensor(basis.slot_exponent[basis.rows(water.number)]))
    c = nuclear_centre(water)
    second = label.quadrupole - np.outer(c, label.dipole) - np.outer(label.dipole, c)
    shift = np.array([1e-3, 0, 0])

    def made(energy: float, dipole: np.ndarray) -> Comparison:
        frame = Predicted(0, water, density, energy, label.force, dipole, second, np.zeros(3), None, None, None)
        found = compare(frame, level, basis, ScfSettings())
        assert isinstance(found, Comparison)
        return found

    same = made(label.energy, label.dipole)
    assert same.energy_mev == pytest.approx(0, abs=1e-4)
    assert same.force_mae_mev_per_angstrom == pytest.approx(0, abs=0.5)  # the grid turns with nothing, but moves
    assert same.dipole_millidebye == pytest.approx(0, abs=0.1)
    assert same.quadrupole_debye_angstrom == pytest.approx(0, abs=1e-3)
    assert 0.01 < same.nmae_percent < 3  # of the small basis of the tests
    charge = same.reference.hirshfeld
    assert charge.sum() == pytest.approx(0, abs=1e-3)
    assert -0.5 < charge[0] < -0.2  # oxygen of water
    assert charge[1] == pytest.approx(charge[2], abs=0.02)
    assert same.hirshfeld_mae_e == pytest.approx(np.abs(charge).mean())
    moved = made(label.energy + 1e-3, label.dipole + shift)
    assert moved.energy_mev == pytest.approx(1e-3 * MEV_PER_HARTREE, abs=1e-3)
    assert moved.dipole_millidebye == pytest.approx(1.0 * DEBYE_PER_AU, abs=0.2)
    text = json.dumps(moved.entry())
    assert "difference" in text
    assert any("meV" in line for line in moved.lines())


def test_level_comes_from_the_model_or_the_user() -> None:
    assert level_of('{"xc": "pbe0"}', None).xc == "pbe0"
    assert level_of('{"xc": "pbe0"}', Level(xc="pbe")).xc == "pbe"
    with pytest.raises(ConfigError, match="level="):
        level_of("", None)


def test_frames_are_read_one_by_one(tmp_path: Path) -> None:
    good = Atoms("OH2", [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    ion = Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"charge": -1})
    close = Atoms("OH", [[0, 0, 0], [0, 0, 0.01]])
    cell = Atoms("OH", [[0, 0, 0], [0, 0, 1]], cell=[9, 9, 9], pbc=True)
    ase.io.write(tmp_path / "many.xyz", [good, ion, close, cell], format="extxyz")
    found = read_frames(str(tmp_path / "many.xyz"), None)
    assert [isinstance(f.molecule, Molecule) for f in found] == [True, True, False, False]
    assert isinstance(found[1].molecule, Molecule)
    assert found[1].molecule.charge == -1
    assert "periodic" in str(found[3].molecule)
    given = read_frames(str(tmp_path / "many.xyz"), 1)[0].molecule
    assert isinstance(given, Molecule)
    assert given.charge == 1
    assert len(read_frames("water", None)) == 1
    (tmp_path / "bad.xyz").write_text("nonsense")
    with pytest.raises(StructureError, match="cannot be read"):
        read_frames(str(tmp_path / "bad.xyz"), None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a.xyz", "model=m"], ["molecule='a.xyz'", "model=m"]),
        (["model=m", "folder/it's 1,2.xyz"], ["molecule='folder/it\\'s 1,2.xyz'", "model=m"]),
        (["molecule=a.xyz", "model=m"], ["molecule=a.xyz", "model=m"]),
        (["--help"], ["--help"]),
        (["--cfg", "job", "water"], ["molecule='water'", "--cfg", "job"]),
    ],
)
def test_a_molecule_may_stand_alone(given: list[str], expected: list[str]) -> None:
    assert with_molecule(given) == expected


def test_wrong_requests_are_said() -> None:
    with pytest.raises(ConfigError, match="several molecules"):
        with_molecule(["a.xyz", "b.xyz"])
    with pytest.raises(ModelError, match="expected a folder"):
        model_folder("no-such-model")
    assert model_folder("ethanol") == model_folder("models/ethanol").resolve() or model_folder("ethanol").name == "ethanol"
    with pytest.raises(ConfigError, match="charges has mulliken"):
        Wanted(charges=("mulliken",))
    with pytest.raises(ConfigError, match="batch_size"):
        Wanted(batch_size=0)
    with pytest.raises(ConfigError, match="cubes has orbitals"):
        check_cubes(["orbitals"])


def test_the_program(basis: Basis, water: Molecule, tmp_path: Path) -> None:
    """From a file with a space in its name to files that other programs read; one bad frame among three."""
    model = untrained(basis).float()
    architecture = Architecture(
        DensitySettings(channels=6, lmax=(2, 3), hidden=8, radial=4, neighbours=2.0),
        EnergySettings(channels=6, layers=2, lmax=2, hidden=8, radial=4, neighbours=2.0, invariants=3),
    )
    save_model(tmp_path / "model", model, architecture, Provenance())
    atoms = Atoms(water.number, water.position * ANGSTROM_PER_BOHR)
    bad = atoms.copy()
    bad.positions[1] = bad.positions[0]
    moved = atoms.copy()
    moved.rattle(0.02)
    ase.io.write(tmp_path / "my water.xyz", [atoms, bad, moved])
    done = run_program(
        tmp_path,
        f"{tmp_path}/my water.xyz",
        "cubes=[density,difference]",
        "cube_spacing=0.6",
        "surface=true",
        "charges=[hirshfeld]",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 frames predicted, 1 failed" in done.stdout
    assert "frame 1 failed: atoms 0 and 1" in done.stdout
    assert "novelty not judged" in done.stdout
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    assert [one["frame"] for one in record["frames"]] == [0, 2]
    assert record["failed"][0]["index"] == 1
    assert len(ase.io.read(tmp_path / "out/prediction.xyz", ":")) == 2
    molecule, grid, values = read_cube(tmp_path / "out/frame-0002-density.cube")
    assert molecule.position == pytest.approx(moved.positions / ANGSTROM_PER_BOHR, abs=1e-5)
    with torch.no_grad():
        density = load_model(tmp_path / "model").density(
            Molecules.of([Molecule(water.number, moved.positions / ANGSTROM_PER_BOHR)])
        )
    point = torch.as_tensor(next(grid.points())[:100])
    exact = density_on_points(molecule, density, basis, point).numpy()
    assert values.reshape(-1)[:100] == pytest.approx(exact, rel=1e-3, abs=1e-8)
    surface = np.loadtxt(tmp_path / "out/frame-0000-surface.csv", delimiter=",", skiprows=1)
    assert surface.shape[1] == 4
    assert (tmp_path / "out/frame-0000-surface.csv").read_text().startswith("x_angstrom,y_angstrom,z_angstrom,potential_V\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("water", "model=ethanol", "check=gaussian"), "check is gaussian"),
        (("water", "water", "model=ethanol"), "several molecules"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run_program(tmp_path, *arguments, model=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0


def run_program(folder: Path, *arguments: str, model: bool = True) -> subprocess.CompletedProcess:
    named = (f"model={folder}/model",) if model else ()
    command = [sys.executable, "-m", "densnet.predict", *arguments, *named, f"out={folder}/out", f"hydra.run.dir={folder}/log"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, "progress=false"], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
