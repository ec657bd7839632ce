"""Charge, dipole and quadrupole of a density, analytically, from the coefficients and exponents actually used.

With rho = rho_SAD + sum dc chi and rho_SAD the spherical neutral free atoms (integral Z_A each, no dipole):

    electrons  = sum Z_A + sum dc integral chi
    dipole     = sum Z_A R_A - integral r rho = - sum dc integral r chi
    quadrupole = sum Z_A R_A R_A - integral r r rho  (second moment, not traceless)

Spherical multipoles of any degree, with S_lm = r^l Y_lm and Racah's normalisation (A. J. Stone, The Theory of Intermolecular
Forces, 2nd ed., ch. 2), about an origin O, R = R_A - O:

    Q_lm = sqrt(4pi/(2l+1)) (sum Z_A S_lm(R_A) - integral S_lm(r - O) rho) = - sqrt(4pi/(2l+1)) sum dc integral S_lm chi

for nuclei and free atoms cancel: a round neutral charge has no multipoles about any origin. About its own centre a function
has one, integral S_lm chi_lm = N_l(a) Gamma(l + 3/2) / (2 a^(l + 3/2)); the addition theorem moves it,

    S_LM(s + R) = sum_l k_l sum_mm' G_mm'M S_lm(s) S_(L-l)m'(R),    k_l (l, L-l -> L) = binom(L, l) / kappa_l,

where G are Gaunt coefficients and sum_mm' G_mm'M S_lm S_(L-l)m' = kappa_l S_LM (at s = R the term of degree l in s of S_LM(2s)
is binom(L, l) S_LM(s)).
"""

from __future__ import annotations

from functools import cache
from math import comb, gamma, pi, sqrt

import numpy as np
import torch
from torch import Tensor

from densnet.basis import moments
from densnet.basis.harmonics import gaunt, solid_harmonics
from densnet.basis.shells import Basis
from densnet.errors import ConfigError
from densnet.structures import Density, Molecule, Molecules

HIGHEST = 12  # degree of a multipole


def _slots(density: Density, multiplicity: tuple[int, ...], l: int) -> tuple[Tensor, Tensor]:
    """Coefficients (N, n_l, 2l+1) and exponents (N, n_l) of degree l, float64."""
    before = sum(n * (2 * k + 1) for k, n in enumerate(multiplicity[:l]))
    n = multiplicity[l]
    block = density.coefficient[:, before : before + n * (2 * l + 1)].to(torch.float64)
    first = sum(multiplicity[:l])
    return block.view(-1, n, 2 * l + 1), density.exponent[:, first : first + n].to(torch.float64)


def atomic_electrons(density: Density, multiplicity: tuple[int, ...]) -> Tensor:
    """(N,) integral of the deformation carried by the functions of every atom, e."""
    c, a = _slots(density, multiplicity, 0)
    return (c[:, :, 0] * moments.monopole(a)).sum(1)


def atomic_charges(density: Density, multiplicity: tuple[int, ...]) -> Tensor:
    """(N,) charges of the atom-centred functions, e: Z_A minus the electrons in the free atom and all functions of atom A.

    With a model's density they sum to the charge of the molecule exactly, follow the nuclei smoothly, and with the atomic dipoles
    of the same functions give the exact dipole. But they are a partition by basis functions, like Mulliken's: a wide function of
    one atom describes density around its neighbours, so another basis gives other charges, and no size or sign is sure. Take
    their change along a trajectory of one model; charges to quote or compare are Hirshfeld's or those fitted to the potential.
    """
    return -atomic_electrons(density, multiplicity)


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
    return charges_and_dipole(molecules, density, multiplicity)[1]


def charges_and_dipole(molecules: Molecules, density: Density, multiplicity: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """`atomic_charges` (N,) and `dipole` (B, 3), which is made of them: sum_A q_A R_A - p_A, p_A the integral of (r - R_A) d."""
    charge, position = atomic_charges(density, multiplicity), molecules.position.to(torch.float64)
    moved = charge[:, None] * position - _atomic_dipole(density, multiplicity)
    z = molecules.number.to(torch.float64)
    centre = molecules.sum(z[:, None] * position) / molecules.sum(z)[:, None]
    return charge, molecules.sum(moved) - molecules.charge.to(torch.float64)[:, None] * centre


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


@cache
@torch.inference_mode(False)  # may be filled while predicting and used in training
def _addition(l: int, total: int) -> Tensor:
    """(2l+1, 2(L-l)+1, 2L+1) float64: the term of degree l in s of S_L(s + R), from S_l(s) and S_(L-l)(R)."""
    coupling = gaunt(l, total - l, total).clone()
    solid = solid_harmonics(total, torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64))
    product = torch.einsum("abc,a,b->c", coupling, solid[l], solid[total - l])
    return coupling * (comb(total, l) * solid[total].square().sum() / (product @ solid[total]))


def spherical_multipoles(
    molecules: Molecules | Molecule, density: Density, basis: Basis, lmax: int, origin: Tensor | np.ndarray | None = None
) -> list[Tensor]:
    """Q_lm of electrons and nuclei for l = 0..lmax: (B, 2l+1) each, e*bohr^l, float64, in e3nn's order (axis along y).

    Q_0 is the charge of the density, Q_1 its dipole (x, y, z). origin: (3,) or (B, 3) bohr; None for the centre of nuclear
    charge. For components with the axis along z multiply Q_l by basis.ordering.rotation(l) from the right. Differentiable in
    coefficients, exponents, positions and origin. Raises ConfigError if lmax is not in 0..12.
    """
    if lmax not in range(HIGHEST + 1):
        raise ConfigError(f"multipoles to lmax={lmax} found; expected a whole number from 0 to {HIGHEST}")
    if isinstance(molecules, Molecule):
        molecules = Molecules.of([molecules], density.coefficient.device)
    position = molecules.position.to(torch.float64)
    if origin is None:
        z = molecules.number.to(torch.float64)
        centre = molecules.sum(z[:, None] * position) / molecules.sum(z)[:, None]
    else:
        centre = torch.as_tensor(origin).to(position).expand(molecules.n, 3)
    solid = solid_harmonics(lmax, position - centre[molecules.molecule])
    own = [_own_multipole(density, basis.multiplicity, l) for l in range(min(lmax + 1, len(basis.multiplicity)))]
    out = []
    for total in range(lmax + 1):
        moved = torch.zeros_like(solid[total])
        for l, moment in enumerate(own[: total + 1]):
            moved = moved + torch.einsum("abc,na,nb->nc", _addition(l, total).to(position.device), moment, solid[total - l])
        out.append(-sqrt(4 * pi / (2 * total + 1)) * molecules.sum(moved))
    return out


def _own_multipole(density: Density, multiplicity: tuple[int, ...], l: int) -> Tensor:
    """(N, 2l+1) integral S_lm d about the own centre."""
    c, a = _slots(density, multiplicity, l)
    radial = moments.normalisation(l, a) * gamma(l + 1.5) / (2 * a ** (l + 1.5))
    return (c * radial[:, :, None]).sum(1)
