"""Folders and files of runs, read. Whatever a page shows comes through here, with the file it came from."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from densnet.errors import DataError


@dataclass(frozen=True)
class Source:
    """A file as it was when it was read. path: as given."""

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def text(self) -> str:
        """Raises DataError if it is not UTF-8."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not text ({error.reason}); expected UTF-8; write it again") from error

    def json(self) -> Any:
        """Raises DataError if it is no JSON document, or holds NaN or Infinity, which JSON does not know."""
        try:
            return json.loads(self.text(), parse_constant=self._refuse)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path} is no JSON document ({error}); expected a whole one; write it again") from error

    def _refuse(self, constant: str) -> Any:
        raise ValueError(f"{constant} is no number of JSON")

    def yaml(self) -> Any:
        """Raises DataError if it is no plain YAML (objects are not made from it)."""
        try:
            return yaml.safe_load(self.text())
        except (yaml.YAMLError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.path} is no plain YAML ({reason}); expected settings; write it again") from error


@dataclass(frozen=True)
class Columns:
    """A table of numbers: names (C,), values (rows, C) float64 with NaN where a cell is empty; notes: lines that start with #."""

    names: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...]

    def column(self, name: str) -> np.ndarray | None:
        """(rows,), or None if there is none of that name."""
        return self.values[:, self.names.index(name)] if name in self.names else None


def read(path: Path) -> Source:
    """Raises DataError if there is no such file or it cannot be read."""
    try:
        return Source(path, path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected a file; check the path") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected a file that you may read; check it") from error


def find(folder: Path, *names: str) -> Source | None:
    """The first of these files that the folder has."""
    return next((read(folder / name) for name in names if (folder / name).is_file()), None)


def need(folder: Path, name: str, remedy: str) -> Source:
    """That file of the folder. Raises DataError if the folder or the file is missing; remedy: how one is made."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one with {name} in it; {remedy}")
    found = find(folder, name)
    if found is None:
        raise DataError(f"{folder} has no {name}; expected a folder with one; {remedy}")
    return found


def rows(source: Source) -> tuple[tuple[str, ...], list[list[str]], tuple[str, ...]]:
    """Headings, cells and notes of a CSV file. Raises DataError if rows differ in length."""
    lines = source.text().splitlines()
    notes = tuple(line[1:].strip() for line in lines if line.startswith("#"))
    table = list(csv.reader(io.StringIO("\n".join(line for line in lines if line and not line.startswith("#")))))
    if len(table) < 2:
        raise DataError(f"{source.path} has no rows; expected headings and at least one row; write it again")
    head, *body = table
    for i, row in enumerate(body, start=1):
        if len(row) != len(head):
            raise DataError(f"{source.path}: row {i} has {len(row)} cells; expected {len(head)}; the file is cut, write it again")
    return tuple(head), body, notes


def columns_of(source: Source) -> Columns:
    """A CSV file of numbers only. Raises DataError if a cell is something else."""
    head, body, notes = rows(source)
    return Columns(head, np.array([[_number(source, i, c) for c in row] for i, row in enumerate(body, start=1)]), notes)


def numbers(source: Source, row: int, cells: Sequence[str]) -> list[float]:
    """The numbers of a row; an empty cell is NaN. Raises DataError if a cell is something else."""
    return [_number(source, row, c) for c in cells]


def _number(source: Source, row: int, text: str) -> float:
    try:
        return float(text) if text.strip() else math.nan
    except ValueError:
        raise DataError(f"{source.path}: {text[:40]!r} in row {row}; expected a number; write the file again") from None
