"""Dipole derivatives: from fields against displaced dipoles, their file, and what training makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from densnet.data.datamodule import FitsDataModule
from densnet.data.dipole_derivatives import DipoleDerivatives, read_dipole_derivatives, write_dipole_derivatives
from densnet.data.dipole_slopes import slopes_of
from densnet.data.fits import Fits, read_fits
from densnet.data.geometry import load_geometry
from densnet.data.labels import Label, Labels, Level, unpack, write_labels
from densnet.errors import ConfigError, DataError
from densnet.model.densnet import DensNet
from densnet.reference import derivative_labels
from densnet.reference import dipole_derivative as reference
from densnet.reference.derivative_labels import ChoiceSettings, chosen, label_derivatives
from densnet.reference.dipole_derivative import FieldSettings, dipole_derivative
from densnet.reference.kohn_sham import NoLabel, ScfSettings, compute_label
from densnet.reference.pipeline import Workers
from densnet.structures import Molecule, Molecules
from densnet.training.objectives import DipoleDerivativeLoss
from densnet.training.passes import Passes

CHEAP = Level(ao_basis="6-31g", grid_level=3, conv_tol=1e-11)
FINE = FieldSettings(grid_level=3, conv_tol=1e-11)
WATER = load_geometry("water")[0].moved(np.array([[0.3, -0.1, 0.2], [0.4, 1.4, -0.9], [0.2, -1.5, -0.8]]))
HYDROXIDE = Molecule(np.array([8, 1]), np.array([[0.5, 0.2, -0.1], [0.4, 1.5, 1.2]]), -1)
U = np.array([2.0, -3.0, 6.0]) / 7.0


def by_displacement(molecule: Molecule, step: float = 0.01) -> np.ndarray:
    """d (U . mu) / d R from dipoles of displaced molecules."""
    out = np.zeros((molecule.number.size, 3))
    for index in np.ndindex(*out.shape):
        sides = []
        for sign in (1, -1):
            position = molecule.position.copy()
            position[index] += sign * step
            found = compute_label(molecule.moved(position), CHEAP)
            assert isinstance(found, Label)
            sides.append(found.dipole @ U)
        out[index] = (sides[0] - sides[1]) / (2 * step)
    return out


@pytest.mark.parametrize("molecule", [WATER, HYDROXIDE], ids=["water", "hydroxide"])
def test_forces_in_a_field_give_the_derivatives_of_the_dipole(molecule: Molecule) -> None:
    # Without the term of the moving basis functions, or with the wrong sign of the nuclei, it is off by 0.1 e and more.
    found = dipole_derivative(molecule, CHEAP, ScfSettings(), FINE, U)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, by_displacement(molecule), atol=5e-4)
    np.testing.assert_allclose(found.sum(0), molecule.charge * U, atol=2e-4)
    coarse = dipole_derivative(molecule, CHEAP, ScfSettings(), FieldSettings(), U)
    assert isinstance(coarse, np.ndarray)
    np.testing.assert_allclose(coarse, found, atol=5e-3)


def test_a_guess_changes_nothing_and_failure_has_a_reason() -> None:
    label = compute_label(WATER, CHEAP)
    assert isinstance(label, Label)
    one = dipole_derivative(WATER, CHEAP, ScfSettings(), FINE, U)
    other = dipole_derivative(WATER, CHEAP, ScfSettings(), FINE, U, unpack(label.density_matrix))
    assert isinstance(one, np.ndarray)
    np.testing.assert_allclose(one, other, atol=1e-5)
    failed = dipole_derivative(WATER, CHEAP, ScfSettings(max_cycle=1), FINE, U)
    assert isinstance(failed, NoLabel)
    assert "not converged" in failed.reason


@pytest.mark.parametrize("values", [{"step": 0.0}, {"step": 0.1}, {"grid_level": 10}, {"conv_tol": 1.0}])
def test_bad_settings(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"expected a step up to 0\.02"):
        FieldSettings(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unit vector"):
        dipole_derivative(WATER, CHEAP, ScfSettings(), FINE, 2 * U)


SMALL = Level(ao_basis="sto-3g", grid_level=1)


def _labels(path: Path, n: int = 4) -> Labels:
    rng = np.random.default_rng(0)
    molecules = [WATER.moved(WATER.position + 0.02 * rng.normal(size=(3, 3))) for _ in range(n)]
    labels = [compute_label(m, SMALL) for m in molecules]
    made = Labels.of(
        molecules, [x for x in labels if isinstance(x, Label)], ["train"] * (n - 1) + ["test"], ["x"] * n, SMALL, "test"
    )
    write_labels(path, made)
    return made


def test_files_grow_with_the_frames_asked_for_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = _labels(tmp_path / "labels.h5")
    arguments = tmp_path / "labels.h5", ScfSettings(), FieldSettings(), tmp_path / "out.h5", tmp_path / "spool"

    def run(choice: ChoiceSettings, *changed: object) -> DipoleDerivatives:
        path, scf, settings, out, spool = (*changed, *arguments[len(changed) :])
        with Workers(1) as workers:
            return label_derivatives(path, choice, scf, settings, out, spool, workers)[0]  # type: ignore[arg-type]

    two = run(ChoiceSettings(2))
    assert len(two) == 2
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "spool").glob("*.npz")}
    three = run(ChoiceSettings())
    assert len(three) == 3  # not the test frame
    assert all((tmp_path / "spool" / name).stat().st_mtime_ns == t for name, t in times.items())
    read = read_dipole_derivatives(tmp_path / "out.h5")
    np.testing.assert_array_equal(read.derivative, three.derivative)
    assert read.level == SMALL
    frames, directions = chosen(labels, ChoiceSettings())
    order = np.argsort(frames)
    np.testing.assert_allclose(read.direction, directions[order])
    first = dipole_derivative(labels.frame(int(frames[order[0]])), SMALL, ScfSettings(), FieldSettings(), read.direction[0])
    assert isinstance(first, np.ndarray)
    np.testing.assert_allclose(first, read.derivative[read.atoms(0)], atol=2e-3)
    with pytest.raises(ConfigError, match="with other fields"):
        run(ChoiceSettings(), arguments[0], arguments[1], FieldSettings(step=1e-3))
    with pytest.raises(ConfigError, match="expected 1 to 3"):
        run(ChoiceSettings(4))
    (tmp_path / "spool" / "identity.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        run(ChoiceSettings())
    for wrong in ({"frames": 2.5}, {"frames": "ten"}, {"seed": -1}, {"frames": True}):
        with pytest.raises(ConfigError, match="expected whole numbers, a seed from 0"):
            ChoiceSettings(**wrong)  # type: ignore[arg-type]
    monkeypatch.setattr(derivative_labels, "_stored", lambda _: NoLabel("no luck"))
    with pytest.raises(DataError, match="no luck"):
        run(ChoiceSettings(), arguments[0], arguments[1], arguments[2], tmp_path / "new.h5", tmp_path / "other")


def test_what_failed_is_computed_again_when_asked(tmp_path: Path) -> None:
    _labels(tmp_path / "labels.h5", 2)
    arguments = tmp_path / "labels.h5", ChoiceSettings(), ScfSettings(max_cycle=1), FieldSettings(), tmp_path / "out.h5"
    with Workers(1) as workers:
        with pytest.raises(DataError, match="not converged"):
            label_derivatives(*arguments, tmp_path / "spool", workers)
        patient = arguments[0], arguments[1], ScfSettings(), *arguments[3:]
        with pytest.raises(DataError, match="not converged"):
            label_derivatives(*patient, tmp_path / "spool", workers)
        found, missing = label_derivatives(*patient, tmp_path / "spool", workers, retry=True)
    assert (len(found), missing) == (1, [])


def test_a_broken_sum_rule_is_a_failure_of_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SUM_RULE", 1e-12)
    found = dipole_derivative(WATER, SMALL, ScfSettings(), FieldSettings(), U)
    assert isinstance(found, NoLabel)
    assert "miss the sum rule by" in found.reason


def _made(fits: Fits, frames: list[int], level: Level | None = None, charge: float = 0.0) -> DipoleDerivatives:
    rng = np.random.default_rng(3)
    molecules = [replace(fits.frame(f), charge=int(charge)) for f in frames]
    derivative = []
    for m in molecules:
        d = rng.normal(size=(m.number.size, 3))
        derivative.append(d - d.mean(0) + charge * U / m.number.size)
    return DipoleDerivatives.of(level or fits.level, molecules, [U] * len(frames), derivative)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"direction": 2 * d.direction}, "not of length one"),
        (lambda d: {"derivative": d.derivative + 0.1}, "miss the sum rule by"),
        (lambda d: {"derivative": d.derivative * np.nan}, "all finite"),
        (lambda d: {"frame_ptr": d.frame_ptr + 1}, "does not divide"),
        (lambda d: {"position": d.position[:-1]}, "position of shape"),
    ],
)
def test_bad_contents_are_refused(tiny_fits: Path, change: object, message: str) -> None:
    made = _made(read_fits(tiny_fits), [0, 1])
    with pytest.raises(DataError, match=message):
        replace(made, **change(made))  # type: ignore[operator]


def test_frames_are_found_by_their_geometry(tiny_fits: Path, tmp_path: Path) -> None:
    fits = read_fits(tiny_fits)
    made = _made(fits, [2, 0])
    write_dipole_derivatives(tmp_path / "d.h5", made, "test", "{}")
    found = slopes_of(fits, [str(tmp_path / "d.h5")])
    assert sorted(found) == [0, 2]
    np.testing.assert_allclose(found[2].derivative, made.derivative[made.atoms(0)])
    with pytest.raises(DataError, match="no geometry of"):
        slopes_of(fits, [str(tmp_path / "d.h5")] * 2)
    write_dipole_derivatives(tmp_path / "e.h5", _made(fits, [1], replace(fits.level, xc="b3lyp")), "test", "{}")
    with pytest.raises(DataError, match="expected one level"):
        slopes_of(fits, [str(tmp_path / "e.h5")])

    data = FitsDataModule(str(tiny_fits), batch_size=2, validation=2, derivatives=[str(tmp_path / "d.h5")])
    data.serve(metric=False, points=False, derivatives=True)
    batches = list(data.train_dataloader())
    labelled = torch.cat([b.frame[b.field.square().sum(1) > 0] for b in batches])
    assert sorted(labelled.tolist()) == [0, 2]
    data.serve(metric=False, points=False)
    assert next(iter(data.train_dataloader())).field.numel() == 0
    with pytest.raises(ConfigError, match="no training frame has any"):
        FitsDataModule(str(tiny_fits), batch_size=2, validation=2).serve(metric=False, points=False, derivatives=True)


def test_derivatives_of_ions_are_about_the_centre_of_nuclear_charge(tiny_fits: Path, tmp_path: Path) -> None:
    fits = read_fits(tiny_fits)
    made = _made(fits, [1], charge=-1.0)
    write_dipole_derivatives(tmp_path / "d.h5", made, "test", "{}")
    with pytest.raises(DataError, match="no geometry of"):  # that of another charge is another frame
        slopes_of(fits, [str(tmp_path / "d.h5")])
    ion = replace(fits, charge=np.full_like(fits.charge, -1.0))
    found = slopes_of(ion, [str(tmp_path / "d.h5")])[1]
    np.testing.assert_allclose(found.derivative.sum(0), 0.0, atol=1e-12)  # that centre moves along
    number = fits.frame(1).number
    np.testing.assert_allclose(found.derivative - made.derivative, np.outer(number / number.sum(), U), atol=1e-12)


def test_the_loss_is_the_error_of_the_models_derivative(model: DensNet, water: Molecule) -> None:
    """Two labelled waters and one without, against the derivatives that harmonic analysis takes."""
    exact = model.double()
    three = [water, water.moved(water.position + 0.05), water.moved(1.05 * water.position)]
    molecules = Molecules.of(three)
    rng = np.random.default_rng(1)
    labels = [rng.normal(size=(3, 3)), np.zeros((3, 3)), rng.normal(size=(3, 3))]
    field = torch.as_tensor(np.stack([U, np.zeros(3), -U]))
    batch = SimpleNamespace(
        number=molecules.number, position=molecules.position, charge=molecules.charge, batch=molecules.molecule,
        num_graphs=3, field=field, dipole_derivative=torch.as_tensor(np.concatenate(labels)),
    )  # fmt: skip
    lengths = []
    for k in (0, 2):
        one = Molecules.of([three[k]])
        one = one.at(one.position.requires_grad_())
        mu = exact.density_only(one).dipole[0]
        own = torch.autograd.grad((mu * field[k]).sum(), one.position)[0].numpy()
        lengths.append(np.linalg.norm(own - labels[k]))
    passes = Passes(exact, None, False, energies=False)
    prediction = SimpleNamespace(dipole=torch.zeros(3, 3, dtype=torch.float64))
    objective = DipoleDerivativeLoss()
    found = objective(prediction, batch, SimpleNamespace(dipoles=passes.dipoles))  # type: ignore[arg-type]
    assert float(found.detach()) == pytest.approx(np.mean(lengths), rel=1e-5)
    # It reaches the parameters; a batch without labels does not.
    parameters = [p for p in exact.density.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(found, parameters, allow_unused=True)
    assert max(float(g.abs().max()) for g in gradients if g is not None) > 0
    batch.field = torch.zeros(3, 3, dtype=torch.float64)
    prediction.dipole.requires_grad_()
    nothing = objective(prediction, batch, SimpleNamespace(dipoles=passes.dipoles))  # type: ignore[arg-type]
    assert nothing.requires_grad
    assert float(nothing.detach()) == 0.0
