"""Water at PBE/aug-cc-pVDZ, its fit in the large basis of the library, and PySCF's own answers from the density matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from pyscf import dft, gto

from densnet.basis.ordering import free_atom_coefficients, pyscf_free_atoms
from densnet.basis.shells import Basis
from densnet.reference.fitting import fit, project, pyscf_molecule, scf_density
from densnet.structures import Density, Molecule

LIBRARY_AO = "aug-cc-pvdz"


@dataclass(frozen=True)
class Fitted:
    """A molecule with its SCF density matrix and the fit of it."""

    molecule: Molecule
    mol: gto.Mole
    matrix: np.ndarray
    basis: Basis
    density: Density


@cache
def fitted_water() -> Fitted:
    """A bent, unsymmetric water away from the origin."""
    molecule = Molecule(np.array([8, 1, 1]), np.array([[0.3, -0.1, 0.2], [0.5, 1.7, 0.6], [1.9, -0.7, -0.1]]))
    return fitted(molecule, LIBRARY_AO, Basis.load("large"))


def fitted(molecule: Molecule, ao_basis: str, basis: Basis) -> Fitted:
    atoms = list(zip(molecule.number.tolist(), molecule.position))
    mol = gto.M(atom=atoms, unit="Bohr", basis=ao_basis, charge=molecule.charge, verbose=0)
    calculation = dft.RKS(mol, xc="pbe").density_fit()
    calculation.grids.level = 2
    calculation.kernel()
    assert calculation.converged
    matrix = np.asarray(calculation.make_rdm1())
    moment = calculation.dip_moment(unit="AU", verbose=0)
    coefficient = fit(molecule, project(molecule, matrix, ao_basis, basis), moment, basis).coefficient
    exponent = torch.as_tensor(basis.slot_exponent[basis.rows(molecule.number)])
    return Fitted(molecule, mol, matrix, basis, Density(torch.as_tensor(coefficient), exponent))


def scf_potential(case: Fitted, point: np.ndarray) -> np.ndarray:
    """(K,) hartree/e of the density matrix and the nuclei, by PySCF's attraction integrals."""
    distance = np.linalg.norm(point[:, None] - case.mol.atom_coords(), axis=-1)
    electrons = np.einsum("gpq,pq->g", case.mol.intor("int1e_grids", grids=point), case.matrix)
    return (case.mol.atom_charges() / distance).sum(1) - electrons


def pyscf_grid(mol: gto.Mole, level: int = 5) -> tuple[np.ndarray, np.ndarray]:
    grid = dft.gen_grid.Grids(mol)
    grid.level = level
    grid.build(with_non0tab=False)
    assert grid.coords is not None
    assert grid.weights is not None
    return grid.coords, grid.weights


def pyscf_hirshfeld(case: Fitted, rho: np.ndarray, point: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Charges (N,) and dipoles (N, 3) by the textbook's formula, Z_A - integral w_A rho, on a grid, free atoms by PySCF."""
    atoms = pyscf_molecule(case.molecule, pyscf_free_atoms(case.basis))
    prior = atoms.eval_gto("GTOval_sph", point) * free_atom_coefficients(case.basis, case.molecule.number)
    owner = np.array([label[0] for label in atoms.ao_labels(fmt=False)])  # pyright: ignore[reportArgumentType]
    free = np.stack([prior[:, owner == a].sum(1) for a in range(len(case.molecule.number))]).clip(1e-40)
    part = free / free.sum(0) * weight * rho
    arm = point - case.molecule.position[:, None]
    return case.molecule.number - part.sum(1), -np.einsum("ag,agi->ai", part, arm)


def scf_rho(case: Fitted, point: np.ndarray) -> np.ndarray:
    return scf_density(case.mol, case.matrix, point)
