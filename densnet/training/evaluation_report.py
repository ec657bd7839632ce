"""An evaluation for people: in words, and as files in a folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from densnet.data.fits import Fits, read_fits
from densnet.errors import ConfigError, ModelError
from densnet.files import write_text
from densnet.model.densnet import DensNet
from densnet.record import write_record
from densnet.spectra.files import write_figure, write_json
from densnet.training.evaluate import check_basis, frame_errors, frames_for, model_to_evaluate
from densnet.training.evaluation import Evaluation, FrameErrors, summarise
from densnet.training.evaluation_figures import parity_figure, radial_figure
from densnet.training.parity import write_parity
from densnet.training.worst_frame import worst_frame_figure
from densnet.units import ANGSTROM_PER_BOHR, MEV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE, MILLIDEBYE_PER_AU


def evaluating(mode: str) -> bool:
    """Whether train.py is to evaluate. Raises ConfigError for a mode that does not exist."""
    if mode not in ("train", "evaluate"):
        raise ConfigError(f"mode is {mode}; expected train or evaluate; correct it")
    return mode == "evaluate"


def evaluate_saved(
    folder: Path | str,
    model: str | None,
    data: Path | str,
    limit: int | None = None,
    grids: int | None = None,
    accelerator: str = "cpu",
    record: str | None = None,
) -> str:
    """evaluate_into with figures, for a saved model and the first `limit` test frames (those with a grid come first) of a

    densnet/fits file; the RMSD is taken to all its training frames. accelerator: as Lightning names them; record: also write
    the evaluation there, with this machine beside it. Raises ConfigError
    without a model, BasisError if it has another basis than the data, DataError if these have no test frames or nothing to
    compare with.
    """
    cuda = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    saved, fits = model_to_evaluate(model, "cuda" if cuda else "cpu"), read_fits(data)
    check_basis(saved, fits)
    words = evaluate_into(folder, saved, fits, frames_for(fits, limit), fits.indices("train"), figures=True, grids=grids)
    if record is not None:
        write_record(Path(record), json.loads((Path(folder) / "evaluation.json").read_text()))
    return words


def evaluate_into(
    folder: Path | str,
    model: DensNet,
    fits: Fits,
    frames: np.ndarray,
    train_frames: np.ndarray,
    figures: bool,
    grids: int | None = None,
) -> str:
    """Evaluate, write evaluation.json, frames.csv, parity.csv and (figures) parity, radial_error, worst_frame (PNG and SVG), each

    whole or not at all, and return the evaluation in words. train_frames: what the RMSD is taken to;
    grids: evaluate the density on at most so many of the frames.
    Raises DataError if there is nothing to compare with, ModelError if a prediction is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    errors = list(frame_errors(model, fits, frames, train_frames, grids=grids))
    for e in errors:
        if not np.isfinite(
            [e.dipole_error, e.density.error if e.density else 0.0, *(() if e.energy is None else e.energy)]
        ).all():
            raise ModelError(
                f"the model's prediction for frame {e.frame} ({e.source}) is not finite; expected numbers; "
                "it has diverged: train again with a smaller learning rate"
            )
    result = summarise(errors, len(train_frames))
    write_json(folder / "evaluation.json", result)
    write_frames(folder / "frames.csv", errors)
    write_parity(folder / "parity.csv", errors)
    if figures:
        write_figure(folder / "parity.png", parity_figure(errors))
        write_figure(folder / "radial_error.png", radial_figure(result, errors))
        write_figure(folder / "worst_frame.png", worst_frame_figure(model, fits, result))
    return in_words(result)


def write_frames(path: Path, errors: Sequence[FrameErrors]) -> None:
    """One row per frame, units in the names of the columns; a cell is empty where a frame has no such figure."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["frame", "source", "quadrature", "nmae_percent", "fit_floor_percent", "nmae_fit_percent", "deformation_error_percent",
         "dipole_error_mD", "quadrupole_error_mD_A", "energy_error_meV", "force_mae_meV_per_A", "rmsd_A"]
    )  # fmt: skip
    for e in errors:
        d = e.density
        values = [
            None if d is None else d.nmae_percent,
            None if d is None else d.fit_floor_percent,
            None if d is None else d.nmae_fit_percent,
            None if d is None else d.deformation_error_percent,
            MILLIDEBYE_PER_AU * e.dipole_error,
            MILLIDEBYE_PER_AU * ANGSTROM_PER_BOHR * e.quadrupole,
            None if e.energy is None else MEV_PER_HARTREE * (e.energy[1] - e.energy[0]),
            None if e.force is None else MEV_PER_ANGSTROM_PER_AU * np.abs(e.force[1] - e.force[0]).mean(),
            ANGSTROM_PER_BOHR * e.rmsd if np.isfinite(e.rmsd) else None,
        ]
        cells = ["" if value is None else f"{value:.6g}" for value in values]
        table.writerow([e.frame, e.source, e.quadrature or "", *cells])
    write_text(path, text.getvalue())


def in_words(result: Evaluation) -> str:
    """The evaluation as a table for the terminal."""
    where = "on a grid" if result.quadrature == "grid" else "on random points only (no frame has a full grid)"
    rows = [
        ("density against SCF, NMAE", f"{result.nmae_percent:.4f} %"),
        ("  fit floor of the basis", f"{result.fit_floor_percent:.4f} %"),
        ("  density against the fit", f"{result.nmae_fit_percent:.4f} %"),
        ("  of the deformation density", f"{result.deformation_error_percent:.3f} %"),
        ("  worst frame", f"{result.nmae_worst_percent:.4f} %, frame {result.worst_frame} ({result.worst_source})"),
        ("electrons, largest error", f"{result.electrons_max_error:.1e}"),
        ("dipole, mean error vector", f"{result.dipole_mae_mD:.3f} mD"),
        ("  its components, MAE", f"{result.dipole_component_mae_mD:.3f} mD"),
        ("quadrupole, MAE", f"{result.quadrupole_mae_mD_A:.3f} mD*angstrom"),
    ]
    if result.energy_mae_meV is not None and result.force_mae_meV_per_A is not None:
        rows.append(("energy, MAE", f"{result.energy_mae_meV:.3f} meV"))
        rows.append(("force components, MAE", f"{result.force_mae_meV_per_A:.2f} meV/angstrom"))
    if result.rmsd_least_A is not None:
        least, median = result.rmsd_least_A, result.rmsd_median_A
        rows.append(
            ("nearest training frame, RMSD", f"{least:.4f} angstrom least, {median:.4f} median, of {result.train_frames}")
        )
    lines = [f"{result.frames} test frames, {result.grid_frames} of them with the SCF density {where}"]
    lines += [f"{name:<30}{value}".rstrip() for name, value in rows]
    lines += ["", f"{'element (Hirshfeld atoms)':<30}{'electrons':>10}{'error / e':>11}{'fit / e':>10}{'error / %':>11}"]
    lines += [
        f"{e.element:<30}{e.electrons:10.3f}{e.error_e:11.5f}{e.fit_error_e:10.5f}{e.error_percent:11.4f}"
        for e in result.elements
    ]
    lines += ["", f"{'distance from nucleus, angstrom':<30}{'% of N':>10}{'error / %':>11}{'fit / %':>10}"]
    for d in result.distances:
        name = f"{d.from_A:g} to {d.to_A:g}" if d.to_A is not None else f"beyond {d.from_A:g}"
        lines.append(f"{name:<30}{d.electrons_percent:10.3f}{d.error_percent:11.5f}{d.fit_error_percent:10.5f}")
    lines += ["", f"{'trajectory':<30}{'frames':>10}{'dipole / mD':>13}{'energy / meV':>14}{'force / meV/A':>15}"]
    for x in result.trajectories:
        energy, force = ("" if v is None else f"{v:.3f}" for v in (x.energy_mae_meV, x.force_mae_meV_per_A))
        lines.append(f"{x.trajectory:<30}{x.frames:10d}{x.dipole_mae_mD:13.3f}{energy:>14}{force:>15}".rstrip())
    return "\n".join(lines)
