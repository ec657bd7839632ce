"""simulate.py and its configuration."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from simulation_potentials import WATER, Springs

from densnet.model import checkpoint
from densnet.simulation.engine import SimulationSettings
from densnet.simulation.trajectory import read_trajectory

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf" / "simulate"


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "simulation").glob("*.yaml")))
def test_every_shipped_simulation_is_valid(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("simulate", [f"simulation={name}", "model=m", "molecule=water"])
    found = instantiate(cfg.simulation)
    assert isinstance(found, SimulationSettings)
    assert found.ensemble == name
    assert set(cfg.simulation) - {"_target_"} == set(SimulationSettings.__dataclass_fields__)


class Model(Springs):
    """Springs that move to a device, as a module does."""

    def to(self, device: str) -> Model:
        assert device == "cpu"
        return self


def call(monkeypatch, *arguments: str) -> None:
    """The program as the command line runs it, in this process."""
    monkeypatch.setattr(sys, "argv", ["simulate.py", *arguments])
    runpy.run_path(str(ROOT / "simulate.py"), run_name="__main__")


def test_the_script_runs_and_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "load_model", lambda path: Model(WATER))
    arguments = ["model=models/x", "molecule=water", "progress=false", "simulation.replicas=2", "simulation.temperature=250"]
    arguments += ["simulation.equilibration_steps=4", f"out={tmp_path}/run.h5", f"hydra.run.dir={tmp_path}/logs"]
    call(monkeypatch, *arguments, "simulation.steps=20")
    call(monkeypatch, *arguments, "simulation.steps=40", "resume=true")
    trajectory = read_trajectory(tmp_path / "run.h5")
    assert trajectory.energy.shape == (21, 2)
    assert (trajectory.model, trajectory.temperature) == ("models/x", 250.0)
    assert "40 steps" in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=no/such/model", "molecule=water"], "no/such/model"),
        (["model=m", "molecule=watr"], "watr"),
        (["model=m", "molecule=water", "simulation.time_step_fs=0"], "time_step_fs is 0"),
        (["model=m", "molecule=water", "simulation.temprature=100"], "temprature"),
        (["model=m", "molecule=water", "simulation=npt"], "npt"),
        (["molecule=water"], "model"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, monkeypatch, capfd, arguments, message):
    with pytest.raises(SystemExit) as caught:
        call(monkeypatch, *arguments, f"out={tmp_path}/run.h5", f"hydra.run.dir={tmp_path}/logs")
    assert caught.value.code == 2
    said = capfd.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "run.h5").exists()


def test_the_exit_code_of_the_program(tmp_path):
    command = [sys.executable, str(ROOT / "simulate.py"), "model=m", "molecule=water", "simulation=npt"]
    result = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path}/logs"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 2
    assert result.stderr == "error: unknown configuration 'simulation/npt'; expected one of langevin, nve\n"
