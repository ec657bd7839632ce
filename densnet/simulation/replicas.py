"""Replicas side by side: copies of one molecule or of several, evaluated in one call of the potential."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import atomic_masses
from torch import Tensor

from densnet.model.in_passes import Potential
from densnet.simulation.integrators import Evaluation
from densnet.simulation.velocities import rotations
from densnet.structures import Molecule, Molecules
from densnet.units import ELECTRON_MASS_PER_DALTON


class Replicas:
    """The potential of R molecules as a function of position (R, N, 3); N atoms are those of the largest.

    charges: whether charges of the atoms are wanted. number: (R, N) nuclear charges; mass: (R, N) electron masses; both 0 where a
    smaller molecule is padded, whose positions, forces and charges are 0 there. start: (R, N, 3) bohr; atoms, n_rotations: (R,),
    rotational degrees of freedom as the first geometry of each molecule has them; mixed: whether the molecules differ.
    """

    def __init__(
        self, potential: Potential, molecules: list[Molecule], device: torch.device | str, charges: bool = False
    ) -> None:
        self.potential, self.molecules, self.batch, self.charges = potential, molecules, Molecules.of(molecules, device), charges
        kinds = [kind(molecule) for molecule in molecules]
        self.mixed = len(set(kinds)) > 1
        sizes = np.array([molecule.number.size for molecule in molecules])
        here = np.arange(sizes.max()) < sizes[:, None]
        number, position = np.zeros(here.shape, dtype=np.int64), np.zeros((*here.shape, 3))
        number[here] = np.concatenate([molecule.number for molecule in molecules])
        position[here] = np.concatenate([molecule.position for molecule in molecules])
        mass = np.where(here, atomic_masses[number] * ELECTRON_MASS_PER_DALTON, 0.0)
        self.number = torch.as_tensor(number).to(device)
        self.mass = torch.as_tensor(mass).to(device)
        self.start = torch.as_tensor(position).to(device)
        self.atoms = torch.as_tensor(sizes).to(device)
        turning = {
            name: rotations(torch.as_tensor(position[r, : sizes[r]]), torch.as_tensor(mass[r, : sizes[r]]))
            for name, r in {name: kinds.index(name) for name in set(kinds)}.items()
        }
        self.n_rotations = torch.tensor([turning[name] for name in kinds]).to(device)
        # Where the real atoms lie among the padded ones; None if all are real.
        self._real = None if here.all() else torch.as_tensor(np.flatnonzero(here)).to(device)

    def __len__(self) -> int:
        return len(self.molecules)

    def __call__(self, position: Tensor) -> Evaluation:
        flat = position.reshape(-1, 3)
        prediction = self.potential.predict(self.batch.at(flat if self._real is None else flat[self._real]), forces=True)
        assert prediction.force is not None
        force, charge = self._padded(prediction.force), None
        if self.charges:
            assert prediction.charge is not None
            charge = self._padded(prediction.charge).view(position.shape[:2])
        return Evaluation(prediction.energy.double(), force.view_as(position), prediction.dipole.double(), charge)

    def _padded(self, per_atom: Tensor) -> Tensor:
        """(R * N, ...) of a quantity of the real atoms, 0 elsewhere."""
        per_atom = per_atom.double()
        if self._real is None:
            return per_atom
        return per_atom.new_zeros((self.number.numel(), *per_atom.shape[1:])).index_copy_(0, self._real, per_atom)

    def give_charges(self) -> bool:
        """Whether the potential has charges of atoms, asked for the first of the molecules."""
        first = Molecules.of(self.molecules[:1], self.mass.device)
        return self.potential.predict(first, forces=False).charge is not None

    def first(self, count: int) -> Replicas:
        """The first few of them."""
        return Replicas(self.potential, self.molecules[:count], self.mass.device, self.charges)


def kind(molecule: Molecule) -> tuple[bytes, int]:
    """What tells molecules apart, whatever their geometry: atoms in their order, and charge."""
    return molecule.number.tobytes(), molecule.charge


def name(molecule: Molecule) -> str:
    """The same in words, e.g. `8 1 1 (0 e)`."""
    return f"{' '.join(map(str, molecule.number))} ({molecule.charge} e)"
