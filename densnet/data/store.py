"""HDF5 files that name their schema, open only when they are what they claim, and appear only when they are complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from densnet.errors import DataError
from densnet.files import replacing


@contextmanager
def open_hdf5(path: Path | str, schema: str, version: int, remedy: str = "give another file") -> Iterator[Any]:
    """An existing file (h5py.File) of this schema and version, open for reading. remedy: what to do about another version.

    Raises DataError if it is missing, truncated, not HDF5, of another schema or version, or lacks a dataset or attribute.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a {schema} file; check the path or make the file first")
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("schema", "none"), file.attrs.get("version", 0)
            if found != (schema, version):
                raise DataError(f"{path} has schema {found[0]} version {found[1]}; expected {schema} version {version}; {remedy}")
            yield file
    except (OSError, KeyError) as error:
        reason = " ".join(str(error).split()).strip("'\"")
        raise DataError(
            f"{path} cannot be read ({reason}); expected a whole {schema} HDF5 file; copy or make it again"
        ) from error


@contextmanager
def create_hdf5(path: Path | str, schema: str, version: int) -> Iterator[h5py.File]:
    """A new file that appears under its name only when it is complete; a file of that name is replaced then.

    The bytes depend on the contents alone (no time stamps), so equal data give equal files.
    """
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["schema"] = schema
        file.attrs["version"] = version
        yield file
