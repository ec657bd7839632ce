"""A harmonic reference on disk: stationary point, Hessian and dipole derivatives, HDF5, atomic units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import DataError

SCHEMA = "densnet/harmonic"
VERSION = 1


@dataclass(frozen=True)
class HarmonicData:
    """Everything a harmonic infrared spectrum needs.

    number: (N,) nuclear charges; mass: (N,) electron masses (standard atomic weights, ase.data.atomic_masses, as ASE's
    dynamics uses, unless the provenance says that masses were changed); position: (N, 3) bohr, the stationary point; charge: e;
    energy: hartree;
    dipole: (3,) e bohr at origin 0; hessian: (3N, 3N) hartree/bohr^2, symmetric; dipole_derivative: (3N, 3) e,
    [i, k] = d dipole_k / d position_i; provenance: how it was made.
    Raises DataError if shapes do not fit together or values are not finite.
    """

    number: np.ndarray
    mass: np.ndarray
    position: np.ndarray
    charge: int
    energy: float
    dipole: np.ndarray
    hessian: np.ndarray
    dipole_derivative: np.ndarray
    provenance: str

    def __post_init__(self) -> None:
        n = self.number.size
        expected = {
            "number": (n,), "mass": (n,), "position": (n, 3), "dipole": (3,),
            "hessian": (3 * n, 3 * n), "dipole_derivative": (3 * n, 3), "energy": (),
        }  # fmt: skip
        for name, shape in expected.items():
            value = np.asarray(getattr(self, name))
            if value.shape != shape:
                raise DataError(f"harmonic data: {name} has shape {value.shape}; expected {shape}; make the file again")
            if not np.isfinite(value).all():
                raise DataError(f"harmonic data: {name} is not finite; expected numbers; make the file again")


def read_harmonic(path: Path | str) -> HarmonicData:
    """Raises DataError if the file is missing, truncated, foreign, inconsistent or not finite."""
    with open_hdf5(path, SCHEMA, VERSION) as file:
        return HarmonicData(
            number=file["number"][:].astype(np.int64),
            mass=file["mass"][:],
            position=file["position"][:],
            charge=int(file["charge"][()]),
            energy=float(file["energy"][()]),
            dipole=file["dipole"][:],
            hessian=file["hessian"][:],
            dipole_derivative=file["dipole_derivative"][:],
            provenance=str(file.attrs["provenance"]),
        )


def write_harmonic(path: Path | str, data: HarmonicData) -> None:
    """Write a harmonic reference, whole or not at all."""
    with create_hdf5(path, SCHEMA, VERSION) as file:
        file.attrs.update({"units": "atomic", "provenance": data.provenance})
        file["number"] = data.number.astype(np.int32)
        for name in ("mass", "position", "charge", "energy", "dipole", "hessian", "dipole_derivative"):
            file[name] = getattr(data, name)
