"""Which atom a point of space belongs to."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from densnet.basis import moments
from densnet.basis.shells import Basis
from densnet.structures import Molecule

EMPTY = 1e-30  # e/bohr^3; below it the ratio of the free atoms is round-off


def free_atom_densities(molecule: Molecule, basis: Basis, point: Tensor) -> Tensor:
    """(N, G) e/bohr^3: the spherical free atom of every nucleus at points (G, 3) bohr; their sum over N is rho_SAD."""
    position = torch.as_tensor(molecule.position).to(point)
    out = []
    for row, centre in zip(basis.rows(molecule.number), position):
        atom = basis.elements[row].atom
        a, c = point.new_tensor(atom.exponent), point.new_tensor(atom.coefficient)
        r2 = (point - centre).square().sum(-1, keepdim=True)
        out.append(torch.exp(-r2 * a) @ (c * moments.normalisation(0, a) / (4 * pi) ** 0.5))
    return torch.stack(out)


def hirshfeld_weights(free: Tensor, distance: Tensor) -> Tensor:
    """(N, G) shares that sum to 1 at every point: rho_A / rho_SAD (F. L. Hirshfeld, Theor. Chim. Acta 44, 129 (1977)).

    free: (N, G) of free_atom_densities; distance: (N, G) to the nuclei; where all free atoms vanish the nearest takes all.
    Far out, where a free atom fitted by Gaussians falls below zero (hydrogen 14 bohr away, to -1e-10), it counts as empty.
    """
    free = free.clamp_min(0.0)
    total = free.sum(0)
    nearest = torch.zeros_like(free).scatter_(0, distance.argmin(0, keepdim=True), 1.0)
    return torch.where(total > EMPTY, free / total.clamp_min(EMPTY), nearest)
