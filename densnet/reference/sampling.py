"""Geometries for labelling: GFN2-xTB Langevin dynamics (tblite), thinned; test frames from trajectories of their own.

GFN2-xTB: C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019). Integrator: BAOAB, B. Leimkuhler and
C. Matthews, J. Chem. Phys. 138, 174102 (2013), whose positions sample a harmonic well exactly at any stable step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import atomic_masses
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator

from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import ConfigError, StructureError
from densnet.structures import Molecule
from densnet.units import BOLTZMANN, ELECTRON_MASS_PER_DALTON, FS_PER_AU

if TYPE_CHECKING:
    from densnet.reference.pipeline import Workers

SCHEMA = "densnet/geometries"
VERSION = 1


@dataclass(frozen=True)
class Frame:
    """A geometry to label. split: train or test; source: the trajectory and the candidate in it."""

    molecule: Molecule
    split: str
    source: str


@dataclass(frozen=True)
class SamplingSettings:
    """train, test: frames wanted; temperatures: kelvin, one trajectory each per conformer; times: femtoseconds.

    thinning of the training frames: farthest (farthest-point selection in the pair distances) or time (evenly spaced);
    test frames are evenly spaced in time, so that they stay a fair thermal sample.
    """

    train: int = 100
    test: int = 30
    train_temperatures: tuple[float, ...] = (300.0, 500.0, 800.0)
    test_temperatures: tuple[float, ...] = (300.0, 500.0)
    time_step_fs: float = 0.5
    friction_per_fs: float = 0.02
    equilibration_fs: float = 1000.0
    length_fs: float = 10000.0
    every_fs: float = 25.0
    thinning: str = "farthest"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train < 1 or self.test < 0 or not self.train_temperatures or (self.test and not self.test_temperatures):
            raise ConfigError(
                f"sampling wants {self.train} train and {self.test} test frames; expected some, and temperatures for them"
            )
        if min(self.time_step_fs, self.friction_per_fs, self.every_fs, *self.train_temperatures, *self.test_temperatures) <= 0:
            raise ConfigError("sampling has a time step, friction, interval or temperature that is not positive; correct it")
        if self.thinning not in ("farthest", "time"):
            raise ConfigError(f"sampling thinning is {self.thinning}; expected farthest or time")


@dataclass(frozen=True)
class _Trajectory:
    molecule: Molecule
    temperature: float
    seed: tuple[int, ...]
    split: str
    name: str
    wanted: int
    settings: SamplingSettings


def langevin(
    molecule: Molecule, temperature: float, time_step: float, friction: float, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless GFN2-xTB dynamics: (position, velocity) after every step, each (N, 3), atomic units; temperature in kelvin.

    Raises StructureError if GFN2-xTB cannot treat the molecule.
    """
    mass = (atomic_masses[molecule.number] * ELECTRON_MASS_PER_DALTON)[:, None]
    thermal = np.sqrt(BOLTZMANN * temperature / mass)
    keep = np.exp(-friction * time_step)
    position = molecule.position.copy()
    velocity = thermal * rng.standard_normal(position.shape)
    try:
        xtb = Calculator("GFN2-xTB", molecule.number, position, charge=float(molecule.charge), uhf=0)
        xtb.set("verbosity", 0)
        result = xtb.singlepoint()
        while True:
            velocity = velocity - 0.5 * time_step * result.get("gradient") / mass
            position = position + 0.5 * time_step * velocity
            velocity = keep * velocity + np.sqrt(1.0 - keep**2) * thermal * rng.standard_normal(position.shape)
            position = position + 0.5 * time_step * velocity
            xtb.update(position)
            result = xtb.singlepoint(result)
            velocity = velocity - 0.5 * time_step * result.get("gradient") / mass
            yield position, velocity
    except TBLiteRuntimeError as error:
        reason = " ".join(str(error).split())
        raise StructureError(
            f"GFN2-xTB dynamics at {temperature:g} K stopped ({reason}); check geometry, charge, temperature"
        ) from error


def _run(task: _Trajectory) -> list[Frame]:
    s = task.settings
    steps = langevin(
        task.molecule,
        task.temperature,
        s.time_step_fs / FS_PER_AU,
        s.friction_per_fs * FS_PER_AU,
        np.random.default_rng(task.seed),
    )
    for _ in range(round(s.equilibration_fs / s.time_step_fs)):
        next(steps)
    stride = max(1, round(s.every_fs / s.time_step_fs))
    weight = task.molecule.number / task.molecule.number.sum()
    candidates = []
    for _ in range(int(s.length_fs / (stride * s.time_step_fs))):
        for _ in range(stride):
            position, _ = next(steps)
        # At the centre of nuclear charge the dipole of an ion means the same as everywhere else in densnet.
        candidates.append(position - weight @ position)
    if len(candidates) < task.wanted:
        raise ConfigError(
            f"trajectory {task.name} has {len(candidates)} candidates for {task.wanted} frames; raise length_fs or lower every_fs"
        )
    if task.split == "train" and s.thinning == "farthest":
        chosen = farthest_points(pair_distances(np.array(candidates)), task.wanted)
    else:
        chosen = [int((k + 0.5) * len(candidates) / task.wanted) for k in range(task.wanted)]
    return [Frame(task.molecule.moved(candidates[k]), task.split, f"{task.name}:{k}") for k in chosen]


def pair_distances(positions: np.ndarray) -> np.ndarray:
    """(F, N, 3) -> (F, N (N - 1) / 2) interatomic distances, the same for rotated, shifted and mirrored frames."""
    i, j = np.triu_indices(positions.shape[1], 1)
    return np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)


def farthest_points(features: np.ndarray, n: int) -> list[int]:
    """Greedy selection of n rows, each the farthest (euclidean) from those chosen before; starts nearest the mean."""
    chosen = [int(np.argmin(np.linalg.norm(features - features.mean(0), axis=1)))]
    distance = np.linalg.norm(features - features[chosen[0]], axis=1)
    while len(chosen) < n:
        distance[chosen[-1]] = -1.0  # so that equal rows are not chosen twice
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return chosen


def sample(conformers: Sequence[Molecule], settings: SamplingSettings, workers: Workers) -> list[Frame]:
    """Training and test frames from every conformer and temperature, shuffled so that any prefix is a fair sample.

    Every trajectory has a seed of its own made from settings.seed; the result depends on the arguments alone.
    Raises StructureError if GFN2-xTB fails or the conformers are of different atoms, ConfigError if the trajectories are too
    short for the frames wanted.
    """
    if any(not np.array_equal(m.number, conformers[0].number) for m in conformers):
        raise StructureError(
            "the conformers differ in their atoms; expected one composition, in one order, in every frame of the file"
        )
    tasks: list[_Trajectory] = []
    for split, total, temperatures in (
        ("train", settings.train, settings.train_temperatures),
        ("test", settings.test, settings.test_temperatures),
    ):
        count = len(conformers) * len(temperatures)
        for k in range(count if total else 0):
            conformer, temperature = k // len(temperatures), temperatures[k % len(temperatures)]
            wanted = total * (k + 1) // count - total * k // count
            if not wanted:
                continue
            seed = (settings.seed, int(split == "test"), k)
            name = f"{split}{temperature:g}_{conformer}"
            tasks.append(_Trajectory(conformers[conformer], temperature, seed, split, name, wanted, settings))
    found: dict[int, list[Frame]] = dict(workers.run(_run, tasks, "sampling", "trajectory"))
    frames = [frame for k in range(len(tasks)) for frame in found[k]]
    order = np.random.default_rng((settings.seed, 2)).permutation(len(frames))
    return [frames[k] for k in order]


def settings_hash(conformers: Sequence[Molecule], settings: SamplingSettings) -> str:
    """Identifies what `sample` would make."""
    text = json.dumps([asdict(settings), [[m.number.tolist(), m.position.tolist(), m.charge] for m in conformers]])
    return hashlib.sha256(text.encode()).hexdigest()


def write_geometries(path: Path, frames: Sequence[Frame], identity: str) -> None:
    """One file for all frames (of one composition and charge), whole or not at all; identity: see settings_hash."""
    with create_hdf5(path, SCHEMA, VERSION) as file:
        file.attrs.update({"units": "atomic", "identity": identity, "charge": frames[0].molecule.charge})
        file["number"] = frames[0].molecule.number
        file["position"] = np.array([frame.molecule.position for frame in frames])
        for name in ("split", "source"):
            file[name] = np.array([getattr(frame, name).encode() for frame in frames])


def read_geometries(path: Path, identity: str) -> list[Frame]:
    """Raises DataError if the file is missing or foreign, ConfigError if it was made from other settings."""
    with open_hdf5(path, SCHEMA, VERSION) as file:
        if file.attrs["identity"] != identity:
            raise ConfigError(
                f"{path} was sampled with other settings; expected the same; use another data_dir or delete the file"
            )
        number, position, charge = file["number"][:], file["position"][:], int(file.attrs["charge"])
        rows = zip(position, file["split"].asstr()[:], file["source"].asstr()[:])
        return [Frame(Molecule(number, p, charge), str(split), str(source)) for p, split, source in rows]
