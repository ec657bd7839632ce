"""Derivatives of dipole components on disk (HDF5, ragged over frames, atomic units): what forces are to the energy.

F frames, N atoms in all frames together:

    attributes      schema="densnet/dipole_derivatives", version=1, units="atomic", program, level (JSON of the level of
                    theory), settings (JSON of those of the fields)
    frame_ptr       (F+1,) atoms of frame f are frame_ptr[f]:frame_ptr[f+1]; number (N,), position (N, 3) bohr, charge (F,) e
    direction       (F, 3) unit vectors u, one a frame
    derivative      (N, 3) e: d (u . mu) / d R about a fixed origin
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from densnet.data.labels import Level
from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import DataError
from densnet.structures import Molecule

SCHEMA, VERSION = "densnet/dipole_derivatives", 1
ARRAYS = ("frame_ptr", "number", "position", "charge", "direction", "derivative")
SUM_RULE = 0.02  # e; translation moves a dipole by the charge; the grid of the calculation breaks that by less


@dataclass(frozen=True)
class DipoleDerivatives:
    """The contents of such a file. Raises DataError if arrays do not fit together, are not finite, or break the sum rule

    sum over atoms of derivative = charge * direction by more than an integration grid does.
    """

    level: Level
    frame_ptr: np.ndarray
    number: np.ndarray
    position: np.ndarray
    charge: np.ndarray
    direction: np.ndarray
    derivative: np.ndarray
    path: Path | None = None

    @staticmethod
    def of(
        level: Level, molecules: Sequence[Molecule], direction: Sequence[np.ndarray], derivative: Sequence[np.ndarray]
    ) -> DipoleDerivatives:
        sizes = [molecule.number.size for molecule in molecules]
        return DipoleDerivatives(
            level=level,
            frame_ptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            number=np.concatenate([np.zeros(0, np.int64), *(m.number for m in molecules)]).astype(np.int32),
            position=np.concatenate([np.zeros((0, 3)), *(m.position for m in molecules)]),
            charge=np.array([m.charge for m in molecules], dtype=np.float64),
            direction=np.array(direction, dtype=np.float64).reshape(-1, 3),
            derivative=np.concatenate([np.zeros((0, 3)), *derivative]),
        )

    def __post_init__(self) -> None:
        where, n, f = self.path or "dipole derivatives", self.number.size, self.charge.size
        again = "make the file again"
        if self.frame_ptr.shape != (f + 1,) or self.frame_ptr[-1] != n or (np.diff(self.frame_ptr) < 1).any():
            raise DataError(f"{where}: frame_ptr does not divide {n} atoms into {f} frames; the file is damaged; {again}")
        for name, shape in (("position", (n, 3)), ("direction", (f, 3)), ("derivative", (n, 3))):
            value: np.ndarray = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all():
                raise DataError(f"{where}: {name} of shape {value.shape}; expected {shape}, all finite; {again}")
        off = np.abs(np.linalg.norm(self.direction, axis=1) - 1) > 1e-6
        if off.any():
            raise DataError(f"{where}: direction of frame {np.argmax(off)} is not of length one; {again}")
        total = np.add.reduceat(self.derivative, self.frame_ptr[:-1]) if f else np.zeros((0, 3))
        broken = np.abs(total - self.charge[:, None] * self.direction).max(axis=1, initial=0.0)
        if (broken > SUM_RULE).any():
            frame = int(np.argmax(broken))
            raise DataError(
                f"{where}: derivatives of frame {frame} miss the sum rule by {broken[frame]:.3g} e; expected at most {SUM_RULE}; "
                "a translation must move the dipole by the charge; compute them again with a finer grid"
            )

    def __len__(self) -> int:
        return self.charge.size

    def atoms(self, f: int) -> slice:
        """Where the atoms of frame f are."""
        return slice(int(self.frame_ptr[f]), int(self.frame_ptr[f + 1]))


def read_dipole_derivatives(path: Path | str) -> DipoleDerivatives:
    """Raises DataError if the file is missing, truncated, foreign, inconsistent or not finite."""
    with open_hdf5(path, SCHEMA, VERSION) as file:
        level = Level(**json.loads(file.attrs["level"]))
        arrays = {name: file[name][:] for name in ARRAYS}
    return DipoleDerivatives(level=level, path=Path(path), **arrays)


def write_dipole_derivatives(path: Path | str, data: DipoleDerivatives, program: str, settings: str) -> None:
    """Write such a file, whole or not at all. settings: JSON."""
    with create_hdf5(path, SCHEMA, VERSION) as file:
        file.attrs.update(units="atomic", program=program, level=json.dumps(asdict(data.level)), settings=settings)
        for name in ARRAYS:
            file[name] = getattr(data, name)
