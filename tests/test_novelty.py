"""What counts as new: the description of surroundings, the record of the training data, its file, and the verdicts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule as build_molecule
from conftest import random_rotation
from safetensors.torch import load_file, save_file

from densnet.data.fits import Fits, read_fits
from densnet.data.novelty import CUTOFF, REFERENCES, Seen, _farthest, seen, surroundings
from densnet.data.novelty_file import NAME, read_seen, write_seen
from densnet.errors import DataError
from densnet.model.checkpoint import read_model
from densnet.predict.judgement import EDGE, INSIDE, OUTSIDE, judge
from densnet.structures import Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR

ROOT = Path(__file__).parents[1]
SPECIES = (1, 6, 8)


@pytest.fixture(scope="module")
def fits() -> Fits:
    return read_fits(ROOT / "datasets/ethanol.h5")


@pytest.fixture(scope="module")
def record(fits: Fits) -> Seen:
    return seen(fits)


def of(*molecules: Molecule) -> np.ndarray:
    return surroundings(Molecules.of(list(molecules)), SPECIES).numpy()


def named(name: str) -> Molecule:
    atoms = build_molecule(name)
    return Molecule(atoms.numbers, atoms.positions / ANGSTROM_PER_BOHR)


def stretched(molecule: Molecule, angstrom: float) -> Molecule:
    """The O-H bond of ethanol longer by so much."""
    oxygen = int(np.flatnonzero(molecule.number == 8)[0])
    hydrogens = np.flatnonzero(molecule.number == 1)
    h = hydrogens[np.argmin(np.linalg.norm(molecule.position[hydrogens] - molecule.position[oxygen], axis=1))]
    bond = molecule.position[h] - molecule.position[oxygen]
    position = molecule.position.copy()
    position[h] += angstrom / ANGSTROM_PER_BOHR * bond / np.linalg.norm(bond)
    return molecule.moved(position)


def test_surroundings_do_not_depend_on_orientation_place_order_or_company(fits: Fits) -> None:
    molecule = fits.frame(0)
    turned = molecule.moved(molecule.position @ random_rotation(2).T + 7.0)
    order = np.random.default_rng(0).permutation(len(molecule.number))
    shuffled = Molecule(molecule.number[order], molecule.position[order])
    expected = of(molecule)
    assert of(turned) == pytest.approx(expected, abs=1e-10)
    assert of(shuffled) == pytest.approx(expected[order], abs=1e-10)
    assert of(named("CH4"), molecule)[5:] == pytest.approx(expected, abs=1e-12)


def test_mirror_images_are_alike_and_other_changes_are_not(fits: Fits) -> None:
    """Bond lengths, angles between elements and the element itself all count."""
    molecule = fits.frame(0)
    assert of(molecule.moved(molecule.position * [1, 1, -1])) == pytest.approx(of(molecule), abs=1e-10)
    assert np.abs(of(stretched(molecule, 0.1)) - of(molecule)).max() > 0.05
    water = Molecule(np.array([8, 1, 1]), np.array([[0, 0, 0], [1.8, 0, 0], [0, 1.8, 0.0]]))
    wider = Molecule(water.number, np.array([[0, 0, 0], [1.8, 0, 0], [1.8 * np.cos(2.2), 1.8 * np.sin(2.2), 0]]))
    assert np.abs(of(water)[0] - of(wider)[0]).max() > 0.05
    other = Molecule(np.array([8, 1, 6]), water.position)
    assert np.abs(of(water)[0] - of(other)[0]).max() > 0.5


def test_surroundings_are_smooth_at_the_cutoff_and_beyond_it_empty() -> None:
    def at(distance: float) -> np.ndarray:
        return of(Molecule(np.array([8, 1]), np.array([[0, 0, 0], [distance, 0, 0]])))

    assert np.abs(at(CUTOFF + 1e-6)).max() == 0
    assert np.abs(at(CUTOFF - 1e-3)).max() < 1e-6
    assert np.abs(at(CUTOFF - 2.0)).max() > 1e-2


def test_test_frames_of_the_same_temperatures_are_known(fits: Fits, record: Seen) -> None:
    verdicts = [judge(fits.frame(f), record).verdict for f in fits.indices("test")]
    assert verdicts.count(OUTSIDE) == 0  # found: 120 inside
    assert verdicts.count(EDGE) <= 4


@pytest.mark.parametrize("name", ["CH3OH", "CH3OCH3", "H2O", "CH4", "CH3COOH", "C6H6"])
def test_other_molecules_are_new_to_ethanol(record: Seen, name: str) -> None:
    assert judge(named(name), record).verdict == OUTSIDE


def test_a_stretched_bond_is_found_where_it_is(record: Seen) -> None:
    """The farther, the newer; the atoms of the bond are named."""
    ethanol = named("CH3CH2OH")
    found = [judge(stretched(ethanol, d), record) for d in (0.0, 0.3, 0.5, 0.8)]
    assert found[0].verdict == INSIDE
    assert [n.verdict for n in found[1:]] == [OUTSIDE] * 3
    assert all(a.distance < b.distance for a, b in pairwise(found))
    assert ethanol.number[found[1].atom] in (1, 8)
    assert "training frames" in found[1].statement


def test_verdicts_follow_the_held_out_training_frames(fits: Fits, record: Seen) -> None:
    """The unit of an element and the levels are what they are said to be: distances from a record of other frames."""
    train = fits.indices("train")
    half = np.random.default_rng(5).permutation(train)
    keep = np.full(len(fits), "none", dtype="<U5")
    keep[half[:480]] = "train"
    other = seen(_with_split(fits, keep))
    distance = np.array([judge(fits.frame(f), other).distance for f in half[480:]])
    quantile = dict(zip(record.levels, record.quantile))
    assert np.median(distance) == pytest.approx(quantile[0.5], rel=0.15)
    assert 0.8 < np.mean(distance < quantile[0.9]) < 0.98
    assert list(record.quantile) == sorted(record.quantile)


def _with_split(fits: Fits, split: np.ndarray) -> Fits:
    return replace(fits, split=split)


def test_an_element_that_is_not_in_the_data_is_infinitely_far(record: Seen) -> None:
    found = judge(named("CH3SH"), record)
    assert np.isinf(found.distance)
    assert found.verdict == OUTSIDE


def test_the_file_gives_the_same_distances(fits: Fits, record: Seen, tmp_path: Path) -> None:
    path = write_seen(tmp_path, record, "0123")
    assert path.stat().st_size < 300_000
    again = read_seen(tmp_path, "0123")
    molecules = Molecules.of([fits.frame(f) for f in fits.indices("test")[:5]])
    assert again.atoms(molecules) == pytest.approx(record.atoms(molecules), rel=1e-4)
    assert (again.frames, again.species, again.data_hash) == (record.frames, record.species, fits.labels_hash)


def test_files_of_other_models_and_damaged_ones_are_refused(record: Seen, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_seen(tmp_path, "0123")
    write_seen(tmp_path, record, "0123")
    with pytest.raises(DataError, match="belongs to model 0123, not to 4567"):
        read_seen(tmp_path, "4567")
    path = tmp_path / NAME
    tensors = load_file(path)
    save_file(tensors, path)
    with pytest.raises(DataError, match="has schema None"):
        read_seen(tmp_path, "0123")
    write_seen(tmp_path, record, "0123")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="cannot be read"):
        read_seen(tmp_path, "0123")


def test_too_few_frames_are_refused(fits: Fits) -> None:
    split = np.full(len(fits), "test", dtype="<U5")
    split[:9] = "train"
    with pytest.raises(DataError, match="at least 10"):
        seen(_with_split(fits, split))


def test_the_shipped_record_belongs_to_the_shipped_model() -> None:
    file = read_model(ROOT / "models/ethanol")
    assert read_seen(ROOT / "models/ethanol", file.model.hash).data_hash == file.provenance.data_hash


def test_references_cover_the_data() -> None:
    """Farthest first: no row is farther from the references than they are from each other (Gonzalez 1985)."""
    rows = torch.randn(2000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    chosen = rows[_farthest(rows, torch.zeros(2000))]
    assert len(chosen) == REFERENCES
    apart = torch.cdist(chosen, chosen).fill_diagonal_(torch.inf).min()
    assert torch.cdist(rows, chosen).amin(1).max() <= apart


def test_what_never_varied_in_the_data_counts_when_it_does(record: Seen) -> None:
    """A step outside the space of the training data is as far as its length over the root of the floor, however far it is."""
    element = record.elements[0]
    basis = torch.linalg.qr(element.direction).Q
    step = torch.randn(len(element.mean), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = step - basis @ (basis.T @ step)
    step = step / step.norm()
    near = element.distance(element.mean[None])[0] * element.unit
    far = element.distance((element.mean + 0.3 * step)[None])[0] * element.unit
    assert far**2 - near**2 == pytest.approx(0.3**2 / element.floor, rel=1e-6)
