"""simulate.py and its configuration."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from simulation_potentials import WATER, Springs

from densnet.data.labels import Level
from densnet.model import checkpoint
from densnet.reference.potential import KohnShamPotential, XtbPotential
from densnet.simulation.engine import SimulationSettings
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecule, Molecules

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


def load_springs(folder: str, device: str) -> Springs:
    assert device == "cpu"
    return Springs(WATER)


def call(monkeypatch, *arguments: str) -> None:
    """The program as the command line runs it, in this process."""
    monkeypatch.setattr(sys, "argv", ["simulate.py", *arguments])
    runpy.run_path(str(ROOT / "simulate.py"), run_name="__main__")


def test_the_script_runs_and_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "load_model", load_springs)
    arguments = ["model=models/x", "molecule=water", "progress=false", "simulation.replicas=2", "simulation.temperature=250"]
    arguments += ["simulation.equilibration_steps=4", f"out={tmp_path}/run.h5", f"hydra.run.dir={tmp_path}/logs"]
    call(monkeypatch, *arguments, "simulation.steps=20")
    call(monkeypatch, *arguments, "simulation.steps=40", "resume=true", f"record={tmp_path}/record.json")
    assert json.loads((tmp_path / "record.json").read_text())["report"]["steps"] == 40
    trajectory = read_trajectory(tmp_path / "run.h5")
    assert trajectory.energy.shape == (21, 2)
    assert (trajectory.model, trajectory.temperature) == ("models/x", 250.0)
    assert "40 steps" in capsys.readouterr().out
    assert json.loads((tmp_path / "run.json").read_text())["steps"] == 40


@pytest.mark.parametrize(
    ("choice", "source", "fresh"),
    [
        (["potential=xtb"], "GFN2-xTB", XtbPotential()),
        (
            ["potential=kohn_sham", "level.ao_basis=sto-3g", "level.grid_level=1"],
            "pbe/sto-3g",
            KohnShamPotential(Level(ao_basis="sto-3g", grid_level=1)),
        ),
    ],
    ids=["xtb", "kohn_sham"],
)
def test_the_same_dynamics_on_a_reference_method(tmp_path, monkeypatch, choice, source, fresh):
    """What is recorded are the method's own energies and dipoles, and the motion follows its forces."""
    arguments = ["molecule=water", "progress=false", "simulation.replicas=2", "simulation.equilibration_steps=2"]
    arguments += ["simulation.steps=12", "simulation.time_step_fs=0.25", "simulation.record_every=1"]
    call(monkeypatch, *choice, *arguments, f"out={tmp_path}/run.h5", f"hydra.run.dir={tmp_path}/logs")
    run = read_trajectory(tmp_path / "run.h5")
    assert (run.model, run.model_hash) == (source, fresh.hash)
    assert run.energy.shape == (13, 2)
    at = Molecules.of([Molecule(run.number, run.position[-1, r]) for r in range(2)])
    expected = fresh.predict(at)
    assert expected.charge is None
    np.testing.assert_allclose(run.energy[-1], expected.energy, rtol=0, atol=1e-8)
    assert run.dipole is not None
    np.testing.assert_allclose(run.dipole[-1], expected.dipole, rtol=0, atol=1e-4)  # a warm SCF stops elsewhere
    kinetic = 0.5 * np.einsum("srnx,n->sr", run.velocity**2, run.mass)
    total = run.energy + kinetic
    assert (np.ptp(total, axis=0) < 0.04 * np.ptp(kinetic, axis=0)).all()
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(ConfigCompositionException, match="model"):
        compose("simulate", [*choice, "molecule=water", "model=m"])


def test_the_levels_of_theory_are_those_of_the_labels():
    """Hydra looks in one folder, so the levels stand in two; here they cannot drift apart."""
    levels = {path.name: OmegaConf.load(path) for path in (CONF.parent / "level").glob("*.yaml")}
    here = {path.name: OmegaConf.load(path) for path in (CONF / "level").glob("*.yaml")}
    assert {level.pop("_target_") for level in here.values()} == {"densnet.data.labels.Level"}
    assert here == levels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["potential=xtb", "molecule=water", "charge=1"], "9 electrons"),
        (["potential=kohn_sham", "level.xc=nonsense", "molecule=water"], "functional nonsense is unknown"),
        (["potential=xtb", "molecule=water", "simulation.record_charges=true"], "gives no charges of atoms"),
        (["potential=xbt", "molecule=water"], "did you mean 'xtb'?"),
        (["model=no/such/model", "molecule=water"], "no/such/model"),
        (["model=m", "molecule=watr"], "watr"),
        (["model=m", "molecule=water", "simulation.time_step_fs=0"], "time_step_fs is 0"),
        (["model=m", "molecule=water", "simulation.temprature=100"], "temprature"),
        (["model=m", "molecule=water", "simulation=npt"], "npt"),
        (["molecule=water"], "no value for model;"),
        (["model=m"], "no value for molecule;"),
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
    assert result.stderr == "error: unknown configuration 'simulation/npt'; expected one of langevin, nose_hoover, nve\n"
