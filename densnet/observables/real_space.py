"""Density and its gradient on points of space, in torch: on grids with bounded memory, and differentiable on samples.

For one atom, with r from the nucleus, S_lm = r^l Y_lm (e3nn order) and all radial functions single Gaussians,

    rho(r)  = sum_lm u_lm S_lm,     u_lm = sum_n c_nlm N_l(a_n) exp(-a_n r^2)
    grad    = sum_lm (u_lm grad S_lm - 2 r w_lm S_lm),     w_lm = sum_n a_n c_nlm N_l(a_n) exp(-a_n r^2)
    d S_lm / d r_i = sum_m' T^l_i,m,m' S_(l-1)m'

The free atoms are further s functions. All atoms of an element go through one batched product per l.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import e, log2

import torch
from torch import Tensor

from densnet.basis import moments
from densnet.basis.shells import Basis
from densnet.errors import BasisError, ConfigError, DataError
from densnet.observables.solid_harmonics import gradient_tensor, solid_harmonics
from densnet.structures import Density, Molecule, Molecules

CPU_BYTES = 32e6  # larger blocks are not faster on a CPU, whatever memory there is


@dataclass(frozen=True)
class ElementTable:
    """One element: number of shells per l, and its free atom as s Gaussians; exponent, coefficient: (k,) float64."""

    number: int
    shells: tuple[int, ...]
    exponent: Tensor
    coefficient: Tensor


@dataclass(frozen=True)
class BasisTables:
    """What evaluation on points needs of a basis, as tensors on a device. multiplicity: slots per l of a coefficient row."""

    multiplicity: tuple[int, ...]
    elements: tuple[ElementTable, ...]

    @staticmethod
    def of(basis: Basis, device: torch.device | str = "cpu") -> BasisTables:
        elements = tuple(
            ElementTable(
                element.number,
                tuple(sum(s.l == l for s in element.shells) for l in range(max(s.l for s in element.shells) + 1)),
                torch.tensor(element.atom.exponent, dtype=torch.float64, device=device),
                torch.tensor(element.atom.coefficient, dtype=torch.float64, device=device),
            )
            for element in basis.elements
        )
        return BasisTables(basis.multiplicity, elements)


@dataclass(frozen=True)
class Degree:
    """The functions of one l on n atoms. exponent: (n, k); coefficient: (n, 2l+1, k), normalisation included."""

    l: int
    exponent: Tensor
    coefficient: Tensor


@dataclass(frozen=True)
class Centres:
    """All n atoms of one element: nuclear charge, molecule (n,) and position (n, 3) of each, functions by rising l."""

    number: int
    molecule: Tensor
    position: Tensor
    degrees: tuple[Degree, ...]


def centres(molecules: Molecules, density: Density, tables: BasisTables, prior: bool, dtype: torch.dtype) -> list[Centres]:
    """The density as functions on centres, grouped by element; differentiable in coefficients and exponents.

    Scaled in float64 and cast to dtype at the end. Raises BasisError for an element that the tables lack.
    """
    out, found = [], 0
    for element in tables.elements:
        atom = (molecules.number == element.number).nonzero()[:, 0]
        found += len(atom)
        if not len(atom):
            continue
        all_c, all_a = density.coefficient[atom].to(torch.float64), density.exponent[atom].to(torch.float64)
        degrees, slot, component = [], 0, 0
        for l, (own, slots) in enumerate(zip(element.shells, tables.multiplicity)):
            a = all_a[:, slot : slot + own]
            c = all_c[:, component : component + own * (2 * l + 1)].view(len(atom), own, 2 * l + 1)
            if l == 0 and prior:
                a = torch.cat((a, element.exponent.expand(len(atom), -1)), 1)
                c = torch.cat((c, element.coefficient.expand(len(atom), -1)[:, :, None]), 1)
            if a.shape[1]:
                c = (c * moments.normalisation(l, a)[:, :, None]).transpose(1, 2)
                degrees.append(Degree(l, a.to(dtype), c.to(dtype)))
            slot, component = slot + slots, component + slots * (2 * l + 1)
        position = molecules.position[atom].to(torch.float64)
        out.append(Centres(element.number, molecules.molecule[atom], position, tuple(degrees)))
    if found < len(molecules.number):
        missing = sorted(set(molecules.number.tolist()) - {t.number for t in tables.elements})
        raise BasisError(f"the basis has no functions for Z={missing}; expected all elements of the molecules; choose another")
    return out


def gaussians(exponent: Tensor, r2: Tensor) -> Tensor:
    """exp(-a r^2): (n, k), (n, P) -> (n, k, P). By exp2, which the CPU does three times faster in float64."""
    return ((-log2(e) * exponent)[:, :, None] * r2[:, None]).exp2_()


def _values(group: Centres, r: Tensor) -> Tensor:
    """(n, P) density of every centre; r: (n, 3, P) from the centre."""
    r2 = r.square().sum(1)
    solid = solid_harmonics(group.degrees[-1].l, r)
    total = torch.zeros_like(r2)
    for d in group.degrees:
        total = total + ((d.coefficient @ gaussians(d.exponent, r2)) * solid[d.l]).sum(1)
    return total


def _values_and_gradient(group: Centres, r: Tensor) -> Tensor:
    """(n, 4, P): density and its three derivatives, for every centre."""
    r2 = r.square().sum(1)
    solid = solid_harmonics(group.degrees[-1].l, r)
    value, radial, angular = torch.zeros_like(r2), torch.zeros_like(r2), torch.zeros_like(r)
    for d in group.degrees:
        g = gaussians(d.exponent, r2)
        u = d.coefficient @ g
        value += (u * solid[d.l]).sum(1)
        radial += (((d.coefficient * d.exponent[:, None]) @ g) * solid[d.l]).sum(1)
        if d.l:
            tensor = gradient_tensor(d.l).to(u).transpose(1, 2).reshape(3 * (2 * d.l - 1), 2 * d.l + 1)
            angular += ((tensor @ u).unflatten(1, (3, 2 * d.l - 1)) * solid[d.l - 1][:, None]).sum(2)
    return torch.cat((value[:, None], angular - 2 * radial[:, None] * r), 1)


def bytes_per_point(groups: list[Centres], dtype: torch.dtype, rows: int = 2) -> int:
    """Peak of the temporary memory one point needs: radial parts, harmonics (terms and stacked), products, coordinates.

    rows: intermediates of the size of one radial block for l > 0; s functions need two.
    """
    most = 0
    for g in groups:
        radial = max(d.exponent.shape[1] * (rows if d.l else 2) for d in g.degrees)
        lmax = g.degrees[-1].l
        most = max(most, len(g.position) * (radial + 2 * (lmax + 1) ** 2 + 8 * (2 * lmax + 1) + 12))
    return most * torch.finfo(dtype).bits // 8 + 64


def blocks(point: Tensor, per_point: int, memory_mb: float, device: torch.device) -> Iterator[Tensor]:
    """The points in blocks whose temporaries take at most memory_mb megabytes. Raises ConfigError if one point does not fit."""
    if not memory_mb * 1e6 >= per_point:
        raise ConfigError(f"memory_mb={memory_mb:g} found; one point needs {per_point / 1e6:.2g}; give at least that")
    budget = memory_mb * 1e6 if device.type != "cpu" else min(memory_mb * 1e6, CPU_BYTES)
    yield from point.split(max(1, int(budget // per_point)))


def check_points(density: Density, basis: Basis, molecule: Molecule, point: Tensor) -> None:
    """Raises DataError for points that are not (G, 3) or not finite, BasisError for a density that does not fit."""
    if point.ndim != 2 or point.shape[1] != 3:
        raise DataError(f"points have shape {tuple(point.shape)}; expected (G, 3) in bohr; reshape them")
    if not all(bool(torch.isfinite(block).all()) for block in point.split(65536)):  # whole, it would take the memory again
        raise DataError("points hold NaN or infinity; expected finite bohr coordinates; repair the grid")
    n = len(molecule.number)
    for name, block, width in (
        ("coefficients", density.coefficient, basis.width),
        ("exponents", density.exponent, sum(basis.multiplicity)),
    ):
        if tuple(block.shape) != (n, width):
            raise BasisError(
                f"{name} have shape {tuple(block.shape)}; expected ({n}, {width}) for basis {basis.name}; "
                "give the density of this molecule alone, in its own basis"
            )
        if not torch.isfinite(block).all():
            raise DataError(f"{name} hold NaN or infinity; expected finite numbers; check the model or fit they come from")
    if not (density.exponent > 0).all():
        raise BasisError(f"the smallest exponent is {float(density.exponent.min()):g}; expected all > 0 bohr^-2; check the model")


def on_points(
    molecule: Molecule,
    density: Density,
    basis: Basis,
    point: Tensor,
    kernel: Callable[[Centres, Tensor], Tensor],
    *,
    memory_mb: float,
    dtype: torch.dtype,
    prior: bool,
    rows: int = 2,
) -> Tensor:
    """kernel(centres of an element, (n, 3, P)) -> (n, ..., P), summed over all atoms: (..., G), on the density's device."""
    check_points(density, basis, molecule, point)
    device = density.coefficient.device
    basis.rows(molecule.number)
    groups = centres(Molecules.of([molecule], device), density, BasisTables.of(basis, device), prior, dtype)
    out = []
    for block in blocks(point, bytes_per_point(groups, dtype, rows), memory_mb, device):
        here = block.to(device, torch.float64).T
        out.append(sum(kernel(g, (here - g.position[:, :, None]).to(dtype)).sum(0) for g in groups))
    return torch.cat(out, -1)


@torch.no_grad()
def density_on_points(
    molecule: Molecule,
    density: Density,
    basis: Basis,
    point: Tensor,
    *,
    memory_mb: float = 256.0,
    dtype: torch.dtype = torch.float64,
    prior: bool = True,
) -> Tensor:
    """rho = rho_SAD + sum dc chi of one molecule at points, without gradients (for those see density_at_samples).

    density: of this molecule alone, (N, width), with the exponents it carries; point: (G, 3) bohr, any device;
    memory_mb: bound of the temporary memory; dtype: float64 or float32; prior=False: the deformation alone.
    Returns (G,) e/bohr^3 on the device of the coefficients. Raises DataError, BasisError or ConfigError for points,
    densities or bounds that cannot be used.
    """
    return on_points(molecule, density, basis, point, _values, memory_mb=memory_mb, dtype=dtype, prior=prior)


@torch.no_grad()
def density_gradient_on_points(
    molecule: Molecule,
    density: Density,
    basis: Basis,
    point: Tensor,
    *,
    memory_mb: float = 256.0,
    dtype: torch.dtype = torch.float64,
    prior: bool = True,
) -> tuple[Tensor, Tensor]:
    """rho (G,) e/bohr^3 and its gradient (G, 3) e/bohr^4 in closed form; arguments and errors as density_on_points."""
    both = on_points(molecule, density, basis, point, _values_and_gradient, memory_mb=memory_mb, dtype=dtype, prior=prior)
    return both[0], both[1:].T.contiguous()


def density_at_samples(
    molecules: Molecules,
    density: Density,
    tables: BasisTables,
    point: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    prior: bool = True,
) -> Tensor:
    """rho of a batch at P points per molecule, differentiable in coefficients and exponents, for the real-space loss.

    point: (B, P, 3) bohr; tables: BasisTables.of(basis, device). Returns (B, P) e/bohr^3 in dtype. Distances are taken in
    float64. Gradients reach the positions only if these require them. Memory grows with B P (functions of an atom).
    Raises DataError if point has another shape, BasisError for an element that the tables lack; values are not checked.
    """
    if point.ndim != 3 or point.shape[0] != molecules.n or point.shape[2] != 3:
        raise DataError(f"points have shape {tuple(point.shape)}; expected ({molecules.n}, P, 3): as many per molecule")
    here = point.to(torch.float64).transpose(1, 2).contiguous()
    total = here.new_zeros((molecules.n, point.shape[1]), dtype=dtype)
    for group in centres(molecules, density, tables, prior, dtype):
        r = (here[group.molecule] - group.position[:, :, None]).to(dtype)
        total = total.index_add(0, group.molecule, _values(group, r))
    return total
