"""The section of a spectrum: the folder that spectra.py wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from densnet.errors import DataError
from densnet.report.blocks import Block, Key, Section, Table, Words, cell, columns, heading, number
from densnet.report.parts import Part
from densnet.report.records import record
from densnet.report.sources import Columns, Source, columns_of, need
from densnet.report.spectrum_chart import ErrorBand, Lines, line_title, spectrum_chart

REMEDY = "make one: spectra.py trajectory=run.h5 out=FOLDER"
TEMPERATURE_TOLERANCE = 0.1  # relative; intensities are proportional to 1/T
MADE = ("source", "vibrational_temperature_kelvin")
KNOWN = ("source", "settings", "vibrational_temperature_kelvin", "peaks_cm1", "bands", "dft_harmonic", "model_harmonic")


def spectrum_part(folder: Path) -> Part:
    """Raises DataError if the folder has no ir.json and ir.csv, or these are not those of spectra.py."""
    summary_file, curve_file = need(folder, "ir.json", REMEDY), need(folder, "ir.csv", REMEDY)
    summary, curve = summary_file.json(), columns_of(curve_file)
    if not isinstance(summary, Mapping) or not isinstance(summary.get("settings"), Mapping):
        raise DataError(f"{summary_file.path} has no settings; expected what spectra.py writes; {REMEDY}")
    grid, epsilon = (_column(curve, curve_file, name) for name in ("wavenumber_cm1", "epsilon_L_mol_cm"))
    error = curve.column("epsilon_error")
    error = np.full(len(grid), np.nan) if error is None else error
    peaks = np.array(_floats(summary_file, "peaks_cm1", summary.get("peaks_cm1", [])))
    bands = _bands(summary_file, summary.get("bands", []))
    lines = {name: _lines(summary_file, name, summary.get(name)) for name in ("model_harmonic", "dft_harmonic")}
    given = {name: found for name, found in lines.items() if found is not None}
    model, dft = lines["model_harmonic"], lines["dft_harmonic"]
    band = _band(curve, summary["settings"], epsilon, error)
    blocks: list[Block] = [
        *_warnings(summary, given),
        spectrum_chart(grid, epsilon, error, band, peaks, bands, model, dft, summary["settings"]),
        *([_peak_table(grid, epsilon, error, peaks)] if len(peaks) else [Words("No peak stands out from the error.")]),
        *record("Integrated bands", bands),
        *([_harmonic_table(model, dft)] if given else []),
        *record("How the spectrum was made", {k: summary[k] for k in MADE if k in summary} | dict(summary["settings"])),
    ]
    rest = {name: value for name, value in summary.items() if name not in KNOWN}
    if rest:
        blocks += [block for name, value in rest.items() for block in record(heading(name), value)]
    return Part(
        Section("spectrum", "Infrared spectrum", tuple(blocks)), _keys(grid, epsilon, summary), (summary_file, curve_file)
    )


def _band(curve: Columns, settings: Mapping[str, Any], epsilon: np.ndarray, error: np.ndarray) -> ErrorBand | None:
    """The interval that the file states; in older files, which state none, one standard error to either side."""
    lower, upper, confidence = curve.column("epsilon_lower"), curve.column("epsilon_upper"), settings.get("confidence")
    if lower is not None and upper is not None and isinstance(confidence, float):
        if np.isfinite(lower).any():
            percent = f"{100.0 * confidence:.4g} %"
            return ErrorBand(lower, upper, f"{percent} interval", f"the {percent} confidence interval, point by point")
        return None
    if np.isfinite(error).any():
        return ErrorBand(epsilon - error, epsilon + error, "±1 standard error", "one standard error to either side")
    return None


def _column(curve: Columns, source: Source, name: str) -> np.ndarray:
    found = curve.column(name)
    if found is None or not np.isfinite(found).all():
        raise DataError(f"{source.path} has no whole column {name}; expected what spectra.py writes; {REMEDY}")
    return found


def _floats(source: Source, name: str, values: Any) -> list[float]:
    if not isinstance(values, list) or not all(isinstance(v, (int, float)) for v in values):
        raise DataError(f"{source.path}: {name} is no list of numbers; expected what spectra.py writes; {REMEDY}")
    return [float(v) for v in values]


def _bands(source: Source, content: Any) -> list[Mapping[str, Any]]:
    needed = ("low_cm1", "high_cm1")
    if not isinstance(content, list) or not all(
        isinstance(b, Mapping) and all(isinstance(b.get(n), (int, float)) for n in needed) for b in content
    ):
        raise DataError(f"{source.path}: bands are not records with {' and '.join(needed)}; {REMEDY}")
    return content


def _lines(source: Source, name: str, content: Any) -> Lines | None:
    if content is None:
        return None
    if not isinstance(content, Mapping):
        raise DataError(f"{source.path}: {name} is {content!r:.40}; expected frequencies and intensities; {REMEDY}")
    frequency, intensity = (_floats(source, f"{name}.{k}", content.get(k)) for k in ("frequency_cm1", "intensity_km_mol"))
    if len(frequency) != len(intensity):
        raise DataError(f"{source.path}: {name} has {len(frequency)} frequencies and {len(intensity)} intensities; {REMEDY}")
    return Lines(frequency, intensity)


def _warnings(summary: Mapping[str, Any], lines: Mapping[str, Lines]) -> list[Block]:
    settings, out = summary["settings"], []
    if settings.get("error") == "blocks":
        out.append("One replica: the error band is from blocks of it and misses what does not relax within the run.")
    if settings.get("error") == "none":
        out.append("One replica, too short for two blocks: there is no error band.")
    measured, assumed = summary.get("vibrational_temperature_kelvin"), settings.get("temperature_kelvin")
    if measured and assumed and abs(measured - assumed) > TEMPERATURE_TOLERANCE * assumed:
        out.append(
            f"The vibrations are at {measured:.0f} K, the spectrum assumes {assumed:g} K: if that is more than chance, "
            f"intensities are off by a factor of {measured / assumed:.2f}."
        )
    for name, found in lines.items():
        imaginary = sum(f < 0.0 for f in found.frequency)
        if imaginary:
            out.append(f"{line_title(name)}: {imaginary} imaginary, below zero in the table and outside the chart.")
    return [Words(text, warning=True) for text in out]


def _peak_table(grid: np.ndarray, epsilon: np.ndarray, error: np.ndarray, peaks: np.ndarray) -> Table:
    head = ("Peak / cm⁻¹", "Absorptivity / L mol⁻¹ cm⁻¹", "Error")
    values = zip(peaks.tolist(), np.interp(peaks, grid, epsilon).tolist(), np.interp(peaks, grid, error).tolist())
    return columns("Peaks", head, values, digits=(5, 4, 3))


def _harmonic_table(model: Lines | None, dft: Lines | None) -> Table:
    """Side by side in order of frequency; the difference only where both have as many lines."""
    head, series = ["Line"], []
    for name, found in (("DFT", dft), ("Model", model)):
        if found is not None:
            head += [f"{name} / cm⁻¹", f"{name} / km mol⁻¹"]
            series += [found.frequency, found.intensity]
    if model is not None and dft is not None and len(model.frequency) == len(dft.frequency):
        head += ["Model less DFT / cm⁻¹"]
        series += [(np.array(model.frequency) - np.array(dft.frequency)).tolist()]
    count = max(len(s) for s in series)
    table = ((i + 1, *(s[i] if i < len(s) else "" for s in series)) for i in range(count))
    return columns("Harmonic lines, in order of frequency", head, table)


def _keys(grid: np.ndarray, epsilon: np.ndarray, summary: Mapping[str, Any]) -> tuple[Key, ...]:
    settings = summary["settings"]
    strongest = float(grid[int(np.argmax(epsilon))])
    keys = [Key("Strongest absorption", number(strongest, 4), "cm⁻¹", "highest point of the spectrum")]
    if "replicas" in settings and "length_ps" in settings:
        keys.append(
            Key("Molecular dynamics", cell(settings["replicas"]), f"× {settings['length_ps']:.3g} ps", "replicas × length")
        )
    return tuple(keys)
