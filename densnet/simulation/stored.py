"""A trajectory that stays on disk: header and dipoles at hand, positions and velocities a few replicas at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densnet.simulation.trajectory import TrajectoryHeader, losses, scan, survivors
from densnet.simulation.trajectory_file import dataset, opened
from densnet.structures import Molecule


@dataclass(frozen=True)
class StoredTrajectory(TrajectoryHeader):
    """The replicas of a trajectory file that were never frozen, every value of the file checked.

    path: the file; frames: S; replicas: (R,) indices in the file; dipole: (S, R, 3) e*bohr or None; losses: what is left out, to
    be said beside every result.
    """

    path: Path
    frames: int
    replicas: np.ndarray
    dipole: np.ndarray | None
    losses: str

    def motion(self, memory_mb: float = 256.0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Position, velocity (S, r, N, 3), atomic units, of all frames of as many replicas at a time as fit in memory_mb.

        One replica at least; a chunk of the file, at most 16 MiB, comes on top.
        """
        size = 2 * 8 * self.frames * self.mass.shape[-1] * 3
        group = max(1, int(min(memory_mb * 2**20 / size, self.replicas.size)))
        for first in range(0, self.replicas.size, group):
            chosen = self.replicas[first : first + group]
            with opened(self.path) as file:
                position, velocity = (np.empty((self.frames, chosen.size, self.mass.shape[-1], 3)) for _ in range(2))
                for name, into in (("position", position), ("velocity", velocity)):
                    source = dataset(self.path, file, name)
                    block = source.chunks[0] if source.chunks else self.frames
                    for start in range(0, self.frames, block):
                        stop = min(start + block, self.frames)
                        into[start:stop] = source[start:stop][:, chosen]
            yield position, velocity

    def body_dipole(self, memory_mb: float = 256.0) -> np.ndarray | None:
        """(S, R, 3) e*bohr about the centre of mass, whose motion then adds nothing to the spectrum of an ion.

        A neutral molecule's dipole has no origin; the file has an ion's about the centre of nuclear charge.
        """
        if self.dipole is None or int(self.charge) == 0:
            return self.dipole
        between = self.number / self.number.sum() - self.mass / self.mass.sum()
        parts = [np.einsum("a,srai->sri", between, position) for position, _ in self.motion(memory_mb)]
        return self.dipole + int(self.charge) * np.concatenate(parts, axis=1)

    def molecule(self) -> Molecule:
        """The first frame of the first replica, of a trajectory of one molecule."""
        with opened(self.path) as file:
            position = dataset(self.path, file, "position")[0, self.replicas[0]]
        return Molecule(self.number, position, int(self.charge))


def open_trajectory(path: str | Path) -> StoredTrajectory:
    """A trajectory of one molecule without its positions and velocities in memory; `read_trajectory` takes all of it there.

    Raises DataError as `read_trajectory`, and if the replicas are different molecules or all were frozen.
    """
    path = Path(path)
    with opened(path) as file:
        header, frames, frozen_from = scan(path, file)
        header = header.of_one_molecule()
        alive = np.flatnonzero(survivors(frozen_from))
        dipole = dataset(path, file, "dipole")[:frames][:, alive] if "dipole" in file else None
    return StoredTrajectory(**vars(header), path=path, frames=frames, replicas=alive, dipole=dipole, losses=losses(frozen_from))
