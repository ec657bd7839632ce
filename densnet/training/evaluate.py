"""Honest figures of a model on frames it never saw: against the SCF density itself, beside the floor of the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from densnet.data.fits import Fits
from densnet.errors import DataError
from densnet.model.densnet import DensNet
from densnet.observables.multipoles import electrons
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecules
from densnet.units import MEV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE, MILLIDEBYE_PER_AU


@dataclass(frozen=True)
class Evaluation:
    """Errors over the given frames. nmae_percent: 100 integral |rho - rho_SCF| / N on the grids of the data set, mean over

    `grid_frames` of them; fit_floor_percent: the same for the fitted coefficients on the same frames; nmae_worst_percent:
    the worst frame; dipole_mae_mD: mean length of the error vector; energy and force None without an energy network.
    """

    frames: int
    grid_frames: int
    nmae_percent: float
    nmae_worst_percent: float
    fit_floor_percent: float
    electrons_max_error: float
    dipole_mae_mD: float
    energy_mae_meV: float | None
    force_mae_meV_per_A: float | None


def nmae_on_grid(model: DensNet, fits: Fits, frame: int, density: Density) -> float:
    """Percent; density: of this frame alone, on the CPU."""
    grid, molecule = fits.grid(frame), fits.frame(frame)
    rho = density_on_points(molecule, density, model.basis, torch.as_tensor(grid.point))
    error = (rho - torch.as_tensor(grid.density)).abs() @ torch.as_tensor(grid.weight, dtype=rho.dtype)
    return 100.0 * float(error) / molecule.n_electrons


def evaluate(model: DensNet, fits: Fits, frames: np.ndarray, batch_size: int = 16, progress: bool = True) -> Evaluation:
    """Evaluate on these frames of a fitted data set. Raises DataError if there are none or none carries a grid."""
    with_grid = set(fits.grid_frame.tolist()) & set(int(f) for f in frames)
    if not with_grid:
        raise DataError(
            f"none of the {len(frames)} frames of {fits.path} has a density grid; fit again with fit.grid_frames_test > 0"
        )
    nmae, floor, charge, dipole, energy, force = [], [], [], [], [], []
    for start in tqdm(range(0, len(frames), batch_size), desc="evaluating", disable=not progress):
        chunk = frames[start : start + batch_size]
        molecules = Molecules.of([fits.frame(int(f)) for f in chunk], next(model.parameters()).device)
        if model.energy is None:
            with torch.no_grad():
                result = model.density_only(molecules)
        else:
            result = model.predict(molecules)
            energy.append((result.energy.cpu().numpy() - fits.energy[chunk]).ravel())
            assert result.force is not None
            reference = fits.force[fits.atoms_of(chunk)]
            force.append((result.force.cpu().numpy() - reference).ravel())
        count = electrons(molecules, result.density, model.basis.multiplicity).cpu().numpy()
        charge.append(np.abs(count - [fits.frame(int(f)).n_electrons for f in chunk]).max())
        dipole.append(np.linalg.norm(result.dipole.cpu().numpy() - fits.dipole[chunk], axis=1))
        for i, f in enumerate(chunk):
            if int(f) in with_grid:
                atoms = molecules.molecule == i
                own = Density(result.density.coefficient[atoms].cpu(), result.density.exponent[atoms].cpu())
                nmae.append(nmae_on_grid(model, fits, int(f), own))
                floor.append(float(fits.fit_nmae[np.flatnonzero(fits.grid_frame == f)[0]]))
    return Evaluation(
        frames=len(frames),
        grid_frames=len(nmae),
        nmae_percent=float(np.mean(nmae)),
        nmae_worst_percent=float(np.max(nmae)),
        fit_floor_percent=float(np.mean(floor)),
        electrons_max_error=float(max(charge)),
        dipole_mae_mD=MILLIDEBYE_PER_AU * float(np.concatenate(dipole).mean()),
        energy_mae_meV=MEV_PER_HARTREE * float(np.abs(np.concatenate(energy)).mean()) if energy else None,
        force_mae_meV_per_A=MEV_PER_ANGSTROM_PER_AU * float(np.abs(np.concatenate(force)).mean()) if force else None,
    )
