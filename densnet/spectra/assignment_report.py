"""An assignment on disk: assignment.csv (bands), assignment_modes.csv, assignment.json, assignment.png and .svg."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densnet.errors import SpectrumError
from densnet.files import write_bytes
from densnet.spectra.assignment import mode_infrared, mode_spectra
from densnet.spectra.assignment_figure import assignment_figure
from densnet.spectra.band_table import AssignedBand, DipoleParts, Mode, assign, band_limits, describe
from densnet.spectra.bands import peaks
from densnet.spectra.eckart import Reference
from densnet.spectra.files import Settings, write_figure, write_json
from densnet.spectra.infrared import Spectrum
from densnet.spectra.projection import MAX_DISPLACEMENT, project
from densnet.units import ANGSTROM_PER_BOHR

log = logging.getLogger(__name__)

METHOD = (
    "Every frame is laid on the nearest reference, by mass-weighted rmsd in the Eckart frame over all permutations of equal "
    "atoms that keep the bonds and over mirror images; frames with an atom farther from its place than "
    "max_displacement_angstrom belong to none and enter no mode. Shares of absorption are cross-spectra of the dipole with the "
    "dipole that a mode of constant dmu/dQ gives, over the whole spectrum (harmonic quantum correction); they and the rest add "
    "up to 1. Errors are one standard error, by jackknife over replicas. Coordinates: share of potential energy (Keresztury, "
    "Jalsovszky 1971). Atoms: share of kinetic energy. Origin of the intensity: Hirshfeld charges and atomic dipoles."
)
LISTED = 3  # modes named in the log and in the columns of the table


@dataclass(frozen=True)
class ReferenceSummary:
    """population: share of frames; images: permutations and mirror images that can be reached."""

    name: str
    population: float
    images: int


@dataclass(frozen=True)
class Assignment:
    """What assignment.json holds. unassigned: share of frames too far from every reference; rest and shares: of absorption."""

    source: str
    method: str
    settings: Settings
    max_displacement_angstrom: float
    unassigned: float
    rmsd_angstrom: list[float]
    references: list[ReferenceSummary]
    bands: list[AssignedBand]
    modes: list[list[Mode]]


def write_assignment(
    folder: Path | str,
    spectrum: Spectrum,
    references: Sequence[Reference],
    number: np.ndarray,
    mass: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    dipole: np.ndarray | None,
    *,
    source: str,
    integration_step: float | None = None,
    limits: Sequence[tuple[float, float]] | None = None,
    peaks_cm1: np.ndarray | None = None,
    flows: Sequence[DipoleParts | None] = (),
    max_displacement: float = MAX_DISPLACEMENT,
    permutations: Sequence[np.ndarray] | None = None,
    title: str = "",
) -> Assignment:
    """Assign the bands of the spectrum of a trajectory and write the tables and the figure.

    spectrum: of the same trajectory; its window and temperature are used throughout; number, mass: (N,); position, velocity:
    (S, R, N, 3); dipole: (S, R, 3), atomic units; integration_step: atomic time, of velocity Verlet (None leaves its velocities
    as they are); limits: (low, high) cm^-1 of the bands, by default those of band_limits around peaks_cm1, by default
    bands.peaks; flows: the parts of dmu/dQ of every reference, in their order; max_displacement: bohr. Everything is computed
    before anything is written. Raises SpectrumError as project, mode_spectra, mode_infrared and bands.integrate do.
    """
    if flows and len(flows) != len(references):
        raise SpectrumError(
            f"{len(flows)} dipole splits for {len(references)} references; expected one for each; give None where unknown"
        )
    seen = project(number, mass, position, velocity, references, max_displacement=max_displacement, permutations=permutations)
    recipe = spectrum.recipe
    step, kelvin, window = spectrum.time_step, spectrum.temperature, recipe.window
    spectra = mode_spectra(seen, step, kelvin, window, zero_padding=recipe.zero_padding, max_cm1=recipe.max_cm1)
    infrared = mode_infrared(
        seen, dipole, step, kelvin, window, zero_padding=recipe.zero_padding, max_cm1=recipe.max_cm1,
        integration_step=integration_step,
    )  # fmt: skip
    modes = [describe(r, spectra, c, flows[c] if flows else None) for c, r in enumerate(references)]
    found = peaks(spectrum) if peaks_cm1 is None else peaks_cm1
    table = assign(spectrum, band_limits(spectrum, found) if limits is None else limits, modes, spectra, infrared)
    summary = Assignment(
        source=source,
        method=METHOD,
        settings=Settings.of(spectrum),
        max_displacement_angstrom=max_displacement * ANGSTROM_PER_BOHR,
        unassigned=seen.unassigned,
        rmsd_angstrom=[float(x) for x in np.percentile(seen.rmsd, [50.0, 90.0, 99.0, 100.0]) * ANGSTROM_PER_BOHR],
        references=[
            ReferenceSummary(r.name, float(seen.population[c]), sum(i.reference == c for i in seen.images))
            for c, r in enumerate(references)
        ],
        bands=table,
        modes=modes,
    )
    figure = assignment_figure(modes, spectra, infrared, table, title)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "assignment.csv", _bands_csv(summary).encode())
    write_bytes(folder / "assignment_modes.csv", _modes_csv(summary).encode())
    write_json(folder / "assignment.json", summary)
    write_figure(folder / "assignment", figure)
    _say(summary, folder)
    return summary


def _head(summary: Assignment) -> list[str]:
    shares = ", ".join(f"{r.name} {100.0 * r.population:.1f} %" for r in summary.references)
    settings = summary.settings
    return [
        f"# source: {summary.source}",
        f"# {summary.method}",
        f"# frames: {shares}, none {100.0 * summary.unassigned:.1f} %; max_displacement_angstrom: "
        f"{summary.max_displacement_angstrom:g}; window: {settings.window} {settings.resolution_cm1:g} cm^-1; "
        f"temperature_kelvin: {settings.temperature_kelvin:g}; replicas: {settings.replicas}; length_ps: {settings.length_ps:g}",
    ]


def _bands_csv(summary: Assignment) -> str:
    columns = ["low_cm1", "high_cm1", "peak_cm1", "km_mol", "error_km_mol", "label"]
    for n in range(1, LISTED + 1):
        columns += [f"mode_{n}", f"mode_{n}_share", f"mode_{n}_share_error"]
    elements = sorted({s.name for band in summary.bands for s in band.elements})
    columns += ["rest_share", *(f"moving_{e}" for e in elements), "moving_charge", "flowing_charge", "deforming_atoms"]
    rows: list[list[object]] = []
    for band in summary.bands:
        row: list[object] = [_text(band.low_cm1, 1), _text(band.high_cm1, 1), _text(band.peak_cm1, 1)]
        row += [_text(band.km_mol, 2), _text(band.error_km_mol, 2), band.label]
        for part in band.parts[:LISTED]:
            name = f"{part.reference} {part.number} ({part.harmonic_cm1:.0f}): {part.label}"
            row += [name, _text(part.share, 3), _text(part.share_error, 3)]
        move = {s.name: s.share for s in band.elements}
        origin = band.origin
        row += [""] * (3 * max(0, LISTED - len(band.parts))) + [_text(band.rest, 3)]
        row += [_text(move.get(e, 0.0), 3) for e in elements]
        row += [_text(x, 3) for x in ((origin.moving, origin.flowing, origin.deforming) if origin else (None,) * 3)]
        rows.append(row)
    return _csv(_head(summary), columns, rows)


def _modes_csv(summary: Assignment) -> str:
    columns = ["reference", "mode", "harmonic_cm1", "harmonic_km_mol", "md_cm1", "degrees_of_freedom", "label"]
    elements = sorted({s.name for some in summary.modes for mode in some for s in mode.elements})
    columns += [f"kinetic_{e}" for e in elements] + [f"displacement_{e}" for e in elements]
    columns += ["moving_charge", "flowing_charge", "deforming_atoms"]
    rows: list[list[object]] = []
    for mode in (mode for some in summary.modes for mode in some):
        row: list[object] = [mode.reference, mode.number, _text(mode.harmonic_cm1, 1), _text(mode.harmonic_km_mol, 2)]
        row += [_text(mode.md_cm1, 1), _text(mode.freedom, 3), mode.label]
        for shares in (mode.elements, mode.displacement):
            known = {s.name: s.share for s in shares}
            row += [_text(known[e], 3) for e in elements]
        origin = mode.origin
        row += [_text(x, 3) for x in ((origin.moving, origin.flowing, origin.deforming) if origin else (None,) * 3)]
        rows.append(row)
    return _csv(_head(summary), columns, rows)


def _csv(head: list[str], columns: list[str], rows: list[list[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return "\n".join(head) + "\n" + buffer.getvalue()


def _text(value: float | None, digits: int) -> str:
    """Empty where there is no value."""
    return "" if value is None else f"{value:.{digits}f}"


def _say(summary: Assignment, folder: Path) -> None:
    for band in summary.bands:
        error = "" if band.error_km_mol is None else f" +- {band.error_km_mol:.2g}"
        made = "; ".join(f"{p.reference} {p.number} {100.0 * p.share:.0f} %" for p in band.parts[:LISTED])
        log.info("%6.0f cm^-1 %7.2f%s km/mol: %s (%s)", band.peak_cm1, band.km_mol, error, band.label, made)
    if summary.unassigned > 0.0:
        log.warning(
            "%.1f %% of the frames are farther than %g angstrom from every reference and enter no mode",
            100.0 * summary.unassigned,
            summary.max_displacement_angstrom,
        )
    log.info("wrote %s", folder / "assignment{.csv,_modes.csv,.json,.png,.svg}")
