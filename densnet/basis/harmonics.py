"""Real solid harmonics of any degree in e3nn's order and normalisation, and their Gaunt coefficients.

S_LM(r) = r^L Y_LM(r/r), integral-normalised, axis along y, azimuth from z to x, M = -L..L, no Condon-Shortley phase:

    S_L,M  = sqrt(2) Q_LM(y, r^2) Re (z + ix)^M,    S_L,-M = sqrt(2) Q_LM(y, r^2) Im (z + ix)^M,    M > 0
    S_L0   = Q_L0(y, r^2)
    Q_LL   = sqrt((2L+1) / 2L) Q_(L-1)(L-1),   Q_00 = 1 / sqrt(4 pi)
    Q_LM   = sqrt((4L^2-1) / (L^2-M^2)) [y Q_(L-1)M - sqrt(((L-1)^2-M^2) / (4(L-1)^2-1)) r^2 Q_(L-2)M]

(Helgaker, Jorgensen, Olsen, Molecular Electronic-Structure Theory, section 6.4, with the axes renamed.) e3nn's own stop at
degree 11; products of two functions of degree 6 need 12. Polynomials throughout, hence smooth at r = 0.
"""

from __future__ import annotations

from functools import cache
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor


@torch.compiler.assume_constant_result
def _recursion(l: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return _factors(l, dtype, device)


@cache
@torch.inference_mode(False)  # may be filled while validating and used in training
def _factors(l: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factors of y Q_(l-1)M, M = 0..l-1, and of r^2 Q_(l-2)M, M = 0..l-2."""
    m = np.arange(l)
    first = np.sqrt((4 * l * l - 1) / (l * l - m * m))
    second = first[:-1] * np.sqrt(((l - 1) ** 2 - m[:-1] ** 2) / (4 * (l - 1) ** 2 - 1))
    return torch.as_tensor(first, dtype=dtype, device=device), torch.as_tensor(second, dtype=dtype, device=device)


def solid_harmonics(lmax: int, vector: Tensor) -> list[Tensor]:
    """S_L, (..., 2L+1) for L = 0..lmax, of vector (..., 3)."""
    x, y, z = (c[..., None] for c in vector.unbind(-1))
    square = x * x + y * y + z * z
    diagonal = 1 / sqrt(4 * pi)
    q = [torch.full_like(x, diagonal)]
    cosine, sine = [torch.ones_like(x)], []
    out = [q[0]]
    for l in range(1, lmax + 1):
        first, second = _recursion(l, vector.dtype, vector.device)
        diagonal *= sqrt((2 * l + 1) / (2 * l))
        row = first * y * q[-1]
        if l > 1:
            row = torch.cat([row[..., :-1] - second * square * q[-2], row[..., -1:]], dim=-1)
        q.append(torch.cat([row, torch.full_like(x, diagonal)], dim=-1))
        # (z + ix)^l from the power before; sqrt(2) of M > 0 enters with the first
        c, s = cosine[-1], sine[-1] if sine else torch.zeros_like(x)
        root = sqrt(2) if l == 1 else 1.0
        cosine.append(root * (z * c - x * s))
        sine.append(root * (z * s + x * c))
        around = torch.cat([*reversed(sine), *cosine], dim=-1)
        out.append(torch.cat([q[-1][..., 1:].flip(-1), q[-1]], dim=-1) * around)
    return out


@cache
def gaunt(l: int, l2: int, total: int) -> Tensor:
    """G[m, m2, M] = integral Y_lm Y_l2m2 Y_totalM over the sphere, float64.

    By Gauss-Legendre times trapezoidal quadrature, which is exact for products of this degree. The same up to a factor as
    e3nn's wigner_3j where l + l2 + total is even, zero where it is odd.
    """
    degree = l + l2 + total
    cosine, weight = np.polynomial.legendre.leggauss(degree // 2 + 1)
    angle = 2 * pi * np.arange(degree + 1) / (degree + 1)
    sine = np.sqrt(1 - cosine**2)[:, None]
    grid = np.stack(np.broadcast_arrays(sine * np.sin(angle), cosine[:, None], sine * np.cos(angle)), axis=-1)
    harmonics = solid_harmonics(max(l, l2, total), torch.as_tensor(grid))
    weights = torch.as_tensor(weight * 2 * pi / (degree + 1))
    out = torch.einsum("t,tpa,tpb,tpc->abc", weights, harmonics[l], harmonics[l2], harmonics[total])
    return torch.where(out.abs() < 1e-13, 0.0, out)
