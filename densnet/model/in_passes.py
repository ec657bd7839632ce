"""A large batch evaluated in several passes: the memory of one pass only, and on a CPU less time, as one pass fits its cache."""

from __future__ import annotations

from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from densnet.errors import ConfigError
from densnet.structures import Density, Molecules, Prediction

Part = tuple[slice, slice]  # of the molecules, of their atoms
ATOMS_ON_CPU = 80  # eight ethanols took the least time each (benchmarks/dynamics.py)


class Potential(Protocol):
    """What moves the atoms; DensNet is one. hash names it for good: a run continues only on the same one."""

    hash: str

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction: ...


class InPasses:
    """A potential that hands another one at most so many atoms at a time, whole molecules in their order.

    A molecule with more atoms has a pass of its own.
    Raises ConfigError unless atoms is positive.
    """

    def __init__(self, potential: Potential, atoms: int) -> None:
        if atoms < 1:
            raise ConfigError(f"atoms_per_pass is {atoms}; expected at least 1, or null for the usual number")
        self.potential, self.atoms, self.hash = potential, atoms, potential.hash
        self._parts: tuple[Tensor, list[Part]] | None = None

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        """As DensNet.predict, up to rounding."""
        if molecules.n == 1 or molecules.number.numel() <= self.atoms:
            return self.potential.predict(molecules, forces)
        found = [self.potential.predict(molecules.part(*part), forces) for part in self._parts_of(molecules)]
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

    def _parts_of(self, molecules: Molecules) -> list[Part]:
        """Kept from call to call: dynamics moves the same molecules."""
        if self._parts is None or self._parts[0] is not molecules.molecule:
            sizes = torch.bincount(molecules.molecule, minlength=molecules.n).tolist()
            self._parts = molecules.molecule, even_parts(sizes, self.atoms)
        return self._parts[1]


def even_parts(sizes: list[int], most: int) -> list[Part]:
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


def _filled(sizes: list[int], most: int) -> list[slice]:
    parts, start, total = [], 0, 0
    for k, size in enumerate(sizes):
        if k > start and total + size > most:
            parts.append(slice(start, k))
            start, total = k, 0
        total += size
    return [*parts, slice(start, len(sizes))]
