"""Directed edges within a cutoff. All pairs of each molecule are tried: right for molecules up to about a hundred atoms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densnet.structures import Molecules


@dataclass(frozen=True)
class Edges:
    """source, target: (E,) atom indices; vector: (E, 3) bohr, from target to source; length: (E,) bohr."""

    source: Tensor
    target: Tensor
    vector: Tensor
    length: Tensor


def neighbours(molecules: Molecules, cutoff: float) -> Edges:
    """Edges between atoms of the same molecule closer than `cutoff` (bohr); differentiable in the positions."""
    size = torch.bincount(molecules.molecule, minlength=molecules.n)
    first = torch.cumsum(size, 0) - size
    partners = size[molecules.molecule]  # every atom is tried against all atoms of its molecule, itself included
    target = torch.repeat_interleave(torch.arange(len(molecules.number), device=size.device), partners)
    rank = torch.arange(len(target), device=size.device) - torch.repeat_interleave(torch.cumsum(partners, 0) - partners, partners)
    source = first[molecules.molecule[target]] + rank
    position = molecules.position.detach()
    near = ((position[source] - position[target]).square().sum(-1) < cutoff**2) & (source != target)
    source, target = source[near], target[near]
    vector = molecules.position[source] - molecules.position[target]
    return Edges(source, target, vector, vector.norm(dim=-1))
