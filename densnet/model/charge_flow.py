"""What makes the dipole change along a normal mode: charge that moves with its atoms, charge that flows, atoms that deform.

    mu = sum_A q_A R_A + p_A                  about a fixed origin, also for ions
    dmu/dQ = sum_A q_A dR_A/dQ + sum_A dq_A/dQ R_A + sum_A dp_A/dQ

The charges q and atomic dipoles p are Hirshfeld's. They are one way of many to share a density among atoms, and so is the
split; its sum is none. The third term holds all that happens inside the atoms.

Source: W. B. Person, J. H. Newton, J. Chem. Phys. 61, 1040 (1974) (polar tensors); W. T. King, G. B. Mast, J. Phys. Chem. 80,
2521 (1976) (charge, charge flux, overlap); R. L. A. Haiduke, R. E. Bruns, J. Phys. Chem. A 109, 2680 (2005) (charge, charge
flux, dipole flux with atomic dipoles).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from densnet.errors import ModelError
from densnet.model.densnet import DensNet
from densnet.observables.hirshfeld import hirshfeld
from densnet.structures import Density, Molecule, Molecules

STEP = 0.02  # bohr; largest displacement of an atom in the central differences


class Moments(Protocol):
    """charge: (N,) e; dipole: (N, 3) e*bohr, of the atoms of a molecule."""

    @property
    def charge(self) -> np.ndarray: ...
    @property
    def dipole(self) -> np.ndarray: ...


@dataclass(frozen=True)
class ChargeFlow:
    """The three parts of dmu/dQ of n modes, (n, 3) each, e per root of the electron mass.

    moving: charges moving with their atoms; flowing: charge flowing between atoms; deforming: atomic dipoles changing.
    """

    moving: np.ndarray
    flowing: np.ndarray
    deforming: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """(n, 3) their sum, dmu/dQ."""
        return self.moving + self.flowing + self.deforming

    @property
    def along(self) -> np.ndarray:
        """(n, 3) the parts, in that order, projected on the direction of the total; 0 where that vanishes."""
        norm = np.linalg.norm(self.total, axis=1, keepdims=True)
        direction = np.divide(self.total, norm, out=np.zeros_like(self.total), where=norm > 0.0)
        return np.stack([(part * direction).sum(axis=1) for part in (self.moving, self.flowing, self.deforming)], axis=1)


def charge_flow(
    model: DensNet, molecule: Molecule, mass: np.ndarray, vector: np.ndarray, *, step: float = STEP, memory_mb: float = 256.0
) -> ChargeFlow:
    """Split dmu/dQ of a model's density, by central differences along the modes.

    molecule: where the modes belong, usually the minimum; mass: (N,) electron masses; vector: (3N, n) orthonormal mass-weighted
    mode vectors; step: largest displacement of an atom, bohr. The model should be float64 (differences of small numbers).
    Raises ModelError for wrong shapes or a step that is not positive.
    """
    device = next(model.parameters()).device

    def moments(displaced: Molecule) -> Moments:
        with torch.no_grad():
            density = model.density_only(Molecules.of([displaced], device)).density
        return hirshfeld(displaced, Density(density.coefficient, density.exponent), model.basis, memory_mb=memory_mb)

    return charge_flow_of(moments, molecule, mass, vector, step=step)


def charge_flow_of(
    moments: Callable[[Molecule], Moments], molecule: Molecule, mass: np.ndarray, vector: np.ndarray, *, step: float = STEP
) -> ChargeFlow:
    """`charge_flow` of any function that gives atomic charges and dipoles of a geometry."""
    n_atoms = molecule.number.size
    if vector.ndim != 2 or len(vector) != 3 * n_atoms or np.shape(mass) != (n_atoms,):
        raise ModelError(
            f"mode vectors have shape {vector.shape}, masses {np.shape(mass)}; expected ({3 * n_atoms}, modes) and "
            f"({n_atoms},); give the modes of this molecule"
        )
    if not step > 0.0:
        raise ModelError(f"step of the central differences is {step} bohr; expected a positive number; 0.02 suits most models")
    origin = molecule.position.mean(axis=0)  # the charges that flow sum to zero: any will do, a near one loses no digits
    here = moments(molecule)
    rows = []
    columns = (vector / np.repeat(np.sqrt(mass), 3)[:, None]).T.reshape(-1, n_atoms, 3)
    for column in tqdm(columns, desc="charge flow", unit="mode"):
        q_step = step / float(np.linalg.norm(column, axis=1).max())
        ends = [moments(molecule.moved(molecule.position + sign * q_step * column)) for sign in (1.0, -1.0)]
        charge, dipole = ((getattr(ends[0], n) - getattr(ends[1], n)) / (2.0 * q_step) for n in ("charge", "dipole"))
        rows.append((here.charge @ column, charge @ (molecule.position - origin), dipole.sum(axis=0)))
    moving, flowing, deforming = (np.array(part).reshape(-1, 3) for part in zip(*rows)) if rows else (np.empty((0, 3)),) * 3
    return ChargeFlow(moving, flowing, deforming)
