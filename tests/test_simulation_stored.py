"""Trajectories that stay on disk: the same numbers as in memory, few of them at a time."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest

from densnet.errors import DataError
from densnet.simulation.stored import open_trajectory
from densnet.simulation.trajectory import read_trajectory

REPLICAS, ATOMS = 5, 3


def write(path, n_frames=40, replicas=REPLICAS, chunks=7, frozen=(), mixed=False, **attributes) -> None:
    """A version-2 file of random numbers."""
    rng = np.random.default_rng(0)
    frozen_from = np.full(replicas, -1)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            schema="densnet/trajectory", version=2, units="atomic", time_step=41.3, integration_step=20.7, ensemble="nve",
            temperature=300.0, seed=1, model_hash="abc", model="none", creator="densnet test",
        )  # fmt: skip
        number = np.array([8, 1, 1])
        if mixed:
            file["number"], file["mass"], file["charge"] = [
                np.stack([x] * replicas) for x in (number, number * 1800.0, np.array(0))
            ]
        else:
            file.attrs["charge"] = -1
            file["number"], file["mass"] = number, number * 1800.0
        shapes = {"position": (ATOMS, 3), "velocity": (ATOMS, 3), "energy": (), "dipole": (3,), "kinetic_temperature": ()}
        for name, shape in shapes.items():
            data = rng.normal(size=(n_frames, replicas, *shape))
            if name == "position":
                data += 10.0 * np.arange(ATOMS)[:, None]  # no overlap
            for replica, first in frozen:
                data[first:, replica] = np.nan
                frozen_from[replica] = first
            file.create_dataset(name, data=data, chunks=(min(chunks, n_frames), replicas, *shape))
        file["frozen_from"] = frozen_from
        for name, value in attributes.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value


@pytest.mark.parametrize("memory_mb", [1e-9, 0.012, 256.0])
@pytest.mark.parametrize("frozen", [(), ((1, 10), (4, 0))])
def test_parts_together_are_the_whole(tmp_path, memory_mb, frozen):
    write(tmp_path / "run.h5", frozen=frozen)
    stored, whole = open_trajectory(tmp_path / "run.h5"), read_trajectory(tmp_path / "run.h5")
    kept = whole.survivors()
    parts = list(stored.motion(memory_mb))
    assert len(parts) == {1e-9: REPLICAS - len(frozen), 0.012: -(-(REPLICAS - len(frozen)) // 2), 256.0: 1}[memory_mb]
    for index, name in enumerate(("position", "velocity")):
        assert np.array_equal(np.concatenate([part[index] for part in parts], axis=1), getattr(kept, name))
    assert np.array_equal(stored.dipole, kept.dipole)
    assert stored.frames == 40
    assert stored.losses == whole.losses
    assert ("2 of 5 replicas" in stored.losses) == bool(frozen)
    assert np.array_equal(stored.molecule().position, kept.molecule().position)
    assert (stored.charge, stored.time_step, stored.temperature) == (-1, 41.3, 300.0)


def test_memory_is_bounded(tmp_path):
    """24 replicas of 58 MB together, in parts of 4 MB: nothing near the whole is ever held."""
    write(tmp_path / "run.h5", n_frames=16000, replicas=24, chunks=200)
    stored = open_trajectory(tmp_path / "run.h5")
    size = (tmp_path / "run.h5").stat().st_size
    tracemalloc.start()
    seen = sum(position.shape[1] for position, _ in stored.motion(4.0))
    stored = open_trajectory(tmp_path / "run.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 24
    # Dipoles are held whole; opening it looks at every value of it, a block at a time.
    assert size > 60e6
    assert peak < 0.55 * size


def test_what_it_refuses(tmp_path):
    cases = (
        ({"mixed": True}, "different molecules"),
        ({"frozen": [(r, 0) for r in range(REPLICAS)]}, "all 5 replicas of the trajectory were frozen"),
        ({"time_step": None}, "does not say its time_step"),
        ({"charge": None}, "does not say its charge"),
        ({"schema": "other"}, "schema 'other'"),
    )
    for index, (options, words) in enumerate(cases):
        path = tmp_path / f"{index}.h5"
        write(path, **options)
        with pytest.raises(DataError, match=words) as error:
            open_trajectory(path)
        assert "\n" not in str(error.value)
    write(tmp_path / "nan.h5")
    with h5py.File(tmp_path / "nan.h5", "a") as file:
        file["velocity"][17, 2, 0, 0] = np.nan
    with pytest.raises(DataError, match="frame 17 is not finite"):
        open_trajectory(tmp_path / "nan.h5")
    with pytest.raises(DataError, match="does not exist"):
        open_trajectory(tmp_path / "none.h5")
