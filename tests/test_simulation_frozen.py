"""A replica that leaves the physical region is frozen and reported; the others do not notice."""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from simulation_potentials import WATER, Failing, Flowing, Springs, settings

from densnet.errors import SimulationError, SpectrumError
from densnet.simulation.engine import simulate
from densnet.simulation.restart import read_restart
from densnet.simulation.trajectory import read_trajectory
from densnet.spectra.infrared import Recipe, infrared_spectrum
from densnet.structures import Molecules, Prediction

ENSEMBLES = ("nve", "langevin", "nose_hoover")
SERIES = ("position", "velocity", "energy", "dipole", "kinetic_temperature")
OTHERS = [0, 1, 3]


def run(path, potential=None, resume=False, **changes):
    summary = simulate(potential or Springs(WATER), WATER, settings(**changes), path, progress=False, resume=resume)
    return summary, read_trajectory(path)


@pytest.mark.parametrize("what", ["force", "energy", "dipole", "charge"])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_one_replica_fails_and_the_others_go_on_bit_for_bit(tmp_path, caplog, what, ensemble):
    """Call 31 is step 30: its last good state is that of step 29, and it holds NaN from frame 10 (every third step) on.

    Charges are asked for once more, before the first call.
    """
    charges = what == "charge"
    options = {"replicas": 4, "ensemble": ensemble, "record_every": 3, "record_charges": charges}
    _, good = run(tmp_path / "good.h5", Flowing(WATER), **options)
    with caplog.at_level(logging.WARNING):
        summary, found = run(tmp_path / "run.h5", Failing(WATER, what=what, replica=2, at_call=31 + charges), **options)
    assert found.frozen_from.tolist() == [-1, -1, 10, -1]
    assert summary.frozen_replicas == 1
    for name in (*SERIES, *(["atomic_charge"] if charges else [])):
        series, expected = getattr(found, name), getattr(good, name)
        assert len(series) == 34
        assert np.array_equal(series[:, OTHERS], expected[:, OTHERS])
        assert np.array_equal(series[:10], expected[:10])
        assert np.isnan(series[10:, 2]).all()
    assert np.isfinite(summary.mean_temperature)
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert "replica 2 frozen, 3 of 4 go on: step 30" in message
    assert "\n" not in message
    kept = read_restart(tmp_path / "run.restart.npz")
    assert kept.health.alive.tolist() == [True, True, False, True]
    assert kept.health.step[2] == 30


def test_it_is_frozen_where_it_was_last_well(tmp_path):
    _, good = run(tmp_path / "good.h5", replicas=4)
    run(tmp_path / "run.h5", Failing(WATER, replica=2, at_call=31), replicas=4)
    state = read_restart(tmp_path / "run.restart.npz").state
    assert np.array_equal(state.position[2], good.position[29, 2])
    assert np.array_equal(state.velocity[2], good.velocity[29, 2])
    assert state.evaluation.energy[2].item() == good.energy[29, 2]


def test_the_summary_is_of_the_others(tmp_path):
    summary, found = run(tmp_path / "run.h5", Failing(WATER, replica=0, at_call=61), replicas=3, steps=200)
    left = found.survivors()
    assert left.energy.shape == (201, 2)
    assert left.kinetic_temperature is not None
    assert summary.mean_temperature == pytest.approx(left.kinetic_temperature.mean(), rel=1e-12)
    assert summary.drift_meV_per_atom_per_ps is not None
    assert abs(summary.drift_meV_per_atom_per_ps) < 10.0
    with h5py.File(tmp_path / "run.h5") as file:
        assert file.attrs["frozen_replicas"] == 1


def test_a_replica_lost_in_equilibration_has_no_frame(tmp_path):
    _, found = run(tmp_path / "run.h5", Failing(WATER, replica=1, at_call=5), replicas=3, equilibration_steps=20)
    assert found.frozen_from.tolist() == [-1, 0, -1]
    assert np.isnan(found.energy[:, 1]).all()
    assert found.molecule(replica=2).number.tolist() == [8, 1, 1]


def test_a_replica_lost_after_the_last_frame_is_left_out(tmp_path):
    _, found = run(tmp_path / "run.h5", Failing(WATER, replica=1, at_call=102), steps=101, record_every=2, replicas=2)
    assert found.frozen_from.tolist() == [-1, 51]
    assert np.isfinite(found.energy).all()
    assert found.survivors().energy.shape == (51, 1)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_last_replica_ends_the_run(tmp_path, ensemble):
    path = tmp_path / "run.h5"
    with pytest.raises(SimulationError, match=r"^step 30, replica 0: .* below 0\.5 fs, or a start nearer") as caught:
        run(path, Failing(WATER, replica=0, at_call=31), ensemble=ensemble)
    assert "\n" not in str(caught.value)
    assert len(read_trajectory(path).energy) == 30
    assert not (tmp_path / "run.json").exists()


def test_a_time_step_too_large_is_said(tmp_path):
    path = tmp_path / "run.h5"
    with pytest.raises(SimulationError, match=r"none of 2 replicas is left, the last: step \d+, .* below 12 fs") as caught:
        run(path, time_step_fs=12.0, replicas=2, steps=1000)
    assert "so soon after the start the time step is too large or the start is strained" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(read_trajectory(path).energy) <= 20


@pytest.mark.parametrize("bound", [{"max_energy_jump_ev": 1e-6}, {"max_temperature": 301.0}])
def test_both_bounds_are_watched(tmp_path, bound):
    with pytest.raises(SimulationError, match="expected at most"):
        run(tmp_path / "run.h5", replicas=8, equilibration_steps=50, **bound)


@dataclass
class FailingThenKilled(Springs):
    """Replica 1 fails at call 40 and the process is killed at another."""

    killed_at: int = 0

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        exact = super().predict(molecules, forces)
        if self.calls == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.calls == 40:
            exact.energy[1] = np.nan
        return exact


RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_simulation_frozen import WATER, FailingThenKilled, settings, simulate
simulate(FailingThenKilled(WATER, killed_at=90), WATER, settings(**json.loads(sys.argv[3])), sys.argv[2], progress=False)
"""


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_the_dead_stay_dead_after_a_kill(tmp_path, request, caplog, ensemble):
    """The run that continues has no failure of its own (its calls count anew), yet equals the whole one."""
    options = {"ensemble": ensemble, "replicas": 3, "equilibration_steps": 10, "steps": 120, "flush_every": 7}
    _, whole = run(tmp_path / "whole.h5", FailingThenKilled(WATER), **options)
    assert whole.frozen_from.tolist() == [-1, 29, -1]
    path = tmp_path / "run.h5"
    command = [sys.executable, "-c", RUN, str(request.path.parent), str(path), json.dumps(options)]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    caplog.clear()
    summary, resumed = run(path, Springs(WATER), resume=True, **options)
    assert not caplog.records
    assert summary.frozen_replicas == 1
    assert np.array_equal(resumed.frozen_from, whole.frozen_from)
    for name in SERIES:
        assert np.array_equal(getattr(resumed, name), getattr(whole, name), equal_nan=True)


def test_a_spectrum_cannot_take_in_a_frozen_replica_unseen(tmp_path, monkeypatch):
    options = {"replicas": 3, "steps": 600, "record_every": 2}
    _, found = run(tmp_path / "run.h5", Failing(WATER, replica=1, at_call=150), **options)
    recipe = Recipe.named("gaussian", 200.0)
    with pytest.raises(SpectrumError, match="dipole of replica 1 is NaN or infinite from frame 75 on"):
        infrared_spectrum(found.dipole, found.time_step, 300.0, recipe)
    assert infrared_spectrum(found.survivors().dipole, found.time_step, 300.0, recipe).n_replicas == 2
    arguments = [f"trajectory={tmp_path}/run.h5", f"out={tmp_path}/ir", "spectrum.resolution_cm1=200"]
    monkeypatch.setattr(sys, "argv", ["spectra.py", *arguments, f"hydra.run.dir={tmp_path}/logs"])
    runpy.run_path(str(Path(__file__).parents[1] / "spectra.py"), run_name="__main__")
    assert "without 1 of 3 replicas, which failed" in (tmp_path / "ir" / "ir.json").read_text()
