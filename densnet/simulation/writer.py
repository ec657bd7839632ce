"""Writes trajectories: HDF5 in blocks of frames, readable while it grows and after the writer was killed."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from densnet import __version__
from densnet.errors import DataError, SimulationError
from densnet.files import replacing
from densnet.simulation.trajectory import (
    SCHEMA,
    SETTINGS,
    VERSION,
    RunSummary,
    TrajectoryHeader,
    check_schema,
    dataset,
    frame_shapes,
    opened,
)

CHUNK_BYTES = 2**24


class TrajectoryWriter:
    """Appends frames of R replicas in blocks; a context manager.

    The first `keep` frames of a trajectory already at `path` are taken over (a run that continues); the file at `path` is
    replaced whole. Raises SimulationError if another process writes to it, DataError if it cannot be taken over.
    """

    def __init__(self, path: Path, header: TrajectoryHeader, replicas: int, block: int, keep: int = 0) -> None:
        shapes = frame_shapes(replicas, header.number.size)
        block = max(1, min(block, CHUNK_BYTES // (8 * int(np.prod(shapes["position"])))))
        self._buffer = {name: np.empty((block, *shape)) for name, shape in shapes.items()}
        self._filled, self._mass = 0, header.mass
        with not_in_use(path), replacing(path) as temporary:
            self._file = h5py.File(temporary, "w", libver="latest", locking=False)
            _write_header(self._file, header)
            for name, shape in shapes.items():
                options = {"maxshape": (None, *shape), "chunks": (block, *shape), "fillvalue": np.nan, "dtype": np.float64}
                self._file.create_dataset(name, shape=(0, *shape), **options)
            if keep:
                self._take_over(path, keep, block)
            self._file.swmr_mode = True
            self._lock = os.open(temporary, os.O_RDONLY)
            _flock(self._lock, fcntl.LOCK_SH)

    @property
    def frames(self) -> int:
        """Frames appended so far, on disk or not."""
        return self._dataset("energy").shape[0] + self._filled

    @property
    def full(self) -> bool:
        """Whether the block is full: flush before the next append."""
        return self._filled == len(self._buffer["energy"])

    def append(self, position: np.ndarray, velocity: np.ndarray, energy: np.ndarray, dipole: np.ndarray) -> None:
        """One frame: (R, N, 3), (R, N, 3), (R,), (R, 3)."""
        if self.full:
            self.flush()
        for name, value in (("position", position), ("velocity", velocity), ("energy", energy), ("dipole", dipole)):
            self._buffer[name][self._filled] = value
        self._filled += 1

    def flush(self) -> None:
        """Put all appended frames on disk."""
        if self._filled:
            for name, buffer in self._buffer.items():
                _extend(self._dataset(name), buffer[: self._filled])
            self._filled = 0
            self._file.flush()

    def energies(self) -> tuple[np.ndarray, np.ndarray]:
        """Potential and kinetic energy of every frame and replica, (S, R) each, hartree."""
        self.flush()
        velocity, block = self._dataset("velocity"), len(self._buffer["energy"])
        kinetic = np.empty(velocity.shape[:2])
        for start in range(0, len(kinetic), block):
            rows = slice(start, start + block)
            kinetic[rows] = 0.5 * np.einsum("n,srnx->sr", self._mass, velocity[rows] ** 2)
        return self._dataset("energy")[:], kinetic

    def finish(self, summary: RunSummary) -> None:
        """Write the summary into the attributes."""
        for field in fields(summary):
            value = getattr(summary, field.name)
            self._file.attrs.modify(field.name, np.nan if value is None else float(value))

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.flush()
        finally:
            self._file.close()
            os.close(self._lock)

    def _dataset(self, name: str) -> h5py.Dataset:
        found = self._file[name]
        assert isinstance(found, h5py.Dataset)
        return found

    def _take_over(self, path: Path, keep: int, block: int) -> None:
        with opened(path) as old:
            check_schema(path, old)
            for name in self._buffer:
                found = dataset(path, old, name)
                have = found.shape[0]
                if have < keep:
                    raise DataError(f"{path} holds {have} frames of {name}; expected {keep} as its restart file says; start anew")
                for start in range(0, keep, block):
                    _extend(self._dataset(name), found[start : min(start + block, keep)])


def _write_header(file: h5py.File, header: TrajectoryHeader) -> None:
    file.attrs.update(schema=SCHEMA, version=VERSION, units="atomic", creator=f"densnet {__version__}")
    for name in SETTINGS:
        file.attrs[name] = getattr(header, name)
    # No attribute can be added later, while the file can be read by others.
    for field in fields(RunSummary):
        file.attrs[field.name] = np.nan
    file["number"], file["mass"] = header.number, header.mass


def _extend(dataset: h5py.Dataset, block: np.ndarray) -> None:
    dataset.resize(dataset.shape[0] + len(block), axis=0)
    dataset[-len(block) :] = block


@contextmanager
def not_in_use(path: Path) -> Iterator[None]:
    """Hold the file, if there is one, exclusively; raises SimulationError if its writer is alive."""
    if not path.exists():
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        if not _flock(handle, fcntl.LOCK_EX):
            raise SimulationError(f"{path} is open in another process; expected no other writer or reader; wait or stop it")
        yield
    finally:
        os.close(handle)


def _flock(handle: int, kind: int) -> bool:
    """False if another process holds the lock. A file system without locks grants everything."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
    return True
