"""Errors of one frame's density against the SCF density, by quadrature: in total, by atom, by distance from the nuclei."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densnet.basis.shells import Basis
from densnet.data.fits import DensityGrid, Fits
from densnet.observables.partition import free_atom_densities, hirshfeld_weights
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecule
from densnet.units import ANGSTROM_PER_BOHR

SHELL_WIDTH = 0.05 / ANGSTROM_PER_BOHR  # bohr
SHELLS = 101  # the last one is open
BLOCK = 50000  # points at a time; several (atoms, points) arrays live at once
SAMPLE = 500  # points of a frame that the parity plot shows


@dataclass(frozen=True)
class Shares:
    """Integrals of |rho - rho_SCF|, |rho_fit - rho_SCF| and rho_SCF over the parts of space, (parts,) each, electrons."""

    error: np.ndarray
    fit_error: np.ndarray
    electrons: np.ndarray

    @staticmethod
    def of(rows: Tensor) -> Shares:
        """rows: (3, parts)."""
        error, fit_error, electrons = rows.cpu().numpy()
        return Shares(error, fit_error, electrons)


@dataclass(frozen=True)
class DensityErrors:
    """Integrals over all space, in electrons.

    error: |rho - rho_SCF|; fit_error: |rho_fit - rho_SCF|; error_to_fit: |rho - rho_fit|; deformation: |rho_SCF - rho_SAD|.
    atoms: of the N Hirshfeld atoms; shells: of SHELLS distances from the nearest nucleus, shell k from k to k + 1 times
    SHELL_WIDTH; each sums to the total. sample: (SAMPLE, 2) rho_SCF and rho at points drawn at random from the quadrature,
    e/bohr^3.
    """

    n_electrons: int
    error: float
    fit_error: float
    error_to_fit: float
    deformation: float
    atoms: Shares
    shells: Shares
    sample: np.ndarray

    @property
    def nmae_percent(self) -> float:
        return 100.0 * self.error / self.n_electrons

    @property
    def fit_floor_percent(self) -> float:
        return 100.0 * self.fit_error / self.n_electrons

    @property
    def nmae_fit_percent(self) -> float:
        return 100.0 * self.error_to_fit / self.n_electrons

    @property
    def deformation_error_percent(self) -> float:
        return 100.0 * self.error / self.deformation


def fitted_density(fits: Fits, frame: int, like: Tensor) -> Density:
    """The fitted density of a frame, on the device of `like` and in its precision."""
    exponent = fits.basis.slot_exponent[fits.basis.rows(fits.frame(frame).number)]
    return Density(torch.as_tensor(fits.coefficient[fits.atoms(frame)]).to(like), torch.as_tensor(exponent).to(like))


def density_errors(molecule: Molecule, density: Density, fit: Density, basis: Basis, reference: DensityGrid) -> DensityErrors:
    """Compare one molecule's density, and its fit, with the SCF density on the points of `reference` (a quadrature of any

    kind). The work is done in float64 on the device of the density.
    """
    device = density.coefficient.device
    point, weight, scf = (
        torch.as_tensor(x).to(device, torch.float64) for x in (reference.point, reference.weight, reference.density)
    )
    position = torch.as_tensor(molecule.position).to(point)
    rho = torch.empty_like(scf)
    totals = point.new_zeros(2)
    atoms, shells = point.new_zeros((3, len(position))), point.new_zeros((3, SHELLS))
    for start in range(0, len(point), BLOCK):
        block = slice(start, start + BLOCK)
        x, w, reference_density = point[block], weight[block], scf[block]
        rho[block] = density_on_points(molecule, density, basis, x)
        fitted = density_on_points(molecule, fit, basis, x)
        free, distance = free_atom_densities(molecule, basis, x), torch.cdist(position, x)
        totals += torch.stack([(rho[block] - fitted).abs() @ w, (reference_density - free.sum(0)).abs() @ w])
        parts = w * torch.stack([(rho[block] - reference_density).abs(), (fitted - reference_density).abs(), reference_density])
        atoms += parts @ hirshfeld_weights(free, distance).T
        shell = (distance.amin(0) / SHELL_WIDTH).long().clamp_max(SHELLS - 1)
        shells.index_add_(1, shell, parts)
    error_to_fit, deformation = totals.tolist()
    error, fit_error, _ = atoms.sum(1).tolist()
    drawn = np.random.default_rng(len(point)).integers(len(point), size=SAMPLE)
    sample = torch.stack([scf, rho], 1)[drawn].cpu().numpy()
    return DensityErrors(
        molecule.n_electrons, error, fit_error, error_to_fit, deformation, Shares.of(atoms), Shares.of(shells), sample
    )
