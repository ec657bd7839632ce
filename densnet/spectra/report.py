"""From a spectrum to what a chemist takes home: peaks, integrated bands, harmonic lines, figures, files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from densnet.errors import SpectrumError
from densnet.spectra.bands import area, bands, peaks
from densnet.spectra.convergence import Stage, convergence
from densnet.spectra.convergence_figure import convergence_figure, write_convergence
from densnet.spectra.files import Settings, write_csv, write_figure, write_json
from densnet.spectra.harmonic import NormalModes
from densnet.spectra.infrared import Spectrum
from densnet.spectra.plot import harmonic_comparison_figure, infrared_figure, model_sticks, reference_sticks
from densnet.spectra.power_figure import PowerSummary, power_figure, write_power
from densnet.spectra.uncertainty import ErrorOrigin
from densnet.spectra.vibrational_density import VibrationalDensity

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
    """An integrated band: limits cm^-1; area, standard error and limits of the interval, km/mol (None without an error band)."""

    name: str
    low_cm1: float
    high_cm1: float
    km_mol: float
    error_km_mol: float | None
    lower_km_mol: float | None
    upper_km_mol: float | None


@dataclass(frozen=True)
class ConvergenceRow:
    """The spectrum of the first part of the trajectory: similarity to the whole, and the bands in their order, km/mol.

    reason: why a part has no spectrum; then the rest is None or empty.
    """

    part: float
    length_ps: float
    pearson: float | None
    difference: float | None
    km_mol: list[float]
    error_km_mol: list[float | None]
    reason: str

    @staticmethod
    def of(stage: Stage) -> ConvergenceRow:
        return ConvergenceRow(
            float(stage.part),
            stage.length_ps,
            stage.pearson,
            stage.difference,
            [a.value for a in stage.areas],
            [_finite(a.error) for a in stage.areas],
            stage.reason,
        )


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
    in settings that the intensities are based on; convergence: empty without dipoles; power: None without velocities;
    dft_harmonic, model_harmonic: None if not given.
    """

    source: str
    settings: Settings
    vibrational_temperature_kelvin: float | None
    peaks_cm1: list[float]
    bands: list[Band]
    convergence: list[ConvergenceRow]
    power: PowerSummary | None
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
    band_limits: Sequence[tuple[float, float]] | Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
    dipole: np.ndarray | None = None,
    density: VibrationalDensity | None = None,
) -> Summary:
    """Write ir.csv, ir.png, ir.svg and ir.json; besides, as .png and .svg, harmonic with both kinds of modes, convergence (and
    convergence.csv) with dipoles, power (and power.csv) with a power spectrum.

    number: (N,) atoms of the trajectory; vibrational_temperature: kelvin and its standard error, as `vibrational_temperature`
    gives them, by default those of density; reference, model: harmonic lines to draw; band_limits: (low, high) cm^-1 to
    integrate, with or without names, by default the stretches that `bands` finds; dipole: (S, R, 3) that the spectrum was made
    from. Everything is computed before anything is written.
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
    limits = _named(bands(spectrum) if band_limits is None else band_limits)
    measured = [_band(spectrum, name, low, high) for name, (low, high) in limits.items()]
    stages = (
        []
        if dipole is None
        else convergence(dipole, spectrum.time_step, spectrum.temperature, spectrum.recipe, [*limits.values()], spectrum)
    )
    if density is not None and vibrational_temperature is None:
        vibrational_temperature = density.temperature, density.temperature_error
    summary = Summary(
        source=source,
        settings=Settings.of(spectrum),
        vibrational_temperature_kelvin=vibrational_temperature[0] if vibrational_temperature else None,
        peaks_cm1=found.tolist(),
        bands=measured,
        convergence=[ConvergenceRow.of(stage) for stage in stages],
        power=PowerSummary.of(density) if density else None,
        dft_harmonic=HarmonicLines.of(reference) if reference else None,
        model_harmonic=HarmonicLines.of(model) if model else None,
    )
    sticks = [*([reference_sticks(reference)] if reference else []), *([model_sticks(model)] if model else [])]
    figures = {"ir": infrared_figure(spectrum, sticks, found, title=title)}
    if model and reference:
        figures["harmonic"] = harmonic_comparison_figure(model, reference)
    if stages:
        figures["convergence"] = convergence_figure(stages, [*limits])
    if density:
        figures["power"] = power_figure(density, title)

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "ir.csv", spectrum, source)
    for name, figure in figures.items():
        write_figure(folder / name, figure)
    if stages:
        write_convergence(folder / "convergence.csv", stages, [*limits])
    if density:
        write_power(folder / "power.csv", density, source)
    write_json(folder / "ir.json", summary)
    _say(summary, vibrational_temperature, folder)
    return summary


def _named(limits: Sequence[tuple[float, float]] | Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    named = isinstance(limits, Mapping)
    for limit in limits.values() if named else limits:
        if not isinstance(limit, Sequence) or len(limit) != 2 or not all(isinstance(x, (int, float)) for x in limit):
            raise SpectrumError(
                f"band limits are {limit}; expected two wavenumbers, low and high; write [[low, high], ...] or "
                "{name: [low, high], ...}"
            )
    pairs = limits.items() if named else ((f"{low:.0f}-{high:.0f}", (low, high)) for low, high in limits)
    return {str(name): (float(low), float(high)) for name, (low, high) in pairs}


def _band(spectrum: Spectrum, name: str, low: float, high: float) -> Band:
    found = area(spectrum, low, high)
    return Band(name, low, high, found.value, _finite(found.error), _finite(found.lower), _finite(found.upper))


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _say(summary: Summary, measured: tuple[float, float] | None, folder: Path) -> None:
    settings = summary.settings
    log.info("peaks / cm^-1: %s", ", ".join(f"{p:.1f}" for p in summary.peaks_cm1) or "none")
    for band in summary.bands:
        error = "" if band.error_km_mol is None else f" +- {band.error_km_mol:.2g}"
        log.info("%s: %7.1f to %7.1f cm^-1: %8.2f%s km/mol", band.name, band.low_cm1, band.high_cm1, band.km_mol, error)
    for row in summary.convergence[:-1]:
        if row.reason:
            log.warning("first %.3g ps: no spectrum, %s", row.length_ps, row.reason)
        elif row.pearson is not None and row.difference is not None:
            log.info("first %.3g ps against all: r = %.4f, difference %.1f %%", row.length_ps, row.pearson, 100 * row.difference)
    if summary.power is not None:
        log.info(
            "power spectrum: %.2f degrees of freedom, rigid motion %s: %s", summary.power.integral, summary.power.rigid_motion,
            ", ".join(f"{symbol} {share:.2f}" for symbol, share in summary.power.elements.items()),
        )  # fmt: skip
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
