"""A large batch evaluated in several passes: the memory of one pass only, and on a CPU less time, as one pass fits its cache."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from densnet.errors import ConfigError
from densnet.structures import Density, Molecules, Prediction

Part = tuple[slice, slice]  # of the molecules, of their atoms
ATOMS_ON_CPU = 160  # seventeen ethanols; benchmarks/dynamics.py --atoms-per-pass tries others


class Potential(Protocol):
    """What moves the atoms; DensNet is one. hash names it for good: a run continues only on the same one."""

    hash: str

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction: ...


class InPasses:
    """A potential that hands another one at most `atoms` at a time, whole molecules in their order; 0 is all at once.

    A molecule with more atoms has a pass of its own. densities: whether those of all parts are kept, which takes memory that
    grows with the batch; without, a prediction in parts has an empty one. Raises ConfigError if atoms is no whole number from 0.
    """

    def __init__(self, potential: Potential, atoms: int, densities: bool = False) -> None:
        if isinstance(atoms, bool) or not isinstance(atoms, int) or atoms < 0:
            raise ConfigError(
                f"atoms_per_pass is {atoms!r}; expected a whole number, 0 for all at once, or null for the usual number"
            )
        self.potential, self.atoms, self.hash, self._densities = potential, atoms, potential.hash, densities
        # What dynamics moves stays the same: its parts are made once, and the potential knows them again.
        self._of: tuple[Tensor, Tensor, Tensor] | None = None
        self._parts: list[tuple[Part, Molecules]] = []

    def splits(self, molecules: Molecules) -> bool:
        """Whether these go in more than one pass."""
        return self.atoms > 0 and molecules.n > 1 and molecules.number.numel() > self.atoms

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        """As the potential itself, up to rounding and the density (see the class)."""
        if not self.splits(molecules):
            return self.potential.predict(molecules, forces)
        found = []
        for (_, atoms), part in self._parts_of(molecules):
            one = self.potential.predict(part.at(molecules.position[atoms]), forces)
            if not self._densities:  # a slice without rows would keep all of them in memory
                nothing = Density(one.density.coefficient[:0].clone(), one.density.exponent[:0].clone())
                one = Prediction(one.energy, one.force, one.dipole, nothing, one.charge)
            found.append(one)
        force = [p.force for p in found if p.force is not None]
        charge = [p.charge for p in found if p.charge is not None]
        coefficient, exponent = ([getattr(p.density, name) for p in found] for name in ("coefficient", "exponent"))
        return Prediction(
            energy=torch.cat([p.energy for p in found]),
            force=torch.cat(force) if force else None,
            dipole=torch.cat([p.dipole for p in found]),
            density=Density(torch.cat(coefficient), torch.cat(exponent)),
            charge=torch.cat(charge) if charge else None,
        )

    def _parts_of(self, molecules: Molecules) -> list[tuple[Part, Molecules]]:
        now = molecules.molecule, molecules.number, molecules.charge
        if self._of is None or any(a is not b for a, b in zip(self._of, now)):
            sizes = torch.bincount(molecules.molecule, minlength=molecules.n).tolist()
            self._of, self._parts = now, [(part, molecules.part(*part)) for part in even_parts(sizes, self.atoms)]
        return self._parts


def even_parts(sizes: Sequence[int], most: int) -> list[Part]:
    """(molecules, their atoms): neighbours of at most `most` atoms together, or one molecule; as few parts as that allows,

    of about equal size, so that a compiled graph meets few sizes.
    """
    number = len(_filled(sizes, most))
    low, high = 1, most  # the least that still makes so few parts
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(sizes, middle)) == number else (middle + 1, high)
    first = [0, *accumulate(sizes)]
    return [(part, slice(first[part.start], first[part.stop])) for part in _filled(sizes, low)]


def _filled(sizes: Sequence[int], most: int) -> list[slice]:
    parts, start, total = [], 0, 0
    for k, size in enumerate(sizes):
        if k > start and total + size > most:
            parts.append(slice(start, k))
            start, total = k, 0
        total += size
    return [*parts, slice(start, len(sizes))]
