"""Fitted densities on disk: what training reads (HDF5, ragged over frames, atomic units, e3nn irreps order).

F frames, N atoms in all frames together:

    attributes      schema="densnet/fits", version=2, units="atomic", basis (the whole JSON), basis_hash, labels_hash,
                    level (JSON of the level of theory), settings (JSON of those of the fit), report (JSON)
    frame_ptr, number, position, force, energy, charge, dipole, quadrupole, split, source     as in the label format
    coefficient     (C,) deformation coefficients, exact charge and dipole: for every atom those of the functions it has
    sample_ptr      (F+1,) samples of frame f are sample_ptr[f]:sample_ptr[f+1]; a frame may have none
    sample_point    (P, 3) bohr, sample_weight (P,), sample_density (P,) SCF density, e/bohr^3: over the samples of a frame,
                    sum weight * f(point) estimates the integral of f without bias
    grid_frame      (K,) frames with a whole quadrature grid; grid_ptr (K+1,), grid_point (G, 3) bohr, grid_weight (G,),
                    grid_density (G,) SCF density, e/bohr^3
    fit_nmae        (K,) percent, the fit floor of those frames

All but the small arrays is float32.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from densnet.basis.shells import Basis
from densnet.data.labels import Labels, Level
from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import DataError
from densnet.structures import Molecule

SCHEMA, VERSION = "densnet/fits", 2
PACKED = {"compression": "gzip", "shuffle": True}
AGAIN = "fit the labels again (python -m densnet.reference task=fit)"


@dataclass(frozen=True)
class DensityGrid:
    """Points for integrals over space of one frame, a whole Becke grid or samples of one.

    point: (G, 3) bohr; weight: (G,); density: (G,) SCF density, e/bohr^3 (all float32).
    """

    point: np.ndarray
    weight: np.ndarray
    density: np.ndarray


@dataclass(frozen=True)
class FittedFrame:
    """What the fit of one frame adds to its label. coefficient: (N, width); the rest diagnostics and real-space reference.

    nmae_percent, sampled_nmae_percent: fit floor by the grid and by the samples, None without them.
    """

    coefficient: np.ndarray
    condition: float
    electrons_error: float
    dipole_error: float
    grid: DensityGrid | None
    nmae_percent: float | None
    samples: DensityGrid | None
    sampled_nmae_percent: float | None


@dataclass(frozen=True)
class FitReport:
    """Quality of a fitted data set: the error no model trained on it can be expected to beat.

    functions: of the first frame; nmae_percent: fit floor against the SCF density, mean and worst over the frames with a grid;
    sampled_nmae_percent_mean: its estimate from the samples, mean over the frames with samples; None without such frames;
    condition: worst, of the unit-diagonal Coulomb metric.
    """

    frames: int
    functions: int
    nmae_percent_mean: float | None
    nmae_percent_worst: float | None
    grid_frames: int
    sampled_nmae_percent_mean: float | None
    sampled_frames: int
    electrons_max_error: float
    dipole_max_error_mD: float
    condition_worst: float


@dataclass(frozen=True)
class Fits:
    """A fitted data set in memory, except grids and samples, which stay on disk until asked for.

    coefficient: (N, width) float32, zero where an atom lacks the function; sample_ptr: (F+1,).
    """

    path: Path
    basis: Basis
    level: Level
    labels_hash: str
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
    sample_ptr: np.ndarray
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
        with open_hdf5(self.path, SCHEMA, VERSION, AGAIN) as file:
            return _points(file, "grid", slice(*file["grid_ptr"][where[0] : where[0] + 2]))

    def samples(self, f: int) -> DensityGrid | None:
        """The importance-sampled real-space reference of frame f, None if the file holds none for it.

        Raises DataError if it holds values that are not finite.
        """
        return self.samples_of(np.array([f]))[0]

    def samples_of(self, frames: np.ndarray) -> list[DensityGrid | None]:
        """`samples` of several frames in one go."""
        out: list[DensityGrid | None] = []
        with open_hdf5(self.path, SCHEMA, VERSION, AGAIN) as file:
            for f in frames.tolist():
                block = slice(*self.sample_ptr[f : f + 2].tolist())
                found = _points(file, "sample", block) if block.stop > block.start else None
                if found is not None and not all(np.isfinite(x).all() for x in (found.point, found.weight, found.density)):
                    raise DataError(f"{self.path}: samples of frame {f} are not finite; expected numbers; {AGAIN}")
                out.append(found)
        return out


def _points(file: Any, kind: str, block: slice) -> DensityGrid:
    return DensityGrid(*(np.asarray(file[f"{kind}_{name}"][block]) for name in ("point", "weight", "density")))


Settings = TypeVar("Settings", Level, FitReport)


def _record(kind: type[Settings], text: str, path: Path | str) -> Settings:
    try:
        return kind(**json.loads(text))
    except (json.JSONDecodeError, TypeError) as error:
        raise DataError(f"{path} has a {kind.__name__} that cannot be read ({error}); expected {SCHEMA}; fit again") from error


def read_fits(path: Path | str) -> Fits:
    """Read a fitted data set. Raises DataError if it is missing, truncated, foreign, inconsistent, or holds values that are

    not finite (which quantity, which frame).
    """
    with open_hdf5(path, SCHEMA, VERSION, AGAIN) as file:
        basis = Basis.from_json(file.attrs["basis"])
        arrays = {
            name: file[name][:]
            for name in ("frame_ptr", "number", "position", "force", "energy", "charge", "dipole", "quadrupole", "sample_ptr")
        }
        arrays["coefficient"] = _padded(file["coefficient"][:], basis, arrays["number"], path)
        ends = arrays["sample_ptr"][-1]
        if arrays["sample_ptr"].shape != arrays["frame_ptr"].shape or ends != len(file["sample_weight"]):
            raise DataError(f"{path}: sample_ptr ends at {ends}; expected {len(file['sample_weight'])} samples; {AGAIN}")
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                frame = (
                    row if len(array) == len(arrays["energy"]) else np.searchsorted(arrays["frame_ptr"], row, side="right") - 1
                )
                raise DataError(f"{path}: {name} of frame {frame} is not finite; expected numbers; {AGAIN}")
        return Fits(
            path=Path(path),
            basis=basis,
            level=_record(Level, file.attrs["level"], path),
            labels_hash=str(file.attrs["labels_hash"]),
            report=_record(FitReport, file.attrs["report"], path),
            split=file["split"].asstr()[:].astype(np.str_),
            source=file["source"].asstr()[:].astype(np.str_),
            grid_frame=file["grid_frame"][:],
            fit_nmae=file["fit_nmae"][:],
            **arrays,
        )


def _padded(flat: np.ndarray, basis: Basis, number: np.ndarray, path: Path | str) -> np.ndarray:
    """(N, width) block of coefficients stored without those of functions that do not exist."""
    mask = basis.mask[basis.rows(number)]
    if flat.size != mask.sum():
        raise DataError(
            f"{path} has {flat.size} coefficients but its basis {basis.name} has {mask.sum()} functions for these atoms; "
            f"expected as many; {AGAIN}"
        )
    block = np.zeros(mask.shape, dtype=np.float32)
    block[mask] = flat
    return block


def labels_hash(labels: Labels) -> str:
    """SHA-256 of geometries, energies and level, 16 hex digits: which data a fit or a model was made from."""
    digest = hashlib.sha256(json.dumps(asdict(labels.level), sort_keys=True).encode())
    for array in (labels.number.astype("<i8"), labels.position.astype("<f8"), labels.energy.astype("<f8")):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


class FitsWriter:
    """Writes frames one by one into an open file of `create_hdf5`, then `finish` adds the small arrays and the report.

    settings: of the fit, kept as JSON; points: samples of a frame at most.
    """

    def __init__(self, file: h5py.File, labels: Labels, basis: Basis, settings: str, points: int) -> None:
        self.file, self.labels = file, labels
        self.mask = basis.mask[basis.rows(labels.number)]
        file.attrs.update(units="atomic", basis=basis.to_json(), basis_hash=basis.hash, labels_hash=labels_hash(labels))
        file.attrs.update(level=json.dumps(asdict(labels.level)), settings=settings)
        self.pointer: dict[str, list[int]] = {"sample_ptr": [0], "grid_ptr": [0]}
        self.coefficient: list[np.ndarray] = []
        self.grid_frame: list[int] = []
        self.nmae: list[float] = []
        for kind, chunk in (("sample", max(points, 1)), ("grid", 1 << 16)):  # samples are read frame by frame
            for name, shape in (("point", (3,)), ("weight", ()), ("density", ())):
                file.create_dataset(
                    f"{kind}_{name}", (0, *shape), maxshape=(None, *shape), dtype="f4", chunks=(chunk, *shape), **PACKED
                )

    def _append(self, kind: str, points: DensityGrid) -> None:
        start = self.pointer[f"{kind}_ptr"][-1]
        for name, values in (("point", points.point), ("weight", points.weight), ("density", points.density)):
            dataset = self.file[f"{kind}_{name}"]
            assert isinstance(dataset, h5py.Dataset)
            dataset.resize(start + len(values), axis=0)
            dataset[start:] = values

    def add(self, index: int, frame: FittedFrame) -> None:
        """The frames of the labels, in order."""
        self.coefficient.append(frame.coefficient)
        samples = self.pointer["sample_ptr"]
        if frame.samples is not None:
            self._append("sample", frame.samples)
        samples.append(samples[-1] + (0 if frame.samples is None else len(frame.samples.weight)))
        if frame.grid is not None and frame.nmae_percent is not None:
            self._append("grid", frame.grid)
            self.pointer["grid_ptr"].append(self.pointer["grid_ptr"][-1] + len(frame.grid.weight))
            self.grid_frame.append(index)
            self.nmae.append(frame.nmae_percent)

    def finish(self, report: FitReport) -> None:
        self.file.attrs["report"] = json.dumps(asdict(report))
        for name in ("frame_ptr", "number", "position", "force", "energy", "charge", "dipole", "quadrupole"):
            self.file.create_dataset(name, data=getattr(self.labels, name), **PACKED)
        for name, values in (("split", self.labels.split), ("source", self.labels.source)):
            self.file.create_dataset(name, data=np.char.encode(np.asarray(values, dtype=np.str_)), **PACKED)
        flat = np.concatenate(self.coefficient)[self.mask].astype("f4")
        self.file.create_dataset("coefficient", data=flat, **PACKED)
        for name, values in self.pointer.items():
            self.file[name] = np.array(values, dtype=np.int64)
        self.file["grid_frame"] = np.array(self.grid_frame, dtype=np.int64)
        self.file["fit_nmae"] = np.array(self.nmae, dtype=np.float64)


def fits_to(path: Path):
    """The context in which a FitsWriter writes: the file appears when it is complete."""
    return create_hdf5(path, SCHEMA, VERSION)
