"""Trajectories on disk: HDF5, schema densnet/trajectory version 3, atomic units, append-only, readable while it grows.

    attributes   schema, version, units="atomic", creator; time_step (atomic time between frames), integration_step (of the
                 integrator), ensemble, temperature (kelvin), seed, model, model_hash, charge; of RunSummary once finished
    number, mass          (N,), (N,)                 nuclear charges; electron masses
    position, velocity    (S, R, N, 3)               bohr; bohr per atomic time
    energy                (S, R)                     potential energy, hartree
    dipole                (S, R, 3), may be absent   e*bohr
    atomic_charge         (S, R, N), if recorded     e, of the atom-centred functions (Prediction.charge)
    kinetic_temperature   (S, R)                     2K / (f k_B), kelvin
    conserved             (S, R), unless langevin    hartree
    frozen_from           (R,)                       -1, or the frame from which on a replica that failed holds NaN

Replicas of different molecules: number and mass are (R, N), N atoms of the largest, 0 where a smaller one is padded (positions,
velocities and atomic charges are 0 there), and charge, of the whole molecule, is a dataset (R,) instead of the attribute. Version
2 lacks atomic_charge, version 1 also kinetic_temperature, conserved and frozen_from.

The writer works in HDF5's single-writer-multiple-readers mode from the moment the file has its name, so that a process
killed at any time leaves a file that reads up to the last flush. A value that never reached the disk reads NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from densnet.errors import DataError
from densnet.simulation.trajectory_file import check_schema, dataset, opened
from densnet.structures import Molecule

SETTINGS = ("time_step", "integration_step", "ensemble", "temperature", "seed", "model_hash", "model")


@dataclass(frozen=True)
class TrajectoryHeader:
    """What holds for every frame; units as in the module's table.

    number, mass: (N,), charge: int; of different molecules (R, N), (R, N), (R,).
    """

    number: np.ndarray
    mass: np.ndarray
    charge: int | np.ndarray
    time_step: float
    integration_step: float
    ensemble: str
    temperature: float
    seed: int
    model_hash: str
    model: str

    @property
    def mixed(self) -> bool:
        """Whether the replicas are different molecules."""
        return self.number.ndim == 2

    def of_one_molecule(self) -> Self:
        """The trajectory itself. Raises DataError if its replicas are different molecules."""
        if self.mixed:
            raise DataError(
                "the replicas of the trajectory are different molecules; expected one molecule; simulate each in a run of its own"
            )
        return self


@dataclass(frozen=True)
class Frame:
    """One frame: position, velocity (R, N, 3); energy, kinetic_temperature (R,); dipole (R, 3); conserved (R,) or None;

    atomic_charge (R, N) or None. A replica that is frozen holds NaN.
    """

    position: np.ndarray
    velocity: np.ndarray
    energy: np.ndarray
    dipole: np.ndarray
    kinetic_temperature: np.ndarray
    conserved: np.ndarray | None
    atomic_charge: np.ndarray | None = None


@dataclass(frozen=True)
class Trajectory(TrajectoryHeader):
    """A whole trajectory in memory: position, velocity (S, R, N, 3); energy (S, R); dipole (S, R, 3) or None.

    kinetic_temperature (S, R), conserved (S, R), atomic_charge (S, R, N) e: None where the file has none. frozen_from: (R,), see
    the module's table: frozen replicas hold NaN, so that no average can take them in unseen; `survivors` leaves them out.
    """

    position: np.ndarray
    velocity: np.ndarray
    energy: np.ndarray
    dipole: np.ndarray | None
    kinetic_temperature: np.ndarray | None
    conserved: np.ndarray | None
    frozen_from: np.ndarray
    atomic_charge: np.ndarray | None = None

    @property
    def losses(self) -> str:
        """What `survivors` leaves out, to be said beside every result; empty if it leaves out nothing."""
        return losses(self.frozen_from)

    def survivors(self) -> Trajectory:
        """The replicas that were never frozen. Raises DataError if there is none."""
        alive = survivors(self.frozen_from)
        kept: dict[str, Any] = {"frozen_from": self.frozen_from[alive]}
        for name in ("position", "velocity", "energy", "dipole", "kinetic_temperature", "conserved", "atomic_charge"):
            series = getattr(self, name)
            kept[name] = None if series is None else series[:, alive]
        if isinstance(self.charge, np.ndarray):
            kept |= {"number": self.number[alive], "mass": self.mass[alive], "charge": self.charge[alive]}
        return replace(self, **kept)

    def molecule(self, frame: int = 0, replica: int = 0) -> Molecule:
        """One replica of one frame. Raises StructureError where it is frozen."""
        number = self.number[replica] if self.mixed else self.number
        charge = int(self.charge[replica]) if isinstance(self.charge, np.ndarray) else self.charge
        return Molecule(number[number > 0], self.position[frame, replica, number > 0], charge)


@dataclass(frozen=True)
class RunSummary:
    """What a run was.

    steps: of production; ms_per_step: wall time of a step of all replicas together, equilibration included;
    mean_temperature: kelvin, over production and replicas; drift_meV_per_atom_per_ps: slope of a straight line through the
    conserved energy per atom averaged over replicas, None for langevin or with fewer than two frames; wall_s: of all sessions
    together; frozen_replicas: those that failed, which no other number here includes.
    """

    steps: int
    ms_per_step: float
    mean_temperature: float
    drift_meV_per_atom_per_ps: float | None
    wall_s: float
    frozen_replicas: int = 0


def read_trajectory(path: str | Path) -> Trajectory:
    """The trajectory, up to its last complete frame if its writer is running or was killed.

    Raises DataError if the file is missing, truncated, not a densnet trajectory, or holds values that are not finite.
    """
    with opened(path := Path(path)) as file:
        header, frames, frozen_from = scan(path, file)
        shapes = frame_shapes(frozen_from.size, header.number.shape[-1])
        data: dict[str, Any] = {name: dataset(path, file, name)[:frames] if name in file else None for name in shapes}
    return Trajectory(**vars(header), frozen_from=frozen_from, **data)


def scan(path: Path, file: h5py.File, memory_mb: float = 16.0) -> tuple[TrajectoryHeader, int, np.ndarray]:
    """Header, number of frames up to the last complete one, and frozen_from (R,) of an open file, every value looked at.

    Blocks of frames of at most memory_mb are in memory at a time. Raises DataError as `read_trajectory`.
    """
    check_schema(path, file)
    header, newer = _header(path, file), file.attrs["version"] != 1
    series = ["position", "velocity", "energy", *(["kinetic_temperature"] if newer else [])]
    series += [name for name in ("dipole", "conserved", "atomic_charge") if name in file]
    length = min(dataset(path, file, name).shape[0] for name in series)
    replicas = dataset(path, file, "energy").shape[-1]
    shapes = frame_shapes(replicas, header.number.shape[-1])
    for name in series:
        if (shape := dataset(path, file, name).shape)[1:] != shapes[name]:
            raise DataError(f"{path}: {name} has shape {shape}; expected (frames, {', '.join(map(str, shapes[name]))})")
    whole = np.ones((length, replicas), dtype=bool)
    for name in series:
        block = max(1, int(memory_mb * 2**20 / (8 * max(1, np.prod(shapes[name])))))
        for first in range(0, length, block):
            values = dataset(path, file, name)[first : min(first + block, length)]
            whole[first : first + block] &= np.isfinite(values).all(axis=tuple(range(2, values.ndim)))
    # After the series: a replica is marked before its first NaN is written.
    frozen_from = dataset(path, file, "frozen_from")[:] if newer else np.full(replicas, -1)
    if frozen_from.shape != (replicas,) or (header.mixed and header.number.shape[0] != replicas):
        raise DataError(f"{path}: frozen_from or number do not fit {replicas} replicas; the file is damaged, run again")
    alive = (frozen_from < 0) | (np.arange(length)[:, None] < frozen_from)
    complete = (whole | ~alive).all(axis=1)
    if file.swmr_mode:
        # Frames at the end that are not on disk hold the fill value.
        recorded = np.flatnonzero(complete & alive.any(axis=1))
        length = int(recorded[-1]) + 1 if len(recorded) else 0
    if not complete[:length].all():
        bad = int(np.flatnonzero(~complete)[0])
        raise DataError(f"{path}: frame {bad} is not finite; expected finite values; the file is damaged, run again")
    if length == 0:
        raise DataError(f"{path} holds no complete frame; expected at least one; continue the simulation with resume=true")
    return header, length, frozen_from


def _header(path: Path, file: h5py.File) -> TrajectoryHeader:
    attributes: dict[str, Any] = dict(file.attrs)
    number = dataset(path, file, "number")[:]
    for name in (*SETTINGS, *(["charge"] if number.ndim == 1 else [])):
        if name not in attributes:
            raise DataError(
                f"{path} cannot be read: it does not say its {name}; expected an attribute of that name; "
                f"run again, or add it with h5py if you know it (atomic units)"
            )
    return TrajectoryHeader(
        number=number,
        mass=dataset(path, file, "mass")[:],
        charge=np.asarray(dataset(path, file, "charge")) if number.ndim == 2 else int(attributes["charge"]),
        time_step=float(attributes["time_step"]),
        integration_step=float(attributes["integration_step"]),
        ensemble=str(attributes["ensemble"]),
        temperature=float(attributes["temperature"]),
        seed=int(attributes["seed"]),
        model_hash=str(attributes["model_hash"]),
        model=str(attributes["model"]),
    )


def losses(frozen_from: np.ndarray) -> str:
    """What leaving out frozen replicas leaves out, to be said beside every result; empty if that is nothing."""
    lost = np.flatnonzero(frozen_from >= 0)
    return f", without {len(lost)} of {frozen_from.size} replicas, which failed" if len(lost) else ""


def survivors(frozen_from: np.ndarray) -> np.ndarray:
    """(R,) True for replicas that were never frozen. Raises DataError if there is none."""
    alive = frozen_from < 0
    if not alive.any():
        raise DataError(
            f"all {alive.size} replicas of the trajectory were frozen; expected one that ran to the end; "
            "simulate again with a shorter time step or from a better start"
        )
    return alive


def frame_shapes(replicas: int, atoms: int) -> dict[str, tuple[int, ...]]:
    """Shape of one frame of every dataset that grows."""
    vectors, scalars = (replicas, atoms, 3), (replicas,)
    return {
        "position": vectors,
        "velocity": vectors,
        "energy": scalars,
        "dipole": (replicas, 3),
        "kinetic_temperature": scalars,
        "conserved": scalars,
        "atomic_charge": (replicas, atoms),
    }
