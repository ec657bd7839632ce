"""Real solid harmonics r^l Y_lm and their gradients on many points: points run fastest, so every operation is a long vector.

e3nn's order and integral normalisation, as everywhere in densnet.
"""

from __future__ import annotations

from functools import cache
from math import factorial, pi, sqrt

import torch
from e3nn import o3
from torch import Tensor

Y00 = 1 / sqrt(4 * pi)


def solid_harmonics(lmax: int, r: Tensor) -> list[Tensor]:
    """r^l Y_lm of r (n, 3, P) in e3nn's order, for l = 0..lmax: (n, 2l+1, P) each, l = 0 as (1, 1, 1).

    With the axis along y: A_m + i B_m = (z + i x)^m, S_lm = N_lm P_lm(y, r^2) (A_m, or B_|m| for m < 0), where
    (l - m) P_lm = (2l - 1) y P_(l-1)m - (l + m - 1) r^2 P_(l-2)m, P_mm = (2m - 1)!!  (Helgaker, Jorgensen, Olsen, ch. 6.4).
    """
    x, y, z = r.unbind(1)
    r2 = x * x + y * y + z * z
    cosine: list = [1.0]
    sine: list = [0.0]
    for m in range(lmax):
        cosine, sine = [*cosine, z * cosine[m] - x * sine[m]], [*sine, z * sine[m] + x * cosine[m]]
    legendre: list[list] = []
    for l in range(lmax + 1):
        row = []
        for m in range(l):
            below = (2 * l - 1) * y * legendre[l - 1][m]
            row.append((below - (l + m - 1) * r2 * legendre[l - 2][m] if m < l - 1 else below) / (l - m))
        legendre.append([*row, float(_odd_factorial(m=l))])
    out = [r.new_full((1, 1, 1), Y00)]
    for l in range(1, lmax + 1):
        parts = []
        for m in range(-l, l + 1):
            k = abs(m)
            scale = sqrt((2 * l + 1) / (4 * pi) * (2 if m else 1) * factorial(l - k) / factorial(l + k))
            parts.append(scale * legendre[l][k] * (sine[k] if m < 0 else cosine[k]))
        out.append(torch.stack(parts, 1))
    return out


def _odd_factorial(m: int) -> int:
    return factorial(2 * m) // (2**m * factorial(m))


@cache
def gradient_tensor(l: int) -> Tensor:
    """T^l (3, 2l+1, 2l-1), float64: d S_lm / d r_i = sum_m' T_i,m,m' S_(l-1)m'.

    Proportional to the coupling 1 x (l-1) -> l; integral |grad S_lm|^2 over the unit sphere is l (2l+1), which fixes the
    modulus, and Euler's r . grad S = l S the sign.
    """
    coupling = o3.wigner_3j(1, l - 1, l, dtype=torch.float64).permute(0, 2, 1) * (2 * l + 1) * sqrt(l)
    r = torch.tensor([[[0.3], [0.5], [0.7]]], dtype=torch.float64)
    solid = solid_harmonics(l, r)
    euler = torch.einsum("i,imk,k->m", r[0, :, 0], coupling, solid[l - 1].expand(1, 2 * l - 1, 1)[0, :, 0])
    return coupling * torch.sign(euler @ solid[l][0, :, 0])
