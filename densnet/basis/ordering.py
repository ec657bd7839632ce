"""The one door between PySCF's order of functions and the e3nn irreps order of densnet.

Within an atom both sort by l, then shell, then m. For l = 0 and 1 the components agree; for l >= 2
c_e3nn = D_l(P) c_pyscf with P = [[0,0,1],[1,0,0],[0,1,0]] (not a permutation: PySCF's harmonics have their axis along z,
e3nn's along y). Pinned pointwise in space by tests/test_basis.py, because round trips prove nothing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from ase.data import chemical_symbols
from e3nn import o3

from densnet.basis.shells import Basis


@cache
def rotation(l: int) -> np.ndarray:
    """(2l+1, 2l+1) orthogonal matrix that takes PySCF's components of degree l to e3nn's."""
    if l < 2:
        return np.eye(2 * l + 1)
    # D_l(P) from its definition Y(P x) = D Y(x), which is good to round-off; e3nn's D_from_matrix goes through Euler
    # angles and loses half of the digits at this P.
    axes = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(8 * l + 8, 3)))
    here = o3.spherical_harmonics(l, x, normalize=True, normalization="component").numpy()
    there = o3.spherical_harmonics(l, x @ axes.T, normalize=True, normalization="component").numpy()
    return np.linalg.lstsq(here, there, rcond=None)[0].T


def pyscf_basis(basis: Basis) -> dict[str, list]:
    """The shells in PySCF's input format, for gto.M(basis=...)."""
    return {chemical_symbols[e.number]: [[s.l, [s.exponent, 1.0]] for s in e.shells] for e in basis.elements}


def pyscf_free_atoms(basis: Basis) -> dict[str, list]:
    """The s Gaussians of the free atoms in PySCF's input format."""
    return {chemical_symbols[e.number]: [[0, [a, 1.0]] for a in sorted(e.atom.exponent, reverse=True)] for e in basis.elements}


def free_atom_coefficients(basis: Basis, number: np.ndarray) -> np.ndarray:
    """Free-atom coefficients of all atoms in the order of `pyscf_free_atoms`."""
    order = [np.argsort(e.atom.exponent)[::-1] for e in basis.elements]
    return np.concatenate([np.array(basis.elements[r].atom.coefficient)[order[r]] for r in basis.rows(number)])


def degrees(basis: Basis, number: np.ndarray) -> list[int]:
    """Angular momentum of every shell of the molecule, in file order (atom, l, shell)."""
    return [s.l for r in basis.rows(number) for s in basis.elements[r].shells]


def matrix_to_irreps(matrix: np.ndarray, basis: Basis, number: np.ndarray) -> np.ndarray:
    """T M (or T M T^T if M is square over functions) with T the block-diagonal PySCF -> e3nn rotation.

    matrix: (n, k) or (n, n), rows in PySCF order of the molecule's n functions. A vector is passed as (n, 1).
    """

    def rotate(rows: np.ndarray) -> np.ndarray:
        out, start = np.empty_like(rows), 0
        for l in degrees(basis, number):
            stop = start + 2 * l + 1
            out[start:stop] = rotation(l) @ rows[start:stop]
            start = stop
        return out

    turned = rotate(np.asarray(matrix, dtype=np.float64))
    return rotate(turned.T).T if matrix.shape[0] == matrix.shape[1] and matrix.shape[0] > 1 else turned


def scatter(flat: np.ndarray, basis: Basis, number: np.ndarray) -> np.ndarray:
    """(n,) coefficients of existing functions, irreps components -> (N, width) block with zeros where masked."""
    mask = basis.mask[basis.rows(number)]
    block = np.zeros(mask.shape)
    block[mask] = flat
    return block


def to_irreps(c_pyscf: np.ndarray, basis: Basis, number: np.ndarray) -> np.ndarray:
    """(n,) PySCF coefficients -> (N, width) e3nn block."""
    return scatter(matrix_to_irreps(c_pyscf[:, None], basis, number)[:, 0], basis, number)


def to_pyscf(block: np.ndarray, basis: Basis, number: np.ndarray) -> np.ndarray:
    """(N, width) e3nn block -> (n,) PySCF coefficients."""
    flat = np.asarray(block, dtype=np.float64)[basis.mask[basis.rows(number)]]
    out, start = np.empty_like(flat), 0
    for l in degrees(basis, number):
        stop = start + 2 * l + 1
        out[start:stop] = rotation(l).T @ flat[start:stop]
        start = stop
    return out
