"""Two-centre overlap and Coulomb integrals of single Gaussians, in closed form, in torch.

chi_lm(r) = N_l(a) r^l exp(-a r^2) Y_lm(r) at the origin, chi_l'm' with exponent b at R, both normalised. The product of
their Fourier transforms is a Gaussian times k^(l+l') Y_lm Y_l'm'; expanding that in Y_LM and e^(ikR) in plane waves leaves
one radial integral for every L. With p = ab / (a+b), x = p R^2, L = l + l' - 2n, n = 0 .. min(l, l'):

    <lm|l'm'> = K (p/a)^(l/2+3/4) (p/b)^(l'/2+3/4) sum_L (-1)^(l'+n) p^(L/2) g_n(x) sum_M G[lm,l'm',LM] S_LM(R)
    K         = pi^(3/2) 2^((l+l'+5)/2) / sqrt(Gamma(l+3/2) Gamma(l'+3/2))
    overlap   g_n = n! Laguerre_n^(L+1/2)(x) exp(-x)
    Coulomb   g_n = (pi/p) (n-1)! Laguerre_(n-1)^(L+1/2)(x) exp(-x),  n >= 1;     g_0 = (2 pi/p) F_L(x)

S_LM solid harmonics, G their Gaunt coefficients (`harmonics`), F_L the Boys function. k! Laguerre_k^(s) = M_k from
M_(k+1) = (2k+1+s-x) M_k - k(k+s) M_(k-1). In this form the exponents enter by ratios below one and by p^(L/2) R^L alone,
nothing is singular at R = 0, and float32 does not overflow. L of the wrong parity vanish by G.

Radial integrals: Gradshteyn and Ryzhik 6.631; the same integrals by Kuang and Lin, J. Phys. B 30, 2529 (1997).

Everything is differentiable, to any order, in positions and exponents. Lengths in bohr, exponents in bohr^-2, overlaps
dimensionless, Coulomb integrals in bohr^2 (hartree, once multiplied by coefficients in e bohr^(-3/2)). Functions of an atom
are ordered as its coefficients (docs/conventions.md): l, slot, m.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import gamma, pi, sqrt

import torch
from torch import Tensor

from densnet.basis.boys import boys
from densnet.basis.harmonics import gaunt, solid_harmonics
from densnet.errors import BasisError

EXPONENT_UNDERFLOWS = 750.0  # exp(-750) = 0 in float64; a larger x would only overflow the polynomials it multiplies


@cache
@torch.inference_mode(False)  # may be filled while validating and used in training
def _coupling(l: int, l2: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """For n = 0 .. min(l, l2): K (-1)^(l2+n) G, (2L+1, (2l+1)(2l2+1))."""
    factor = pi**1.5 * 2 ** ((l + l2 + 5) / 2) / sqrt(gamma(l + 1.5) * gamma(l2 + 1.5))
    out = []
    for n in range(min(l, l2) + 1):
        g = factor * (-1) ** (l2 + n) * gaunt(l, l2, l + l2 - 2 * n)
        out.append(g.flatten(0, 1).T.contiguous().to(device, dtype))
    return tuple(out)


def check_exponents(exponent: Tensor) -> None:
    """Raise BasisError unless all are finite and positive."""
    good = torch.isfinite(exponent) & (exponent > 0)
    if not bool(good.all()):
        found = float(exponent.detach()[~good][0])
        raise BasisError(f"found an exponent of {found} bohr^-2; expected finite and > 0; bound those that are varied")


@cache
def _degrees(multiplicity: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Angular momentum of every slot."""
    return torch.tensor([l for l, count in enumerate(multiplicity) for _ in range(count)], dtype=dtype, device=device)


def _slots(multiplicity: Sequence[int]) -> list[tuple[int, slice]]:
    """(l, its slots) of every l that has slots."""
    ends = list(accumulate(multiplicity))
    return [(l, slice(end - count, end)) for l, (count, end) in enumerate(zip(multiplicity, ends)) if count]


def pair_blocks(
    multiplicity: tuple[int, ...],
    a: Tensor,
    multiplicity2: tuple[int, ...],
    b: Tensor,
    vector: Tensor,
    coulomb: float = 1.0,
    overlap: float = 0.0,
) -> Tensor:
    """(P, W, W2) integrals coulomb * J + overlap * S between the functions of P pairs of atoms, which all exist.

    multiplicity: slots per l of the first atoms; a: (P, S) their exponents, or (1, S) if all pairs share them; the same for
    the second atoms; vector: (P, 3) from first to second. Exponents are not checked.
    """
    like = vector.dtype, vector.device
    degree, degree2 = _degrees(multiplicity, *like)[:, None], _degrees(multiplicity2, *like)
    a, b = a[:, :, None], b[:, None, :]
    total = a + b
    p = a / total * b
    scale = (b / total) ** (degree / 2 + 0.75) * (a / total) ** (degree2 / 2 + 0.75)
    root, coulomb_factor = p.sqrt(), pi * coulomb / p
    x = p * vector.square().sum(-1)[:, None, None]
    near = x.clamp(max=EXPONENT_UNDERFLOWS)
    decay = torch.exp(-near)
    harmonics = solid_harmonics(len(multiplicity) + len(multiplicity2) - 2, vector)

    def block(l: int, rows: slice, l2: int, columns: slice) -> Tensor:
        """(P, slots, 2l+1, slots2 * (2l2+1))"""
        part = (slice(None), rows, columns)
        x_here, near_here, decay_here = x[part], near[part], decay[part]
        radial, angular = [], []
        for n, g in enumerate(_coupling(l, l2, *like)):
            top = l + l2 - 2 * n
            before, this = torch.zeros_like(x_here), torch.ones_like(x_here)
            for k in range(n):
                before, this = this, (2 * k + 1.5 + top - near_here) * this - k * (k + top + 0.5) * before
            f = decay_here * (overlap * this + coulomb_factor[part] * before)
            if n == 0 and coulomb != 0:
                f = f + 2 * coulomb_factor[part] * boys(top, x_here)
            radial.append((scale[part] * root[part] ** top * f).flatten(1))
            angular.append(harmonics[top] @ g)
        out = torch.stack(radial, dim=-1) @ torch.stack(angular, dim=1)
        shape = (len(vector), rows.stop - rows.start, columns.stop - columns.start, 2 * l + 1, 2 * l2 + 1)
        return out.view(shape).transpose(2, 3).flatten(3)

    return torch.cat(
        [
            torch.cat([block(l, rows, l2, columns) for l2, columns in _slots(multiplicity2)], dim=3).flatten(1, 2)
            for l, rows in _slots(multiplicity)
        ],
        dim=1,
    )


def two_centre(l: int, a: Tensor, l2: int, b: Tensor, vector: Tensor, coulomb: float = 1.0, overlap: float = 0.0) -> Tensor:
    """coulomb * (lm|l2 m2) + overlap * <lm|l2 m2>, (..., 2l+1, 2l2+1), of function (l2, b) at `vector` from (l, a).

    a, b: (...) exponents; vector: (..., 3); leading shapes broadcast. Raises BasisError for an exponent that is not positive.
    """
    check_exponents(a)
    check_exponents(b)
    shape = torch.broadcast_shapes(a.shape, b.shape, vector.shape[:-1])
    a, b = (e.to(vector.dtype).expand(shape).reshape(-1, 1) for e in (a, b))
    only, only2 = (*(0,) * l, 1), (*(0,) * l2, 1)
    out = pair_blocks(only, a, only2, b, vector.expand(*shape, 3).reshape(-1, 3), coulomb, overlap)
    return out.view(*shape, 2 * l + 1, 2 * l2 + 1)
