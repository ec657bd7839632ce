"""Hirshfeld atoms: against PySCF's grids and evaluation, their sum rules, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_rotation
from library_water import LIBRARY_AO, fitted, fitted_water, pyscf_grid, pyscf_hirshfeld, scf_rho

from densnet.basis.shells import Basis
from densnet.errors import BasisError, DataError
from densnet.observables.hirshfeld import hirshfeld
from densnet.observables.multipoles import dipole
from densnet.observables.partition import free_atom_densities, hirshfeld_weights
from densnet.reference.fitting import fitted_density
from densnet.structures import Density, Molecule, Molecules


def free_atoms(basis: Basis, molecule: Molecule) -> Density:
    rows = basis.rows(molecule.number)
    return Density(torch.zeros(len(rows), basis.width, dtype=torch.float64), torch.as_tensor(basis.slot_exponent[rows]))


def test_against_pyscf() -> None:
    """On PySCF's grid the whole density, not its deformation: error of the grids; the SCF density: error of the fit."""
    case = fitted_water()
    ours = hirshfeld(case.molecule, case.density, case.basis, level=4)
    point, weight = pyscf_grid(case.mol)
    rho = fitted_density(case.molecule, case.density.coefficient.numpy(), case.basis, point)
    charge, moment = pyscf_hirshfeld(case, rho, point, weight)
    assert np.abs(charge).min() > 0.1
    assert ours.charge == pytest.approx(charge, abs=1e-5)
    assert ours.dipole == pytest.approx(moment, abs=1e-4)
    assert np.abs(moment).max() > 0.05
    charge, moment = pyscf_hirshfeld(case, scf_rho(case, point), point, weight)
    assert ours.charge == pytest.approx(charge, abs=5e-5)
    assert ours.dipole == pytest.approx(moment, abs=5e-4)


def test_levels_agree() -> None:
    case = fitted_water()
    best = hirshfeld(case.molecule, case.density, case.basis, level=5)
    for level, tolerance in ((2, 1e-3), (3, 2e-4), (4, 2e-5)):
        found = hirshfeld(case.molecule, case.density, case.basis, level=level)
        assert found.charge == pytest.approx(best.charge, abs=tolerance)
        assert found.dipole == pytest.approx(best.dipole, abs=5 * tolerance)
        assert abs(found.charge_error) < tolerance
        assert found.dipole_error < 5 * tolerance


@pytest.mark.parametrize("charge", [0, -1])
def test_sum_rules(charge: int) -> None:
    """Charges and dipoles of the atoms make those of the molecule, also of hydroxide away from the origin, on a poor grid."""
    position = np.array([[3.0, -1.0, 2.0], [4.1, -0.2, 3.2], [2.0, 0.4, 1.0]])
    molecule = Molecule(np.array([8, 1, 1][: 3 + charge]), position[: 3 + charge], charge)
    case = fitted(molecule, LIBRARY_AO, Basis.load("small"))
    found = hirshfeld(molecule, case.density, case.basis, level=2)
    assert found.charge.sum() == pytest.approx(charge, abs=1e-9)
    assert 1e-9 < abs(found.charge_error) < 1e-3
    total = found.charge @ position[: 3 + charge] + found.dipole.sum(0)
    nuclear = molecule.number @ molecule.position / molecule.number.sum()
    expected = dipole(Molecules.of([molecule]), case.density, case.basis.multiplicity)[0].numpy() + charge * nuclear
    assert total == pytest.approx(expected, abs=1e-9)
    by_pyscf = molecule.number @ molecule.position - np.einsum("xpq,pq->x", case.mol.intor("int1e_r"), case.matrix)
    assert total == pytest.approx(by_pyscf, abs=1e-5)


def test_turned_and_moved() -> None:
    """Charges stay, dipoles turn: grids do not turn with the molecule, so to their accuracy."""
    case = fitted_water()
    rotation = random_rotation()
    turned = fitted(case.molecule.moved(case.molecule.position @ rotation.T + 5.0), LIBRARY_AO, Basis.load("small"))
    straight = fitted(case.molecule, LIBRARY_AO, Basis.load("small"))
    a, b = (hirshfeld(c.molecule, c.density, c.basis, level=4) for c in (straight, turned))
    assert b.charge == pytest.approx(a.charge, abs=3e-5)
    assert b.dipole == pytest.approx(a.dipole @ rotation.T, abs=2e-4)


def test_free_atoms_have_nothing(basis: Basis, water: Molecule) -> None:
    found = hirshfeld(water, free_atoms(basis, water), basis, level=1)
    assert np.abs(found.charge).max() == 0.0
    assert np.abs(found.dipole).max() == 0.0


def test_shares_are_shares(water: Molecule) -> None:
    """Between 0 and 1 everywhere, also where a free atom's Gaussians fall below zero, and where all have vanished."""
    basis = Basis.load("large")
    point = torch.as_tensor(np.random.default_rng(1).normal(size=(4000, 3)) * 12)
    free = free_atom_densities(water, basis, point)
    assert float(free.min()) < 0
    share = hirshfeld_weights(free, torch.cdist(torch.as_tensor(water.position), point))
    assert float(share.min()) >= 0
    assert float((share.sum(0) - 1).abs().max()) < 1e-12


def test_what_is_refused(basis: Basis, water: Molecule) -> None:
    """A density no grid of that level can see, coefficients of another molecule."""
    spike = free_atoms(basis, water)
    spike.coefficient[0, 0] = 5.0
    steep = Density(spike.coefficient, torch.where(spike.exponent == spike.exponent[0, 0], 1e9, spike.exponent))
    with pytest.raises(DataError, match="the quadrature misses") as error:
        hirshfeld(water, Density(steep.coefficient * 1e6, steep.exponent), basis, level=1)
    assert "\n" not in str(error.value)
    with pytest.raises(BasisError, match="coefficients have shape"):
        hirshfeld(water, Density(spike.coefficient[:2], spike.exponent), basis)
