"""Molecular surfaces as points with areas, and the electrostatic potential on them.

Two surfaces: spheres of scaled van der Waals radii, joined (A. Bondi, J. Phys. Chem. 68, 441 (1964); M. Mantina et al., J.
Phys. Chem. A 113, 5806 (2009); as in ase.data), and the surface of one density (R. F. W. Bader et al., J. Am. Chem. Soc.
109, 7968 (1987), 0.001 e/bohr^3). Points of a sphere lie on a Fibonacci spiral, each for the same area.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
import torch
from ase.data import chemical_symbols, vdw_radii
from torch import Tensor

from densnet.basis.shells import Basis
from densnet.errors import ConfigError, DataError, StructureError
from densnet.observables.potential import electrostatic_potential_on_points
from densnet.observables.real_space import density_gradient_on_points, density_on_points
from densnet.structures import Density, Molecule
from densnet.units import ANGSTROM_PER_BOHR

MOST_POINTS = 20_000_000
FARTHEST = 20.0  # bohr from a nucleus; no valence density is left
BISECTIONS = 40


@dataclass(frozen=True)
class Surface:
    """point: (K, 3) bohr; area: (K,) bohr^2 for which each stands; atom: (K,) the atom it belongs to."""

    point: Tensor
    area: Tensor
    atom: Tensor


def fibonacci_sphere(n: int) -> Tensor:
    """(n, 3) unit vectors, evenly spread: heights (2k+1)/n - 1, turned by the golden angle each (R. Swinbank and R. J. Purser,

    Q. J. R. Meteorol. Soc. 132, 1769 (2006)).
    """
    k = torch.arange(n, dtype=torch.float64)
    height = (2 * k + 1) / n - 1
    angle = pi * (3 - sqrt(5)) * k
    ring = (1 - height.square()).sqrt()
    return torch.stack((ring * angle.cos(), ring * angle.sin(), height), 1)


def van_der_waals_radii(number: np.ndarray) -> np.ndarray:
    """(N,) bohr. Raises StructureError for an element without a radius."""
    radius = np.array([vdw_radii[z] if z < len(vdw_radii) else np.nan for z in number])
    if np.isnan(radius).any():
        missing = ", ".join(sorted({chemical_symbols[z] for z in number[np.isnan(radius)]}))
        raise StructureError(f"no van der Waals radius is known for {missing}; use the surface of one density instead")
    return radius / ANGSTROM_PER_BOHR


def scaled_spheres(molecule: Molecule, scale: float = 1.4, density: float = 1.0) -> Surface:
    """The surface of joined spheres of `scale` times the van der Waals radii.

    density: points per bohr^2, at least that on every sphere. Raises ConfigError for a scale or density that is not positive,
    StructureError for an element without a radius.
    """
    if not (0 < scale < np.inf and 0 < density < np.inf):
        raise ConfigError(f"scale {scale:g} and density {density:g} found; expected both > 0 (density in points per bohr^2)")
    radius = scale * van_der_waals_radii(molecule.number)
    counts = np.ceil(density * 4 * pi * radius**2)
    if counts.sum() > MOST_POINTS:
        raise ConfigError(f"density {density:g} makes {counts.sum():.2g} points; expected at most {MOST_POINTS:.0e}; lower it")
    position, points, areas, atoms = torch.as_tensor(molecule.position), [], [], []
    reach = torch.as_tensor(radius)
    for a, n in enumerate(counts.astype(int).tolist()):
        point = position[a] + reach[a] * fibonacci_sphere(n)
        outside = torch.ones(n, dtype=torch.bool)
        near = torch.linalg.vector_norm(position - position[a], dim=1) < reach + reach[a]
        for b in near.nonzero()[:, 0].tolist():
            if b != a:
                outside &= torch.linalg.vector_norm(point - position[b], dim=1) >= reach[b]
        point = point[outside]
        points.append(point)
        areas.append(point.new_full((len(point),), 4 * pi * float(radius[a]) ** 2 / n))
        atoms.append(torch.full((len(point),), a))
    return Surface(torch.cat(points), torch.cat(areas), torch.cat(atoms))


def van_der_waals_surface(molecule: Molecule, scale: float = 1.4, density: float = 1.0) -> Tensor:
    """(K, 3) bohr: the points of scaled_spheres, with its arguments and errors."""
    return scaled_spheres(molecule, scale, density).point


@torch.no_grad()
def isodensity_surface(
    molecule: Molecule,
    density: Density,
    basis: Basis,
    value: float = 0.001,
    rays: int = 1000,
    *,
    memory_mb: float = 256.0,
) -> Surface:
    """The surface rho = value, e/bohr^3.

    From every nucleus `rays` rays go out to where another nucleus is nearer; on each the density is taken to fall, as it does
    where it is small, and the surface is found by bisection. A point stands for the area r^2 (4 pi / rays) / |u . n|, u the
    ray and n the normal, along the gradient. Raises ConfigError for a value that is not positive or a number of rays below
    10, DataError if the surface is farther than 20 bohr from the nuclei; other errors as density_on_points.
    """
    if not (0 < value < np.inf and rays >= 10):
        raise ConfigError(f"value {value:g} and {rays} rays found; expected a value > 0 in e/bohr^3 and at least 10 rays")
    device = density.coefficient.device
    position, direction = torch.as_tensor(molecule.position).to(device), fibonacci_sphere(rays).to(device)
    starts, units, ends, atoms = [], [], [], []
    for a, centre in enumerate(position):
        apart = position[torch.arange(len(position), device=device) != a] - centre
        along = direction @ apart.T  # the plane halfway to a neighbour is at |R|^2 / (2 u . R)
        end = torch.where(along > 0, apart.square().sum(1) / (2 * along.clamp_min(1e-12)), FARTHEST)
        ends.append(torch.cat((end, end.new_full((rays, 1), FARTHEST)), 1).amin(1))
        starts.append(centre.expand(rays, 3))
        units.append(direction)
        atoms.append(torch.full((rays,), a, device=device))
    start, unit, high, atom = torch.cat(starts), torch.cat(units), torch.cat(ends), torch.cat(atoms)

    def rho(radius: Tensor) -> Tensor:
        return density_on_points(molecule, density, basis, start + radius[:, None] * unit, memory_mb=memory_mb)

    low = torch.zeros_like(high)
    beyond = rho(high) >= value
    if bool((beyond & (high == FARTHEST)).any()):
        raise DataError(f"the density is above {value:g} e/bohr^3 {FARTHEST:g} bohr from the nuclei; expected less; raise value")
    cut = ~beyond & (rho(low) > value)
    start, unit, low, high, atom = start[cut], unit[cut], low[cut], high[cut], atom[cut]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        inside = rho(middle) > value
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    radius = (low + high) / 2
    point = start + radius[:, None] * unit
    gradient = density_gradient_on_points(molecule, density, basis, point, memory_mb=memory_mb)[1]
    slant = (gradient * unit).sum(1).abs() / torch.linalg.vector_norm(gradient, dim=1)
    return Surface(point, 4 * pi / rays * radius.square() / slant, atom)


@dataclass(frozen=True)
class SurfacePotential:
    """The electrostatic potential on a surface, hartree/e, averages over its area (P. Politzer, J. S. Murray, Z. Peralta-Inga,

    Int. J. Quantum Chem. 85, 676 (2001)). area: bohr^2; maximum, minimum; mean; positive_mean, negative_mean: over the parts
    with either sign, 0 where there is none; average_deviation: Pi = mean |V - mean|; positive_variance, negative_variance:
    sigma^2 of either part about its own mean; balance: nu = sigma+^2 sigma-^2 / (sigma+^2 + sigma-^2)^2, at most 1/4.
    """

    area: float
    maximum: float
    minimum: float
    mean: float
    positive_mean: float
    negative_mean: float
    average_deviation: float
    positive_variance: float
    negative_variance: float

    @property
    def total_variance(self) -> float:
        """sigma_tot^2, (hartree/e)^2."""
        return self.positive_variance + self.negative_variance

    @property
    def balance(self) -> float:
        total = self.total_variance
        return self.positive_variance * self.negative_variance / total**2 if total > 0 else 0.0

    @property
    def balanced_variance(self) -> float:
        """nu sigma_tot^2, (hartree/e)^2."""
        return self.balance * self.total_variance


def surface_potential(
    molecule: Molecule, density: Density, basis: Basis, surface: Surface, *, memory_mb: float = 256.0
) -> SurfacePotential:
    """Statistics of the potential on a surface. Errors as electrostatic_potential_on_points."""
    v = electrostatic_potential_on_points(molecule, density, basis, surface.point, memory_mb=memory_mb)
    return statistics(v, surface.area.to(v.device))


def statistics(potential: Tensor, area: Tensor) -> SurfacePotential:
    """Statistics of a potential (K,) hartree/e at points that stand for areas (K,) bohr^2. Raises DataError without points."""
    if not len(potential):
        raise DataError("the surface has no points; expected at least one; raise its density")

    def part(where: Tensor) -> tuple[float, float]:
        if not bool(where.any()):
            return 0.0, 0.0
        v, a = potential[where], area[where] / area[where].sum()
        mean = float((a * v).sum())
        return mean, float((a * (v - mean).square()).sum())

    mean, _ = part(torch.ones_like(potential, dtype=torch.bool))
    (plus, plus2), (minus, minus2) = part(potential > 0), part(potential < 0)
    deviation = float((area * (potential - mean).abs()).sum() / area.sum())
    return SurfacePotential(
        float(area.sum()), float(potential.max()), float(potential.min()), mean, plus, minus, deviation, plus2, minus2
    )
