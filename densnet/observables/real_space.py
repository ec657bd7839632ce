"""The density on points of space, in torch, chunked so that memory stays bounded."""

from __future__ import annotations

from math import pi

import torch
from e3nn import o3
from torch import Tensor

from densnet.basis import moments
from densnet.basis.shells import Basis
from densnet.structures import Density, Molecule


def density_on_points(
    molecule: Molecule, density: Density, basis: Basis, point: Tensor, chunk: int = 20000, dtype: torch.dtype = torch.float64
) -> Tensor:
    """rho = rho_SAD + sum dc chi of one molecule at points.

    density: of this molecule alone, (N, width); point: (G, 3) bohr; chunk: points at a time (memory grows with
    chunk * functions of the largest atom). Returns (G,) e/bohr^3.
    """
    position = torch.as_tensor(molecule.position, dtype=dtype)
    rows = basis.rows(molecule.number)
    coefficient, exponent = density.coefficient.to(dtype), density.exponent.to(dtype)
    exists = torch.as_tensor(basis.slot_mask)
    out = []
    for block in point.to(dtype).split(chunk):
        total = block.new_zeros(len(block))
        for atom, row in enumerate(rows):
            r = block - position[atom]
            total = total + _free_atom(basis, int(row), r.square().sum(-1))
            total = total + _shells(basis, exists[row], coefficient[atom], exponent[atom], r)
        out.append(total)
    return torch.cat(out)


def _free_atom(basis: Basis, row: int, r2: Tensor) -> Tensor:
    atom = basis.elements[row].atom
    a, c = r2.new_tensor(atom.exponent), r2.new_tensor(atom.coefficient)
    return torch.exp(-r2[:, None] * a) @ (c * moments.normalisation(0, a) / (4 * pi) ** 0.5)


def _shells(basis: Basis, exists: Tensor, coefficient: Tensor, exponent: Tensor, r: Tensor) -> Tensor:
    """(G,) sum over the shells of one atom: radial parts first, one contraction with the harmonics per l."""
    r2 = r.square().sum(-1, keepdim=True)
    total, slot, component = r.new_zeros(len(r)), 0, 0
    for l, n in enumerate(basis.multiplicity):
        there = exists[slot : slot + n]
        a = exponent[slot : slot + n][there]
        c = coefficient[component : component + n * (2 * l + 1)].view(n, 2 * l + 1)[there]
        if len(a):
            solid = o3.spherical_harmonics(l, r, normalize=False, normalization="integral")
            radial = torch.exp(-r2 * a) * moments.normalisation(l, a)
            total = total + ((radial @ c) * solid).sum(-1)
        slot, component = slot + n, component + n * (2 * l + 1)
    return total
