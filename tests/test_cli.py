"""A mistake on the command line: one line that says what to do, exit code 2, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from test_configs import composed

from densnet.cli import explain

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["train.py", "exprement=water"], "unknown setting 'exprement'; did you mean 'experiment'?"),
        (["train.py", "dataset.path=no/fits.h5", "logger=none"], "no/fits.h5 does not exist"),
        (["simulate.py", "model=no/model", "molecule=water"], "no model in no/model; expected a folder"),
        (["spectra.py", "trajectory=no/run.h5"], "no/run.h5 does not exist"),
        (["-m", "densnet.reference", "molecule=watr"], "watr is neither a file nor a known molecule; did you mean water"),
    ],
)
def test_mistakes_end_in_one_line(command: list[str], expected: str, tmp_path: Path) -> None:
    if command[0] != "-m":
        command = [str(ROOT / command[0]), *command[1:], f"hydra.run.dir={tmp_path}/run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith("Seed set to")]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert expected in said[0]
    assert [path for path in tmp_path.rglob("*") if path.is_file() and ".hydra" not in path.parts and path.suffix != ".log"] == []


@pytest.mark.parametrize(
    ("program", "override", "expected"),
    [
        ("train", "trainer.max_epoch=3", "unknown setting 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"),
        ("train", "experiment=watr", "unknown configuration 'experiment/watr'; did you mean 'water'?"),
        (
            "train",
            "stage=second",
            "unknown configuration 'stage/second'; expected one of density, density_dipole, density_flexible, density_real_",
        ),
        ("train", "zzz=1", "unknown setting 'zzz'; --help lists the settings this program knows"),
        (
            "simulate",
            "simulation.temprature=1",
            "unknown setting 'simulation.temprature'; did you mean 'simulation.temperature'?",
        ),
        ("spectra", "trajectry=a.h5", "unknown setting 'trajectry'; did you mean 'trajectory'?"),
        ("reference", "molecul=water", "unknown setting 'molecul'; did you mean 'molecule'?"),
        ("train", "seed", "cannot read 'seed'; expected key=value"),
    ],
)
def test_settings_that_do_not_exist_are_explained(program: str, override: str, expected: str) -> None:
    with pytest.raises(HydraException) as caught:
        composed(program, override, hydra=True)
    message = explain(caught.value)
    assert expected in message
    assert "\n" not in message


def test_a_setting_without_default_is_asked_for() -> None:
    settings = composed("spectra")
    with pytest.raises(OmegaConfBaseException) as caught:
        _ = settings.trajectory
    assert explain(caught.value) == "no value for trajectory; it has no default; add trajectory=... to the command"
