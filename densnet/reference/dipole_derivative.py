"""Derivatives of the Kohn-Sham dipole with respect to the nuclei, from forces in weak electric fields.

d (u . mu) / d R = d F / d f, the change of the forces F with the strength f of a field along u: central differences over two
self-consistent calculations give the 3N derivatives of one component of the dipole at once, where displacing the nuclei
would take 6N. A. Komornicki and J. W. McIver, J. Chem. Phys. 70, 2014 (1979).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyscf import lib

from densnet.data.dipole_derivatives import SUM_RULE
from densnet.data.labels import Level
from densnet.errors import ConfigError
from densnet.reference.kohn_sham import NoLabel, ScfSettings, mean_field, mole
from densnet.structures import Molecule


@dataclass(frozen=True)
class FieldSettings:
    """step: strength of the field, hartree/(e bohr); grid_level and conv_tol (hartree) take the place of the level's.

    A difference of forces on the same grid needs less of a grid than the forces do.
    """

    step: float = 3e-3
    grid_level: int = 1
    conv_tol: float = 1e-8

    def __post_init__(self) -> None:
        if not (0 < self.step <= 0.02 and 0 <= self.grid_level <= 9 and 0 < self.conv_tol < 1e-4):
            raise ConfigError(
                f"field step {self.step}, grid_level {self.grid_level}, conv_tol {self.conv_tol}; expected a step up to 0.02 "
                "hartree/(e bohr), a grid of 0..9 and a positive tolerance below 1e-4 hartree"
            )


def dipole_derivative(
    molecule: Molecule,
    level: Level,
    scf: ScfSettings,
    settings: FieldSettings,
    direction: np.ndarray,
    guess: np.ndarray | None = None,
) -> np.ndarray | NoLabel:
    """(N, 3) e: d (direction . mu) / d R about a fixed origin; the sum over atoms is charge * direction.

    direction: (3,) unit vector; guess: (nao, nao) density matrix without field; PySCF's own if None.
    Raises StructureError and ConfigError as kohn_sham.check does.
    """
    if abs(np.linalg.norm(direction) - 1) > 1e-9:
        raise ConfigError(f"the direction of the field has length {np.linalg.norm(direction):.3g}; expected a unit vector")
    lib.num_threads(scf.threads)
    level = replace(level, grid_level=settings.grid_level, conv_tol=settings.conv_tol)
    mol = mole(molecule, level, scf)
    with mol.with_common_orig((0.0, 0.0, 0.0)):
        position = np.einsum("x,xpq->pq", direction, mol.intor("int1e_r"))
        # <p| r_x d/dr_y |q>: how the basis functions q follow their atom through the field.
        slope = np.einsum("x,xypq->ypq", direction, mol.intor("int1e_irp").reshape(3, 3, mol.nao, mol.nao))
    without: Any = mean_field(mol, level, scf)
    core = without.get_hcore()
    without.build()
    without.grids.build()
    gradients, matrices = [], []
    for sign in (1, -1):
        mf = without.copy()
        field = sign * settings.step
        mf.get_hcore = lambda *_, h=core + field * position: h  # electrons have charge -1: their energy is +field u.r
        if matrices:
            guess = 2 * guess - matrices[0] if guess is not None else matrices[0]
        try:
            mf.kernel(guess)
            if not mf.converged:
                return NoLabel(
                    f"SCF in a field of {field:g} not converged to {level.conv_tol:g} hartree in {scf.max_cycle} cycles"
                )
            gradient = np.asarray(mf.nuc_grad_method().kernel())
        except (np.linalg.LinAlgError, ArithmeticError, MemoryError) as error:
            return NoLabel(f"SCF in a field stopped: {type(error).__name__}: {' '.join(str(error).split())}")
        matrices.append(np.asarray(mf.make_rdm1()))
        felt = np.einsum("ypq,pq->yq", slope, matrices[-1])
        for atom, (_, _, start, stop) in enumerate(mol.aoslice_by_atom()):
            gradient[atom] -= 2 * field * felt[:, start:stop].sum(1)
        gradients.append(gradient)
    electrons = -(gradients[0] - gradients[1]) / (2 * settings.step)
    result = electrons + molecule.number[:, None] * direction
    if not np.isfinite(result).all():
        return NoLabel("the derivatives of the dipole are not finite")
    broken = np.abs(result.sum(0) - molecule.charge * direction).max()
    if broken > SUM_RULE:
        return NoLabel(f"the derivatives miss the sum rule by {broken:.3g} e, more than {SUM_RULE}; use a finer grid")
    return result
