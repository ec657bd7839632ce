"""Boys function against arbitrary-precision arithmetic, its derivatives, and the ends of its range."""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np
import pytest
import torch

from densnet.basis.boys import _cut, boys, boys_up_to

ORDERS = (0, 1, 2, 5, 9, 12, 14, 18)
ARGUMENTS = np.concatenate([[0.0, 1e-300, 1e-9], np.geomspace(1e-4, 1e6, 61), np.linspace(0.013, 95, 120)])


@cache
def exact(n: int) -> np.ndarray:
    """gamma(n+1/2, x) / (2 x^(n+1/2)) with the lower incomplete gamma function, 30 digits."""
    with mpmath.workdps(30):
        half = mpmath.mpf(2 * n + 1) / 2
        values = [mpmath.gammainc(half, 0, mpmath.mpf(x)) / (2 * mpmath.mpf(x) ** half) for x in ARGUMENTS[1:]]
    return np.array([1 / (2 * n + 1), *(float(v) for v in values)])


@pytest.mark.parametrize("n", ORDERS)
def test_boys_function_is_exact(n: int) -> None:
    x = torch.as_tensor(ARGUMENTS)
    assert np.abs(boys(n, x).numpy() / exact(n) - 1).max() < 1e-14
    assert np.abs(boys_up_to(max(ORDERS), x)[:, n].numpy() / exact(n) - 1).max() < 1e-14


@pytest.mark.parametrize("n", ORDERS)
def test_single_precision(n: int) -> None:
    x = torch.as_tensor(ARGUMENTS).float()
    normal = exact(n) > 1e-36  # below, float32 has no normal numbers
    for value in (boys(n, x), boys_up_to(max(ORDERS), x)[:, n]):
        assert value.dtype == torch.float32
        assert np.abs(value.numpy() / exact(n) - 1)[normal].max() < 3e-6
        assert (value.numpy()[~normal] >= 0).all()


@pytest.mark.parametrize("n", [0, 3, 12])
def test_expansion_and_asymptote_meet(n: int) -> None:
    """The recurrence between neighbouring orders holds on both sides of the cut and across it."""
    x = torch.linspace(_cut(n) - 3.0, _cut(n + 1) + 3.0, 1001, dtype=torch.float64)
    below, above = boys(n, x), boys(n + 1, x)
    assert float(((2 * x * above + torch.exp(-x)) / ((2 * n + 1) * below) - 1).abs().max()) < 1e-14


def test_derivatives_of_any_order() -> None:
    x = torch.tensor([0.0, 1e-8, 0.7, 31.24, 60.0, 400.0], dtype=torch.float64, requires_grad=True)
    value = boys(4, x)
    for order in range(1, 5):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        torch.testing.assert_close(value, (-1) ** order * boys(4 + order, x), rtol=1e-14, atol=0)
    inside = torch.tensor([0.3, 5.01, 44.0, 90.0], dtype=torch.float64, requires_grad=True)
    weight = torch.linspace(1, 2, 6, dtype=torch.float64)
    torch.autograd.gradcheck(lambda t: boys_up_to(5, t) * weight, inside)
    torch.autograd.gradgradcheck(lambda t: boys_up_to(5, t) * weight, inside)


def test_shape_and_ends_of_the_range() -> None:
    x = torch.tensor([[0.0, 1.0, float("inf")], [1e30, float("nan"), 2.0]], dtype=torch.float64)
    value = boys_up_to(3, x)
    assert value.shape == (2, 3, 4)
    assert value[0, 0].tolist() == [1, 1 / 3, 1 / 5, 1 / 7]
    assert (value[0, 2] == 0).all()
    assert value[1, 0, 0] == pytest.approx(np.sqrt(np.pi / 1e30) / 2, rel=1e-14)
    assert torch.isnan(value[1, 1]).all()
    torch.testing.assert_close(boys(2, x), value[..., 2], rtol=1e-14, atol=0, equal_nan=True)
