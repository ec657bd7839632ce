"""Integrals over all space on grids around the atoms, in torch.

A function is cut into one part per atom by Becke's fuzzy cells, and each part integrated in shells around its nucleus:

    integral f = sum_A sum_i w_A(r_i) v_i f(r_i),    w_A = P_A / sum_B P_B,    P_A = prod_B s(nu_AB),
    s = (1 - p(p(p(nu))))/2,   p(x) = (3x - x^3)/2,   nu = mu + a (1 - mu^2),   mu_AB = (|r - R_A| - |r - R_B|) / R_AB

(A. D. Becke, J. Chem. Phys. 88, 2547 (1988)), with sizes of the cells from the square roots of covalent radii, as Treutler
and Ahlrichs have it (J. Chem. Phys. 102, 346 (1995), eq. 4). Their map M4 makes radii of Chebyshev's x of the second kind,

    r = (1 + x)^0.6 ln(2 / (1 - x)) / ln 2,

in bohr; the spheres are Lebedev's rules, small ones near the nucleus, where what is integrated is nearly round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import log, pi

import numpy as np
import torch
from ase.data import covalent_radii
from scipy.integrate import lebedev_rule
from torch import Tensor

from densnet.errors import ConfigError
from densnet.structures import Molecule

# Radial points of H and He, how many more for each further period of the table, degree of the spheres. Integrals of the
# deformation density of ethanol miss 1e-3, 9e-5, 2e-5, 9e-7 and 2e-8 e at levels 1 to 5, with 2, 5, 9, 24, 63 thousand points
# per atom.
RADIAL, PER_PERIOD, DEGREE = (20, 30, 40, 55, 75), (5, 10, 10, 15, 15), (17, 23, 29, 41, 59)
LEVELS = len(RADIAL)
INNER = ((0.12, 7), (0.35, 17))  # bohr below which the degree is no more than this
NOBLE = (2, 10, 18, 36, 54, 86)
CPU_BYTES = 32e6


@cache
def _around_atom(number: int, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 3) around the origin, bohr, and weights (K,) of all space for one atom."""
    n = RADIAL[level - 1] + PER_PERIOD[level - 1] * int(np.searchsorted(NOBLE, number))
    angle = np.arange(1, n + 1) * pi / (n + 1)
    x = np.cos(angle)
    # Chebyshev's weight over its own weight function sqrt(1 - x^2): dx = pi/(n+1) sin(angle)
    radius = (1 + x) ** 0.6 * np.log(2 / (1 - x)) / log(2)
    slope = (0.6 * (1 + x) ** -0.4 * np.log(2 / (1 - x)) + (1 + x) ** 0.6 / (1 - x)) / log(2)
    shell = pi / (n + 1) * np.sin(angle) * slope * radius**2
    points, weights = [], []
    for r, v in zip(radius, shell):
        degree = min([DEGREE[level - 1], *(d for limit, d in INNER if r < limit)])
        direction, solid_angle = lebedev_rule(degree)
        points.append(r * direction.T)
        weights.append(v * solid_angle)
    return np.concatenate(points), np.concatenate(weights)


def _cells(position: Tensor, radius: Tensor, point: Tensor) -> Tensor:
    """(N, K) shares of Becke's cells at points (K, 3); they sum to 1."""
    distance = torch.linalg.vector_norm(point - position[:, None], dim=-1)
    between = torch.linalg.vector_norm(position - position[:, None], dim=-1)
    ratio = (radius[:, None] / radius).sqrt()
    u = (ratio - 1) / (ratio + 1)
    shift = (u / (u * u - 1)).clamp(-0.5, 0.5)
    cell = torch.ones_like(distance)
    for a in range(len(position)):  # N^2 K at once would be the memory of the largest grids
        others = [b for b in range(len(position)) if b != a]
        nu = (distance[a] - distance[others]) / between[a, others, None]
        nu = nu + shift[a, others, None] * (1 - nu * nu)
        for _ in range(3):
            nu = nu * (1.5 - 0.5 * nu * nu)
        cell[a] = (0.5 * (1 - nu)).prod(0)
    return cell / cell.sum(0)


def quadrature(
    molecule: Molecule, level: int = 3, *, memory_mb: float = 256.0, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Points (K, 3) bohr and weights (K,) of integrals over all space, float64, block by block, atom after atom.

    level: 1 to 5; memory_mb: bound of the temporary memory of a block. Raises ConfigError for another level or if one point
    does not fit.
    """
    if level not in range(1, LEVELS + 1):
        raise ConfigError(f"quadrature level {level} found; expected a whole number from 1 to {LEVELS}")
    n, device = len(molecule.number), torch.device(device)
    per_point = 8 * (8 * n + 16)
    if not memory_mb * 1e6 >= per_point:
        raise ConfigError(f"memory_mb={memory_mb:g} found; one point needs {per_point / 1e6:.2g}; give at least that")
    budget = memory_mb * 1e6 if device.type != "cpu" else min(memory_mb * 1e6, CPU_BYTES)
    position = torch.as_tensor(molecule.position).to(device)
    radius = torch.as_tensor(covalent_radii[molecule.number], dtype=torch.float64).to(device)
    for a, number in enumerate(molecule.number.tolist()):
        around, weight = (torch.as_tensor(x) for x in _around_atom(number, level))
        for here, v in zip(*(x.split(max(1, int(budget // per_point))) for x in (around, weight))):
            point = here.to(device) + position[a]
            yield point, v.to(device) * _cells(position, radius, point)[a]


def integrate(
    molecule: Molecule,
    function: Callable[[Tensor], Tensor],
    level: int = 3,
    *,
    memory_mb: float = 256.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """integral function over all space; function: points (K, 3) bohr -> values (..., K). Returns (...), float64.

    Arguments and errors as quadrature; memory_mb does not count what the function itself takes.
    """
    blocks = quadrature(molecule, level, memory_mb=memory_mb, device=device)
    return torch.stack([function(point).to(torch.float64) @ weight for point, weight in blocks]).sum(0)
