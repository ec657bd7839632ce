"""Opening trajectory files: whole ones, those that grow, and those whose writer was killed; one-line errors for the others."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from densnet.errors import DataError

SCHEMA, VERSION, READABLE = "densnet/trajectory", 3, (1, 2, 3)
SUPERBLOCK = 36  # bytes


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

    A truncated file must not be opened for concurrent reading: HDF5 would search it for hours.
    """
    with path.open("rb") as file:
        head = file.read(SUPERBLOCK)
    end = end_of_content(head)
    return end is not None and head[11] != 0 and path.stat().st_size >= end


def end_of_content(head: bytes) -> int | None:
    """The end-of-file address in the first SUPERBLOCK bytes of a file; None if it is no HDF5 file of this kind.

    Superblock version 3 of the HDF5 file format specification: byte 8 the version, byte 11 the consistency flags, bytes 28 to
    36 the end-of-file address.
    """
    if len(head) < SUPERBLOCK or head[:8] != b"\x89HDF\r\n\x1a\n" or head[8] != 3:
        return None
    return struct.unpack_from("<Q", head, 28)[0]


def check_schema(path: Path, file: h5py.File) -> None:
    """Raises DataError unless it is a trajectory of a version that this release reads."""
    schema, version = file.attrs.get("schema"), file.attrs.get("version")
    if schema != SCHEMA:
        raise DataError(f"{path} has schema {schema!r}; expected {SCHEMA!r}; give a trajectory made by simulate.py")
    if version not in READABLE:
        raise DataError(
            f"{path} has version {version} of {SCHEMA}; expected one of {READABLE}; use the densnet release that wrote it"
        )
