"""The starting density matrix: every part of its Kohn-Sham matrix against PySCF or a derivative, then the SCF itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import AO_BASIS
from pyscf import dft, scf

from densnet.basis.ordering import pyscf_basis, to_irreps
from densnet.basis.shells import Basis, Element, Shell
from densnet.data.labels import Level
from densnet.errors import BasisError, ConfigError, StructureError
from densnet.observables.real_space import density_gradient_on_points, density_on_points
from densnet.reference.fitting import fit, project, pyscf_molecule
from densnet.reference.initial_guess import (
    converge,
    coulomb_matrix,
    density_functions,
    exchange_correlation_matrix,
    initial_density_matrix,
    step_functional,
)
from densnet.structures import Density, Molecule

LEVEL = Level(ao_basis=AO_BASIS, grid_level=1)


def density_of(basis: Basis, molecule: Molecule, coefficient: np.ndarray) -> Density:
    return Density(torch.as_tensor(coefficient), torch.as_tensor(basis.slot_exponent[basis.rows(molecule.number)]))


@pytest.fixture(scope="module")
def fitted(basis: Basis, water: Molecule, water_scf: dft.rks.RKS) -> Density:
    moment = water_scf.dip_moment(unit="AU", verbose=0)
    return density_of(basis, water, fit(water, project(water, water_scf.make_rdm1(), AO_BASIS, basis), moment, basis).coefficient)


def random_density(basis: Basis, molecule: Molecule, flexible: bool) -> Density:
    """Coefficients of every function; exponents that cross within an l if flexible."""
    rng = np.random.default_rng(4)
    rows = basis.rows(molecule.number)
    coefficient = np.where(basis.mask[rows], rng.normal(size=(len(rows), basis.width)) * 0.05, 0.0)
    factor = np.exp(rng.uniform(-1.2, 1.2, size=basis.slot_exponent[rows].shape)) if flexible else 1.0
    exponent = np.where(basis.slot_mask[rows], basis.slot_exponent[rows] * factor, 1.0)
    return Density(torch.as_tensor(coefficient), torch.as_tensor(exponent))


@pytest.mark.parametrize("flexible", [False, True])
def test_functions_handed_to_pyscf_are_those_of_the_density(basis: Basis, water: Molecule, flexible: bool) -> None:
    """Point by point in space, which no mistake of order, component or exponent survives."""
    density = random_density(basis, water, flexible)
    point = np.random.default_rng(0).normal(size=(200, 3)) * 2
    mol, coefficient = density_functions(water, density, basis)
    expected = density_on_points(water, density, basis, torch.as_tensor(point), prior=False).numpy()
    assert mol.eval_gto("GTOval_sph", point) @ coefficient == pytest.approx(expected, abs=1e-12)


def test_coulomb_matrix_of_a_density_that_orbitals_have_too(basis: Basis, water: Molecule) -> None:
    """A density matrix of primitive s and p functions whose products are single Gaussians: s s, s p and off-diagonal p p.

    J comes from PySCF's four-centre integrals there, and from three-centre integrals over densnet's coefficients here.
    """
    s, p = 0.8, 0.5
    orbitals = {"H": [[0, [0.6, 1.0]]], "O": [[0, [s, 1.0]], [1, [p, 1.0]]]}
    products = {1: (Shell(0, 1.2),), 8: (Shell(0, 2 * s), Shell(1, s + p), Shell(2, 2 * p))}
    atoms = {e.number: e.atom for e in basis.elements}
    exact = Basis("products", "pbe", AO_BASIS, tuple(Element(z, shells, atoms[z]) for z, shells in products.items()))
    mol = pyscf_molecule(water, orbitals)
    matrix = np.diag([1.3, 0.0, 0.0, 0.0, 0.7, 0.4])  # O s, O px py pz, H, H
    for i, j, value in ((0, 1, 0.3), (0, 2, -0.2), (0, 3, 0.1), (1, 2, 0.4), (2, 3, -0.3), (1, 3, 0.2)):
        matrix[i, j] = matrix[j, i] = value
    aux = pyscf_molecule(water, pyscf_basis(exact))
    integrals = (mol + aux).intor("int3c1e", shls_slice=(0, mol.nbas, 0, mol.nbas, mol.nbas, mol.nbas + aux.nbas))
    flat = np.linalg.solve(aux.intor("int1e_ovlp"), np.einsum("ij,ijk->k", matrix, integrals))
    density = density_of(exact, water, to_irreps(flat, exact, water.number))
    point = np.random.default_rng(1).normal(size=(50, 3)) * 2
    value = mol.eval_gto("GTOval_sph", point)
    rho = np.einsum("gi,ij,gj->g", value, matrix, value)
    assert density_on_points(water, density, exact, torch.as_tensor(point), prior=False).numpy() == pytest.approx(rho, abs=1e-12)

    both = coulomb_matrix(water, density, exact, AO_BASIS)
    free = coulomb_matrix(water, Density(torch.zeros_like(density.coefficient), density.exponent), exact, AO_BASIS)
    ao = pyscf_molecule(water, AO_BASIS)
    pair = ao + mol
    bra, ket = (0, ao.nbas), (ao.nbas, ao.nbas + mol.nbas)
    expected = np.einsum("ijkl,kl->ij", pair.intor("int2e", shls_slice=(*bra, *bra, *ket, *ket)), matrix)
    assert both - free == pytest.approx(expected, abs=1e-10)


def test_coulomb_matrix_has_the_free_atoms(basis: Basis, water: Molecule, fitted: Density, water_scf: dft.rks.RKS) -> None:
    """Of the fitted SCF density it is that of the SCF density, to the error of the fit."""
    found = coulomb_matrix(water, fitted, basis, AO_BASIS)
    assert found == pytest.approx(
        scf.hf.get_jk(pyscf_molecule(water, AO_BASIS), water_scf.make_rdm1(), with_k=False)[0], abs=0.01
    )


@pytest.mark.parametrize("xc", ["pbe", "lda,vwn", "b88,lyp"])
def test_exchange_correlation_matrix_is_the_derivative_of_the_energy(
    basis: Basis, water: Molecule, fitted: Density, xc: str
) -> None:
    """V_ij = d E_xc[rho + t chi_i chi_j] / dt by central differences of the energy on the same grid."""
    matrix = exchange_correlation_matrix(water, fitted, basis, AO_BASIS, xc, 0)
    assert matrix == pytest.approx(matrix.T, abs=1e-14)
    mol = pyscf_molecule(water, AO_BASIS)
    grid = dft.gen_grid.Grids(mol)
    grid.level = 0
    grid.build(with_non0tab=False)
    assert grid.coords is not None
    value, gradient = (x.numpy().T for x in density_gradient_on_points(water, fitted, basis, torch.as_tensor(grid.coords)))
    rho = np.vstack([value, gradient])
    ao = mol.eval_gto("GTOval_sph_deriv1", grid.coords)
    kind = dft.libxc.xc_type(xc)

    def energy(t: float, i: int, j: int) -> float:
        product = np.vstack(
            [ao[0, :, i] * ao[0, :, j], *(ao[x, :, i] * ao[0, :, j] + ao[0, :, i] * ao[x, :, j] for x in (1, 2, 3))]
        )
        moved = rho + t * product
        moved[:, moved[0] < 0] = 0
        moved = moved if kind == "GGA" else moved[0]
        return float(dft.libxc.eval_xc(xc, moved, deriv=0)[0] * moved.reshape(-1, len(grid.weights))[0] @ grid.weights)

    for i, j in ((0, 0), (1, 4), (3, 5), (9, 11), (2, 12)):
        step = 1e-4
        slope = (energy(step, i, j) - energy(-step, i, j)) / (2 * step)
        assert matrix[i, j] == pytest.approx(slope, abs=2e-6)


def test_start_is_a_closed_shell_density_matrix(basis: Basis, water: Molecule, fitted: Density) -> None:
    matrix = initial_density_matrix(water, fitted, basis, LEVEL)
    overlap = pyscf_molecule(water, AO_BASIS).intor("int1e_ovlp")
    assert np.sum(matrix * overlap) == pytest.approx(10, abs=1e-9)
    assert matrix @ overlap @ matrix == pytest.approx(2 * matrix, abs=1e-9)


def test_scf_from_it_is_shorter_and_ends_in_the_same_state(basis: Basis, water: Molecule, fitted: Density) -> None:
    start = initial_density_matrix(water, fitted, basis, LEVEL)
    ours, default = converge(water, LEVEL, start), converge(water, LEVEL, "minao")
    assert ours.converged
    assert default.converged
    assert ours.energy == pytest.approx(default.energy, abs=1e-8)
    assert ours.iterations <= default.iterations - 2
    assert 0 < ours.first_error < 1e-4  # an idempotent matrix is variational; 3e-6 hartree were found
    assert abs(default.first_error) > 100 * ours.first_error


@pytest.mark.parametrize(
    ("xc", "step"),
    [("pbe", "pbe"), ("lda,vwn", "lda,vwn"), ("b88,lyp", "b88,lyp"), ("pbe0", "pbe"), ("b3lyp", "pbe"), ("scan", "pbe"),
     ("wb97x-v", "pbe"), ("cam-b3lyp", "pbe"), ("hf", "pbe"), ("b97m-v", "pbe")],
)  # fmt: skip
def test_functionals_that_need_orbitals_start_from_a_semilocal_step(xc: str, step: str) -> None:
    assert step_functional(xc) == step


def test_hybrid_converges_to_its_own_state(basis: Basis, water: Molecule, fitted: Density) -> None:
    level = dataclasses.replace(LEVEL, xc="pbe0")
    ours = converge(water, level, initial_density_matrix(water, fitted, basis, level))
    default = converge(water, level, "minao")
    assert ours.energy == pytest.approx(default.energy, abs=1e-8)
    assert ours.iterations < default.iterations


def test_what_cannot_start_is_said(basis: Basis, water: Molecule, fitted: Density) -> None:
    with pytest.raises(BasisError, match="this molecule alone"):
        coulomb_matrix(water, Density(fitted.coefficient[:2], fitted.exponent[:2]), basis, AO_BASIS)
    with pytest.raises(StructureError, match="even number"):
        initial_density_matrix(Molecule(water.number, water.position, 1), fitted, basis, LEVEL)
    with pytest.raises(ConfigError, match="unknown"):
        initial_density_matrix(water, fitted, basis, dataclasses.replace(LEVEL, xc="nonsense"))


def test_ion_keeps_its_charge(basis: Basis) -> None:
    """Hydroxide: the molecule says how many electrons there are, not the nuclei."""
    molecule = Molecule(np.array([8, 1]), np.array([[0, 0, 0.2], [1.8, 0, 0]]), -1)
    density = density_of(basis, molecule, np.zeros((2, basis.width)))
    overlap = pyscf_molecule(molecule, AO_BASIS).intor("int1e_ovlp")
    assert np.sum(initial_density_matrix(molecule, density, basis, LEVEL) * overlap) == pytest.approx(10, abs=1e-9)
