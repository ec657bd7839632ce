"""Charge, dipole and quadrupole of a density, analytically, from the coefficients and exponents actually used.

With rho = rho_SAD + sum dc chi and rho_SAD the spherical neutral free atoms (integral Z_A each, no dipole):

    electrons  = sum Z_A + sum dc integral chi
    dipole     = sum Z_A R_A - integral r rho = - sum dc integral r chi
    quadrupole = sum Z_A R_A R_A - integral r r rho  (second moment, not traceless)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from densnet.basis import moments
from densnet.basis.shells import Basis
from densnet.structures import Density, Molecules


def _slots(density: Density, multiplicity: tuple[int, ...], l: int) -> tuple[Tensor, Tensor]:
    """Coefficients (N, n_l, 2l+1) and exponents (N, n_l) of degree l, float64."""
    before = sum(n * (2 * k + 1) for k, n in enumerate(multiplicity[:l]))
    n = multiplicity[l]
    block = density.coefficient[:, before : before + n * (2 * l + 1)].to(torch.float64)
    first = sum(multiplicity[:l])
    return block.view(-1, n, 2 * l + 1), density.exponent[:, first : first + n].to(torch.float64)


def atomic_electrons(density: Density, multiplicity: tuple[int, ...]) -> Tensor:
    """(N,) integral of the deformation carried by the functions of every atom, e. Not a partial charge by itself: how

    density is shared between neighbouring centres depends on the basis.
    """
    c, a = _slots(density, multiplicity, 0)
    return (c[:, :, 0] * moments.monopole(a)).sum(1)


def electrons(molecules: Molecules, density: Density, multiplicity: tuple[int, ...]) -> Tensor:
    """(B,) number of electrons, integral rho."""
    return molecules.sum(molecules.number.to(torch.float64) + atomic_electrons(density, multiplicity))


def _atomic_dipole(density: Density, multiplicity: tuple[int, ...]) -> Tensor:
    """(N, 3) integral of (r - R_A) d about the own centre."""
    if len(multiplicity) < 2:
        return density.coefficient.new_zeros((len(density.coefficient), 3), dtype=torch.float64)
    c, a = _slots(density, multiplicity, 1)
    return (c * moments.dipole(a)[:, :, None]).sum(1)


def dipole(molecules: Molecules, density: Density, multiplicity: tuple[int, ...]) -> Tensor:
    """(B, 3) dipole, e*bohr, origin at the coordinate origin; for ions at the centre of nuclear charge."""
    position = molecules.position.to(torch.float64)
    moved = atomic_electrons(density, multiplicity)[:, None] * position + _atomic_dipole(density, multiplicity)
    z = molecules.number.to(torch.float64)
    centre = molecules.sum(z[:, None] * position) / molecules.sum(z)[:, None]
    return -molecules.sum(moved) - molecules.charge.to(torch.float64)[:, None] * centre


def quadrupole(molecules: Molecules, density: Density, basis: Basis) -> Tensor:
    """(B, 3, 3) second moment sum Z R R - integral r r rho, e*bohr^2, origin at the coordinate origin."""
    multiplicity, position = basis.multiplicity, molecules.position.to(torch.float64)
    q, p = atomic_electrons(density, multiplicity), _atomic_dipole(density, multiplicity)
    eye = torch.eye(3, dtype=torch.float64, device=q.device)
    moment = q[:, None, None] * position[:, :, None] * position[:, None, :]
    moment = moment + p[:, :, None] * position[:, None, :] + position[:, :, None] * p[:, None, :]
    c, a = _slots(density, multiplicity, 0)
    moment = moment + (c[:, :, 0] * moments.second_moment_s(a)).sum(1)[:, None, None] * eye
    if len(multiplicity) > 2:
        c, a = _slots(density, multiplicity, 2)
        tensors = moments.quadrupole_tensors().to(q.device)
        moment = moment + torch.einsum("nkm,nk,mij->nij", c, moments.second_moment_d(a), tensors)
    free = torch.tensor([_free_atom_second_moment(basis, int(z)) for z in molecules.number.unique()], dtype=torch.float64)
    which = torch.searchsorted(molecules.number.unique(), molecules.number)
    moment = moment + free.to(q.device)[which][:, None, None] * eye
    return -molecules.sum(moment)


def _free_atom_second_moment(basis: Basis, number: int) -> float:
    """integral x^2 rho_free about the nucleus."""
    atom = basis.elements[basis.rows(np.array([number]))[0]].atom
    a, c = torch.tensor(atom.exponent, dtype=torch.float64), torch.tensor(atom.coefficient, dtype=torch.float64)
    return float((c * moments.second_moment_s(a)).sum())
