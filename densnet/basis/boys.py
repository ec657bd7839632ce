"""Boys function F_n(x) = integral_0^1 t^(2n) exp(-x t^2) dt, x >= 0, in torch, to any order of derivative.

Below a cut X_n: Taylor expansion about the nearest point x_0 of an even grid, from dF_n/dx = -F_(n+1),

    F_n(x) = sum_k F_(n+k)(x_0) (x_0 - x)^k / k!

Above: F_n(x) = Gamma(n+1/2) / (2 x^(n+1/2)), which lacks a fraction Gamma(n+1/2, x) / Gamma(n+1/2) of the true value; X_n
is where that falls below round-off. Grid values come from the series of positive terms

    F_n(x) = exp(-x) sum_k (2x)^k / ((2n+1)(2n+3)...(2n+2k+1))

and several orders at once from the top one by F_n = (2x F_(n+1) + exp(-x)) / (2n+1), positive terms again.

Source: Helgaker, Jorgensen, Olsen, Molecular Electronic-Structure Theory (2000), section 9.8.
"""

from __future__ import annotations

from functools import cache
from math import exp, factorial, gamma, lgamma, log

import numpy as np
import torch
from torch import Tensor

STEP = 1.0 / 16  # a power of two, so that grid points are exact in every precision
TERMS = 8  # the first one left out is at most (STEP/2)^8 / 8! = 2e-17 of F_n


@cache
def _cut(n: int) -> int:
    """X_n, where Gamma(n+1/2, X) / Gamma(n+1/2) < 1e-17, by its bound X^(n-1/2) exp(-X) / Gamma(n+1/2) X / (X-n)."""
    x = n + 30
    while exp((n - 0.5) * log(x) - x - lgamma(n + 0.5)) * x / (x - n) > 1e-17:
        x += 1
    return x


@cache
def _table(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """TERMS tensors over the grid 0, STEP, ..., X_n: F_(n+k)(x_0) / k!."""
    x = np.arange(0, _cut(n) + STEP, STEP, dtype=np.longdouble)
    columns = []
    for k in range(TERMS):
        term = np.full_like(x, 1) / (2 * (n + k) + 1)
        total, i = term.copy(), n + k
        while (term > 1e-21 * total).any():
            i += 1
            term = term * 2 * x / (2 * i + 1)
            total += term
        columns.append(np.exp(-x) * total / factorial(k))
    return tuple(torch.as_tensor(c.astype(np.float64), device=device).to(dtype) for c in columns)


def _asymptote(n: int, x: Tensor) -> Tensor:
    """Gamma(n+1/2) / (2 x^(n+1/2)); the factor goes under the power, or float32 would underflow before it does."""
    return (x / (gamma(n + 0.5) / 2) ** (1 / (n + 0.5))) ** -(n + 0.5)


def _evaluate(low: int, high: int, x: Tensor) -> Tensor:
    """F_low ... F_high, (..., high - low + 1), without a gradient."""
    cut, table = _cut(high), _table(high, x.dtype, x.device)
    near = x.clamp(max=cut)
    # Clamped as an integer too: a NaN must come out as NaN, not as an index out of range.
    nearest = (near * (1 / STEP)).round_().long().clamp_(0, len(table[0]) - 1)
    step = (nearest * STEP).to(x.dtype) - near
    value = table[-1][nearest]
    for column in reversed(table[:-1]):
        value = torch.addcmul(column[nearest], value, step)
    is_far, far = x > cut, x.clamp(min=cut)
    if low == high:
        return torch.where(is_far, _asymptote(high, far), value)[..., None]
    decay, twice = torch.exp(-near), 2 * near
    out = [value]
    for n in range(high - 1, low - 1, -1):
        out.append((twice * out[-1] + decay) / (2 * n + 1))
    out.reverse()
    asymptote, inverse = _asymptote(low, far), 0.5 / far
    for n in range(low, high + 1):
        out[n - low] = torch.where(is_far, asymptote, out[n - low])
        asymptote = asymptote * (2 * n + 1) * inverse
    return torch.stack(out, dim=-1)


class _Boys(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.orders = low, high
        return _evaluate(low, high, x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high) = ctx.saved_tensors, ctx.orders
        return -(grads[0] * _Boys.apply(x, low + 1, high + 1)).sum(-1), None, None  # pyright: ignore


def boys(n: int, x: Tensor) -> Tensor:
    """F_n(x), the shape, dtype and device of x >= 0. Relative accuracy 1e-14 in float64, 1e-6 in float32.

    The table of an order is made once per dtype and device. Differentiable to any order, at x = 0 too.
    """
    return _Boys.apply(x, n, n)[..., 0]  # pyright: ignore


def boys_up_to(n: int, x: Tensor) -> Tensor:
    """F_0(x) ... F_n(x), (..., n + 1), for the price of little more than the top one. Otherwise as `boys`."""
    return _Boys.apply(x, 0, n)  # pyright: ignore
