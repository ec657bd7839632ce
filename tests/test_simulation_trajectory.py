"""Trajectory files: what is written is read, and what is broken is refused."""

from __future__ import annotations

import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from densnet.errors import DataError, SimulationError
from densnet.simulation.restart import read_restart
from densnet.simulation.trajectory import RunSummary, TrajectoryHeader, read_trajectory
from densnet.simulation.writer import TrajectoryWriter

HEADER = TrajectoryHeader(np.array([8, 1]), np.array([29000.0, 1800.0]), -1, 41.3, 20.7, "nve", 300.0, 7, "abc123", "models/x")


def frame(index: int, replicas: int = 3) -> tuple[np.ndarray, ...]:
    """Numbers that tell which frame they belong to."""
    shapes = ((replicas, 2, 3), (replicas, 2, 3), (replicas,), (replicas, 3))
    return tuple(1000.0 * index + np.arange(np.prod(shape)).reshape(shape) for shape in shapes)


def write(path, frames: int, block: int = 4, **options) -> None:
    with TrajectoryWriter(path, HEADER, 3, block, **options) as writer:
        for index in range(frames):
            writer.append(*frame(index))


def assert_frames(trajectory, frames: int) -> None:
    assert len(trajectory.position) == frames
    for index in range(frames):
        expected = frame(index, trajectory.energy.shape[1])
        found = (trajectory.position, trajectory.velocity, trajectory.energy, trajectory.dipole)
        assert all(np.array_equal(series[index], value) for series, value in zip(found, expected, strict=True))


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
        assert (file.attrs["schema"], file.attrs["version"], file.attrs["units"]) == ("densnet/trajectory", 1, "atomic")
        assert {file[name].dtype for name in ("position", "velocity", "energy", "dipole")} == {np.dtype("f8")}
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]


def test_it_can_be_read_while_it_grows(tmp_path):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4) as writer:
        with pytest.raises(DataError, match="no complete frame"):
            read_trajectory(path)
        for index in range(9):
            writer.append(*frame(index))
        assert_frames(read_trajectory(path), 8)
        writer.flush()
        assert_frames(read_trajectory(path), 9)


def test_a_second_writer_is_refused_while_the_first_lives(tmp_path):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4) as writer:
        writer.append(*frame(0))
        with pytest.raises(SimulationError, match="open in another process"):
            TrajectoryWriter(path, HEADER, 3, 4)
    assert_frames(read_trajectory(path), 1)
    write(path, 2)
    assert_frames(read_trajectory(path), 2)


def test_a_run_that_continues_takes_over_the_first_frames(tmp_path):
    path = tmp_path / "run.h5"
    write(path, 10)
    with TrajectoryWriter(path, HEADER, 3, 4, keep=6) as writer:
        assert writer.frames == 6
        writer.append(*frame(6))
    assert_frames(read_trajectory(path), 7)
    with pytest.raises(DataError, match="holds 7 frames of position; expected 8"):
        TrajectoryWriter(path, HEADER, 3, 4, keep=8)
    assert_frames(read_trajectory(path), 7)


def test_large_frames_are_written_in_smaller_blocks(tmp_path):
    with TrajectoryWriter(tmp_path / "run.h5", HEADER, 100_000, 200) as writer:
        for index in range(4):
            assert not writer.full
            writer.append(*frame(index, 100_000))
            if writer.full:
                writer.flush()
    assert_frames(read_trajectory(tmp_path / "run.h5"), 4)


def test_energies_and_summary(tmp_path):
    path = tmp_path / "run.h5"
    with TrajectoryWriter(path, HEADER, 3, 4) as writer:
        for index in range(10):
            writer.append(*frame(index))
        potential, kinetic = writer.energies()
        writer.finish(RunSummary(9, 1.5, 290.0, None, 3.0))
    trajectory = read_trajectory(path)
    assert np.array_equal(potential, trajectory.energy)
    by_hand = 0.5 * sum(HEADER.mass[a] * (trajectory.velocity[:, :, a] ** 2).sum(axis=-1) for a in range(2))
    np.testing.assert_allclose(kinetic, by_hand, rtol=1e-14)
    with h5py.File(path) as file:
        assert (file.attrs["steps"], file.attrs["mean_temperature"]) == (9, 290.0)
        assert np.isnan(file.attrs["drift_meV_per_atom_per_ps"])


WRITE_FOREVER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_simulation_trajectory import HEADER, frame
from densnet.simulation.writer import TrajectoryWriter
with TrajectoryWriter(Path(sys.argv[1]), HEADER, 40, 16) as writer:
    for index in itertools.count():
        writer.append(*frame(index, 40))
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
    with TrajectoryWriter(path, HEADER, 40, 16, keep=20) as writer:
        writer.append(*frame(20, 40))
    assert_frames(read_trajectory(path), 21)


def test_a_trajectory_may_lack_dipoles(tmp_path):
    write(tmp_path / "run.h5", 5)
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        del file["dipole"]
    trajectory = read_trajectory(tmp_path / "run.h5")
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
                file.attrs["version"] = 2
            elif kind == "no energy":
                del file["energy"]
            elif kind == "no time step":
                del file.attrs["time_step"]
            elif kind == "NaN":
                file["dipole"][4, 1, 2] = np.nan
            elif kind == "wrong shape":
                del file["velocity"]
                file["velocity"] = np.zeros((5, 3, 7, 3))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "cannot be read"),
        ("cut to its head", "cannot be read"),
        ("text", "cannot be read"),
        ("empty", "cannot be read"),
        ("missing", "does not exist"),
        ("foreign", "has schema 'densnet/labels'; expected 'densnet/trajectory'"),
        ("future", "has version 2"),
        ("no energy", "no dataset 'energy'"),
        ("no time step", "cannot be read"),
        ("NaN", "frame 4 is not finite"),
        ("wrong shape", "velocity has shape"),
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


def test_a_restart_file_with_pickles_is_refused(tmp_path):
    path = tmp_path / "run.restart.npz"
    np.savez(path, schema="densnet/restart", version=1, position=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read_restart(path)
