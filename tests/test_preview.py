"""The shipped models and data: they load, and agree with the DFT they were trained on where they should."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule

from densnet.data.dipole_slopes import slopes_of
from densnet.data.fits import read_fits
from densnet.data.labels import Level
from densnet.data.novelty_file import read_seen
from densnet.join import join
from densnet.model.checkpoint import read_model
from densnet.model.derivatives import hessian_and_dipole_derivative
from densnet.observables.multipoles import electrons, quadrupole
from densnet.reference.fitting import density_on_grid, nmae_percent
from densnet.reference.kohn_sham import NoLabel, compute_label
from densnet.structures import Molecule, Molecules
from densnet.training.evaluate import evaluate
from densnet.units import ANGSTROM_PER_BOHR, MEV_PER_ANGSTROM_PER_AU, MILLIDEBYE_PER_AU

FOLDER = Path(__file__).parents[1] / "models/ethanol-preview"


@pytest.fixture(scope="module")
def ethanol() -> Molecule:
    """Trans ethanol, every atom moved a little, by a fixed seed: a geometry the training never saw."""
    atoms = molecule("CH3CH2OH")
    shift = np.random.default_rng(7).normal(scale=0.04, size=(9, 3))
    return Molecule(atoms.numbers, atoms.positions / ANGSTROM_PER_BOHR + shift)


def test_it_loads_and_counts_electrons(ethanol: Molecule) -> None:
    file = read_model(FOLDER)
    molecules = Molecules.of([ethanol])
    result = file.model.predict(molecules)
    assert float(electrons(molecules, result.density, file.model.basis.multiplicity)) == pytest.approx(26, abs=1e-6)
    assert result.force is not None
    assert result.force.sum(0).abs().max() < 1e-4  # momentum is conserved (float32)
    assert len(file.provenance.recipe) == 2
    assert json.loads(file.provenance.level)["xc"] == "pbe"


@pytest.mark.slow
def test_it_agrees_with_its_dft(ethanol: Molecule) -> None:
    """One Kohn-Sham calculation at the training level: energy, forces, dipole, quadrupole, density."""
    from densnet.data.labels import unpack
    from densnet.observables.real_space import density_on_points

    file, level = read_model(FOLDER), Level()
    label = compute_label(ethanol, level)
    assert not isinstance(label, NoLabel)
    molecules = Molecules.of([ethanol])
    result = file.model.predict(molecules)
    assert result.force is not None
    assert abs(float(result.energy) - label.energy) * 27211.386 < 20  # meV
    assert np.abs(result.force.numpy() - label.force).mean() * MEV_PER_ANGSTROM_PER_AU < 50
    assert np.linalg.norm(result.dipole[0].numpy() - label.dipole) * MILLIDEBYE_PER_AU < 50
    assert np.abs(quadrupole(molecules, result.density, file.model.basis)[0].numpy() - label.quadrupole).max() < 0.2
    grid = density_on_grid(ethanol, unpack(label.density_matrix), level.ao_basis, 1)
    density = density_on_points(ethanol, result.density, file.model.basis, torch.as_tensor(grid.point))
    assert nmae_percent(density.numpy(), grid, 26) < 0.6


@pytest.mark.parametrize("name", ["ethanol", "ethanol-fast", "ethanol-first"])
def test_the_models_load_and_are_what_the_docs_say(ethanol: Molecule, name: str) -> None:
    """Exact charge, a few megabytes, nothing of the machine they were trained on."""
    folder = FOLDER.with_name(name)
    file = read_model(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6
    molecules = Molecules.of([ethanol])
    with torch.no_grad():
        result = file.model.density_only(molecules)
    assert float(electrons(molecules, result.density, file.model.basis.multiplicity)) == pytest.approx(26, abs=1e-6)
    for recipe in map(json.loads, file.provenance.recipe):
        data = recipe["dataset"]
        for path in (data["path"], *data.get("derivatives", ()), recipe["init"] or "", recipe.get("init_energy") or ""):
            assert not Path(path).is_absolute()


def test_the_first_model_is_that_of_its_data() -> None:
    """models/ethanol-first: flexible exponents, its recipe and the hash of its data."""
    file, fits = read_model(FOLDER.with_name("ethanol-first")), read_fits(FOLDER.parents[1] / "datasets/ethanol.h5")
    assert file.architecture.density.flexible == 1.3
    assert file.architecture.energy is not None
    assert file.architecture.energy.softening == 1e-3, "the file has no such setting, and the weights were trained with this one"
    assert file.provenance.data_hash == fits.labels_hash
    assert file.model.basis.hash == fits.basis.hash
    assert len(file.provenance.recipe) == 3


@pytest.mark.parametrize("name", ["ethanol", "ethanol-first"])
def test_shipped_data_give_the_error_of_the_shipped_models(name: str) -> None:
    """From the samples in datasets/ethanol.h5: close to what the docs quote from whole grids."""
    fits = read_fits(FOLDER.parents[1] / "datasets/ethanol.h5")
    frames = fits.indices("test")[:12]
    found = evaluate(read_model(FOLDER.with_name(name)).model, fits, frames, progress=False)
    assert found.quadrature == "samples"
    assert found.nmae_percent < 0.13
    assert 0.05 < found.fit_floor_percent < 0.09
    assert found.energy_mae_meV is not None
    assert found.force_mae_meV_per_A is not None
    assert found.energy_mae_meV < 2.0
    assert found.force_mae_meV_per_A < 10.0
    other = read_fits(FOLDER.parents[1] / "datasets/ethanethiol.h5")
    assert (len(other.indices("train")), len(other.indices("test"))) == (306, 60)
    assert other.basis.numbers == (1, 6, 16)


@pytest.mark.parametrize(("name", "stages", "better"), [("ethanol", 15, 0.9), ("ethanol-fast", 4, 1.0)])
def test_the_later_models_are_of_the_shipped_data(name: str, stages: int, better: float, tmp_path: Path) -> None:
    """Trained on all files of ethanol in datasets/, and nearer to DFT than models/ethanol-first."""
    folder, datasets = FOLDER.with_name(name), FOLDER.parents[1] / "datasets"
    join([datasets / f"ethanol{name}.h5" for name in ("_wigner", "_more", "_cold", "")], tmp_path / "fits.h5")
    fits = read_fits(tmp_path / "fits.h5")
    assert len(fits.indices("train")) == 1538
    file = read_model(folder)
    assert file.provenance.data_hash == fits.labels_hash
    assert len(file.provenance.recipe) == stages
    assert file.architecture.energy is not None
    assert file.architecture.energy.softening == 0.1
    assert read_seen(folder, file.model.hash).data_hash == fits.labels_hash
    cold = fits.indices("train")[:40]
    molecules = Molecules.of([fits.frame(int(f)) for f in cold])
    force = fits.force[fits.atoms_of(cold)]
    errors = [
        np.abs(read_model(path).model.predict(molecules).force.numpy() - force).mean()
        for path in (folder, folder.with_name("ethanol-first"))
    ]
    assert errors[0] < better * errors[1]


def test_shipped_dipole_derivatives_are_those_of_shipped_frames_and_the_models_know_them() -> None:
    datasets = FOLDER.parents[1] / "datasets"
    for name, frames in (("ethanol", 602), ("ethanol_more", 720)):
        fits = read_fits(datasets / f"{name}.h5")
        labels = slopes_of(fits, [str(datasets / f"{name}_derivatives.h5")])
        assert len(labels) == frames
        assert set(labels) <= set(fits.indices("train").tolist())
    some, errors = sorted(labels)[:10], []
    for folder in ("ethanol-first", "ethanol-fast", "ethanol"):
        model, squares = read_model(FOLDER.with_name(folder)).model, []
        for f in some:
            molecule = Molecules.of([fits.frame(f)])
            molecule = molecule.at(molecule.position.requires_grad_())
            component = (model.density_only(molecule).dipole[0] * torch.as_tensor(labels[f].field)).sum()
            found = torch.autograd.grad(component, molecule.position)[0].numpy()
            squares.append(np.square(found - labels[f].derivative).mean())
        errors.append(np.sqrt(np.mean(squares)))
    # e; models/ethanol-first saw neither these frames nor any derivative. A label of 0.2 e on the wrong atom would be far off.
    assert errors[0] < 0.015
    assert max(errors[1:]) < 0.6 * errors[0]


def test_second_derivatives_hold_over_a_vibration() -> None:
    """Diagonal of the Hessian against finite differences of the forces over 0.02 bohr, which a cusp in between would spoil."""
    file, fits = read_model(FOLDER.with_name("ethanol")), read_fits(FOLDER.parents[1] / "datasets/ethanol_cold.h5")
    model = file.model.double()
    worst = []
    for f in range(4):
        frame, step = fits.frame(f), 0.02
        hessian, _ = hessian_and_dipole_derivative(model, frame)
        moved = [frame.moved(frame.position + s * d.reshape(-1, 3)) for d in np.eye(frame.position.size) for s in (step, -step)]
        force = model.predict(Molecules.of(moved)).force.numpy().reshape(-1, 2, frame.position.size)
        slope = -(np.diagonal(force[:, 0]) - np.diagonal(force[:, 1])) / (2 * step)
        worst.append(np.abs(np.diagonal(hessian) - slope).max() / slope.max())
    assert max(worst) < 2e-3
