"""Integrals over space: against closed forms, against PySCF's grids, and in whatever blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from library_water import fitted_water, pyscf_grid, scf_rho
from torch import Tensor

from densnet.errors import ConfigError
from densnet.observables.quadrature import LEVELS, _cells, integrate, quadrature
from densnet.structures import Molecule


def gaussians(point: Tensor, centre: np.ndarray, exponent: float) -> Tensor:
    """x-weighted and plain Gaussians around every nucleus, (2, K): integrals 0 and sum (pi/a)^(3/2) about the nuclei."""
    arm = point - torch.as_tensor(centre)[:, None]
    g = torch.exp(-exponent * arm.square().sum(-1))
    return torch.stack(((arm[..., 0].square() * g).sum(0), g.sum(0)))


@pytest.mark.parametrize("exponent", [0.15, 1.0, 20.0, 400.0])
def test_closed_forms(water: Molecule, exponent: float) -> None:
    """Gaussians on all nuclei, from diffuse to core: the second moment and the integral, to the digits of the level."""
    exact = 3 * (np.pi / exponent) ** 1.5 * np.array([0.5 / exponent, 1.0])
    for level, tolerance in ((1, 2e-2), (3, 3e-4), (5, 2e-6)):
        found = integrate(water, lambda p: gaussians(p, water.position, exponent), level).numpy()
        assert np.abs(found / exact - 1).max() < tolerance


def test_electrons_of_an_scf_density() -> None:
    """Ten electrons of PySCF's density matrix, as near as PySCF's own grids come, and nearer with every second level."""
    case = fitted_water()
    error = []
    for level in (1, 3, 5):
        blocks = [(p.numpy(), w.numpy()) for p, w in quadrature(case.molecule, level)]
        error.append(abs(sum(w @ scf_rho(case, p) for p, w in blocks) - 10))
    point, weight = pyscf_grid(case.mol, 3)
    theirs = abs(weight @ scf_rho(case, point) - 10)
    assert error[0] < 1e-2
    assert error[1] < 3e-4
    assert error[2] < 3e-6
    assert error[2] < error[1] < error[0]
    assert error[1] < 30 * max(theirs, 1e-5)


def test_one_atom() -> None:
    """A single centre needs no cells; an atom far away from another changes nothing."""
    atom, exact = Molecule(np.array([6]), np.ones((1, 3))), (np.pi / 0.7) ** 1.5
    assert float(integrate(atom, lambda p: gaussians(p, atom.position, 0.7)[1], 3)) == pytest.approx(exact, rel=1e-8)
    pair = Molecule(np.array([6, 1]), np.array([[1.0, 1, 1], [90.0, 0, 0]]))
    assert float(integrate(pair, lambda p: gaussians(p, atom.position, 0.7)[1], 3)) == pytest.approx(exact, rel=1e-8)


def test_cells_are_beckes() -> None:
    """Equal atoms: Becke's eq. 19 to 22 written out; they sum to 1, a nucleus is its own; the larger of two atoms gets more."""
    rng = np.random.default_rng(0)
    position, point = rng.normal(size=(4, 3)) * 2, rng.normal(size=(50, 3)) * 3
    share = _cells(torch.as_tensor(position), torch.ones(4, dtype=torch.float64), torch.as_tensor(point)).numpy()
    expected = np.ones((4, 50))
    for a in range(4):
        for b in range(4):
            if a != b:
                mu = np.linalg.norm(point - position[a], axis=1) - np.linalg.norm(point - position[b], axis=1)
                mu /= np.linalg.norm(position[a] - position[b])
                for _ in range(3):
                    mu = 1.5 * mu - 0.5 * mu**3
                expected[a] *= 0.5 * (1 - mu)
    assert share == pytest.approx(expected / expected.sum(0), abs=1e-13)
    radius = torch.tensor([0.8, 0.3, 0.7, 0.5], dtype=torch.float64)
    nuclei = _cells(torch.as_tensor(position), radius, torch.as_tensor(position)).numpy()
    assert nuclei == pytest.approx(np.eye(4), abs=1e-12)
    middle = torch.as_tensor(position[:2].mean(0, keepdims=True))
    assert _cells(torch.as_tensor(position[:2]), radius[:2], middle)[0, 0] > 0.6


def test_blocks(water: Molecule) -> None:
    """Small blocks are the same points; a block's share matrix keeps to the memory."""
    whole = [torch.cat(x) for x in zip(*quadrature(water, 2))]
    for memory_mb in (0.5, 0.05):
        blocks = list(quadrature(water, 2, memory_mb=memory_mb))
        assert all(8 * len(water.number) * len(p) < memory_mb * 1e6 for p, _ in blocks)
        assert all(torch.equal(a, torch.cat(b)) for a, b in zip(whole, zip(*blocks)))
    assert len(list(quadrature(water, 2, memory_mb=0.05))) > 50
    with pytest.raises(ConfigError, match="one point needs"):
        next(quadrature(water, 2, memory_mb=1e-5))


@pytest.mark.parametrize("level", [0, LEVELS + 1, 2.5])
def test_other_levels_are_refused(water: Molecule, level: int) -> None:
    with pytest.raises(ConfigError, match="from 1 to 5"):
        next(quadrature(water, level))
