"""Evaluation: planted errors come out as the figures they must be, partitions sum to the whole, files and figures appear."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from math import erf, exp, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_rotation, untrained
from matplotlib.image import imread
from torch import Tensor, nn

from densnet.basis.shells import Basis
from densnet.data.datamodule import FitsDataModule
from densnet.data.fits import DensityGrid, Fits, read_fits
from densnet.data.similarity import nearest_rmsd, nearest_training_rmsd
from densnet.errors import BasisError, ConfigError, DataError, DensnetError, ModelError
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, Provenance, save_model
from densnet.model.densnet import DensNet
from densnet.nn.edges import EdgeEmbedding
from densnet.observables.multipoles import quadrupole
from densnet.observables.partition import free_atom_densities, hirshfeld_weights
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecule, Molecules
from densnet.training.density_errors import density_errors, fitted_density
from densnet.training.evaluate import check_basis, evaluate, frame_errors, frames_for
from densnet.training.evaluation import summarise
from densnet.training.evaluation_figures import radial_figure
from densnet.training.evaluation_report import evaluate_into, evaluate_saved, evaluating, in_words
from densnet.training.run import start_model
from densnet.training.worst_frame import plane_through
from densnet.units import ANGSTROM_PER_BOHR

ROOT = Path(__file__).parents[1]
TINY = Architecture(DensitySettings(channels=4, lmax=(1, 2), hidden=8), EnergySettings(channels=4, hidden=8))


class FromMemory(nn.Module):
    """A density network that knows the answers: the fitted coefficients of the frame it recognises, plus `plant`."""

    def __init__(self, fits: Fits, plant: Tensor) -> None:
        super().__init__()
        self.fits, self.plant = fits, nn.Parameter(plant, requires_grad=False)
        self.edges = EdgeEmbedding(1.0, 1, 0)  # a model asks every network how far it looks

    def forward(self, molecules: Molecules) -> Density:
        fits, out = self.fits, []
        for i in range(molecules.n):
            position = molecules.position[molecules.molecule == i].numpy()
            (f,) = (f for f in range(len(fits)) if np.array_equal(fits.position[fits.atoms(f)], position))
            out.append(torch.as_tensor(fits.coefficient[fits.atoms(f)]).double() + self.plant)
        exponent = torch.as_tensor(fits.basis.slot_exponent[fits.basis.rows(molecules.number.numpy())])
        return Density(torch.cat(out), exponent)


@pytest.fixture(scope="module")
def fits(tiny_fits: Path) -> Fits:
    return read_fits(tiny_fits)


@pytest.fixture(scope="module")
def silent(tiny_fits: Path) -> DensNet:
    """A model that has learned nothing but the mean shape of every element."""
    data = FitsDataModule(str(tiny_fits), batch_size=3, validation=2)
    return start_model(TINY, data, None, energy=True).model.eval()


def remembering(fits: Fits, **plant: float) -> DensNet:
    """plant: coefficient added on the oxygen, by name s<slot> or p<slot> (its e3nn component 0, along x)."""
    extra = torch.zeros((3, fits.basis.mask.shape[1]), dtype=torch.float64)
    for name, value in plant.items():
        l, slot = "sp".index(name[0]), int(name[1:])
        extra[0, slot if l == 0 else fits.basis.multiplicity[0] + 3 * slot] = value
    return DensNet(fits.basis, FromMemory(fits, extra), None)  # pyright: ignore[reportArgumentType] - a network by behaviour


def oxygen_exponents(basis: Basis, l: int) -> list[float]:
    return [shell.exponent for shell in basis.elements[1].shells if shell.l == l]


def test_the_fit_itself_has_the_error_of_the_fit(fits: Fits) -> None:
    """Nothing against the fit, the floor against the SCF density; the floor is what the fit found with PySCF's evaluator."""
    found = evaluate(remembering(fits), fits, fits.indices("test"), progress=False)
    assert found.nmae_fit_percent == 0
    assert found.nmae_percent == found.fit_floor_percent > 0
    stored = [float(fits.fit_nmae[np.flatnonzero(fits.grid_frame == f)[0]]) for f in fits.indices("test")]
    assert found.fit_floor_percent == pytest.approx(np.mean(stored), rel=1e-5)
    assert found.nmae_worst_percent == pytest.approx(max(stored), rel=1e-5)
    assert found.worst_frame == fits.indices("test")[np.argmax(stored)]
    assert found.worst_source == fits.source[found.worst_frame]
    assert found.dipole_mae_mD < 1e-3  # exact but for the float32 of the file
    assert found.electrons_max_error < 1e-5
    assert all(e.error_e == e.fit_error_e for e in found.elements)


def test_a_planted_s_function_counts_with_its_integral(fits: Fits) -> None:
    """integral |delta chi_s| = delta (2 pi / a)^(3/4), of 10 electrons."""
    a = oxygen_exponents(fits.basis, 0)[3]
    found = evaluate(remembering(fits, s3=0.01), fits, fits.indices("test"), progress=False)
    electrons = 0.01 * (2 * pi / a) ** 0.75
    assert found.nmae_fit_percent == pytest.approx(100 * electrons / 10, rel=2e-3)
    assert found.electrons_max_error == pytest.approx(electrons, rel=1e-3)
    assert abs(found.nmae_percent - found.nmae_fit_percent) < found.fit_floor_percent


def test_a_planted_p_function_moves_dipole_and_quadrupole(fits: Fits) -> None:
    """chi_p = (128 a^5/pi^3)^(1/4) x exp(-a x^2) has the first moment m = that times (pi/a)^(3/2) / (2 a), electrons count -."""
    a = oxygen_exponents(fits.basis, 1)[2]
    exact = remembering(fits).density(Molecules.of([fits.frame(f) for f in range(10)]))
    own = quadrupole(Molecules.of([fits.frame(f) for f in range(10)]), exact, fits.basis).numpy()
    found = evaluate(remembering(fits, p2=-0.02), replace(fits, quadrupole=own), fits.indices("test"), progress=False)
    m = np.array([0.02 * (128 * a**5 / pi**3) ** 0.25 * (pi / a) ** 1.5 / (2 * a), 0, 0])
    assert found.dipole_mae_mD == pytest.approx(2541.7464 * m[0], rel=1e-4)
    assert found.dipole_component_mae_mD == pytest.approx(2541.7464 * m[0] / 3, rel=1e-4)
    expected = []
    for f in fits.indices("test").tolist():
        frame = fits.frame(f)
        arm = frame.position[0] - frame.number @ frame.position / frame.number.sum()
        expected.append(np.linalg.norm(np.outer(arm, m) + np.outer(m, arm)))
    assert found.quadrupole_mae_mD_A == pytest.approx(2541.7464 * 0.529177211 * np.mean(expected), rel=1e-6)


def test_partitions_sum_to_the_total(fits: Fits, silent: DensNet) -> None:
    found = evaluate(silent, fits, fits.indices("test"), progress=False)
    assert sum(d.error_percent for d in found.distances) == pytest.approx(found.nmae_percent, rel=1e-12)
    assert sum(d.fit_error_percent for d in found.distances) == pytest.approx(found.fit_floor_percent, rel=1e-12)
    assert sum(d.electrons_percent for d in found.distances) == pytest.approx(100, abs=0.1)
    assert sum(e.atoms * e.error_e for e in found.elements) / 3 == pytest.approx(found.nmae_percent / 10, rel=1e-12)
    assert [(e.element, e.atoms) for e in found.elements] == [("H", 6), ("O", 3)]
    assert 8.15 < found.elements[1].electrons < 8.45  # Hirshfeld's oxygen in water is negative, but mildly
    assert [d.to_A for d in found.distances[:-1]] == [d.from_A for d in found.distances[1:]]
    assert found.distances[-1].to_A is None


def test_distances_of_a_planted_error(fits: Fits, water: Molecule) -> None:
    """A spherical error on oxygen, whose share within R is known, on a spherical quadrature of its own."""
    basis, a = fits.basis, oxygen_exponents(fits.basis, 0)[1]
    c = torch.zeros((3, basis.mask.shape[1]), dtype=torch.float64)
    planted = c.clone()
    planted[0, 1] = 0.5
    exponent = torch.as_tensor(basis.slot_exponent[basis.rows(water.number)])
    step, edge = 0.0025 / ANGSTROM_PER_BOHR, 0.25 / ANGSTROM_PER_BOHR
    r = step * (np.arange(4000) + 0.5)
    directions = np.concatenate([np.eye(3), -np.eye(3)])
    point = (water.position[0] + r[:, None, None] * directions).reshape(-1, 3)
    weight = np.repeat(4 * pi * r**2 * step / 6, 6)
    sad = density_on_points(water, Density(c, exponent), basis, torch.as_tensor(point)).numpy()
    reference = DensityGrid(point, weight, sad)
    found = density_errors(water, Density(planted, exponent), Density(c, exponent), basis, reference)
    assert found.error == pytest.approx(0.5 * (2 * pi / a) ** 0.75, rel=1e-5)
    assert found.fit_error == pytest.approx(0, abs=1e-12)
    x = sqrt(a) * edge
    assert found.shells.error[:5].sum() / found.error == pytest.approx(erf(x) - 2 / sqrt(pi) * x * exp(-x * x), rel=1e-4)
    assert found.atoms.error[0] / found.error > 0.95


def test_free_atoms_alone_have_all_of_the_deformation_error(fits: Fits) -> None:
    f = int(fits.grid_frame[0])
    fit = fitted_density(fits, f, torch.zeros(1).double())
    found = density_errors(fits.frame(f), replace(fit, coefficient=0 * fit.coefficient), fit, fits.basis, fits.grid(f))
    assert found.deformation_error_percent == pytest.approx(100, rel=1e-6)
    assert found.nmae_percent > 5


def test_hirshfeld_atoms_share_every_point(basis: Basis, water: Molecule) -> None:
    point = torch.as_tensor(np.concatenate([water.position, np.random.default_rng(0).normal(size=(50, 3)), [[1e3, 0, 0]]]))
    free = free_atom_densities(water, basis, point)
    none = Density(torch.zeros((3, basis.mask.shape[1])), torch.as_tensor(basis.slot_exponent[basis.rows(water.number)]))
    assert (free.sum(0) - density_on_points(water, none, basis, point)).abs().max() < 1e-12 * free.max()
    weights = hirshfeld_weights(free, torch.cdist(torch.as_tensor(water.position), point))
    assert (weights.sum(0) - 1).abs().max() < 1e-12
    assert weights[0, 0] > 0.99
    assert (weights >= 0).all()
    assert weights[:, -1].tolist() == [0, 0, 1]  # where no free atom reaches: the nearest


def test_every_figure_against_single_molecules(fits: Fits, silent: DensNet) -> None:
    """In its unit, computed frame by frame from the predictions; batches do not matter."""
    energy, force, dipole = [], [], []
    for f in fits.indices("test").tolist():
        result = silent.predict(Molecules.of([fits.frame(f)]))
        assert result.force is not None
        energy.append(abs(float(result.energy) - fits.energy[f]))
        force.append(np.abs(result.force.numpy() - fits.force[fits.atoms(f)]).mean())
        dipole.append(result.dipole[0].numpy() - fits.dipole[f])
    found = evaluate(silent, fits, fits.indices("test"), batch_size=2, progress=False)
    assert found.frames == found.grid_frames == 3
    assert found.quadrature == "grid"
    assert found.energy_mae_meV == pytest.approx(27211.386 * np.mean(energy), rel=1e-4)
    assert found.force_mae_meV_per_A == pytest.approx(51422.067 * np.mean(force), rel=1e-4)
    assert found.dipole_mae_mD == pytest.approx(2541.746 * np.linalg.norm(dipole, axis=1).mean(), rel=1e-4)
    assert found.dipole_component_mae_mD == pytest.approx(2541.746 * np.abs(dipole).mean(), rel=1e-4)
    assert found.fit_floor_percent < found.nmae_percent < found.nmae_worst_percent
    assert found.rmsd_least_A is None


def test_samples_stand_in_for_grids(fits: Fits, silent: DensNet) -> None:
    """No frame has a grid: points drawn at random give the same figures within their noise, and the result says so."""
    frames = fits.indices("test")
    exact = evaluate(silent, fits, frames[:2], progress=False)
    pointer = fits.sample_ptr.copy()
    pointer[-1] = pointer[-2]  # the last frame has none
    bare = replace(fits, grid_frame=np.zeros(0, dtype=np.int64), fit_nmae=np.zeros(0), sample_ptr=pointer)
    found = evaluate(silent, bare, frames, progress=False)
    assert (found.quadrature, found.frames, found.grid_frames) == ("samples", 3, 2)
    assert found.nmae_percent == pytest.approx(exact.nmae_percent, rel=0.1)
    assert found.fit_floor_percent == pytest.approx(exact.fit_floor_percent, rel=0.1)
    assert found.deformation_error_percent == pytest.approx(exact.deformation_error_percent, rel=0.1)
    assert found.elements[1].electrons == pytest.approx(exact.elements[1].electrons, rel=0.05)
    assert found.nmae_percent != exact.nmae_percent
    assert "random points only" in in_words(found)
    assert "on a grid" in in_words(exact)
    with pytest.raises(DataError, match="none of the 1 frames"):
        evaluate(silent, bare, frames[2:], progress=False)


def test_rmsd_ignores_motion_but_not_reflection() -> None:
    train = np.random.default_rng(3).normal(size=(1, 5, 3)) * 4
    moved = train @ random_rotation().T + 3
    found = nearest_rmsd(np.concatenate([moved, train * [1, 1, -1]]), train)
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] > 0.5


def test_rmsd_of_a_known_stretch() -> None:
    train, test = (np.array([[[0.0, 0, 0], [0, 0, r]]]) for r in (1.4, 1.5))
    assert nearest_rmsd(test, train) == pytest.approx([0.05])
    assert nearest_rmsd(test, np.concatenate([train, test + 0.02 * train])) == pytest.approx([0.014])


def test_rmsd_compares_only_the_same_atoms(fits: Fits) -> None:
    train, test = fits.indices("train"), fits.indices("test")
    found = nearest_training_rmsd(fits, test, train)
    assert found == pytest.approx(nearest_rmsd(*(fits.position.reshape(-1, 3, 3)[i] for i in (test, train))))
    by_frame = fits.position.reshape(-1, 3, 3)
    nearest = int(np.argmin([nearest_rmsd(by_frame[test[:1]], by_frame[[f]])[0] for f in train]))
    changed = np.isin(np.arange(len(fits.number)) // 3, [test[1], train[nearest]])
    again = nearest_training_rmsd(replace(fits, number=np.where(changed, 9, fits.number)), test[:1], train)
    assert again == pytest.approx(nearest_rmsd(by_frame[test[:1]], by_frame[np.delete(train, nearest)]))
    assert again > found[0] + 1e-3
    other = replace(fits, number=np.where(np.arange(len(fits.number)) // 3 == test[1], 9, fits.number))
    assert np.isnan(nearest_training_rmsd(other, test, train)).tolist() == [False, True, False]


def test_planes() -> None:
    """The atom and its nearest two in the plane; on a line, any plane that holds it."""
    bent = Molecule(np.array([8, 1, 1, 6]), np.array([[0.0, 0, 0], [0, 1.8, 0], [0.6, -1.7, 0.9], [3.0, 2.0, 3.0]]))
    origin, axes = plane_through(bent, 0)
    assert ((bent.position - origin) @ axes[2])[:3] == pytest.approx([0, 0, 0], abs=1e-12)
    line = Molecule(np.array([8, 6, 8]), np.array([[0.0, 0, -2.2], [0, 0, 0], [0, 0, 2.2]]))
    for molecule in (bent, line, Molecule(np.array([2]), np.zeros((1, 3)))):
        origin, axes = plane_through(molecule, 0)
        assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)
        if molecule is line:
            assert (molecule.position - origin) @ axes[1:].T == pytest.approx(np.zeros((3, 2)), abs=1e-12)


@pytest.mark.parametrize("energy", [True, False], ids=["with energy", "density alone"])
def test_files_say_the_same_as_the_result(energy: bool, fits: Fits, silent: DensNet, tmp_path: Path) -> None:
    model = silent if energy else remembering(fits, s2=0.05)
    frames = fits.indices("test")
    words = evaluate_into(tmp_path / "new", model, fits, frames, fits.indices("train"), figures=True)
    result = json.loads((tmp_path / "new/evaluation.json").read_text())
    rows = list(csv.DictReader((tmp_path / "new/frames.csv").open()))
    assert [(int(row["frame"]), row["source"]) for row in rows] == [(int(f), fits.source[f]) for f in frames]
    for column, figure in (
        ("nmae_percent", "nmae_percent"),
        ("fit_floor_percent", "fit_floor_percent"),
        ("nmae_fit_percent", "nmae_fit_percent"),
        ("deformation_error_percent", "deformation_error_percent"),
        ("dipole_error_mD", "dipole_mae_mD"),
        ("quadrupole_error_mD_A", "quadrupole_mae_mD_A"),
        *([("force_mae_meV_per_A", "force_mae_meV_per_A")] if energy else []),
    ):
        assert np.mean([float(row[column]) for row in rows]) == pytest.approx(result[figure], rel=1e-5)
        assert any(f" {result[figure]:.{digits}f} " in words for digits in (2, 3, 4)), figure
    if energy:
        assert np.mean([abs(float(row["energy_error_meV"])) for row in rows]) == pytest.approx(result["energy_mae_meV"], rel=1e-5)
    else:
        assert result["energy_mae_meV"] is None
        assert {row["energy_error_meV"] for row in rows} == {""}
    assert min(float(row["rmsd_A"]) for row in rows) == pytest.approx(result["rmsd_least_A"], rel=1e-5)
    assert result["train_frames"] == 7
    assert result["worst_source"] in words
    errors = list(frame_errors(model, fits, frames, progress=False))
    for panel in radial_figure(summarise(errors), errors).axes[:2]:  # the curves are inside the panels
        low, high = panel.get_ylim()
        tops = [float(np.nanmin(patch.get_data().values[:20])) for patch in panel.patches]
        assert all(low < top < high for top in tops)
        assert all(high > line.get_ydata()[-1] > 0.1 * high for line in panel.lines)
    width = {}
    for name in ("parity", "radial_error", "worst_frame"):
        image = imread(tmp_path / f"new/{name}.png")
        assert image[..., :3].std() > 0.02  # something is drawn
        assert (tmp_path / f"new/{name}.svg").stat().st_size > 10000
        width[name] = image.shape[1]
    assert width["parity"] > 2000 if energy else width["parity"] < 1500
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) == [".csv", ".csv", ".json", *[".png"] * 3, *[".svg"] * 3]


def test_what_cannot_be_evaluated_is_refused(fits: Fits, silent: DensNet, tiny_fits: Path, tmp_path: Path) -> None:
    def refused(error: type[DensnetError], message: str, *arguments: object) -> None:
        with pytest.raises(error, match=message) as found:
            evaluate_saved(tmp_path / "out", *arguments)  # pyright: ignore[reportArgumentType] - the wrong ones on purpose
        assert "\n" not in str(found.value)

    refused(ConfigError, "no model to evaluate; .* add init=", None, tmp_path / "absent.h5")
    refused(ModelError, "no model in", str(tmp_path / "absent"), tiny_fits)
    save_model(tmp_path / "model", silent, TINY, Provenance())
    refused(DataError, "does not exist", str(tmp_path / "model"), tmp_path / "absent.h5")
    refused(ConfigError, "test_frames is 0", str(tmp_path / "model"), tiny_fits, 0)
    refused(ConfigError, "test_grids is 0", str(tmp_path / "model"), tiny_fits, None, 0)
    hydrogen, oxygen = fits.basis.elements
    fewer = replace(fits.basis, name="other", elements=(replace(hydrogen, shells=hydrogen.shells[1:]), oxygen))
    with pytest.raises(BasisError, match=r"was fitted in basis other .* but the model has basis test"):
        check_basis(silent, replace(fits, basis=fewer))
    with pytest.raises(DataError, match="has 10 frames and none for testing"):
        frames_for(replace(fits, split=np.full(10, "train")))
    with pytest.raises(ConfigError, match="mode is evalute; expected train or evaluate"):
        evaluating("evalute")
    assert (evaluating("evaluate"), evaluating("train")) == (True, False)
    if not torch.cuda.is_available():
        refused(ConfigError, "there is none", str(tmp_path / "model"), tiny_fits, None, None, "gpu")
    broken = untrained(fits.basis)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(DensnetError, match="finite"):
        evaluate_into(tmp_path / "out", broken, fits, fits.indices("test"), fits.indices("train"), figures=False)
    diverged = untrained(fits.basis)
    assert diverged.energy is not None
    diverged.energy.scale.fill_(float("nan"))
    with pytest.raises(ModelError, match="has diverged"):
        evaluate_into(tmp_path / "out", diverged, fits, fits.indices("test"), fits.indices("train"), figures=False)
    assert not (tmp_path / "out/evaluation.json").exists()


def test_frames_with_a_grid_come_first(fits: Fits) -> None:
    one = replace(fits, grid_frame=fits.indices("test")[1:2])
    assert frames_for(one).tolist() == [8, 7, 9]
    assert frames_for(one, 2).tolist() == [8, 7]
    assert frames_for(fits, 2).tolist() == [7, 8]


def test_the_command(tiny_fits: Path, silent: DensNet, tmp_path: Path) -> None:
    save_model(tmp_path / "model", silent, TINY, Provenance())
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "mode=evaluate", f"init={tmp_path}/model", f"dataset.path={tiny_fits}",
         "test_frames=2", f"run_dir={tmp_path}/run", f"hydra.run.dir={tmp_path}/hydra"],
        capture_output=True, text=True, cwd=ROOT, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("2 test frames, 2 of them with the SCF density on a grid\n")
    result = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert f"{result['nmae_percent']:.4f} %" in done.stdout
    assert len((tmp_path / "run/frames.csv").read_text().splitlines()) == 3
    assert (tmp_path / "run/worst_frame.png").exists()
    assert not (tmp_path / "run/model").exists()
