"""Directed edges within a cutoff, and the lists of candidate pairs they are taken from.

A list of pairs is a set of indices; `edges` measures it at the positions of the moment and keeps what lies within the cutoff.
Three lists: every pair of each molecule (needs no positions, so it is made once), the pairs near now (scipy's k-d tree, memory
linear in the atoms), and those within cutoff + skin, kept over many steps (`SkinList`). Edges come in the same order from all.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from densnet.structures import Molecules

# Atoms of the largest molecule. Beyond it the tree is quicker than all pairs on a CPU: as quick at 32 atoms, twice at 92.
ALL_PAIRS_UP_TO = 40
# The tree looks a little farther than asked: `edges` decides at the rim, in the precision of the positions.
RIM = 1.0 + 1e-5
FARTHEST = 1e100  # bohr; squares of coordinates beyond overflow in the tree. Atoms out there (or at NaN) are lost anyway.


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of different atoms of one molecule, each in both directions. source, target: (P,) int64 atom indices,

    ascending by target, then by source.
    """

    source: Tensor
    target: Tensor


@dataclass(frozen=True)
class Edges:
    """source, target: (E,) atom indices, ascending by target; vector: (E, 3) bohr, from target to source; length: (E,) bohr."""

    source: Tensor
    target: Tensor
    vector: Tensor
    length: Tensor


def all_pairs(molecules: Molecules) -> Pairs:
    """Every pair of each molecule, sum n(n-1) of them. Depends on the sizes alone: valid for any positions."""
    size = torch.bincount(molecules.molecule, minlength=molecules.n)
    first = torch.cumsum(size, 0) - size
    partners = (size - 1)[molecules.molecule]
    target = torch.repeat_interleave(torch.arange(len(molecules.number), device=size.device), partners)
    rank = torch.arange(len(target), device=size.device) - torch.repeat_interleave(torch.cumsum(partners, 0) - partners, partners)
    source = first[molecules.molecule[target]] + rank
    return Pairs(source + (source >= target), target)


def near_pairs(molecules: Molecules, cutoff: float) -> Pairs:
    """The pairs closer than `cutoff` (bohr) at these positions. An atom at NaN or infinity has none.

    Large molecules: a k-d tree (scipy) over x, y, z and a fourth coordinate that keeps molecules apart; time N log N, memory
    linear in atoms and pairs whatever the shape of the molecules. It runs on the CPU: on another device the positions travel
    there and the pairs back, which a SkinList does only now and then.
    """
    return _closer(molecules, _candidates(molecules, cutoff), cutoff)


def edges(molecules: Molecules, pairs: Pairs, cutoff: float) -> Edges:
    """Those of the pairs that are closer than `cutoff` (bohr); vectors and lengths are differentiable in the positions."""
    near = _closer(molecules, pairs, cutoff)
    vector = molecules.position[near.source] - molecules.position[near.target]
    return Edges(near.source, near.target, vector, vector.norm(dim=-1))


def neighbours(molecules: Molecules, cutoff: float) -> Edges:
    """Edges between atoms of the same molecule closer than `cutoff` (bohr); differentiable in the positions."""
    return edges(molecules, _candidates(molecules, cutoff), cutoff)


class SkinList:
    """The pairs within cutoff + skin, kept until an atom has moved more than skin/2 since they were found.

    No pair that is farther apart than cutoff + skin can come within the cutoff while both atoms move less than skin/2 each,
    so the edges are always those of a fresh list (Verlet, Phys. Rev. 159, 98, 1967). Another batch, of other sizes or at
    positions elsewhere, is noticed and gets a list of its own. cutoff, skin: bohr; builds: lists made so far.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        self.cutoff, self.skin, self.builds = cutoff, skin, 0
        self._position: Tensor | None = None
        self._molecule: Tensor | None = None
        self._pairs: Pairs | None = None

    def pairs(self, molecules: Molecules) -> Pairs:
        """Pairs that include all within the cutoff at these positions."""
        if self._pairs is None or not self._valid(molecules):
            self._pairs = near_pairs(molecules, self.cutoff + self.skin)
            self._position, self._molecule = molecules.position.detach().clone(), molecules.molecule.clone()
            self.builds += 1
        return self._pairs

    def edges(self, molecules: Molecules) -> Edges:
        """The same as neighbours(molecules, cutoff)."""
        return edges(molecules, self.pairs(molecules), self.cutoff)

    def _valid(self, molecules: Molecules) -> bool:
        position, molecule = self._position, self._molecule
        assert position is not None
        assert molecule is not None
        if molecule.device != molecules.molecule.device or not torch.equal(molecule, molecules.molecule):
            return False
        moved = (molecules.position.detach() - position).square().sum(-1).max()
        # A hair before skin/2, for round-off. NaN compares false: such a list is made anew.
        return bool(moved < ((1 - 1e-6) * self.skin / 2) ** 2)


class SkinLists:
    """A SkinList for each of several batches that take turns, as the parts of a large one do.

    A batch is known by its tensor `molecule`, and its list goes when that does. A copy starts without lists.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        self.cutoff, self.skin = cutoff, skin
        self._lists: dict[int, tuple[weakref.ref[Tensor], SkinList]] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"cutoff": self.cutoff, "skin": self.skin, "_lists": {}}

    def edges(self, molecules: Molecules) -> Edges:
        """The same as neighbours(molecules, cutoff)."""
        name, lists = id(molecules.molecule), self._lists
        if name not in lists:
            gone = weakref.ref(molecules.molecule, lambda _: lists.pop(name, None))
            lists[name] = gone, SkinList(self.cutoff, self.skin)
        return lists[name][1].edges(molecules)

    @property
    def builds(self) -> int:
        """Lists made so far for the batches that are still there."""
        return sum(kept.builds for _, kept in self._lists.values())


def _closer(molecules: Molecules, pairs: Pairs, cutoff: float) -> Pairs:
    position = molecules.position.detach()
    near = (position[pairs.source] - position[pairs.target]).square().sum(-1) < cutoff**2
    return Pairs(pairs.source[near], pairs.target[near])


def _candidates(molecules: Molecules, cutoff: float) -> Pairs:
    """Pairs that include all closer than `cutoff`, found the quicker way."""
    largest = int(torch.bincount(molecules.molecule).max())
    return all_pairs(molecules) if largest <= ALL_PAIRS_UP_TO else _tree_pairs(molecules, cutoff * RIM)


def _tree_pairs(molecules: Molecules, reach: float) -> Pairs:
    """Pairs no farther apart than `reach`, by a k-d tree."""
    position = molecules.position.detach().to("cpu", torch.float64).numpy()
    # Molecules lie in parallel spaces: no overlap and no offset that would eat digits of the positions.
    points = np.concatenate([position, 2 * reach * molecules.molecule.cpu().numpy()[:, None]], axis=1)
    finite = np.flatnonzero((np.abs(points) < FARTHEST).all(axis=1))
    found = finite[KDTree(points[finite]).query_pairs(reach, output_type="ndarray")].reshape(-1, 2)
    both = np.concatenate([found, found[:, ::-1]])
    both = both[np.argsort(both[:, 1] * len(points) + both[:, 0])]
    source, target = torch.as_tensor(both.T.copy()).to(molecules.position.device)
    return Pairs(source, target)
