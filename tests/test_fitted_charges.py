"""Potential-derived charges: exact where charges are the truth, and against independent solutions of the same problem."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_rotation, wigner_d
from library_water import fitted_water, scf_potential
from scipy.optimize import minimize

from densnet.basis import moments
from densnet.basis.shells import Basis
from densnet.errors import ConfigError, DataError
from densnet.observables.fitted_charges import LAYERS, constrained_charges, fit_charges, potential_derived_charges
from densnet.observables.multipoles import dipole
from densnet.observables.surface import scaled_spheres
from densnet.structures import Density, Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR


def test_charges_that_are_there(basis: Basis, water: Molecule) -> None:
    """Tight s functions hold known charges: seen from outside they are points (the free atoms' tails apart), and are found."""
    charge = np.array([-0.8, 0.5, 0.3])
    rows = basis.rows(water.number)
    bare = Basis("bare", basis.xc, basis.ao_basis, tuple(
        type(e)(e.number, e.shells, type(e.atom)((50.0,), (e.number / (2 * np.pi / 50.0) ** 0.75,), 0.0)) for e in basis.elements
    ))  # fmt: skip
    c = torch.zeros(3, basis.width, dtype=torch.float64)
    exponent = torch.as_tensor(bare.slot_exponent[rows]).clone()
    exponent[:, 0] = 40.0
    c[:, 0] = -torch.as_tensor(charge) / moments.monopole(exponent[:, 0])
    found = fit_charges(water, Density(c, exponent), bare)
    assert found.charge == pytest.approx(charge, abs=1e-8)
    assert found.rms < 1e-9
    assert found.dipole == pytest.approx(charge @ water.position, abs=1e-8)
    restrained = fit_charges(water, Density(c, exponent), bare, restraint=5e-4)
    assert 0.001 < np.abs(restrained.charge - charge).max() < 0.1
    ion = Molecule(water.number, water.position, 1)
    c[1, 0] -= 1 / moments.monopole(exponent[1, 0])
    assert fit_charges(ion, Density(c, exponent), bare).charge == pytest.approx(charge + np.array([0, 1, 0]), abs=1e-8)


def points_and_scf() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of all layers, the area of each in square angstrom, and PySCF's potential of the density matrix."""
    case = fitted_water()
    surfaces = [scaled_spheres(case.molecule, s, 0.5) for s in LAYERS]
    point = torch.cat([s.point for s in surfaces]).numpy()
    return point, torch.cat([s.area for s in surfaces]).numpy() * ANGSTROM_PER_BOHR**2, scf_potential(case, point)


@pytest.mark.parametrize("with_dipole", [False, True])
def test_against_multipliers_on_pyscfs_potential(with_dipole: bool) -> None:
    """Lagrange's linear system on PySCF's potential; ours differ by the error of the density fit."""
    case = fitted_water()
    point, area, v = points_and_scf()
    design = 1 / np.linalg.norm(point[:, None] - case.molecule.position, axis=-1)
    rows = [np.ones(3)]
    targets = [0.0]
    mu = dipole(Molecules.of([case.molecule]), case.density, case.basis.multiplicity)[0].numpy()
    if with_dipole:  # a plane of three atoms carries two components
        normal = np.linalg.svd(case.molecule.position - case.molecule.position.mean(0))[2]
        rows += list((case.molecule.position @ normal[:2].T).T)
        targets += list(normal[:2] @ mu)
    matrix = np.zeros((3 + len(rows),) * 2)
    matrix[:3, :3] = 2 * design.T @ (area[:, None] * design)
    matrix[3:, :3] = rows
    matrix[:3, 3:] = np.transpose(rows)
    expected = np.linalg.solve(matrix, [*(2 * design.T @ (area * v)), *targets])[:3]
    found = fit_charges(case.molecule, case.density, case.basis, points_per_bohr2=0.5, with_dipole=with_dipole)
    assert found.charge == pytest.approx(expected, abs=2e-4)
    assert abs(found.charge.sum()) < 1e-12
    assert (np.abs(found.dipole - mu).max() < 1e-6) == with_dipole
    left = v - design @ expected
    assert found.rms == pytest.approx(np.sqrt(np.mean(left**2)), rel=0.02)
    assert found.largest == pytest.approx(np.abs(left).max(), rel=0.05)
    assert found.relative_rms == pytest.approx(np.sqrt(np.mean(left**2) / np.mean(v**2)), rel=0.02)
    assert found.points == len(point)
    default = potential_derived_charges(case.molecule, case.density, case.basis, with_dipole=with_dipole)
    assert default == pytest.approx(expected, abs=5e-3)


def test_restraint_against_a_minimiser() -> None:
    """scipy on the penalty itself, the constraint put in by hand; hydrogen is free."""
    case = fitted_water()
    point, area, v = points_and_scf()
    design = 1 / np.linalg.norm(point[:, None] - case.molecule.position, axis=-1)

    def penalty(free: np.ndarray) -> float:
        q = np.array([free[0], free[1], -free.sum()])
        return float(area @ (v - design @ q) ** 2 + 0.02 * (np.hypot(q[0], 0.1) - 0.1))

    best = minimize(penalty, [-0.5, 0.2], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000}).x
    kwargs = {"points_per_bohr2": 0.5, "restraint": 0.02}
    found = fit_charges(case.molecule, case.density, case.basis, **kwargs).charge
    assert found == pytest.approx([*best, -best.sum()], abs=3e-4)
    free = fit_charges(case.molecule, case.density, case.basis, points_per_bohr2=0.5).charge
    assert abs(found[0]) < abs(free[0]) - 0.01
    dense = fit_charges(case.molecule, case.density, case.basis, points_per_bohr2=4.0, restraint=0.02).charge
    assert dense == pytest.approx(found, abs=5e-3)


def test_solutions_of_the_constrained_system() -> None:
    """Stationary along every direction the constraints leave, restrained or not; undetermined charges are the smallest."""
    rng = np.random.default_rng(4)
    matrix, v = torch.as_tensor(rng.normal(size=(30, 5))), torch.as_tensor(rng.normal(size=30))
    constraint, target = torch.as_tensor(rng.normal(size=(2, 5))), torch.tensor([0.3, -0.2], dtype=torch.float64)
    for a in (0.0, 3.0):
        restraint = torch.full((5,), a, dtype=torch.float64)
        q = constrained_charges(matrix, v, constraint, target, restraint, 0.1).requires_grad_()
        assert (constraint @ q).detach().numpy() == pytest.approx(target.numpy(), abs=1e-12)
        penalty = (v - matrix @ q).square().sum() + (restraint * ((q.square() + 0.01).sqrt() - 0.1)).sum()
        slope = torch.autograd.grad(penalty, q)[0].numpy()
        allowed = np.linalg.svd(constraint.numpy())[2][2:]
        assert np.abs(allowed @ slope).max() < 1e-7 < np.abs(slope).max()
    matrix[:, 4] = matrix[:, 3]  # the points cannot tell these two apart
    one = torch.ones(1, 5, dtype=torch.float64)
    q = constrained_charges(matrix, v, one, target[:1], torch.zeros(5, dtype=torch.float64), 0.1)
    assert float((q[3] - q[4]).abs()) < 1e-9


def test_turned() -> None:
    """Points do not turn with the molecule; charges of dense layers hardly know."""
    case, rotation = fitted_water(), torch.as_tensor(random_rotation())
    l = sum(n > 0 for n in case.basis.multiplicity)
    blocks, start = [], 0
    for k in range(l):
        n = case.basis.multiplicity[k]
        block = case.density.coefficient[:, start : start + n * (2 * k + 1)].view(3, n, 2 * k + 1)
        blocks.append((block @ wigner_d(k, rotation.numpy()).T).reshape(3, -1))
        start += n * (2 * k + 1)
    turned = Density(torch.cat(blocks, 1), case.density.exponent)
    molecule = case.molecule.moved(case.molecule.position @ rotation.numpy().T)
    a = potential_derived_charges(case.molecule, case.density, case.basis)
    b = potential_derived_charges(molecule, turned, case.basis)
    assert b == pytest.approx(a, abs=3e-3)


def test_lines_points_and_bad_settings(basis: Basis) -> None:
    """One atom has its charge; a line of atoms carries no dipole across it; settings that mean nothing."""

    def empty(molecule: Molecule) -> Density:
        rows = basis.rows(molecule.number)
        return Density(torch.zeros(len(rows), basis.width, dtype=torch.float64), torch.as_tensor(basis.slot_exponent[rows]))

    ion = Molecule(np.array([8]), np.zeros((1, 3)), -2)
    assert potential_derived_charges(ion, empty(ion), basis).tolist() == [-2.0]
    line = Molecule(np.array([8, 1]), np.array([[0.0, 0, 0], [0, 0, 1.8]]), -1)
    density = empty(line)
    assert fit_charges(line, density, basis, with_dipole=True).charge.sum() == pytest.approx(-1, abs=1e-12)
    density.coefficient[0, basis.multiplicity[0]] = 0.1  # a p function along x
    with pytest.raises(DataError, match="fit without the dipole") as error:
        fit_charges(line, density, basis, with_dipole=True)
    assert "\n" not in str(error.value)
    for settings in ({"layers": ()}, {"restraint": -1.0}, {"tightness": 0.0}):
        with pytest.raises(ConfigError, match="expected at least one layer"):
            fit_charges(line, density, basis, **settings)
