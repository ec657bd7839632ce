"""Charges and dipoles of Hirshfeld atoms (F. L. Hirshfeld, Theor. Chim. Acta 44, 129 (1977)).

An atom gets at every point the share w_A = rho_A / rho_SAD of the density, rho_A its free atom. What it gets of the free
atoms themselves is known (w_A rho_SAD = rho_A, as many electrons as protons, and round), so the deformation d = rho - rho_SAD
is all that is integrated, and it has hardly a cusp:

    q_A = - integral w_A d,    mu_A = - integral w_A (r - R_A) d,    sum q_A = Q,    sum (q_A R_A + mu_A) = mu

Q and mu are known exactly from the coefficients. What the quadrature misses of them is reported and given to the atoms in
proportion to the deformation each holds, integral w_A |d|: first the charge, then the dipole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from densnet.basis.shells import Basis
from densnet.errors import DataError
from densnet.observables.multipoles import dipole, electrons
from densnet.observables.partition import free_atom_densities, hirshfeld_weights
from densnet.observables.quadrature import quadrature
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecule, Molecules

LARGEST_ERROR = 0.01  # e; a quadrature that misses more is of no use, and moving its error around no remedy


@dataclass(frozen=True)
class AtomicMoments:
    """Moments of the atoms in a molecule.

    charge: (N,) e; dipole: (N, 3) e*bohr about the own nucleus, from negative to positive charge; charge_error: e;
    dipole_error: e*bohr: what the quadrature missed of the whole molecule, already given to the atoms.
    """

    charge: np.ndarray
    dipole: np.ndarray
    charge_error: float
    dipole_error: float


@torch.no_grad()
def hirshfeld(molecule: Molecule, density: Density, basis: Basis, *, level: int = 3, memory_mb: float = 256.0) -> AtomicMoments:
    """Hirshfeld charges and atomic dipoles of a density, with the free atoms of its basis.

    density: of this molecule alone; level: of the quadrature, 1 to 5; memory_mb: bound of the temporary memory. Charges sum to
    the charge of the density, and charges and dipoles give its dipole, to round-off. Raises DataError if the quadrature
    misses more than 0.01 e; other errors as density_on_points and quadrature.
    """
    device = density.coefficient.device
    position = torch.as_tensor(molecule.position).to(device)
    n = len(position)
    charge, first, share = position.new_zeros(n), position.new_zeros(n, 3), position.new_zeros(n)
    for point, weight in quadrature(molecule, level, memory_mb=memory_mb / 2, device=device):
        d = density_on_points(molecule, density, basis, point, memory_mb=memory_mb / 2, prior=False) * weight
        distance = torch.linalg.vector_norm(point - position[:, None], dim=-1)
        w = hirshfeld_weights(free_atom_densities(molecule, basis, point), distance)
        charge -= w @ d
        share += w @ d.abs()
        first -= (w * d) @ point
    own = first - charge[:, None] * position
    batch = Molecules.of([molecule], device)
    exact = batch.number.sum() - electrons(batch, density, basis.multiplicity)[0]
    missing = exact - charge.sum()
    if not missing.abs() <= LARGEST_ERROR:
        raise DataError(
            f"the quadrature misses {float(missing):.2g} e of the molecule; expected at most {LARGEST_ERROR}; "
            f"raise level={level}, or look at the density"
        )
    share = share / share.sum() if float(share.sum()) > 0 else torch.full_like(share, 1 / n)
    left = _dipole_about_zero(batch, density, basis) - first.sum(0)
    charge = charge + share * missing
    lost = left - (share * missing) @ position
    own = own + share[:, None] * lost
    return AtomicMoments(charge.cpu().numpy(), own.cpu().numpy(), float(missing), float(torch.linalg.vector_norm(left)))


def _dipole_about_zero(batch: Molecules, density: Density, basis: Basis) -> torch.Tensor:
    """(3,) - integral r d. `dipole` takes that of ions about the centre of nuclear charge."""
    z = batch.number.to(torch.float64)
    centre = (z[:, None] * batch.position).sum(0) / z.sum()
    return dipole(batch, density, basis.multiplicity)[0] + batch.charge[0] * centre
