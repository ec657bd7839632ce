"""Does a label file hold what it says? Electrons, dipole and second moment of every frame rebuilt from its density matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from densnet.data.labels import Labels, read_labels
from densnet.data.similarity import nearest_training_rmsd
from densnet.errors import ConfigError, DataError, DensnetError
from densnet.reference.fitting import orbital_molecule


@dataclass(frozen=True)
class CheckSettings:
    """What may differ, atomic units. frames: check the first so many, null for all; electrons, dipole, quadrupole: largest

    deviation of a component from the density matrix (stored in float32); net_force: largest component of the sum of the forces
    (the grid leaves some); energy_per_atom: above the lowest frame of the same atoms; test_distance: root-mean-square distance
    from the nearest training frame below which a test frame is no test.
    """

    frames: int | None = None
    electrons: float = 1e-5
    dipole: float = 1e-5
    quadrupole: float = 1e-4
    net_force: float = 1e-3
    energy_per_atom: float = 0.05
    test_distance: float = 1e-4

    def __post_init__(self) -> None:
        if self.frames is not None and (type(self.frames) is not int or self.frames < 1):
            raise ConfigError(f"check.frames is {self.frames!r}; expected a positive number of frames, or null for all")
        limits = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "frames"}
        if faulty := [name for name, value in limits.items() if not value > 0]:
            raise ConfigError(f"check.{faulty[0]} is {limits[faulty[0]]}; expected a positive number; correct it")


@dataclass(frozen=True)
class Finding:
    """One quantity over all frames. worst: that of frame `frame`; typical: the median; limit: what worst must keep to."""

    name: str
    unit: str
    worst: float
    typical: float
    limit: float
    frame: int
    good: bool


def moments_error(labels: Labels, f: int) -> tuple[float, float, float]:
    """Largest deviation of electrons (e), dipole (e bohr) and second moment (e bohr^2) of a frame from its density matrix."""
    molecule, matrix = labels.frame(f), labels.density_matrix(f)
    mol = orbital_molecule(molecule, labels.level.ao_basis, matrix)
    z, r = molecule.number, molecule.position
    n = mol.nao
    electrons = float(np.sum(matrix * mol.intor("int1e_ovlp"))) - molecule.n_electrons
    dipole = z @ r - np.einsum("xij,ij->x", mol.intor("int1e_r"), matrix)
    second = np.einsum("a,ai,aj->ij", z, r, r) - np.einsum("xij,ij->x", mol.intor("int1e_rr").reshape(9, n, n), matrix).reshape(
        3, 3
    )
    return abs(electrons), float(np.abs(dipole - labels.dipole[f]).max()), float(np.abs(second - labels.quadrupole[f]).max())


def _energies_above(labels: Labels, frames: np.ndarray) -> np.ndarray:
    """(frames,) energy per atom above the lowest frame of the same atoms and charge, hartree."""
    above = np.empty(len(frames))
    kind = [(labels.frame(f).number.tobytes(), labels.frame(f).charge) for f in frames.tolist()]
    size = np.diff(labels.frame_ptr)[frames]
    for one in set(kind):
        members = np.array([k for k, other in enumerate(kind) if other == one])
        energy = labels.energy[frames[members]]
        above[members] = (energy - energy.min()) / size[members]
    return above


def check_labels(path: Path, settings: CheckSettings) -> list[Finding]:
    """The worst frame for every quantity. Raises DataError if the file or a density matrix cannot be read."""
    labels = read_labels(path)
    frames = np.arange(len(labels))[: settings.frames]
    if not len(frames):
        raise DataError(f"{path} has no labelled frame; expected at least one; label again")
    moments = np.empty((len(frames), 3))
    for k, f in enumerate(tqdm(frames.tolist(), desc="checking", unit="frame")):
        try:
            moments[k] = moments_error(labels, f)
        except DensnetError as error:
            raise type(error)(f"{path}, frame {f}: {error}") from error
    net = np.abs(np.add.reduceat(labels.force, labels.frame_ptr[:-1]))[frames].max(1)
    above = _energies_above(labels, frames)
    found = [
        _largest("electrons", "e", moments[:, 0], settings.electrons, frames),
        _largest("dipole", "e bohr", moments[:, 1], settings.dipole, frames),
        _largest("second moment", "e bohr^2", moments[:, 2], settings.quadrupole, frames),
        _largest("net force", "hartree/bohr", net, settings.net_force, frames),
        _largest("energy per atom above the lowest", "hartree", above, settings.energy_per_atom, frames),
    ]
    test = frames[labels.split[frames] == "test"]
    distance = nearest_training_rmsd(labels, test, labels.indices("train"))
    test, distance = test[np.isfinite(distance)], distance[np.isfinite(distance)]
    if len(test):
        k = int(np.argmin(distance))
        least, limit = float(distance[k]), settings.test_distance
        typical = float(np.median(distance))
        found.append(Finding("RMSD of test from train", "bohr", least, typical, limit, int(test[k]), least >= limit))
    return found


def _largest(name: str, unit: str, values: np.ndarray, limit: float, frames: np.ndarray) -> Finding:
    k = int(np.argmax(values))
    worst = float(values[k])
    return Finding(name, unit, worst, float(np.median(values)), limit, int(frames[k]), worst <= limit)


def table(findings: Sequence[Finding]) -> str:
    """One line for every quantity."""
    lines = [f"{'':34}{'worst':>10}{'median':>10}{'limit':>10}  frame  unit"]
    for f in findings:
        verdict = "" if f.good else "  WRONG"
        lines.append(f"{f.name:34}{f.worst:10.2e}{f.typical:10.2e}{f.limit:10.1e}{f.frame:7d}  {f.unit}{verdict}")
    return "\n".join(lines)


def refuse_wrong(path: Path, findings: Sequence[Finding]) -> None:
    """Raises DataError that names the first quantity beyond its limit, and the frame."""
    for f in findings:
        if not f.good:
            side = "at least" if f.worst < f.limit else "at most"
            raise DataError(
                f"{path}, frame {f.frame}: {f.name} is off, {f.worst:.2e} {f.unit} found; expected {side} {f.limit:.1e}; "
                "label that frame again, or remove it"
            )
