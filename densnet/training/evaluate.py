"""Honest figures of a model on frames it never saw: against the SCF density itself, beside the floor of the fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from densnet.data.fits import DensityGrid, Fits
from densnet.data.similarity import nearest_training_rmsd
from densnet.errors import BasisError, ConfigError, DataError
from densnet.model.checkpoint import load_model
from densnet.model.densnet import DensNet
from densnet.observables.multipoles import electrons, quadrupole
from densnet.structures import Density, Molecule, Molecules, Prediction
from densnet.training.density_errors import density_errors, fitted_density
from densnet.training.evaluation import Evaluation, FrameErrors, summarise


def model_to_evaluate(folder: str | None, device: torch.device | str = "cpu") -> DensNet:
    """A saved model. Raises ConfigError without a folder or without the device, ModelError for a bad folder."""
    if folder is None:
        raise ConfigError("no model to evaluate; expected the folder of one that train.py exported; add init=models/...")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("the evaluation is asked to run on a GPU and there is none; expected a CUDA device; use trainer=cpu")
    return load_model(folder, device)


def check_basis(model: DensNet, fits: Fits) -> None:
    """Raise BasisError unless the data were fitted in the basis of the model."""
    if model.basis.hash != fits.basis.hash:
        raise BasisError(
            f"{fits.path} was fitted in basis {fits.basis.name} ({fits.basis.hash}) but the model has basis {model.basis.name} "
            f"({model.basis.hash}); expected the same; fit the labels again with that basis, or take another model"
        )


def frames_for(fits: Fits, limit: int | None = None) -> np.ndarray:
    """The first `limit` test frames (None: all), those with a grid first. Raises DataError if the file has no test frames."""
    if limit is not None and limit < 1:
        raise ConfigError(f"test_frames is {limit}; expected at least 1, or null for all; correct it")
    frames = fits.indices("test")
    if not len(frames):
        raise DataError(
            f"{fits.path} has {len(fits)} frames and none for testing; expected some; label test frames and fit again"
        )
    return frames[np.argsort(~np.isin(frames, fits.grid_frame), kind="stable")][:limit]


def quadratures(fits: Fits, frames: np.ndarray, most: int | None = None) -> tuple[str, np.ndarray]:
    """Which quadrature to use and which of the frames have it: full grids if any has one, else samples.

    most: the density is to be evaluated on so many of them (the first) only. Raises DataError if no frame has either,
    ConfigError if most is not positive.
    """
    if most is not None and most < 1:
        raise ConfigError(f"test_grids is {most}; expected at least 1, or null for all; correct it")
    grids = frames[np.isin(frames, fits.grid_frame)]
    if len(grids):
        return "grid", grids[:most]
    samples = frames[np.diff(fits.sample_ptr)[frames] > 0]
    if not len(samples):
        raise DataError(
            f"none of the {len(frames)} frames of {fits.path} has a density grid or samples; expected either; "
            "fit again with fit.grid_frames_test > 0"
        )
    return "samples", samples[:most]


def reference_of(fits: Fits, frame: int, quadrature: str) -> DensityGrid:
    """The SCF density of a frame on the quadrature that `quadratures` chose."""
    points = fits.grid(frame) if quadrature == "grid" else fits.samples(frame)
    assert points is not None  # quadratures() has looked
    return points


def predict(model: DensNet, molecules: Molecules) -> Prediction:
    """Everything the model has: with energy and forces if it has an energy network."""
    if model.energy is not None:
        found = model.predict(molecules)
    else:
        with torch.no_grad():
            found = model.density_only(molecules)
    return replace(found, density=Density(found.density.coefficient.detach(), found.density.exponent.detach()))


def density_of(prediction: Prediction, molecules: Molecules, i: int) -> Density:
    """The density of the i-th molecule of a batch alone."""
    atoms = molecules.molecule == i
    return Density(prediction.density.coefficient[atoms], prediction.density.exponent[atoms])


def frame_errors(
    model: DensNet,
    fits: Fits,
    frames: np.ndarray,
    train_frames: np.ndarray | None = None,
    batch_size: int = 16,
    progress: bool = True,
    grids: int | None = None,
) -> Iterator[FrameErrors]:
    """The errors of every frame, in the order given. train_frames: what their RMSD is taken to (None: nothing);

    grids: evaluate the density on the grids of at most so many frames (moments and energies: of all).

    Raises DataError if no frame has the SCF density on a grid or on samples.
    """
    quadrature, with_density = quadratures(fits, frames, grids)
    rmsd = np.full(len(frames), np.nan) if train_frames is None else nearest_training_rmsd(fits, frames, train_frames)
    with tqdm(total=len(frames), desc="evaluating", unit="frame", disable=not progress) as bar:
        for start in range(0, len(frames), batch_size):
            chunk = frames[start : start + batch_size].tolist()
            singles = [fits.frame(f) for f in chunk]
            molecules = Molecules.of(singles, next(model.parameters()).device)
            found = predict(model, molecules)
            count = electrons(molecules, found.density, model.basis.multiplicity).tolist()
            moment = quadrupole(molecules, found.density, model.basis)
            for i, f in enumerate(chunk):
                molecule, atoms, own = singles[i], fits.atoms(f), density_of(found, molecules, i)
                dipole = np.stack([fits.dipole[f], found.dipole[i].cpu().numpy()])
                density = None
                if f in with_density:
                    fit = fitted_density(fits, f, own.coefficient)
                    density = density_errors(molecule, own, fit, model.basis, reference_of(fits, f, quadrature))
                yield FrameErrors(
                    frame=f,
                    source=str(fits.source[f]),
                    number=molecule.number,
                    electrons=abs(count[i] - molecule.n_electrons),
                    dipole=dipole,
                    quadrupole=_about_centre(moment[i].cpu().numpy() - fits.quadrupole[f], dipole[1] - dipole[0], molecule),
                    energy=None if model.energy is None else np.array([fits.energy[f], float(found.energy[i])]),
                    force=None
                    if found.force is None
                    else np.stack([fits.force[atoms], found.force[molecules.molecule == i].cpu().numpy()]),
                    rmsd=float(rmsd[start + i]),
                    quadrature=None if density is None else quadrature,
                    density=density,
                )
                bar.update()


def _about_centre(second_moment: np.ndarray, dipole: np.ndarray, molecule: Molecule) -> float:
    """Frobenius norm of an error of the second moment, moved from the coordinate origin to the centre of nuclear charge, so

    that an error of the dipole does not count more the farther the molecule is from the origin. The charge is exact.
    """
    centre = molecule.number @ molecule.position / molecule.number.sum()
    return float(np.linalg.norm(second_moment - np.outer(centre, dipole) - np.outer(dipole, centre)))


def evaluate(
    model: DensNet,
    fits: Fits,
    frames: np.ndarray,
    train_frames: np.ndarray | None = None,
    batch_size: int = 16,
    progress: bool = True,
    grids: int | None = None,
) -> Evaluation:
    """Evaluate on these frames of a fitted data set. Raises DataError as frame_errors."""
    errors = frame_errors(model, fits, frames, train_frames, batch_size, progress, grids)
    return summarise(list(errors), 0 if train_frames is None else len(train_frames))
