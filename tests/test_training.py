"""Training as users run it: every stage, loggers, exact resume, EMA."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_runs import ROOT, command, train

from densnet.data.dipole_derivatives import DipoleDerivatives, write_dipole_derivatives
from densnet.data.fits import read_fits
from densnet.data.harmonic import HarmonicData, write_harmonic
from densnet.model.checkpoint import load_model, read_model
from densnet.structures import Molecule
from densnet.training.optimizer import METHODS
from densnet.units import ELECTRON_MASS_PER_DALTON


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
    assert old["stage"]["optimizer"]["_target_"] == "densnet.training.stage.OptimizerSettings"
    assert new["model"]["density"]["high_channels"] == 2
    assert new["stage"]["optimizer"]["method"] == "soap"
