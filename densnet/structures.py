"""What the parts of densnet hand to each other: Molecule (one, numpy), Molecules (a batch, torch), Density, Prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from densnet.errors import StructureError
from densnet.units import ANGSTROM_PER_BOHR

MIN_DISTANCE = 0.3 / ANGSTROM_PER_BOHR  # bohr; closer atoms are an input error, not chemistry


@dataclass(frozen=True)
class Molecule:
    """One molecule: the input of everything.

    number: (N,) nuclear charges; position: (N, 3) bohr, float64; charge: total charge, e.
    Raises StructureError if shapes or values are wrong or two atoms are closer than 0.3 angstrom.
    """

    number: np.ndarray
    position: np.ndarray
    charge: int = 0

    def __post_init__(self) -> None:
        number = np.asarray(self.number)
        position = np.array(self.position, dtype=np.float64)
        if number.ndim != 1 or number.size == 0 or not np.issubdtype(number.dtype, np.integer):
            raise StructureError(
                f"atomic numbers have shape {number.shape} and type {number.dtype}; expected (N,) integers, N >= 1"
            )
        if number.min() < 1 or number.max() > 118:
            raise StructureError(
                f"atomic numbers range over {number.min()}..{number.max()}; expected 1..118; remove ghost or dummy atoms"
            )
        if position.shape != (number.size, 3):
            raise StructureError(f"positions have shape {position.shape}; expected ({number.size}, 3) in bohr")
        if not np.isfinite(position).all():
            raise StructureError("positions hold NaN or infinity; expected finite bohr coordinates; repair the geometry")
        object.__setattr__(self, "number", number.astype(np.int64))
        object.__setattr__(self, "position", position)
        if number.size > 1:
            distances, partners = (np.asarray(x) for x in KDTree(position).query(position, k=2))
            i = int(np.argmin(distances[:, 1]))
            j = int(partners[i, 1] if partners[i, 1] != i else partners[i, 0])  # atoms in one place come in either order
            if distances[i, 1] < MIN_DISTANCE:
                raise StructureError(
                    f"atoms {min(i, j)} and {max(i, j)} are {distances[i, 1] * ANGSTROM_PER_BOHR:.3f} angstrom apart; "
                    "expected at least 0.3; check the geometry and its unit"
                )

    @property
    def n_electrons(self) -> int:
        return int(self.number.sum()) - self.charge

    def moved(self, position: np.ndarray) -> Molecule:
        """The same atoms elsewhere; position: (N, 3) bohr."""
        return replace(self, position=position)


@dataclass(frozen=True)
class Molecules:
    """A batch of molecules as the networks see it: inputs only, labels never.

    number: (N,) int64; position: (N, 3) bohr (float64 keeps MD exact; networks cast edge vectors);
    charge: (B,) e; molecule: (N,) index of the molecule of every atom, ascending; n: number of molecules B.
    """

    number: Tensor
    position: Tensor
    charge: Tensor
    molecule: Tensor
    n: int

    @staticmethod
    def of(molecules: list[Molecule], device: torch.device | str = "cpu") -> Molecules:
        sizes = torch.tensor([m.number.size for m in molecules])
        return Molecules(
            number=torch.as_tensor(np.concatenate([m.number for m in molecules])).to(device),
            position=torch.as_tensor(np.concatenate([m.position for m in molecules])).to(device),
            charge=torch.tensor([m.charge for m in molecules], dtype=torch.float64).to(device),
            molecule=torch.repeat_interleave(torch.arange(len(molecules)), sizes).to(device),
            n=len(molecules),
        )

    def at(self, position: Tensor) -> Molecules:
        """The same molecules at other positions, (N, 3) bohr (for autograd and dynamics)."""
        return replace(self, position=position)

    def part(self, molecules: slice, atoms: slice) -> Molecules:
        """Some neighbouring molecules of the batch; atoms: where all of theirs are."""
        return Molecules(
            self.number[atoms],
            self.position[atoms],
            self.charge[molecules],
            self.molecule[atoms] - molecules.start,
            molecules.stop - molecules.start,
        )

    def sum(self, per_atom: Tensor) -> Tensor:
        """Sum an (N, ...) quantity over the atoms of each molecule: (B, ...)."""
        return per_atom.new_zeros((self.n, *per_atom.shape[1:])).index_add_(0, self.molecule, per_atom)


@dataclass(frozen=True)
class Density:
    """An electron density rho = rho_SAD + sum dc chi.

    coefficient: (N, width) the deformation dc in e3nn irreps order, zero where the element has no shell;
    exponent: (N, shells) bohr^-2, the exponents actually used, 1 where the element has no shell.
    """

    coefficient: Tensor
    exponent: Tensor


@dataclass(frozen=True)
class Prediction:
    """What one pass R -> rho -> E, F, mu, q gives, atomic units.

    energy: (B,) hartree; force: (N, 3) hartree/bohr or None; dipole: (B, 3) e*bohr, origin at the coordinate origin
    for neutral molecules and at the centre of nuclear charge for ions; density: the Density; charge: (N,) e of the atom-centred
    functions (densnet.observables.multipoles.atomic_charges), None from a method that has no such density.
    """

    energy: Tensor
    force: Tensor | None
    dipole: Tensor
    density: Density
    charge: Tensor | None = None
