"""Training as users run it: every stage, loggers, warm start, exact resume, EMA, and refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import lightning
import numpy as np
import pytest
import torch
from conftest import untrained
from safetensors.torch import load_file

from densnet.basis.shells import Basis
from densnet.data.datamodule import FitsDataModule
from densnet.data.dipole_derivatives import DipoleDerivatives, write_dipole_derivatives
from densnet.data.fits import read_fits
from densnet.data.harmonic import HarmonicData, write_harmonic
from densnet.errors import BasisError, ConfigError, DataError, ModelError
from densnet.model.checkpoint import (
    Architecture,
    DensitySettings,
    EnergySettings,
    Provenance,
    build,
    load_model,
    read_model,
    save_model,
)
from densnet.model.densnet import DensNet
from densnet.structures import Molecule, Molecules
from densnet.training.averaging import ExponentialAverage
from densnet.training.objectives import EnergyLoss, ForceLoss, MetricLoss, metric_squares
from densnet.training.optimizer import METHODS, OptimizerSettings
from densnet.training.run import export, find_checkpoint, mark_run, refuse_sweep_with_ddp, start_model
from densnet.training.stage import Stage
from densnet.units import ELECTRON_MASS_PER_DALTON

ROOT = Path(__file__).parents[1]
SMALL = (
    "model.density.channels=4", "model.density.hidden=8", "model.density.lmax=[1,2]", "model.energy.channels=4",
    "model.energy.hidden=8", "trainer.check_val_every_n_epoch=1", "dataset.batch_size=3", "dataset.validation=2",
    "callbacks.grid.every_n_epochs=2", "callbacks.grid.frames=1", "stage.optimizer.warmup_steps=2",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "~callbacks.progress",
)  # fmt: skip
TINY = Architecture(DensitySettings(channels=4, lmax=(1, 2), hidden=8), EnergySettings(channels=4, hidden=8))


def command(fits: Path, folder: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), f"dataset.path={fits}", *SMALL, f"runs_dir={folder}", *overrides]


def train(fits: Path, folder: Path, *overrides: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"}
    done = subprocess.run(
        command(fits, folder, *overrides), capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def data(tiny_fits: Path) -> FitsDataModule:
    return FitsDataModule(str(tiny_fits), batch_size=3, validation=2)


@pytest.fixture(scope="module")
def harmonic_file(water: Molecule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harmonic reference of the right shape: unit springs between all atoms (what it says is not what is tested here)."""
    n, r = 3, water.position
    hessian = np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(n):
            if i != j:
                u = (r[i] - r[j]) / np.linalg.norm(r[i] - r[j])
                hessian[i, :, i] += 0.3 * np.outer(u, u)
                hessian[i, :, j] -= 0.3 * np.outer(u, u)
    charge = np.repeat(np.array([-0.6, 0.3, 0.3]), 3)
    path = tmp_path_factory.mktemp("harmonic") / "harmonic.h5"
    write_harmonic(
        path,
        HarmonicData(
            water.number, np.array([16.0, 1.0, 1.0]) * ELECTRON_MASS_PER_DALTON, r, 0, -76.0, np.zeros(3),
            hessian.reshape(9, 9), charge[:, None] * np.tile(np.eye(3), (3, 1)), "springs",
        ),
    )  # fmt: skip
    return path


def test_the_three_stages_in_a_row(tiny_fits: Path, harmonic_file: Path, tmp_path: Path) -> None:
    """density -> energy -> joint with each logger; every figure logged; the frozen network stays, the others move."""
    train(
        tiny_fits,
        tmp_path,
        "stage=density",
        "logger=csv",
        "trainer.max_epochs=4",
        f"run_dir={tmp_path}/d",
        f"export={tmp_path}/md",
    )
    logged = (tmp_path / "d/csv/metrics.csv").read_text().splitlines()[0]
    for name in (
        "train/density_metric",
        "train/dipole",
        "val/density_error_percent",
        "val/nmae_percent",
        "val/fit_floor_percent",
    ):
        assert name in logged
    assert load_model(tmp_path / "md").energy is None
    evaluation = json.loads((tmp_path / "d/evaluation.json").read_text())
    assert 0 < evaluation["fit_floor_percent"] < evaluation["nmae_percent"] < 30
    assert evaluation["electrons_max_error"] < 1e-6

    infrared = ("callbacks=infrared", f"callbacks.infrared.reference={harmonic_file}", "callbacks.infrared.every_n_epochs=1")
    train(
        tiny_fits, tmp_path, "stage=energy", "logger=wandb", "trainer.max_epochs=1", f"init={tmp_path}/md",
        f"run_dir={tmp_path}/e", f"export={tmp_path}/me", *infrared,
    )  # fmt: skip
    assert list((tmp_path / "e/wandb").glob("offline-run-*/*.wandb"))
    before, after = load_file(tmp_path / "md/model.safetensors"), load_file(tmp_path / "me/model.safetensors")
    assert all(torch.equal(before[k], after[k]) for k in before if k.startswith("density."))
    assert any(k.startswith("energy.") for k in after)

    train(
        tiny_fits, tmp_path, "stage=joint", "logger=none", "trainer.max_epochs=1", f"init={tmp_path}/me",
        f"run_dir={tmp_path}/j", f"export={tmp_path}/mj",
    )  # fmt: skip
    joint = load_file(tmp_path / "mj/model.safetensors")
    for part in ("density.layers", "energy.layers"):
        assert any(not torch.equal(after[k], joint[k]) for k in after if k.startswith(part))
    assert len(read_model(tmp_path / "mj").provenance.recipe) == 3


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_resumes_to_the_same_model(tiny_fits: Path, tmp_path: Path, method: str) -> None:
    """SIGKILL after a checkpoint, then ckpt_path=auto: the exported weights equal those of the uninterrupted run."""
    same = ("stage=density", "logger=none", "trainer.max_epochs=60", "ckpt_path=auto", f"stage.optimizer.method={method}")
    train(tiny_fits, tmp_path / "whole", *same, f"run_dir={tmp_path}/whole/run", f"export={tmp_path}/whole/model")

    checkpoint = tmp_path / "cut/run1/checkpoints/last.ckpt"
    process = subprocess.Popen(
        command(tiny_fits, tmp_path / "cut", *same, f"run_dir={tmp_path}/cut/run1", f"export={tmp_path}/cut/model"),
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut/model/model.json").exists(), "the run ended before it could be killed"
    found = torch.load(checkpoint, weights_only=True)
    assert 0 < found["epoch"] + 1 < 60
    assert any(
        not torch.equal(found["state_dict"][k], v) for k, v in found["current_model_state"].items()
    )  # state_dict is the EMA

    train(tiny_fits, tmp_path / "cut", *same, f"run_dir={tmp_path}/cut/run2", f"export={tmp_path}/cut/model")
    assert read_model(tmp_path / "cut/model").model.hash == read_model(tmp_path / "whole/model").model.hash
    final = torch.load(tmp_path / "cut/run2/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    exported = load_file(tmp_path / "cut/model/model.safetensors")
    assert all(torch.equal(exported[k.removeprefix("model.")], v) for k, v in final.items())  # what is exported is the EMA


class Probe(lightning.Callback):
    """What a callback sees while a model trains: weights after every step and when validated, frames, rates, gradients."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []
        self.frames: list[list[int]] = []
        self.rates: list[float] = []
        self.norms: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.frames.append([])

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.weights.append(pl_module.model.density.readout.bias.detach().clone())
        self.frames[-1] += batch.frame.tolist()
        gradients = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat(gradients).norm()))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.validated.append(pl_module.model.density.readout.bias.detach().clone())


def test_the_training_loop(tiny_fits: Path) -> None:
    """Average by its formula, seen by callbacks and left in the model; order of frames; learning rate; clipping."""
    data = FitsDataModule(str(tiny_fits), batch_size=1, validation=2, seed=4)
    model = start_model(TINY, data, None, energy=False).model
    settings = OptimizerSettings(learning_rate=1e-2, warmup_steps=2, final=0.1, clip=1e-3)
    stage = Stage(model, ["density"], [MetricLoss()], settings)
    probe = Probe()
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[ExponentialAverage(decay=0.6), probe],
    )  # fmt: skip
    trainer.fit(stage, datamodule=data)

    average = probe.weights[0].double()
    for n, weights in enumerate(probe.weights[1:], start=1):
        keep = min(0.6, (1 + n) / (10 + n))
        average = keep * average + (1 - keep) * weights
        if (n + 1) % 5 == 0:
            seen = probe.validated[n // 5]
            assert (seen - average).abs().max() < 1e-6
            assert (seen - weights).abs().max() > 1e-4
    assert (model.density.readout.bias - average).abs().max() < 1e-6

    assert all(sorted(epoch) == data.train_frames.tolist() for epoch in probe.frames)
    assert len({tuple(epoch) for epoch in probe.frames}) == 3
    other = FitsDataModule(str(tiny_fits), batch_size=1, validation=2, seed=5)
    assert [int(batch.frame) for batch in other.train_dataloader()] != probe.frames[0]
    assert not set(data.train_frames) & set(data.validation_frames)
    assert not (set(data.train_frames) | set(data.validation_frames)) & set(data.test_frames)
    assert len(data.train_frames) + len(data.validation_frames) + len(data.test_frames) == 10

    assert probe.rates[:3] == pytest.approx([0.5e-2, 1e-2, 1e-2])
    assert probe.rates[-1] == pytest.approx(1e-2 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * 12 / 13))), rel=1e-5)
    assert max(probe.norms) <= 1.001e-3


def test_forces_train_the_energy_through_a_frozen_density(data: FitsDataModule) -> None:
    """Gradient of the force loss in the weights against a central difference; the frozen network gets none."""
    model = untrained(data.fits.basis)
    stage = Stage(model, ["energy"], [ForceLoss()], OptimizerSettings(1e-3))
    batch = next(iter(data.train_dataloader()))
    stage.training_step(batch, 0).backward()
    assert all(p.grad is None for p in model.density.parameters())
    assert model.energy is not None
    weight = model.energy.from_shells.weight[1]  # what the energy makes of the l = 1 coefficients
    gradient, start, step = weight.grad, weight.detach().clone(), 1e-5
    assert gradient is not None
    losses = []
    for sign in (1, -1):
        weight.data = start + sign * step * gradient / gradient.norm()
        losses.append(float(stage.training_step(batch, 0).detach()))
    assert float(gradient.norm()) == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)
    assert float(gradient.norm()) > 1e-3


def test_metric_of_a_batch_is_that_of_the_file(data: FitsDataModule) -> None:
    batch = next(iter(data.train_dataloader()))
    exists = torch.as_tensor(data.fits.basis.mask)[torch.as_tensor(data.fits.basis.rows(batch.number.numpy()))]
    x = torch.randn(batch.coefficient.shape, dtype=torch.float64) * exists
    single = metric_squares(x, batch, exists)
    n = int(batch.functions[0])
    for i, part in enumerate(x[exists].view(-1, n)):
        matrix = batch.metric.view(-1, n, n)[i].double()
        assert float(single[i]) == pytest.approx(float(part @ matrix @ part), rel=1e-4)
        assert torch.equal(matrix, matrix.T)


def test_scales_normalise_the_targets(data: FitsDataModule) -> None:
    model = start_model(TINY, data, None, energy=True).model
    frame, fits = model.density.frame, data.fits
    atoms = np.concatenate([np.arange(fits.frame_ptr[f], fits.frame_ptr[f + 1]) for f in data.train_frames])
    c, row = torch.as_tensor(fits.coefficient[atoms]).double(), frame.row(torch.as_tensor(fits.number[atoms]).long())
    blocks = frame.encode(c, row)
    oxygen = row == 1
    for block in blocks:
        assert block[oxygen].square().mean(dim=(0, 2)).max().sqrt() == pytest.approx(1, abs=1e-6)
    assert all(blocks[0][row == e].mean(0).abs().max() < 1e-6 for e in (0, 1))
    assert (frame.decode(blocks, row) - c).abs().max() < 1e-6
    assert model.energy is not None
    molecules = Molecules.of([fits.frame(int(f)) for f in data.train_frames])
    result = model.predict(molecules, forces=False)
    assert all((block == 0).all() for block in frame.split(result.density.coefficient)[1:])  # silent until it has learned
    silent = result.energy - float(model.energy.scale) * raw_energy(model, molecules)
    assert (silent.numpy() - fits.energy[data.train_frames]).mean() == pytest.approx(0, abs=1e-6)
    assert float(model.energy.scale) == pytest.approx(np.sqrt((fits.force[atoms] ** 2).mean()), rel=1e-6)


def raw_energy(model: DensNet, molecules: Molecules) -> torch.Tensor:
    """Sum of the energy network before scale, shift and free atoms."""
    assert model.energy is not None
    scale, shift = model.energy.scale.clone(), model.energy.shift.clone()
    model.energy.scale.fill_(1.0)
    one = model.predict(molecules, forces=False).energy
    model.energy.scale.fill_(0.0)
    none = model.predict(molecules, forces=False).energy
    model.energy.scale.copy_(scale)
    assert torch.equal(shift, model.energy.shift)
    return one - none


def test_the_hash_sees_every_weight(data: FitsDataModule, tmp_path: Path) -> None:
    file = start_model(TINY, data, None, energy=True)
    before = export(tmp_path / "a", file, "{}")
    with torch.no_grad():
        next(iter(file.model.parameters())).view(-1)[0] += 1e-3
    assert export(tmp_path / "b", file, "{}") != before
    shutil.copy(tmp_path / "b/model.safetensors", tmp_path / "a/model.safetensors")
    with pytest.raises(ModelError, match="not of one model"):
        load_model(tmp_path / "a")


def test_wrong_basis_is_refused(data: FitsDataModule, basis: Basis) -> None:
    with pytest.raises(BasisError, match=r"was fitted in basis test .* but model x has basis 0123"):
        data.check_basis("0123", "model x")


def test_bad_data_is_refused(tiny_fits: Path, tmp_path: Path) -> None:
    whole = tiny_fits.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "nan.h5").write_bytes(whole)
    with h5py.File(tmp_path / "nan.h5", "r+") as file:
        file["force"][3, 1] = np.nan
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    for name, message in (
        ("cut", "cannot be read"),
        ("text", "cannot be read"),
        ("foreign", "has schema"),
        ("nan", "not finite"),
    ):
        with pytest.raises(DataError, match=message):
            read_fits(tmp_path / f"{name}.h5")
    with pytest.raises(DataError, match="does not exist"):
        read_fits(tmp_path / "absent.h5")
    with pytest.raises(ConfigError, match="7 training frames, validation=7"):
        FitsDataModule(str(tiny_fits), batch_size=3, validation=7)


def test_bad_models_are_refused(data: FitsDataModule, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model in"):
        load_model(tmp_path)
    export(tmp_path / "m", start_model(TINY, data, None, energy=True), "{}")
    model = load_model(tmp_path / "m")
    raw = json.loads((tmp_path / "m/model.json").read_text())
    for change, message in (
        ({"version": 99}, "version 99"),
        ({"hash": "0" * 16}, "not of one model"),
        ({"architecture": {**raw["architecture"], "energy": None}}, "unknown"),
        ({"architecture": {**raw["architecture"], "density": {**raw["architecture"]["density"], "channels": 5}}}, "sizes"),
    ):
        (tmp_path / "m/model.json").write_text(json.dumps({**raw, **change}))
        with pytest.raises(ModelError, match=message) as found:
            load_model(tmp_path / "m")
        assert "\n" not in str(found.value)
    (tmp_path / "m/model.json").write_text(json.dumps(raw))
    weights = (tmp_path / "m/model.safetensors").read_bytes()
    (tmp_path / "m/model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "m")
    assert model.energy is not None


def test_checkpoints_are_found_or_refused(tmp_path: Path, caplog) -> None:
    assert find_checkpoint(None, tmp_path, "x") is None
    assert find_checkpoint("auto", tmp_path, "x") is None
    last = tmp_path / "run/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    for identity, warned in (("x", False), ("y", True)):
        caplog.clear()
        mark_run(tmp_path / "run", identity)
        assert find_checkpoint(str(last), tmp_path, "x") == str(last)
        assert ("a run with other settings" in caplog.text) == warned
    with pytest.raises(ModelError, match="no checkpoint at"):
        find_checkpoint(str(tmp_path / "absent.ckpt"), tmp_path, "x")


def test_sweep_with_ddp_is_refused() -> None:
    refuse_sweep_with_ddp(False, "ddp", 2, "basic")
    refuse_sweep_with_ddp(True, "auto", 1, "basic")
    refuse_sweep_with_ddp(True, "ddp", 2, "hydra_plugins.hydra_submitit_launcher.SlurmLauncher")
    with pytest.raises(ConfigError, match="once per device"):
        refuse_sweep_with_ddp(True, "ddp", 2, "hydra._internal.core_plugins.basic_launcher.BasicLauncher")


def test_training_the_density_drops_an_energy_made_for_another(data: FitsDataModule, tmp_path: Path) -> None:
    export(tmp_path / "full", start_model(TINY, data, None, energy=True), "{}")
    assert start_model(TINY, data, str(tmp_path / "full"), energy=False).model.energy is None
    assert start_model(TINY, data, str(tmp_path / "full"), energy=True).model.energy is not None


@pytest.mark.parametrize(
    "choices",
    [
        ("experiment=ethanol", "stage=joint", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1"),
        ("experiment=water", "stage=joint", "model=medium", "trainer=gpu", "trainer.accelerator=cpu"),
        ("experiment=ethanol", "stage=joint_real_space", "model=energy", "model.density.flexible=1.3", "dataset.points=50"),
        ("experiment=water", "stage=density_real_space", "dataset.points=50"),
        ("experiment=water", "stage=density_flexible", "model.density.flexible=1.3"),
    ],
    ids=["ethanol, ddp", "water, medium, gpu", "joint in real space", "real space", "flexible"],
)
def test_the_other_shipped_settings_run(choices: tuple[str, ...], tiny_fits: Path, tmp_path: Path) -> None:
    """Those no other test runs, on the CPU (a CUDA device is a matter of trainer.accelerator)."""
    run = (*choices, "logger=none", "trainer.max_epochs=1", f"run_dir={tmp_path}/r", f"export={tmp_path}/m")
    train(tiny_fits, tmp_path, *run)
    assert (load_model(tmp_path / "m").energy is not None) == any(c.startswith("stage=joint") for c in choices)


def test_a_stage_learns_dipole_derivatives(tiny_fits: Path, tmp_path: Path) -> None:
    """As train.py runs it: a batch of frames with and without, one gradient through another, the loss in the log."""
    fits = read_fits(tiny_fits)
    frames = [int(f) for f in fits.indices("train")[:3]]
    direction = [np.array([0.0, 0.6, 0.8])] * 3
    made = DipoleDerivatives.of(fits.level, [fits.frame(f) for f in frames], direction, [np.zeros((3, 3))] * 3)
    write_dipole_derivatives(tmp_path / "d.h5", made, "test", "{}")
    run = ("experiment=water", "stage=density_dipole", "dataset.points=50", f"dataset.derivatives=[{tmp_path}/d.h5]")
    train(tiny_fits, tmp_path, *run, "logger=csv", "trainer.max_epochs=1", f"run_dir={tmp_path}/r", f"export={tmp_path}/m")
    log = next((tmp_path / "r").rglob("metrics.csv")).read_text()
    assert "dipole_derivative" in log.splitlines()[0]
    assert json.loads((tmp_path / "r/identity.json").read_text())["dataset"]["derivatives"] == [f"{tmp_path}/d.h5"]
    assert load_model(tmp_path / "m").energy is None


def test_a_setting_that_is_not_used_does_not_make_another_run(tiny_fits: Path, tmp_path: Path) -> None:
    """ckpt_path=auto still finds runs from before some settings: derivatives, high_channels, init_energy, method."""
    for name, more in (("old", ()), ("new", ("model.density.high_channels=2", "stage.optimizer.method=soap"))):
        run = ("experiment=water", "stage=density", "logger=none", "trainer.max_epochs=1", *more)
        train(tiny_fits, tmp_path, *run, f"run_dir={tmp_path}/{name}", f"export={tmp_path}/m-{name}")
    old, new = (json.loads((tmp_path / name / "identity.json").read_text()) for name in ("old", "new"))
    assert "derivatives" not in old["dataset"]
    assert "high_channels" not in old["model"]["density"]
    assert "init_energy" not in old
    assert "method" not in old["stage"]["optimizer"]
    assert new["model"]["density"]["high_channels"] == 2
    assert new["stage"]["optimizer"]["method"] == "soap"


def stage_for(model: Any, **settings: Any) -> Stage:
    return Stage(model, ["energy"], [EnergyLoss(), ForceLoss()], OptimizerSettings(1e-3), **settings)


def test_settings_that_cannot_be(data: FitsDataModule, tmp_path: Path) -> None:
    model = start_model(TINY, data, None, energy=True).model
    with pytest.raises(ConfigError, match=r"stage.precompute is .*the density network trains; expected stage.precompute=null"):
        Stage(model, ["density", "energy"], [EnergyLoss()], OptimizerSettings(1e-3), precompute=str(tmp_path))
    with pytest.raises(ConfigError, match="compile is 'inference'; expected one of off, training"):
        stage_for(model, compile="inference")


def test_a_warm_start_softens_a_sharp_norm(data: FitsDataModule, tmp_path: Path, caplog) -> None:
    """A model from before the setting takes the smoothness that is configured; a smooth one stays so."""
    assert TINY.energy is not None
    sharp = start_model(replace(TINY, energy=replace(TINY.energy, softening=1e-3)), data, None, energy=True)
    assert sharp.architecture.energy is not None
    save_model(tmp_path, sharp.model, sharp.architecture, sharp.provenance)
    for configured, expected in ((0.1, 0.1), (1e-4, 1e-3)):
        energy = replace(sharp.architecture.energy, softening=configured)
        found = start_model(replace(TINY, energy=energy), data, str(tmp_path), energy=True)
        assert found.model.energy is not None
        assert found.architecture.energy == replace(energy, softening=expected)
        assert found.model.energy.softening == expected
        assert torch.equal(found.model.energy.embedding.weight, sharp.model.energy.embedding.weight)
        assert ("with softening 0.1 instead of 0.001" in caplog.text) == (expected == 0.1)
        caplog.clear()


def test_an_energy_network_goes_on_with_another_density(data: FitsDataModule, tmp_path: Path, caplog) -> None:
    assert TINY.energy is not None
    one, two, bare = (str(tmp_path / name) for name in ("one", "two", "bare"))
    larger = replace(TINY, energy=replace(TINY.energy, layers=TINY.energy.layers + 1))
    made = []
    for path, architecture in ((one, TINY), (two, larger)):
        torch.manual_seed(len(made))
        made.append(start_model(architecture, data, None, energy=True))
        recipe = ("both", "of the first" if path == one else "of the second")
        save_model(path, made[-1].model, made[-1].architecture, Provenance(recipe=recipe))
    found = start_model(TINY, data, one, True, two)
    for network, source in (("density", made[0]), ("energy", made[1])):
        for name, weight in getattr(found.model, network).state_dict().items():
            assert torch.equal(weight, getattr(source.model, network).state_dict()[name]), (network, name)
    assert found.architecture == Architecture(made[0].architecture.density, made[1].architecture.energy)
    assert found.provenance.recipe == ("both", "of the first", "of the second")
    assert f"the energy network of {two} keeps its settings" in caplog.text
    assert "the density network" not in caplog.text
    with pytest.raises(ConfigError, match="two and the stage trains no energy network"):
        start_model(TINY, data, one, False, two)
    save_model(bare, build(replace(TINY, energy=None), data.fits.basis), replace(TINY, energy=None), Provenance())
    with pytest.raises(ConfigError, match="bare and that model has no energy network"):
        start_model(TINY, data, one, True, bare)


def test_stored_densities_train_the_same_network(data: FitsDataModule, tmp_path: Path, caplog) -> None:
    """Two epochs with and without: the same weights but for round-off; too little memory allowed: said, and as without."""
    weights = []
    for settings in ({}, {"precompute": str(tmp_path)}, {"precompute": str(tmp_path), "precompute_limit_mb": 1e-3}):
        lightning.seed_everything(1)
        model = start_model(TINY, data, None, energy=True).model.double()
        torch.nn.init.normal_(model.density.readout.bias, std=0.05)
        stage = stage_for(model, **settings)
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, inference_mode=False,
        )  # fmt: skip
        trainer.fit(stage, datamodule=data)
        assert (stage.passes.frozen is not None) == (len(settings) == 1)
        weights.append({k: v.clone() for k, v in model.energy.state_dict().items()})
    plain, stored, refused = weights
    for name, value in plain.items():
        assert (stored[name] - value).abs().max() <= 1e-8 * max(1.0, float(value.abs().max())), name
        assert torch.equal(refused[name], value)
    assert "more than stage.precompute_limit_mb" in caplog.text
