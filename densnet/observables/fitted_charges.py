"""Point charges on the nuclei that give the electrostatic potential around a molecule.

On layers at 1.4, 1.6, 1.8 and 2.0 times the van der Waals radii (U. C. Singh and P. A. Kollman, J. Comput. Chem. 5, 129
(1984)) the potential of the density, in closed form, is met by charges q in the least squares sense,

    minimise  integral (V - sum_A q_A / |r - R_A|)^2 dA  (per angstrom^2)  +  a sum_A (sqrt(q_A^2 + b^2) - b)

under sum q = Q and, if wanted, sum q_A R_A = mu. The second term is that of RESP on all atoms but hydrogen (C. I. Bayly et
al., J. Phys. Chem. 97, 10269 (1993); a = 0.0005, b = 0.1 there in its first stage), off by default. The integral over layers
replaces the sum over points, one per angstrom^2, so that a means the same for any number of points. Constraints are met
exactly, by solving in the space of charges they leave free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densnet.basis.shells import Basis
from densnet.errors import ConfigError, DataError
from densnet.observables.multipoles import dipole
from densnet.observables.potential import electrostatic_potential_on_points
from densnet.observables.surface import scaled_spheres
from densnet.structures import Density, Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR

LAYERS = (1.4, 1.6, 1.8, 2.0)
CONSTRAINT_ERROR = 1e-4  # e, e*bohr
FLAT = 1e-2  # of the largest singular value; atoms flatter than that cannot carry a dipole across, but by huge charges
CONVERGED, ITERATIONS = 1e-10, 500
RANK = 1e-10  # of the largest singular value; below it the points do not see a combination of charges


@dataclass(frozen=True)
class FittedCharges:
    """charge: (N,) e; points: how many; rms: of the potential not met, hartree/e; relative_rms: that over the rms of the

    potential; largest: its largest deviation, hartree/e; dipole: (3,) e*bohr, sum q R about the centre of nuclear charge.
    """

    charge: np.ndarray
    points: int
    rms: float
    relative_rms: float
    largest: float
    dipole: np.ndarray


@torch.no_grad()
def fit_charges(
    molecule: Molecule,
    density: Density,
    basis: Basis,
    *,
    layers: Sequence[float] = LAYERS,
    points_per_bohr2: float = 1.0,
    restraint: float = 0.0,
    tightness: float = 0.1,
    with_dipole: bool = False,
    memory_mb: float = 256.0,
) -> FittedCharges:
    """Potential-derived charges with what they miss.

    density: of this molecule alone; layers: factors of the van der Waals radii; restraint: a, atomic units; tightness: b, e;
    with_dipole: the dipole of the density is met exactly. Raises ConfigError for settings that are not positive, DataError if
    no charges on these nuclei have the wanted dipole (a bent density on a line of atoms); other errors as scaled_spheres and
    electrostatic_potential_on_points.
    """
    if not layers or not (0 <= restraint < np.inf and 0 < tightness < np.inf):
        raise ConfigError(
            f"layers {list(layers)}, restraint {restraint:g} and tightness {tightness:g} found; "
            "expected at least one layer, restraint >= 0 and tightness > 0"
        )
    surfaces = [scaled_spheres(molecule, scale, points_per_bohr2) for scale in layers]
    point, area = torch.cat([s.point for s in surfaces]), torch.cat([s.area for s in surfaces])
    v = electrostatic_potential_on_points(molecule, density, basis, point, memory_mb=memory_mb).cpu()
    position = torch.as_tensor(molecule.position)
    matrix = 1 / torch.cdist(point, position, compute_mode="donot_use_mm_for_euclid_dist")
    number = torch.as_tensor(molecule.number).to(torch.float64)
    arm = position - number @ position / number.sum()
    constraint, target = torch.ones(1, len(number), dtype=torch.float64), torch.tensor([float(molecule.charge)]).double()
    if with_dipole:
        batch = Molecules.of([molecule], density.coefficient.device)
        constraint = torch.cat((constraint, arm.T))
        target = torch.cat((target, dipole(batch, density, basis.multiplicity)[0].cpu()))
    root = area.sqrt() * ANGSTROM_PER_BOHR
    restrained = torch.where(number > 1, restraint, 0.0).to(torch.float64)
    charge = constrained_charges(matrix * root[:, None], v * root, constraint, target, restrained, tightness)
    left = v - matrix @ charge
    rms = float(left.square().mean().sqrt())
    return FittedCharges(
        charge.numpy(),
        len(point),
        rms,
        rms / float(v.square().mean().sqrt()),
        float(left.abs().max()),
        (charge @ arm).numpy(),
    )


def constrained_charges(
    matrix: Tensor, potential: Tensor, constraint: Tensor, target: Tensor, restraint: Tensor, tightness: float
) -> Tensor:
    """(N,) charges q that minimise |matrix q - potential|^2 + sum restraint (sqrt(q^2 + b^2) - b) with constraint q = target.

    matrix: (K, N); constraint: (M, N); restraint: (N,); tightness: b. Charges the equations leave undetermined are the
    smallest. Raises DataError if the constraints contradict each other or the restraint does not converge.
    """
    left, size, right = torch.linalg.svd(constraint)
    seen = size > FLAT * size.max()
    rank = int(seen.sum())
    particular = right[:rank].T @ ((left[:, :rank].T @ target) / size[:rank])
    missed = float((constraint @ particular - target).abs().max())
    if missed > CONSTRAINT_ERROR:
        raise DataError(
            f"charges on these nuclei miss the wanted total charge and dipole by {missed:.2g} (e, e*bohr); expected 0: the atoms "
            "lie on a line or in a plane that the dipole leaves; fit without the dipole"
        )
    free = right[rank:].T
    if not free.shape[1]:
        return particular
    design = matrix @ free
    q = particular + free @ _smallest(design.T @ design, design.T @ (potential - matrix @ particular))
    if not bool((restraint > 0).any()):
        return q
    normal, pull = matrix.T @ matrix, matrix.T @ potential
    for _ in range(ITERATIONS):
        stiff = normal + torch.diag(restraint / (2 * (q.square() + tightness**2).sqrt()))
        new = particular + free @ _smallest(free.T @ stiff @ free, free.T @ (pull - stiff @ particular))
        change, q = float((new - q).abs().max()), new
        if change < CONVERGED:
            return q
    raise DataError(
        f"restrained charges still move by {change:.2g} e after {ITERATIONS} steps; expected {CONVERGED:g}; "
        f"raise tightness={tightness:g}"
    )


def _smallest(matrix: Tensor, right: Tensor) -> Tensor:
    """The smallest solution of a symmetric, semidefinite system."""
    return torch.linalg.pinv(matrix, rtol=RANK, hermitian=True) @ right


def potential_derived_charges(
    molecule: Molecule,
    density: Density,
    basis: Basis,
    *,
    memory_mb: float = 256.0,
    restraint: float = 0.0,
    with_dipole: bool = False,
) -> np.ndarray:
    """(N,) e: the charges of fit_charges, with its errors."""
    return fit_charges(molecule, density, basis, restraint=restraint, with_dipole=with_dipole, memory_mb=memory_mb).charge
