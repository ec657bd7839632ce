"""Kohn-Sham labels on disk: the label format, version 1 (HDF5, ragged over frames, everything in atomic units).

F frames, N atoms in all frames together:

    attributes         schema="densnet/labels", version=1, program, units="atomic" and the level of theory:
                       xc, ao_basis, auxbasis, grid_level, conv_tol, density_fit, dispersion
    frame_ptr          (F+1,) atoms of frame f are frame_ptr[f]:frame_ptr[f+1]
    number             (N,) nuclear charges;  position (N, 3) bohr;  force (N, 3) hartree/bohr, minus the gradient
    energy, charge     (F,) total energy, hartree; total charge, e
    dipole             (F, 3) e bohr, sum Z R - int r rho, origin 0
    quadrupole         (F, 3, 3) e bohr^2, second moment sum Z R R - int r r rho, origin 0, not traceless
    dm_ptr             (F+1,) and density_matrix: lower triangles, row by row (numpy.tril_indices), in PySCF's
                       spherical AO order, float32; the whole matrix is D + D^T - diag(D)
    split, source      (F,) strings: train or test; trajectory and index

A frame without a label is kept, not dropped; a file in which K > 0 frames failed has in addition

    failure_ptr        (K+1,), failure_number, failure_position, failure_charge, failure_split, failure_source: as above
    failure_reason     (K,) strings: why there is no label
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import DataError
from densnet.structures import Molecule

SCHEMA = "densnet/labels"
VERSION = 1
PYSCF_AUXBASIS = "pyscf default for density_fit()"


@dataclass(frozen=True)
class Level:
    """A level of theory: everything that decides the numbers in a label.

    xc, ao_basis, auxbasis: PySCF names (auxbasis PYSCF_AUXBASIS leaves the choice to PySCF); grid_level: PySCF's 0..9;
    conv_tol: SCF energy threshold, hartree; dispersion: none, d3bj, d3zero or d4.
    """

    xc: str = "pbe"
    ao_basis: str = "aug-cc-pvdz"
    auxbasis: str = PYSCF_AUXBASIS
    grid_level: int = 3
    conv_tol: float = 1e-9
    density_fit: bool = True
    dispersion: str = "none"


@dataclass(frozen=True)
class Label:
    """What one Kohn-Sham calculation gives.

    energy: hartree; force: (N, 3) hartree/bohr; dipole: (3,) e bohr; quadrupole: (3, 3) e bohr^2 (origin 0);
    density_matrix: (nao (nao + 1) / 2,) float32, packed lower triangle.
    """

    energy: float
    force: np.ndarray
    dipole: np.ndarray
    quadrupole: np.ndarray
    density_matrix: np.ndarray


@dataclass(frozen=True)
class Failure:
    """A frame for which there is no label, and why."""

    molecule: Molecule
    split: str
    source: str
    reason: str


@dataclass(frozen=True)
class Labels:
    """The labels of F frames, N atoms in all; arrays and units as in the format above.

    packed: the dataset density_matrix, or None if it stays on disk (then `density_matrix` reads one frame from `path`).
    Raises DataError if the arrays do not fit together or hold values that are not finite (which quantity, which frame).
    """

    level: Level
    program: str
    frame_ptr: np.ndarray
    number: np.ndarray
    position: np.ndarray
    force: np.ndarray
    energy: np.ndarray
    charge: np.ndarray
    dipole: np.ndarray
    quadrupole: np.ndarray
    dm_ptr: np.ndarray
    split: np.ndarray
    source: np.ndarray
    packed: np.ndarray | None
    failures: tuple[Failure, ...] = ()
    path: Path | None = None

    @staticmethod
    def of(
        molecules: Sequence[Molecule],
        labels: Sequence[Label],
        split: Sequence[str],
        source: Sequence[str],
        level: Level,
        program: str,
        failures: Sequence[Failure] = (),
    ) -> Labels:
        """The labels of these molecules, one Label each."""
        n = len(molecules)
        return Labels(
            level=level,
            program=program,
            frame_ptr=_pointer([m.number.size for m in molecules]),
            number=np.concatenate([np.zeros(0, np.int64), *(m.number for m in molecules)]).astype(np.int32),
            position=np.concatenate([np.zeros((0, 3)), *(m.position for m in molecules)]),
            force=np.concatenate([np.zeros((0, 3)), *(label.force for label in labels)]),
            energy=np.array([label.energy for label in labels], dtype=np.float64),
            charge=np.array([m.charge for m in molecules], dtype=np.float64),
            dipole=np.array([label.dipole for label in labels]).reshape(n, 3),
            quadrupole=np.array([label.quadrupole for label in labels]).reshape(n, 3, 3),
            dm_ptr=_pointer([label.density_matrix.size for label in labels]),
            split=np.array(split, dtype=np.str_),
            source=np.array(source, dtype=np.str_),
            packed=np.concatenate([np.zeros(0, np.float32), *(label.density_matrix for label in labels)]),
            failures=tuple(failures),
        )

    def __post_init__(self) -> None:
        where = self.path or "labels"
        f, n = self.energy.size, self.number.size
        ptr, dm_ptr = self.frame_ptr, self.dm_ptr
        if ptr.shape != (f + 1,) or ptr[0] != 0 or ptr[-1] != n or (np.diff(ptr) < 1).any():
            raise DataError(f"{where}: frame_ptr does not divide {n} atoms into {f} frames; the file is damaged; make it again")
        ends = dm_ptr[-1] if self.packed is None else self.packed.size
        if dm_ptr.shape != (f + 1,) or dm_ptr[0] != 0 or dm_ptr[-1] != ends or (np.diff(dm_ptr) < 1).any():
            raise DataError(f"{where}: dm_ptr does not divide {ends} matrix elements into {f} frames; make the file again")
        expected = {
            "position": (n, 3), "force": (n, 3), "energy": (f,), "charge": (f,), "dipole": (f, 3), "quadrupole": (f, 3, 3),
            "split": (f,), "source": (f,),
        }  # fmt: skip
        for name, shape in expected.items():
            value: np.ndarray = getattr(self, name)
            if value.shape != shape:
                raise DataError(f"{where}: {name} has shape {value.shape}; expected {shape}; the file is damaged; make it again")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                frame = int(np.argwhere(~np.isfinite(value))[0, 0])
                if name in ("position", "force"):
                    frame = int(np.searchsorted(ptr, frame, side="right")) - 1
                raise DataError(
                    f"{where}: {name} of frame {frame} is not finite; expected numbers; remove or label the frame again"
                )
        fractional = self.charge % 1 != 0
        if fractional.any():
            raise DataError(
                f"{where}: charge of frame {np.argmax(fractional)} is not an integer; expected whole charges; correct it"
            )
        if self.packed is not None:
            for frame in range(f):
                self._check_matrix(frame, self.packed[dm_ptr[frame] : dm_ptr[frame + 1]])

    def _check_matrix(self, frame: int, packed: np.ndarray) -> None:
        where = f"{self.path or 'labels'}: density_matrix of frame {frame}"
        nao = _nao(packed.size)
        if nao * (nao + 1) // 2 != packed.size:
            raise DataError(f"{where} has {packed.size} elements; expected nao (nao + 1) / 2; make the file again")
        if not np.isfinite(packed).all():
            raise DataError(f"{where} is not finite; expected numbers; remove or label the frame again")

    def __len__(self) -> int:
        return self.energy.size

    def frame(self, f: int) -> Molecule:
        """The molecule of frame f."""
        atoms = slice(self.frame_ptr[f], self.frame_ptr[f + 1])
        return Molecule(self.number[atoms], self.position[atoms], round(float(self.charge[f])))

    def indices(self, split: str) -> np.ndarray:
        """Frames of this split, in file order."""
        return np.flatnonzero(self.split == split)

    def density_matrix(self, f: int) -> np.ndarray:
        """(nao, nao) float64, symmetric, PySCF's spherical AO order. Raises DataError if it is not finite."""
        part = slice(self.dm_ptr[f], self.dm_ptr[f + 1])
        if self.packed is None:
            assert self.path is not None
            with open_hdf5(self.path, SCHEMA, VERSION) as file:
                packed = file["density_matrix"][part]
            self._check_matrix(f, packed)
        else:
            packed = self.packed[part]
        return unpack(packed)


def pack(matrix: np.ndarray) -> np.ndarray:
    """Lower triangle, row by row, float32, of a symmetric (nao, nao) matrix."""
    return matrix[np.tril_indices(matrix.shape[0])].astype(np.float32)


def unpack(packed: np.ndarray) -> np.ndarray:
    """(nao, nao) float64 symmetric matrix of a packed lower triangle."""
    nao = _nao(packed.size)
    matrix = np.zeros((nao, nao))
    matrix[np.tril_indices(nao)] = packed
    return matrix + matrix.T - np.diag(np.diag(matrix))


def _nao(size: int) -> int:
    return (int(np.sqrt(8 * size + 1)) - 1) // 2


def _pointer(sizes: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def read_labels(path: Path | str, density_matrices: bool = False) -> Labels:
    """Labels from a file; density_matrices: load all of them into memory instead of one at a time when asked.

    Raises DataError if the file is missing, truncated, foreign, inconsistent or holds values that are not finite.
    """
    path = Path(path)
    with open_hdf5(path, SCHEMA, VERSION) as file:
        attributes = file.attrs
        level = Level(
            xc=str(attributes["xc"]),
            ao_basis=str(attributes["ao_basis"]),
            auxbasis=str(attributes["auxbasis"]),
            grid_level=int(attributes["grid_level"]),
            conv_tol=float(attributes["conv_tol"]),
            density_fit=bool(attributes["density_fit"]),
            dispersion=str(attributes["dispersion"]),
        )
        dm_ptr = file["dm_ptr"][:]
        if dm_ptr[-1] != file["density_matrix"].size:
            raise DataError(f"{path}: dm_ptr ends at {dm_ptr[-1]}; expected {file['density_matrix'].size}; make the file again")
        return Labels(
            level=level,
            program=str(attributes["program"]),
            frame_ptr=file["frame_ptr"][:],
            number=file["number"][:],
            position=file["position"][:],
            force=file["force"][:],
            energy=file["energy"][:],
            charge=file["charge"][:],
            dipole=file["dipole"][:],
            quadrupole=file["quadrupole"][:],
            dm_ptr=dm_ptr,
            split=file["split"].asstr()[:].astype(np.str_),
            source=file["source"].asstr()[:].astype(np.str_),
            packed=file["density_matrix"][:] if density_matrices else None,
            failures=tuple(_read_failures(file)) if "failure_reason" in file else (),
            path=path,
        )


def _read_failures(file: Any) -> Iterator[Failure]:
    pointer, charge = file["failure_ptr"][:], file["failure_charge"][:]
    number, position = file["failure_number"][:], file["failure_position"][:]
    split, source, reason = (file[f"failure_{name}"].asstr()[:] for name in ("split", "source", "reason"))
    for k in range(pointer.size - 1):
        atoms = slice(pointer[k], pointer[k + 1])
        yield Failure(Molecule(number[atoms], position[atoms], round(float(charge[k]))), split[k], source[k], reason[k])


def write_labels(path: Path | str, labels: Labels) -> None:
    """Write a label file, whole or not at all. Needs the density matrices in memory."""
    if labels.packed is None:
        raise DataError(f"labels of {labels.path} have no density matrices in memory; read them with density_matrices=True")
    with create_hdf5(path, SCHEMA, VERSION) as file:
        file.attrs.update(asdict(labels.level) | {"program": labels.program, "units": "atomic"})
        for name in ("frame_ptr", "number", "position", "force", "energy", "charge", "dipole", "quadrupole", "dm_ptr"):
            file[name] = getattr(labels, name)
        chunk = int(np.diff(labels.dm_ptr).max()) if len(labels) else 1
        file.create_dataset("density_matrix", data=labels.packed, chunks=(chunk,), maxshape=(None,), compression="gzip")
        _write_strings(file, "split", labels.split)
        _write_strings(file, "source", labels.source)
        if labels.failures:
            molecules = [failure.molecule for failure in labels.failures]
            file["failure_ptr"] = _pointer([m.number.size for m in molecules])
            file["failure_number"] = np.concatenate([m.number for m in molecules]).astype(np.int32)
            file["failure_position"] = np.concatenate([m.position for m in molecules])
            file["failure_charge"] = np.array([m.charge for m in molecules], dtype=np.float64)
            for name in ("split", "source", "reason"):
                _write_strings(file, f"failure_{name}", [getattr(failure, name) for failure in labels.failures])


def _write_strings(file: h5py.File, name: str, values: Sequence[str] | np.ndarray) -> None:
    encoded = [str(value).encode() for value in values]
    width = max([len(value) for value in encoded], default=1) or 1
    file[name] = np.array(encoded, dtype=f"S{width}")
