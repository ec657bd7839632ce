"""Electrostatic potential on points of space, in closed form for every function of the density.

The potential of exp(-a r^2) is integral exp(-a s^2) / |r - s| ds = (2 pi / a) F_0(a r^2), F_l the Boys function. By Hobson's
theorem a solid harmonic of the gradient turns functions of r^2 into their derivatives,

    S_lm(nabla) f(r^2) = 2^l f^(l)(r^2) S_lm(r),    hence    S_lm(nabla) exp(-a r^2) = (-2a)^l S_lm(r) exp(-a r^2),

and it commutes with the integral; dF_l/dx = -F_(l+1) then gives the potential of every shell without a singularity at r = 0:

    integral S_lm(s) exp(-a s^2) / |r - s| ds = (2 pi / a) F_l(a r^2) S_lm(r)

(Helgaker, Jorgensen, Olsen, Molecular Electronic-Structure Theory, sections 6.4 and 9.8.) It is the density with exp(-x)
replaced by (2 pi / a) F_l(x); for l = 0 that is (pi / a)^(3/2) erf(sqrt(a) r) / r.
"""

from __future__ import annotations

from functools import partial
from math import pi

import torch
from torch import Tensor

from densnet.basis.boys import boys
from densnet.basis.shells import Basis
from densnet.observables.real_space import Centres, Degree, on_points
from densnet.observables.solid_harmonics import solid_harmonics
from densnet.structures import Density, Molecule

BOYS_ROWS = 10  # intermediates of the Boys function, for the memory bound
NO_DISTANCE2 = 1e-30  # bohr^2; erf(sqrt(a) r) / r has its limit there to round-off


def _radial(d: Degree, r2: Tensor) -> Tensor:
    """(n, 2l+1, P) radial part of the potential of all shells of one l."""
    if d.l == 0:  # F_0 by the error function: most shells are s (the free atoms), and it is ten times faster
        r = r2.clamp(min=NO_DISTANCE2).sqrt()[:, None]
        return (d.coefficient * ((pi / d.exponent) ** 1.5)[:, None]) @ (d.exponent.sqrt()[:, :, None] * r).erf_() / r
    charge = d.coefficient * (2 * pi / d.exponent)[:, None]
    return charge @ boys(d.l, d.exponent[:, :, None] * r2[:, None])


def _potential(group: Centres, r: Tensor, nuclei: bool) -> Tensor:
    """(n, P) potential of every centre; r: (n, 3, P) from the centre."""
    r2 = r.square().sum(1)
    solid = solid_harmonics(group.degrees[-1].l, r)
    total = group.number * r2.rsqrt() if nuclei else torch.zeros_like(r2)
    for d in group.degrees:
        total -= (_radial(d, r2) * solid[d.l]).sum(1)
    return total


@torch.no_grad()
def electrostatic_potential_on_points(
    molecule: Molecule,
    density: Density,
    basis: Basis,
    point: Tensor,
    *,
    nuclei: bool = True,
    memory_mb: float = 256.0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """V(r) = sum_A Z_A / |r - R_A| - integral rho(r') / |r - r'| dr' at points, free atoms included, without gradients.

    nuclei=False leaves the second term alone, with its sign. On a nucleus V is inf (its true value), the electronic part
    finite. Other arguments and errors as density_on_points. Returns (G,) hartree/e on the device of the coefficients.
    """
    return on_points(
        molecule,
        density,
        basis,
        point,
        partial(_potential, nuclei=nuclei),
        memory_mb=memory_mb,
        dtype=dtype,
        prior=True,
        rows=BOYS_ROWS,
    )
