"""Runs of train.py on a tiny data set, and the architecture of models as small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings

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
