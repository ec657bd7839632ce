"""The fitted data set: what lies in the file, samples that estimate integrals without bias, refusals in one line."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import AO_BASIS
from pyscf import dft, gto

from densnet.basis.shells import Basis, Element, Shell
from densnet.data.fits import read_fits
from densnet.data.labels import Level, read_labels, write_labels
from densnet.errors import BasisError, ConfigError, DataError, DensnetError
from densnet.reference.fit_dataset import BasisSettings, FitSettings, fit_labels
from densnet.reference.fitting import fitted_density, pyscf_molecule
from densnet.reference.points import density_samples, draw, importance, positive_grid, promolecule, rounded
from densnet.structures import Molecule

SMALL = FitSettings(grid_level=0, points_train=30, points_test=20, grid_frames_test=1, grid_frames_train=0)


@pytest.fixture(scope="module")
def source(tiny_fits: Path) -> BasisSettings:
    return BasisSettings(str(tiny_fits.with_name("basis.json")))


def test_samples_estimate_integrals_without_bias(water: Molecule, basis: Basis) -> None:
    """Mean of many estimates against the sum over the whole grid, for functions the importance does not follow."""
    mol = pyscf_molecule(water, AO_BASIS)
    point, weight = positive_grid(mol, 1)
    g = importance(water, basis, point)
    for f in (np.exp(-0.3 * (point**2).sum(1)), point[:, 2] ** 2 * np.exp(-(point**2).sum(1))):
        exact, found = weight @ f, []
        for seed in range(400):
            index, estimate = draw(weight, g, 50, np.random.default_rng(seed))
            found.append(estimate @ f[index])
        error = np.std(found) / np.sqrt(len(found))
        assert error < 0.02 * exact
        assert abs(np.mean(found) - exact) < 4 * error


def test_the_importance_pays(water: Molecule, water_scf: dft.rks.RKS, basis: Basis) -> None:
    """Stratified draws after rho_SAD^0.55 scatter less than half as much as draws from the grid as it is."""
    mol = pyscf_molecule(water, AO_BASIS)
    point, weight = positive_grid(mol, 1)
    orbitals = mol.eval_gto("GTOval_sph", point)
    error = np.abs(np.einsum("gp,gp->g", orbitals @ water_scf.make_rdm1(), orbitals) - promolecule(water, basis, point))
    scatter = []
    for g in (1 / weight, importance(water, basis, point)):
        drawn = [draw(weight, g, 500, np.random.default_rng(seed)) for seed in range(100)]
        scatter.append(np.std([estimate @ error[index] for index, estimate in drawn]) / (weight @ error))
    assert scatter[1] < 0.5 * scatter[0]
    assert scatter[1] < 0.05


def test_samples_hold_the_scf_density(water: Molecule, water_scf: dft.rks.RKS, basis: Basis) -> None:
    """Against PySCF's own evaluator; their number of electrons; twice the same for the same seed."""
    matrix = water_scf.make_rdm1()
    samples = density_samples(water, matrix, AO_BASIS, basis, 1, 4000, np.random.default_rng(3))
    orbitals = dft.numint.eval_ao(gto.M(atom=list(zip("OHH", water.position)), unit="Bohr", basis=AO_BASIS), samples.point)
    exact = dft.numint.eval_rho(pyscf_molecule(water, AO_BASIS), orbitals, matrix)
    assert samples.density == pytest.approx(exact, rel=2.0**-15, abs=1e-12)
    assert float(samples.weight @ samples.density) == pytest.approx(10, rel=0.03)
    assert (samples.weight > 0).all()
    again = density_samples(water, matrix, AO_BASIS, basis, 1, 4000, np.random.default_rng(3))
    assert all(np.array_equal(getattr(samples, name), getattr(again, name)) for name in ("point", "weight", "density"))


def test_the_promolecule_is_that_of_the_fit(water: Molecule, basis: Basis) -> None:
    point = np.random.default_rng(0).normal(scale=1.5, size=(200, 3))
    exact = fitted_density(water, np.zeros((3, basis.width)), basis, point)
    assert promolecule(water, basis, point) == pytest.approx(exact, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("level", range(10))
def test_no_weight_of_the_sampled_grid_is_negative(level: int) -> None:
    """PySCF's own pruning has some from level 3 on, and its grid has the same integral."""
    mol = gto.M(atom="S 0 0 0; H 0 1.3 0", basis="sto-3g", spin=1, verbose=0)
    theirs = dft.gen_grid.Grids(mol)
    theirs.level = level
    theirs.build()
    point, weight = positive_grid(mol, level)
    assert len(weight) > 0.5 * len(theirs.weights)
    gaussian = [
        np.exp(-0.5 * (x**2).sum(1)) @ w / (2 * np.pi) ** 1.5 for x, w in ((point, weight), (theirs.coords, theirs.weights))
    ]
    assert gaussian == pytest.approx([1, 1], abs=1e-2 if level < 2 else 1e-4)
    if level == 3:
        assert (theirs.weights < 0).any()


def test_rounding_keeps_the_wanted_bits() -> None:
    x = np.random.default_rng(1).lognormal(sigma=8, size=1000).astype(np.float32)
    for bits in (7, 15):
        r = rounded(x, bits)
        assert np.abs(r / x - 1).max() <= 2.0 ** -(bits + 1)
        assert not (r.view(np.uint32) & ((1 << (23 - bits)) - 1)).any()
    assert np.array_equal(rounded(np.array([0.0, 1.0, -2.5]), 7), np.array([0.0, 1.0, -2.5], dtype=np.float32))


def test_what_the_file_holds(tiny_fits: Path, source: BasisSettings, tmp_path: Path) -> None:
    """Samples by split, coefficients without padding, and the floor by samples near that by the grid."""
    labels = tiny_fits.with_name("labels.h5")
    report = fit_labels(labels, source, tmp_path / "fits.h5", SMALL)
    fits = read_fits(tmp_path / "fits.h5")
    assert fits.report == report
    assert (report.grid_frames, report.sampled_frames) == (1, 10)
    assert np.diff(fits.sample_ptr).tolist() == [30 if split == "train" else 20 for split in fits.split]
    with h5py.File(tmp_path / "fits.h5") as file:
        assert len(file["coefficient"]) == sum(fits.basis.size(fits.frame(f).number) for f in range(10))
        assert "metric" not in file
    exists = fits.basis.mask[fits.basis.rows(fits.number)]
    assert (fits.coefficient[~exists] == 0).all()
    assert (fits.coefficient[exists] != 0).all()
    whole = read_fits(tiny_fits)
    assert np.array_equal(whole.coefficient, fits.coefficient)
    assert whole.report.sampled_nmae_percent_mean == pytest.approx(whole.report.nmae_percent_mean, rel=0.1)
    samples = fits.samples(2)
    assert samples is not None
    assert samples.point.shape == (30, 3)
    assert samples.weight @ samples.density == pytest.approx(10, rel=0.3)
    some = fits.samples_of(np.array([7, 2]))
    assert np.array_equal(some[1].point, samples.point)
    assert len(some[0].weight) == 20


def test_equal_input_gives_equal_bytes_with_any_number_of_workers(tiny_fits: Path, source: BasisSettings, tmp_path: Path) -> None:
    labels = tiny_fits.with_name("labels.h5")
    for name, workers in (("one", 1), ("two", 2)):
        fit_labels(labels, source, tmp_path / name, SMALL, workers)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    fit_labels(labels, source, tmp_path / "other", dataclasses.replace(SMALL, seed=1))
    one, other = (read_fits(tmp_path / name).samples(0) for name in ("one", "other"))
    assert not np.array_equal(one.point, other.point)


def test_a_file_without_samples_and_grids(tiny_fits: Path, source: BasisSettings, tmp_path: Path) -> None:
    bare = FitSettings(grid_level=0, points_train=0, points_test=0, grid_frames_test=0, grid_frames_train=0)
    report = fit_labels(tiny_fits.with_name("labels.h5"), source, tmp_path / "fits.h5", bare)
    assert (report.nmae_percent_mean, report.sampled_nmae_percent_mean) == (None, None)
    fits = read_fits(tmp_path / "fits.h5")
    assert fits.samples(0) is None
    with pytest.raises(DataError, match="no density grid for frame 0"):
        fits.grid(0)


def broken(tiny_fits: Path, tmp_path: Path, name: str, row: int) -> Path:
    path = tmp_path / "broken.h5"
    shutil.copy(tiny_fits, path)
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        values[row] = np.nan
        file[name][...] = values
    return path


def one_line(error: pytest.ExceptionInfo[DensnetError]) -> None:
    assert "\n" not in str(error.value)


def test_faulty_values_name_quantity_and_frame(tiny_fits: Path, tmp_path: Path) -> None:
    fits = read_fits(tiny_fits)
    functions = fits.basis.size(fits.frame(0).number)
    for name, row, frame in (("coefficient", 4 * functions + 1, 4), ("force", 3 * 6 + 2, 6), ("quadrupole", 8, 8)):
        with pytest.raises(DataError, match=f"{name} of frame {frame} is not finite") as error:
            read_fits(broken(tiny_fits, tmp_path, name, row))
        one_line(error)
    bad = read_fits(broken(tiny_fits, tmp_path, "sample_density", int(fits.sample_ptr[3])))
    assert bad.samples(2) is not None
    with pytest.raises(DataError, match="samples of frame 3 are not finite") as error:
        bad.samples(3)
    one_line(error)


def test_inconsistent_and_old_files_are_refused(tiny_fits: Path, tmp_path: Path) -> None:
    path = tmp_path / "fits.h5"
    for change, message in (
        (lambda file: file.attrs.modify("version", 1), "version 1; expected densnet/fits version 2; fit the labels again"),
        (lambda file: file["coefficient"].resize(7, axis=0), "7 coefficients but its basis test has"),
        (lambda file: file["sample_weight"].resize(5, axis=0), "expected 5 samples"),
        (lambda file: file.__delitem__("sample_ptr"), "sample_ptr"),
    ):
        shutil.copy(tiny_fits, path)
        with h5py.File(path, "r+") as file:
            for name in ("coefficient",):  # not made to be resized
                values = file[name][:]
                del file[name]
                file.create_dataset(name, data=values, maxshape=(None,))
            change(file)
        with pytest.raises(DataError, match=message) as error:
            read_fits(path)
        one_line(error)


def test_labels_of_another_ao_basis_are_refused(tiny_fits: Path, source: BasisSettings, tmp_path: Path) -> None:
    labels = read_labels(tiny_fits.with_name("labels.h5"), density_matrices=True)
    for name, message in (
        ("sto-3g", r"frame 0: the density matrix is 13 x 13 but sto-3g has 7 functions"),
        ("nonsense", "nonsense"),
    ):
        write_labels(tmp_path / "labels.h5", dataclasses.replace(labels, level=Level(ao_basis=name), path=None))
        with pytest.raises(DensnetError, match=message) as error:
            fit_labels(tmp_path / "labels.h5", source, tmp_path / "fits.h5", SMALL)
        one_line(error)
    assert not (tmp_path / "fits.h5").exists()


def test_a_dependent_basis_is_refused_with_its_condition_number(tiny_fits: Path, basis: Basis, tmp_path: Path) -> None:
    hydrogen, oxygen = basis.elements
    close = tuple(Shell(0, 1.0 + 1e-8 * i) for i in range(3, 0, -1))
    dataclasses.replace(basis, elements=(Element(1, close, hydrogen.atom), oxygen)).save(tmp_path / "basis.json")
    for workers in (1, 2):
        with pytest.raises(
            BasisError, match=r"labels.h5, frame 0: basis test is linearly dependent .*: condition number"
        ) as error:
            fit_labels(
                tiny_fits.with_name("labels.h5"), BasisSettings(str(tmp_path / "basis.json")), tmp_path / "f.h5", SMALL, workers
            )
        one_line(error)


@pytest.mark.parametrize("change", [{"points_train": -1}, {"grid_level": 10}, {"grid_frames_test": -2}, {"seed": -1}])
def test_impossible_settings(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        FitSettings(**change)
