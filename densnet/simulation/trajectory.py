"""Trajectories on disk: HDF5, schema densnet/trajectory version 1, atomic units, append-only, readable while it grows.

    attributes   schema, version, units="atomic", creator; time_step (atomic time between frames), integration_step (of the
                 integrator), ensemble, temperature (kelvin), seed, model, model_hash, charge; of RunSummary once finished
    number, mass          (N,), (N,)                 nuclear charges; electron masses
    position, velocity    (S, R, N, 3)               bohr; bohr per atomic time
    energy                (S, R)                     potential energy, hartree
    dipole                (S, R, 3), may be absent   e*bohr

The writer works in HDF5's single-writer-multiple-readers mode from the moment the file has its name, so that a process
killed at any time leaves a file that reads up to the last flush. A value that never reached the disk reads NaN.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from densnet.errors import DataError

SCHEMA, VERSION = "densnet/trajectory", 1
SETTINGS = ("time_step", "integration_step", "ensemble", "temperature", "seed", "model_hash", "model", "charge")


@dataclass(frozen=True)
class TrajectoryHeader:
    """What holds for every frame; units as in the module's table."""

    number: np.ndarray
    mass: np.ndarray
    charge: int
    time_step: float
    integration_step: float
    ensemble: str
    temperature: float
    seed: int
    model_hash: str
    model: str


@dataclass(frozen=True)
class Trajectory(TrajectoryHeader):
    """A whole trajectory in memory: position, velocity (S, R, N, 3); energy (S, R); dipole (S, R, 3) or None."""

    position: np.ndarray
    velocity: np.ndarray
    energy: np.ndarray
    dipole: np.ndarray | None


@dataclass(frozen=True)
class RunSummary:
    """What a run was.

    steps: of production; ms_per_step: wall time of a step of all replicas together, equilibration included;
    mean_temperature: kelvin, over production and replicas; drift_meV_per_atom_per_ps: slope of a straight line through the
    total energy averaged over replicas, None under a thermostat or with fewer than two frames; wall_s: of all sessions together.
    """

    steps: int
    ms_per_step: float
    mean_temperature: float
    drift_meV_per_atom_per_ps: float | None
    wall_s: float


def read_trajectory(path: str | Path) -> Trajectory:
    """The trajectory, up to its last complete frame if its writer is running or was killed.

    Raises DataError if the file is missing, truncated, not a densnet trajectory, or holds values that are not finite.
    """
    path = Path(path)
    with opened(path) as file:
        unfinished = file.swmr_mode
        check_schema(path, file)
        series = ["position", "velocity", "energy"] + ["dipole"] * ("dipole" in file)
        length = min(dataset(path, file, name).shape[0] for name in series)
        data: dict[str, np.ndarray] = {name: dataset(path, file, name)[:length] for name in series}
        number, mass = dataset(path, file, "number")[:], dataset(path, file, "mass")[:]
        settings: dict[str, Any] = {name: file.attrs[name] for name in SETTINGS}
    shapes = frame_shapes(data["energy"].shape[-1], number.size)
    for name, shape in shapes.items():
        if name in data and data[name].shape[1:] != shape:
            raise DataError(f"{path}: {name} has shape {data[name].shape}; expected (frames, {', '.join(map(str, shape))})")
    complete = np.logical_and.reduce([np.isfinite(array).all(axis=tuple(range(1, array.ndim))) for array in data.values()])
    if unfinished:
        # Frames at the end that are not on disk hold the fill value.
        length = int(np.flatnonzero(complete)[-1]) + 1 if complete.any() else 0
    if not complete[:length].all():
        bad = int(np.flatnonzero(~complete)[0])
        raise DataError(f"{path}: frame {bad} is not finite; expected finite values; the file is damaged, run again")
    if length == 0:
        raise DataError(f"{path} holds no complete frame; expected at least one; continue the simulation with resume=true")
    return Trajectory(
        number=number,
        mass=mass,
        charge=int(settings["charge"]),
        time_step=float(settings["time_step"]),
        integration_step=float(settings["integration_step"]),
        ensemble=str(settings["ensemble"]),
        temperature=float(settings["temperature"]),
        seed=int(settings["seed"]),
        model_hash=str(settings["model_hash"]),
        model=str(settings["model"]),
        position=data["position"][:length],
        velocity=data["velocity"][:length],
        energy=data["energy"][:length],
        dipole=data["dipole"][:length] if "dipole" in data else None,
    )


def frame_shapes(replicas: int, atoms: int) -> dict[str, tuple[int, ...]]:
    """Shape of one frame of every dataset that grows."""
    vectors = (replicas, atoms, 3)
    return {"position": vectors, "velocity": vectors, "energy": (replicas,), "dipole": (replicas, 3)}


def dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """The dataset of that name; raises DataError if there is none."""
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path} has no dataset {name!r}; expected a densnet trajectory; the file is damaged, run again")
    return found


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open for reading. A faulty file raises DataError, there or while it is read."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a trajectory; run simulate.py with out={path}")
    try:
        with h5py.File(path, "r", swmr=_has_writer(path), locking=False) as file:
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read ({reason}); expected a whole HDF5 trajectory; copy the file again or repeat the run"
        ) from error


def _has_writer(path: Path) -> bool:
    """Whether the file is marked as being written, by a live process or one that was killed.

    Superblock version 3 of the HDF5 file format specification: byte 8 the version, byte 11 the consistency flags, bytes 28 to
    36 the end-of-file address. A truncated file must not be opened for concurrent reading: HDF5 would search it for hours.
    """
    with path.open("rb") as file:
        head = file.read(36)
    marked = len(head) == 36 and head[:8] == b"\x89HDF\r\n\x1a\n" and head[8] == 3 and head[11] != 0
    return marked and path.stat().st_size >= struct.unpack_from("<Q", head, 28)[0]


def check_schema(path: Path, file: h5py.File) -> None:
    schema, version = file.attrs.get("schema"), file.attrs.get("version")
    if schema != SCHEMA:
        raise DataError(f"{path} has schema {schema!r}; expected {SCHEMA!r}; give a trajectory made by simulate.py")
    if version != VERSION:
        raise DataError(f"{path} has version {version} of {SCHEMA}; expected {VERSION}; use the densnet release that wrote it")
