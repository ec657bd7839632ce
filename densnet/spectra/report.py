"""From a spectrum to what a chemist takes home: peaks, integrated bands, harmonic lines, figures, files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from densnet.errors import SpectrumError
from densnet.spectra.bands import bands, integrate, peaks
from densnet.spectra.files import Settings, write_csv, write_figure, write_json
from densnet.spectra.harmonic import NormalModes
from densnet.spectra.infrared import ErrorOrigin, Spectrum
from densnet.spectra.plot import harmonic_comparison_figure, infrared_figure, model_sticks, reference_sticks

log = logging.getLogger(__name__)

TEMPERATURE_TOLERANCE = 0.1  # relative; intensities are proportional to 1/T
SIGMAS = 3.0


@dataclass(frozen=True)
class PeakSearch:
    """Arguments of bands.peaks: prominence relative to the highest point, standard errors, lowest wavenumber."""

    prominence: float = 0.02
    sigmas: float = 1.0
    low_cm1: float = 0.0


@dataclass(frozen=True)
class Band:
    """An integrated band: limits cm^-1, area and standard error km/mol (None without an error band)."""

    low_cm1: float
    high_cm1: float
    km_mol: float
    error_km_mol: float | None


@dataclass(frozen=True)
class HarmonicLines:
    """Harmonic frequencies, cm^-1 ascending with imaginary ones negative, and intensities, km/mol."""

    frequency_cm1: list[float]
    intensity_km_mol: list[float]

    @staticmethod
    def of(modes: NormalModes) -> HarmonicLines:
        return HarmonicLines(modes.frequency_cm1.tolist(), modes.intensity_km_mol.tolist())


@dataclass(frozen=True)
class Summary:
    """What ir.json holds.

    source: where the trajectory came from; vibrational_temperature_kelvin: what the velocities say, beside the temperature
    in settings that the intensities are based on; dft_harmonic, model_harmonic: None if not given.
    """

    source: str
    settings: Settings
    vibrational_temperature_kelvin: float | None
    peaks_cm1: list[float]
    bands: list[Band]
    dft_harmonic: HarmonicLines | None
    model_harmonic: HarmonicLines | None


def write_report(
    folder: Path | str,
    spectrum: Spectrum,
    source: str,
    number: np.ndarray,
    vibrational_temperature: tuple[float, float] | None = None,
    reference: NormalModes | None = None,
    model: NormalModes | None = None,
    search: PeakSearch | None = None,
    band_limits: Sequence[tuple[float, float]] | None = None,
    title: str = "",
) -> Summary:
    """Write ir.csv, ir.png, ir.svg and ir.json, with both kinds of modes also harmonic.png and harmonic.svg.

    number: (N,) atoms of the trajectory; vibrational_temperature: kelvin and its standard error, as `vibrational_temperature`
    gives them; reference, model: harmonic lines to draw; band_limits: (low, high) cm^-1 to integrate, by default the
    stretches that `bands` finds. Everything is computed before anything is written.
    Raises SpectrumError if the modes are of other atoms or band limits lie outside the spectrum.
    """
    for label, modes in (("harmonic reference", reference), ("model", model)):
        if modes is not None and not np.array_equal(np.sort(modes.number), np.sort(number)):
            raise SpectrumError(
                f"{label} is of atoms {modes.number.tolist()}, the trajectory of {list(map(int, number))}; "
                "expected the same molecule; give the matching file"
            )
    search = search or PeakSearch()
    found = peaks(spectrum, search.prominence, search.sigmas, search.low_cm1)
    limits = bands(spectrum) if band_limits is None else band_limits
    for limit in limits:
        if len(limit) != 2:
            raise SpectrumError(
                f"band limits are {list(limit)}; expected two wavenumbers, low and high; write [[low, high], ...]"
            )
    summary = Summary(
        source=source,
        settings=Settings.of(spectrum),
        vibrational_temperature_kelvin=vibrational_temperature[0] if vibrational_temperature else None,
        peaks_cm1=found.tolist(),
        bands=[_band(spectrum, low, high) for low, high in limits],
        dft_harmonic=HarmonicLines.of(reference) if reference else None,
        model_harmonic=HarmonicLines.of(model) if model else None,
    )
    sticks = [*([reference_sticks(reference)] if reference else []), *([model_sticks(model)] if model else [])]
    figure = infrared_figure(spectrum, sticks, found, title=title)
    comparison = harmonic_comparison_figure(model, reference) if model and reference else None

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "ir.csv", spectrum, source)
    write_figure(folder / "ir", figure)
    if comparison is not None:
        write_figure(folder / "harmonic", comparison)
    write_json(folder / "ir.json", summary)
    _say(summary, vibrational_temperature, folder)
    return summary


def _band(spectrum: Spectrum, low: float, high: float) -> Band:
    area, error = integrate(spectrum, low, high)
    return Band(float(low), float(high), area, error if isfinite(error) else None)


def _say(summary: Summary, measured: tuple[float, float] | None, folder: Path) -> None:
    settings = summary.settings
    log.info("peaks / cm^-1: %s", ", ".join(f"{p:.1f}" for p in summary.peaks_cm1) or "none")
    for band in summary.bands:
        error = "" if band.error_km_mol is None else f" +- {band.error_km_mol:.2g}"
        log.info("%7.1f to %7.1f cm^-1: %8.2f%s km/mol", band.low_cm1, band.high_cm1, band.km_mol, error)
    if settings.error == ErrorOrigin.BLOCKS.value:
        log.warning("one replica: the error band is from blocks of it and misses what does not relax within the run")
    if settings.error == ErrorOrigin.NONE.value:
        log.warning("one replica, too short for two blocks: no error band")
    if measured is not None:
        temperature, error = measured
        off = abs(temperature - settings.temperature_kelvin)
        if off > max(TEMPERATURE_TOLERANCE * settings.temperature_kelvin, SIGMAS * error if isfinite(error) else 0.0):
            log.warning(
                "vibrations are at %.0f K, the spectrum assumes %g K: intensities are off by a factor of %.2f; equilibrate first",
                temperature,
                settings.temperature_kelvin,
                temperature / settings.temperature_kelvin,
            )
    log.info("wrote %s", folder / "ir.{csv,png,svg,json}")
