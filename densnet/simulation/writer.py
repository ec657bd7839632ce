"""Writes trajectories: HDF5 in blocks of frames, readable while it grows, after a kill and when the disk is full."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
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
from densnet.simulation.trajectory import SETTINGS, Frame, RunSummary, TrajectoryHeader, frame_shapes
from densnet.simulation.trajectory_file import SCHEMA, SUPERBLOCK, VERSION, check_schema, dataset, end_of_content, opened

CHUNK_BYTES = 2**24
SPARE_BYTES = 2**16  # for the index of the chunks and the last words of the file


def block_length(replicas: int, atoms: int, wanted: int) -> int:
    """Frames in a block, which takes its room on the disk at once: so many as wanted, fewer if they are large."""
    return max(1, min(wanted, CHUNK_BYTES // (8 * replicas * atoms * 3)))


class TrajectoryWriter:
    """Appends frames of R replicas in blocks; a context manager.

    The first `keep` frames of a trajectory already at `path` are taken over (a run that continues); the file at `path` is
    replaced whole. conserved, charges: whether frames have a conserved energy, charges of atoms; frozen_from: (R,), of replicas
    frozen already. Raises SimulationError if another process writes to it or the disk is full (all flushed frames stay
    readable), DataError if it cannot be taken over.
    """

    def __init__(
        self,
        path: Path,
        header: TrajectoryHeader,
        replicas: int,
        block: int,
        keep: int = 0,
        conserved: bool = False,
        charges: bool = False,
        frozen_from: np.ndarray | None = None,
    ) -> None:
        shapes = frame_shapes(replicas, header.number.shape[-1])
        for name, wanted in (("conserved", conserved), ("atomic_charge", charges)):
            if not wanted:
                del shapes[name]
        self.path, self._filled, self._broken = path, 0, False
        block = block_length(replicas, header.number.shape[-1], block)
        self._buffer = {name: np.empty((block, *shape)) for name, shape in shapes.items()}
        self._chunk_bytes = sum(buffer.nbytes for buffer in self._buffer.values())
        with not_in_use(path), replacing(path) as temporary:
            chunks = -(-keep // block)
            self._handle = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._reserve(0, chunks)
                self._file = h5py.File(temporary, "w", libver="latest", locking=False)
            except BaseException:
                os.close(self._handle)
                raise
            try:
                self._reserve(0, chunks)
                _write_header(self._file, header, np.full(replicas, -1) if frozen_from is None else frozen_from)
                for name, shape in shapes.items():
                    options = {"maxshape": (None, *shape), "chunks": (block, *shape), "fillvalue": np.nan, "dtype": np.float64}
                    self._file.create_dataset(name, shape=(0, *shape), **options)
                if keep:
                    self._take_over(path, keep, block)
                self._file.swmr_mode = True
            except BaseException:
                self._file.close()
                os.close(self._handle)
                raise
            _flock(self._handle, fcntl.LOCK_SH)

    @property
    def frames(self) -> int:
        """Frames appended so far, on disk or not."""
        return self._dataset("energy").shape[0] + self._filled

    @property
    def full(self) -> bool:
        """Whether the block is full: flush before the next append."""
        return self._filled == len(self._buffer["energy"])

    @property
    def frozen_from(self) -> np.ndarray:
        """(R,) int64: -1, or the frame from which on a replica is frozen."""
        return self._dataset("frozen_from")[:]

    def append(self, frame: Frame) -> None:
        """One frame."""
        if self.full:
            self.flush()
        for name, buffer in self._buffer.items():
            buffer[self._filled] = getattr(frame, name)
        self._filled += 1

    def freeze(self, replicas: np.ndarray) -> None:
        """From the next frame on these replicas are frozen; said on disk before any of those frames is."""
        with self._writing(self._dataset("energy").shape[0]):
            self._dataset("frozen_from")[replicas] = self.frames
            self._file.flush()

    def flush(self) -> None:
        """Put all appended frames on disk. Raises SimulationError if it is full; what is on it then stays as it is."""
        if not self._filled:
            return
        block, length = len(self._buffer["energy"]), self._dataset("energy").shape[0]
        with self._writing(length):
            # HDF5 does not survive a failed write, so the room is there before it writes.
            self._reserve(self._file.id.get_filesize(), -(-(length + self._filled) // block) - -(-length // block))
            for name, buffer in self._buffer.items():
                _extend(self._dataset(name), buffer[: self._filled])
            self._file.flush()
        self._filled = 0

    @contextmanager
    def _writing(self, length: int) -> Iterator[None]:
        """A failed write ends in one line, and nothing more is written. length: frames on disk."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._broken = True
            reason = " ".join(str(error).split())
            raise SimulationError(
                f"{self.path} cannot be written ({reason}); expected room for {self._chunk_bytes / 1e6:.3g} MB more; its first "
                f"{length} frames are safe; make room and continue with resume=true"
            ) from error

    def series(self, name: str) -> np.ndarray:
        """A whole series (S, R): energy, kinetic_temperature or conserved."""
        self.flush()
        return self._dataset(name)[:]

    def finish(self, summary: RunSummary) -> None:
        """Write the summary into the attributes."""
        with self._writing(self._dataset("energy").shape[0]):
            for field in fields(summary):
                value = getattr(summary, field.name)
                self._file.attrs.modify(field.name, np.nan if value is None else float(value))

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not self._broken:
                self.flush()
        finally:
            try:
                self._file.close()
                end = end_of_content(os.pread(self._handle, SUPERBLOCK, 0))
                if end is not None:
                    os.ftruncate(self._handle, end)  # gives reserved room back
            except (OSError, RuntimeError):
                if not self._broken:
                    raise
            finally:
                os.close(self._handle)

    def _reserve(self, start: int, chunks: int) -> None:
        """Make sure of the disk space of so many chunks of every series from byte `start` on; raises OSError if it is short."""
        need = chunks * self._chunk_bytes + SPARE_BYTES
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._handle, start, need)
        elif shutil.disk_usage(self.path.parent).free < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

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


def _write_header(file: h5py.File, header: TrajectoryHeader, frozen_from: np.ndarray) -> None:
    file.attrs.update(schema=SCHEMA, version=VERSION, units="atomic", creator=f"densnet {__version__}")
    for name in SETTINGS:
        file.attrs[name] = getattr(header, name)
    # No attribute can be added later, while the file can be read by others.
    for field in fields(RunSummary):
        file.attrs[field.name] = np.nan
    file["number"], file["mass"] = header.number, header.mass
    if isinstance(header.charge, np.ndarray):
        file["charge"] = header.charge
    else:
        file.attrs["charge"] = header.charge
    file["frozen_from"] = frozen_from.astype(np.int64)


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
