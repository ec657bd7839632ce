"""Trajectory files: what is written is read, and what is broken is refused."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest

from densnet.errors import DataError, SimulationError
from densnet.simulation.restart import read_restart
from densnet.simulation.trajectory import Frame, RunSummary, TrajectoryHeader, read_trajectory
from densnet.simulation.writer import TrajectoryWriter

HEADER = TrajectoryHeader(np.array([8, 1]), np.array([29000.0, 1800.0]), -1, 41.3, 20.7, "nve", 300.0, 7, "abc123", "models/x")
SERIES = ("position", "velocity", "energy", "dipole", "kinetic_temperature", "conserved")


def frame(index: int, replicas: int = 3, atoms: int = 2) -> Frame:
    """Numbers that tell which frame they belong to."""
    shapes = ((replicas, atoms, 3), (replicas, atoms, 3), (replicas,), (replicas, 3), (replicas,), (replicas,))
    return Frame(*(1000.0 * index + np.arange(np.prod(shape)).reshape(shape) for shape in shapes))


def write(path, frames: int, block: int = 4, **options) -> None:
    with TrajectoryWriter(path, HEADER, 3, block, **({"conserved": True} | options)) as writer:
        for index in range(frames):
            writer.append(frame(index))


def assert_frames(trajectory, frames: int, series=SERIES) -> None:
    assert len(trajectory.position) == frames
    for index in range(frames):
        expected = frame(index, trajectory.energy.shape[1])
        assert all(np.array_equal(getattr(trajectory, name)[index], getattr(expected, name)) for name in series)


@pytest.mark.parametrize("frames", [1, 4, 10])
def test_what_is_written_is_read(tmp_path, frames):
    path = tmp_path / "run.h5"
    write(path, frames)
    trajectory = read_trajectory(path)
    assert_frames(trajectory, frames)
    for name in ("charge", "time_step", "integration_step", "ensemble", "temperature", "seed", "model_hash", "model"):
        assert getattr(trajectory, name) == getattr(HEADER, name)
    assert np.array_equal(trajectory.number, HEADER.number)
    assert np.array_equal(trajectory.mass, HEADER.mass)
    with h5py.File(path) as file:
        assert (file.attrs["schema"], file.attrs["version"], file.attrs["units"]) == ("densnet/trajectory", 3, "atomic")
        assert {file[name].dtype for name in SERIES} == {np.dtype("f8")}
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]


def test_it_can_be_read_while_it_grows(tmp_path):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4, conserved=True) as writer:
        with pytest.raises(DataError, match="no complete frame"):
            read_trajectory(path)
        for index in range(9):
            writer.append(frame(index))
        assert_frames(read_trajectory(path), 8)
        writer.flush()
        assert_frames(read_trajectory(path), 9)


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4, conserved=True) as writer:
        writer.append(frame(0))
        with pytest.raises(SimulationError, match="open in another process"):
            TrajectoryWriter(path, HEADER, 3, 4, conserved=True)
    assert_frames(read_trajectory(path), 1)
    write(path, 2)
    assert_frames(read_trajectory(path), 2)


def test_a_run_that_continues_takes_over_the_first_frames(tmp_path):
    path = tmp_path / "run.h5"
    write(path, 10)
    with TrajectoryWriter(path, HEADER, 3, 4, conserved=True, keep=6) as writer:
        assert writer.frames == 6
        writer.append(frame(6))
    assert_frames(read_trajectory(path), 7)
    with pytest.raises(DataError, match="holds 7 frames of position; expected 8"):
        TrajectoryWriter(path, HEADER, 3, 4, conserved=True, keep=8)
    assert_frames(read_trajectory(path), 7)


def test_large_frames_are_written_in_smaller_blocks(tmp_path):
    with TrajectoryWriter(tmp_path / "run.h5", HEADER, 100_000, 200, conserved=True) as writer:
        for index in range(4):
            assert not writer.full
            writer.append(frame(index, 100_000))
            if writer.full:
                writer.flush()
    assert_frames(read_trajectory(tmp_path / "run.h5"), 4)


def test_series_and_summary(tmp_path):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4, conserved=True) as writer:
        for index in range(10):
            writer.append(frame(index))
        found = {name: writer.series(name) for name in ("energy", "kinetic_temperature", "conserved")}
        writer.finish(RunSummary(9, 1.5, 290.0, None, 3.0, 2))
    trajectory = read_trajectory(path)
    for name, series in found.items():
        assert np.array_equal(series, getattr(trajectory, name))
    with h5py.File(path) as file:
        assert (file.attrs["steps"], file.attrs["mean_temperature"], file.attrs["frozen_replicas"]) == (9, 290.0, 2)
        assert np.isnan(file.attrs["drift_meV_per_atom_per_ps"])


def test_a_thermostat_that_conserves_nothing_writes_no_such_series(tmp_path):
    write(tmp_path / "run.h5", 3, conserved=False)
    trajectory = read_trajectory(tmp_path / "run.h5")
    assert trajectory.conserved is None
    assert_frames(trajectory, 3, SERIES[:5])


def test_charges_of_atoms(tmp_path):
    """Written when asked for, read, taken over by a run that continues, left out with a replica, missed where they are not."""
    path, options = tmp_path / "run.h5", {"conserved": True, "charges": True}
    charges = [np.arange(6.0).reshape(3, 2) + 10.0 * index for index in range(7)]
    with TrajectoryWriter(path, HEADER, 3, 4, **options) as writer:
        for index in range(6):
            writer.append(replace(frame(index), atomic_charge=charges[index]))
    with TrajectoryWriter(path, HEADER, 3, 4, keep=6, **options) as writer:
        writer.freeze(np.array([1]))
        lost = lose(1, frame(6))
        charges[6][1] = np.nan
        writer.append(replace(lost, atomic_charge=charges[6]))
    trajectory = read_trajectory(path)
    assert trajectory.atomic_charge is not None
    assert np.array_equal(trajectory.atomic_charge, charges, equal_nan=True)
    assert np.array_equal(trajectory.survivors().atomic_charge, np.array(charges)[:, [0, 2]])
    with h5py.File(path, "r+") as file:
        file["atomic_charge"][3, 0, 1] = np.nan
    with pytest.raises(DataError, match="frame 3 is not finite"):
        read_trajectory(path)
    write(tmp_path / "without.h5", 6)
    assert read_trajectory(tmp_path / "without.h5").atomic_charge is None
    with pytest.raises(DataError, match="has no dataset 'atomic_charge'"):
        TrajectoryWriter(tmp_path / "without.h5", HEADER, 3, 4, keep=6, **options)


def version_1(path) -> None:
    """What densnet 0.1 wrote."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs.update(schema="densnet/trajectory", version=1, units="atomic", creator="densnet 0.1.0")
        for name in ("time_step", "integration_step", "ensemble", "temperature", "seed", "model_hash", "model", "charge"):
            file.attrs[name] = getattr(HEADER, name)
        file["number"], file["mass"] = HEADER.number, HEADER.mass
        for name in SERIES[:4]:
            file[name] = np.stack([getattr(frame(index), name) for index in range(5)])


def test_files_of_version_1_are_read(tmp_path):
    version_1(tmp_path / "run.h5")
    trajectory = read_trajectory(tmp_path / "run.h5")
    assert_frames(trajectory, 5, SERIES[:4])
    assert (trajectory.charge, trajectory.mixed, trajectory.kinetic_temperature, trajectory.conserved) == (-1, False, None, None)
    assert trajectory.frozen_from.tolist() == [-1, -1, -1]
    assert_frames(trajectory.survivors(), 5, SERIES[:4])


def lose(replica: int, content: Frame) -> Frame:
    """The frame with NaN for one replica."""
    values = [getattr(content, name).copy() for name in SERIES]
    for value in values:
        value[replica] = np.nan
    return Frame(*values)


@pytest.mark.parametrize("finished", [True, False])
def test_a_frozen_replica_reads_nan_and_survivors_leave_it_out(tmp_path, finished):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4, conserved=True) as writer:
        for index in range(6):
            writer.append(frame(index))
        writer.freeze(np.array([1]))
        for index in range(6, 11):
            writer.append(lose(1, frame(index)))
        if not finished:  # 8 of 11 frames are on disk, and what follows is not taken for the end of all replicas
            trajectory = read_trajectory(path)
            assert len(trajectory.energy) == 8
    if finished:
        trajectory = read_trajectory(path)
        assert len(trajectory.energy) == 11
    assert trajectory.frozen_from.tolist() == [-1, 6, -1]
    assert np.isfinite(trajectory.energy[:6]).all()
    assert np.isnan(trajectory.position[6:, 1]).all()
    left = trajectory.survivors()
    assert left.frozen_from.tolist() == [-1, -1]
    assert left.dipole is not None
    for index in range(len(left.energy)):
        assert np.array_equal(left.position[index], frame(index).position[[0, 2]])
        assert np.array_equal(left.dipole[index], frame(index).dipole[[0, 2]])


def test_nan_of_a_replica_that_is_not_frozen_is_damage(tmp_path):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4, conserved=True) as writer:
        writer.append(frame(0))
        writer.freeze(np.array([1]))
        writer.append(lose(2, frame(1)))
    with pytest.raises(DataError, match="frame 1 is not finite"):
        read_trajectory(path)


def test_nothing_is_left_of_a_run_that_failed_altogether(tmp_path):
    with TrajectoryWriter(tmp_path / "run.h5", HEADER, 3, 4, conserved=True) as writer:
        writer.append(frame(0))
        writer.freeze(np.arange(3))
    with pytest.raises(DataError, match="all 3 replicas of the trajectory were frozen"):
        read_trajectory(tmp_path / "run.h5").survivors()


def test_replicas_of_different_molecules(tmp_path):
    number, mass = np.array([[8, 1], [2, 0], [8, 1]]), np.array([[29000.0, 1800.0], [7000.0, 0.0], [29000.0, 1800.0]])
    header = replace(HEADER, number=number, mass=mass, charge=np.array([0, 1, 0]))
    with TrajectoryWriter(tmp_path / "run.h5", header, 3, 4) as writer:
        writer.append(frame(0))
        writer.freeze(np.array([0]))
        writer.append(lose(0, frame(1)))
    trajectory = read_trajectory(tmp_path / "run.h5")
    assert trajectory.mixed
    left = trajectory.survivors()
    assert np.array_equal(left.number, number[1:])
    assert np.array_equal(left.mass, mass[1:])
    helium = left.molecule(frame=1)
    assert (helium.number.tolist(), helium.charge) == ([2], 1)
    assert np.array_equal(helium.position, frame(1).position[1, :1])
    assert left.molecule(replica=1).number.tolist() == [8, 1]


WRITE_FOREVER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_simulation_trajectory import HEADER, frame
from densnet.simulation.writer import TrajectoryWriter
with TrajectoryWriter(Path(sys.argv[1]), HEADER, 40, 16, conserved=True) as writer:
    for index in itertools.count():
        writer.append(frame(index, 40))
        if index == 40:
            print("ready", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.0031, 0.0127, 0.0419])
def test_killed_while_writing_at_full_speed(tmp_path, delay, request):
    """Whatever the moment, the file reads, and holds whole frames from the first on."""
    path = tmp_path / "run.h5"
    command = [sys.executable, "-c", WRITE_FOREVER, str(path), str(request.path.parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.kill()
    process.wait()
    trajectory = read_trajectory(path)
    assert len(trajectory.energy) >= 32
    assert_frames(trajectory, len(trajectory.energy))
    killed = path.read_bytes()
    path.write_bytes(killed[: len(killed) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        read_trajectory(path)
    path.write_bytes(killed)
    with TrajectoryWriter(path, HEADER, 40, 16, conserved=True, keep=20) as writer:
        writer.append(frame(20, 40))
    assert_frames(read_trajectory(path), 21)


def test_a_trajectory_may_lack_dipoles(tmp_path):
    write(tmp_path / "run.h5", 5)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        del file["dipole"]
    trajectory = read_trajectory(tmp_path / "run.h5").survivors()
    assert trajectory.dipole is None
    assert len(trajectory.energy) == 5


def spoil(path, kind: str) -> None:
    if kind == "truncated":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - 100])
    elif kind == "cut to its head":
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "text":
        path.write_text("step energy\n1 -76.4\n")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    else:
        with h5py.File(path, "r+") as file:
            if kind == "foreign":
                file.attrs["schema"] = "densnet/labels"
            elif kind == "future":
                file.attrs["version"] = 4
            elif kind == "no energy":
                del file["energy"]
            elif kind == "no time step":
                del file.attrs["time_step"]
            elif kind == "NaN":
                file["dipole"][4, 1, 2] = np.nan
            elif kind == "wrong shape":
                del file["velocity"]
                file["velocity"] = np.zeros((5, 3, 7, 3))
            elif kind == "no marks":
                del file["frozen_from"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "cannot be read"),
        ("cut to its head", "cannot be read"),
        ("text", "cannot be read"),
        ("empty", "cannot be read"),
        ("missing", "does not exist"),
        ("foreign", "has schema 'densnet/labels'; expected 'densnet/trajectory'"),
        ("future", "has version 4"),
        ("no energy", "no dataset 'energy'"),
        ("no time step", "cannot be read"),
        ("NaN", "frame 4 is not finite"),
        ("wrong shape", "velocity has shape"),
        ("no marks", "no dataset 'frozen_from'"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, kind, message):
    path = tmp_path / "run.h5"
    write(path, 5)
    spoil(path, kind)
    with pytest.raises(DataError, match=message) as caught:
        read_trajectory(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_broken_restart_file_is_refused(tmp_path, content):
    path = tmp_path / "run.restart.npz"
    with pytest.raises(DataError, match="does not exist"):
        read_restart(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_restart(path)


def test_a_restart_file_of_another_version_is_refused(tmp_path):
    np.savez(tmp_path / "run.restart.npz", schema="densnet/restart", version=1, position=np.zeros(3))
    with pytest.raises(DataError, match="is densnet/restart version 1; expected densnet/restart version 2 or 3; continue with"):
        read_restart(tmp_path / "run.restart.npz")


def test_a_restart_file_with_pickles_is_refused(tmp_path):
    path = tmp_path / "run.restart.npz"
    np.savez(path, schema="densnet/restart", version=2, position=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read_restart(path)
