"""Closed-form integrals of single Gaussians over all space, in torch, from the exponents actually used.

chi_lm(r) = N_l(a) r^l exp(-a r^2) Y_lm(r), N_l(a) = sqrt(2 (2a)^(l+3/2) / Gamma(l+3/2)); with G(a) = (pi/a)^(3/2):

    integral chi_00            = N_0 Y_00 G
    integral r_i chi_1m        = N_1 sqrt(3/4pi) G / (2a) delta_im
    integral r_i r_j chi_00    = N_0 Y_00 G / (2a) delta_ij
    integral r_i r_j chi_2m    = N_2 Q^m_ij 2 G / (2a)^2,   r^2 Y_2m = sum_ij Q^m_ij r_i r_j  (Q symmetric, traceless)

from integral x^2 exp(-a r^2) = G/(2a) and integral x^2 y^2 exp(-a r^2) = G/(2a)^2.
"""

from __future__ import annotations

from functools import cache
from math import gamma, pi, sqrt

import torch
from e3nn import o3
from torch import Tensor


def normalisation(l: int, exponent: Tensor) -> Tensor:
    """N_l(a); exponent in bohr^-2, any shape."""
    return torch.sqrt(2.0 * (2.0 * exponent) ** (l + 1.5) / gamma(l + 1.5))


def monopole(exponent: Tensor) -> Tensor:
    """integral chi_00, bohr^(3/2)."""
    return normalisation(0, exponent) * sqrt(1 / (4 * pi)) * (pi / exponent) ** 1.5


def dipole(exponent: Tensor) -> Tensor:
    """integral r_i chi_1i about the centre (the same for all three components)."""
    return normalisation(1, exponent) * sqrt(3 / (4 * pi)) * (pi / exponent) ** 1.5 / (2 * exponent)


def second_moment_s(exponent: Tensor) -> Tensor:
    """integral r_i r_i chi_00 about the centre (no sum; off-diagonal components vanish)."""
    return monopole(exponent) / (2 * exponent)


def second_moment_d(exponent: Tensor) -> Tensor:
    """The radial factor R of integral r_i r_j chi_2m = R Q^m_ij."""
    return normalisation(2, exponent) * 2 * (pi / exponent) ** 1.5 / (2 * exponent) ** 2


@cache
def quadrupole_tensors() -> Tensor:
    """Q^m_ij, (5, 3, 3) float64, by polarising e3nn's r^2 Y_2m at unit vectors."""

    def solid(v: Tensor) -> Tensor:
        return o3.spherical_harmonics(2, v, normalize=False, normalization="integral")

    unit = torch.eye(3, dtype=torch.float64)
    q = torch.empty(5, 3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            q[:, i, j] = (solid(unit[i] + unit[j]) - solid(unit[i]) - solid(unit[j])) / 2
    return q


def one_centre_overlap(l: int, a: Tensor, b: Tensor) -> Tensor:
    """<chi_lm(a) | chi_lm(b)> of two functions on the same centre: (2 sqrt(ab) / (a+b))^(l+3/2)."""
    return (2 * torch.sqrt(a * b) / (a + b)) ** (l + 1.5)


def one_centre_coulomb(l: int, a: Tensor, b: Tensor) -> Tensor:
    """(chi_lm(a) | chi_lm(b)) on the same centre: overlap * 2 pi (a+b) / ((2l+1) a b).

    In reciprocal space both are Gaussian moments, k^(2l+2) against 4 pi k^(2l) times exp(-k^2 (a+b)/(4ab)); their ratio is
    4 pi Gamma(l+1/2)/Gamma(l+3/2) (a+b)/(4ab).
    """
    return one_centre_overlap(l, a, b) * 2 * pi * (a + b) / ((2 * l + 1) * a * b)
