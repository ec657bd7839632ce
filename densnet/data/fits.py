"""Fitted densities on disk: what training reads (HDF5, ragged over frames, atomic units, e3nn irreps order).

F frames, N atoms in all frames together:

    attributes      schema="densnet/fits", version=1, units="atomic", basis (the whole JSON), basis_hash, labels_hash,
                    level (JSON of the level of theory), overlap_weight (mu of M = J + mu S, hartree*bohr), report (JSON)
    frame_ptr, number, position, force, energy, charge, dipole, quadrupole, split, source     as in the label format
    coefficient     (N, width) deformation coefficients, exact charge and dipole
    metric_ptr      (F+1,) and metric: packed lower triangles of M over the existing functions, float32
    grid_frame      (K,) frames with a real-space grid; grid_ptr (K+1,), grid_point (G, 3) bohr, grid_weight (G,),
                    grid_density (G,) SCF density, e/bohr^3
    fit_nmae        (K,) percent, the fit floor of those frames
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from densnet.basis.shells import Basis
from densnet.data.labels import Labels, Level
from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import DataError
from densnet.structures import Molecule

SCHEMA, VERSION = "densnet/fits", 1


@dataclass(frozen=True)
class DensityGrid:
    """Becke grid of one frame. point: (G, 3) bohr; weight: (G,); density: (G,) SCF density, e/bohr^3 (all float32)."""

    point: np.ndarray
    weight: np.ndarray
    density: np.ndarray


@dataclass(frozen=True)
class FittedFrame:
    """What the fit of one frame adds to its label. coefficient: (N, width); metric: packed; the rest diagnostics."""

    coefficient: np.ndarray
    metric: np.ndarray
    condition: float
    electrons_error: float
    dipole_error: float
    grid: DensityGrid | None
    nmae_percent: float | None


@dataclass(frozen=True)
class FitReport:
    """Quality of a fitted data set: the error no model trained on it can be expected to beat.

    nmae_percent: fit floor, mean and worst over the frames with a grid, against the SCF density; condition: worst.
    """

    frames: int
    functions: int
    nmae_percent_mean: float
    nmae_percent_worst: float
    grid_frames: int
    electrons_max_error: float
    dipole_max_error_mD: float
    condition_worst: float
    wall_s: float


@dataclass(frozen=True)
class Fits:
    """A fitted data set in memory, except the metric and the grids, which stay on disk until asked for."""

    path: Path
    basis: Basis
    level: Level
    labels_hash: str
    overlap_weight: float
    report: FitReport
    frame_ptr: np.ndarray
    number: np.ndarray
    position: np.ndarray
    force: np.ndarray
    energy: np.ndarray
    charge: np.ndarray
    dipole: np.ndarray
    quadrupole: np.ndarray
    coefficient: np.ndarray
    split: np.ndarray
    source: np.ndarray
    grid_frame: np.ndarray
    fit_nmae: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)

    def atoms(self, f: int) -> slice:
        """Where the atoms of frame f are."""
        return slice(int(self.frame_ptr[f]), int(self.frame_ptr[f + 1]))

    def atoms_of(self, frames: np.ndarray) -> np.ndarray:
        """Indices of the atoms of several frames."""
        return np.concatenate([np.arange(self.atoms(f).start, self.atoms(f).stop) for f in frames.tolist()])

    def frame(self, f: int) -> Molecule:
        atoms = self.atoms(f)
        return Molecule(self.number[atoms], self.position[atoms], int(self.charge[f]))

    def indices(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.split == split)

    def grid(self, f: int) -> DensityGrid:
        """The real-space reference of frame f. Raises DataError if the file holds none for it."""
        where = np.flatnonzero(self.grid_frame == f)
        if not where.size:
            raise DataError(f"{self.path} holds no density grid for frame {f}; fit again with more fit.grid_frames")
        with open_hdf5(self.path, SCHEMA, VERSION) as file:
            block = slice(*file["grid_ptr"][where[0] : where[0] + 2])
            return DensityGrid(file["grid_point"][block], file["grid_weight"][block], file["grid_density"][block])

    def metrics(self, frames: np.ndarray) -> list[np.ndarray]:
        """Packed lower triangles of M for these frames, float32."""
        with open_hdf5(self.path, SCHEMA, VERSION) as file:
            pointer = file["metric_ptr"][:]
            return [file["metric"][pointer[f] : pointer[f + 1]] for f in frames]


Settings = TypeVar("Settings", Level, FitReport)


def _record(kind: type[Settings], text: str, path: Path | str) -> Settings:
    try:
        return kind(**json.loads(text))
    except (json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{path} has a {kind.__name__} that cannot be read ({error}); expected {SCHEMA}; fit again") from error


def read_fits(path: Path | str) -> Fits:
    """Read a fitted data set. Raises DataError if it is missing, truncated, foreign, or holds values that are not finite."""
    with open_hdf5(path, SCHEMA, VERSION) as file:
        basis = Basis.from_json(file.attrs["basis"])
        arrays = {
            name: file[name][:]
            for name in ("frame_ptr", "number", "position", "force", "energy", "charge", "dipole", "quadrupole", "coefficient")
        }
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise DataError(f"{path} has {name} values that are not finite; expected numbers; fit the labels again")
        return Fits(
            path=Path(path),
            basis=basis,
            level=_record(Level, file.attrs["level"], path),
            labels_hash=str(file.attrs["labels_hash"]),
            overlap_weight=float(file.attrs["overlap_weight"]),
            report=_record(FitReport, file.attrs["report"], path),
            split=file["split"].asstr()[:],
            source=file["source"].asstr()[:],
            grid_frame=file["grid_frame"][:],
            fit_nmae=file["fit_nmae"][:],
            **arrays,
        )


def labels_hash(labels: Labels) -> str:
    """SHA-256 of geometries, energies and level, 16 hex digits: which data a fit or a model was made from."""
    digest = hashlib.sha256(json.dumps(asdict(labels.level), sort_keys=True).encode())
    for array in (labels.number.astype("<i8"), labels.position.astype("<f8"), labels.energy.astype("<f8")):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


class FitsWriter:
    """Writes frames one by one into an open file of `create_hdf5`, then `finish` adds the small arrays and the report."""

    def __init__(self, file: h5py.File, labels: Labels, basis: Basis, overlap_weight: float) -> None:
        self.file, self.labels = file, labels
        file.attrs.update(units="atomic", basis=basis.to_json(), basis_hash=basis.hash, labels_hash=labels_hash(labels))
        file.attrs.update(level=json.dumps(asdict(labels.level)), overlap_weight=overlap_weight)
        self.pointer: dict[str, list[int]] = {"metric_ptr": [0], "grid_ptr": [0]}
        self.coefficient: list[np.ndarray] = []
        self.grid_frame: list[int] = []
        self.nmae: list[float] = []
        for name, width in (("metric", None), ("grid_point", 3), ("grid_weight", None), ("grid_density", None)):
            shape = (0,) if width is None else (0, width)
            file.create_dataset(name, shape, maxshape=(None, *shape[1:]), dtype="f4", chunks=(1 << 16, *shape[1:]))

    def _append(self, name: str, values: np.ndarray) -> int:
        dataset = self.file[name]
        assert isinstance(dataset, h5py.Dataset)
        dataset.resize(len(dataset) + len(values), axis=0)
        dataset[-len(values) :] = values
        return len(dataset)

    def add(self, index: int, frame: FittedFrame) -> None:
        self.coefficient.append(frame.coefficient)
        self.pointer["metric_ptr"].append(self._append("metric", frame.metric))
        if frame.grid is not None and frame.nmae_percent is not None:
            self._append("grid_point", frame.grid.point)
            self._append("grid_weight", frame.grid.weight)
            self.pointer["grid_ptr"].append(self._append("grid_density", frame.grid.density))
            self.grid_frame.append(index)
            self.nmae.append(frame.nmae_percent)

    def finish(self, report: FitReport) -> None:
        self.file.attrs["report"] = json.dumps(asdict(report))
        for name in ("frame_ptr", "number", "position", "force", "energy", "charge", "dipole", "quadrupole"):
            self.file[name] = getattr(self.labels, name)
        strings: Iterable[tuple[str, np.ndarray]] = (("split", self.labels.split), ("source", self.labels.source))
        for name, values in strings:
            self.file.create_dataset(name, data=[str(v) for v in values], dtype=h5py.string_dtype())
        self.file["coefficient"] = np.concatenate(self.coefficient).astype("f4")
        for name, values in self.pointer.items():
            self.file[name] = np.array(values, dtype=np.int64)
        self.file["grid_frame"] = np.array(self.grid_frame, dtype=np.int64)
        self.file["fit_nmae"] = np.array(self.nmae, dtype=np.float64)


def fits_to(path: Path):
    """The context in which a FitsWriter writes: the file appears when it is complete."""
    return create_hdf5(path, SCHEMA, VERSION)
