"""The pairs behind a parity plot on disk, so that others can draw it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from densnet.files import write_text
from densnet.training.evaluation import FrameErrors
from densnet.units import DEBYE_PER_AU, EV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE


def write_parity(path: Path | str, errors: Sequence[FrameErrors]) -> None:
    """A row for every pair of numbers: quantity, frame, reference, model.

    quantity: density_e_bohr3 (the points of FrameErrors.density.sample), dipole_D (three components for each frame), and with an
    energy network energy_meV (from the mean reference) and force_eV_A (3N components); the unit is in the name.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["quantity", "frame", "reference", "model"])
    for quantity, frame, pairs in _pairs(errors):
        table.writerows([quantity, frame, f"{reference:.7g}", f"{model:.7g}"] for reference, model in pairs.tolist())
    write_text(path, text.getvalue())


def _pairs(errors: Sequence[FrameErrors]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Quantity, frame, (K, 2) reference and model, in the units of the names."""
    references = [e.energy[0] for e in errors if e.energy is not None]
    origin = float(np.mean(references)) if references else 0.0
    for e in errors:
        if e.density is not None:
            yield "density_e_bohr3", e.frame, e.density.sample
        yield "dipole_D", e.frame, DEBYE_PER_AU * e.dipole.T
        if e.energy is not None:
            yield "energy_meV", e.frame, MEV_PER_HARTREE * (e.energy[None] - origin)
        if e.force is not None:
            yield "force_eV_A", e.frame, EV_PER_ANGSTROM_PER_AU * e.force.reshape(2, -1).T
