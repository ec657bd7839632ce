"""A stage and what it minimises: the loop, gradients, targets, stored densities."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from conftest import untrained
from training_runs import TINY

from densnet.data.datamodule import FitsDataModule
from densnet.errors import ConfigError, ModelError
from densnet.model.checkpoint import load_model
from densnet.model.densnet import DensNet
from densnet.structures import Molecules
from densnet.training.averaging import ExponentialAverage
from densnet.training.objectives import EnergyLoss, ForceLoss, MetricLoss, metric_squares
from densnet.training.optimizer import OptimizerSettings
from densnet.training.run import export, start_model
from densnet.training.stage import Stage


@pytest.fixture(scope="module")
def data(tiny_fits: Path) -> FitsDataModule:
    return FitsDataModule(str(tiny_fits), batch_size=3, validation=2)


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


def stage_for(model: Any, **settings: Any) -> Stage:
    return Stage(model, ["energy"], [EnergyLoss(), ForceLoss()], OptimizerSettings(1e-3), **settings)


def test_settings_that_cannot_be(data: FitsDataModule, tmp_path: Path) -> None:
    model = start_model(TINY, data, None, energy=True).model
    with pytest.raises(ConfigError, match=r"stage.precompute is .*the density network trains; expected stage.precompute=null"):
        Stage(model, ["density", "energy"], [EnergyLoss()], OptimizerSettings(1e-3), precompute=str(tmp_path))
    with pytest.raises(ConfigError, match="compile is 'inference'; expected one of off, training"):
        stage_for(model, compile="inference")


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
