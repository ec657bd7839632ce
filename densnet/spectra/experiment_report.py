"""The comparison with experiment on disk: one figure, one table of curves, one JSON with every figure and setting."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from densnet.errors import SpectrumError
from densnet.files import write_bytes
from densnet.spectra.bands import peaks
from densnet.spectra.experiment import ExperimentalSpectrum
from densnet.spectra.experiment_figure import common_range, comparison_figure, relative_scale
from densnet.spectra.files import Settings, write_figure, write_json
from densnet.spectra.harmonic import NormalModes
from densnet.spectra.infrared import Spectrum
from densnet.spectra.peak_matching import BandShare, NamedRange, Peaks, PeakTable, band_shares, match_peaks, measured_peaks
from densnet.spectra.plot import model_sticks, reference_sticks
from densnet.spectra.similarity import Comparing, SpectralSimilarity, spectral_similarity

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonSettings:
    """What is compared, and how.

    comparing: of the similarity figures, its range that of everything else; names: stretches to name in the figure and to
    integrate, (name, low, high) in cm^-1; max_distance_cm1: of matched peaks; prominence: of a peak, relative to the highest;
    omit_cm1: a stretch to leave out of the figure; decreasing: wavenumbers fall from left to right.
    """

    comparing: Comparing = Comparing()  # noqa: RUF009 (frozen)
    names: Sequence[tuple[str, float, float]] = ()
    max_distance_cm1: float = 100.0
    prominence: float = 0.02
    omit_cm1: tuple[float, float] | None = None
    decreasing: bool = True


@dataclass(frozen=True)
class Experiment:
    """Which measurement, what was done to it; relative_factor: what a relative one was multiplied with to be drawn and listed."""

    title: str
    source: str
    unit: str
    absolute: bool
    relative_factor: float | None
    points: int
    opaque_points: int
    notes: list[str]


@dataclass(frozen=True)
class Comparison:
    """What comparison.json holds. harmonic_dft, harmonic_model: peaks against sticks, None if not given."""

    source: str
    settings: Settings
    experiment: Experiment
    range_cm1: tuple[float, float]
    similarity: SpectralSimilarity
    bands: list[BandShare]
    peak_resolution_cm1: float
    md: PeakTable
    harmonic_dft: PeakTable | None
    harmonic_model: PeakTable | None


def write_comparison(
    folder: Path | str,
    spectrum: Spectrum,
    experiment: ExperimentalSpectrum,
    source: str,
    reference: NormalModes | None = None,
    model: NormalModes | None = None,
    settings: ComparisonSettings | None = None,
    title: str = "",
) -> Comparison:
    """Write comparison.png, .svg, .csv and .json into `folder`; everything is computed before anything is written.

    reference, model: harmonic lines of DFT and model to draw and to match. The figure and the tables are never scaled; the best
    scale factor and what it improves stand in the JSON and the log.
    Raises SpectrumError if the spectra do not cover the range or a named stretch, or a setting is out of order.
    """
    settings = settings or ComparisonSettings()
    names = [_named(item) for item in settings.names]
    low, high = common_range(spectrum, experiment, settings.comparing.range_cm1)
    similarity = spectral_similarity(
        spectrum.wavenumber_cm1, spectrum.epsilon, experiment.wavenumber_cm1, experiment.absorbance, settings.comparing
    )
    resolution = spectrum.recipe.window.resolution_cm1
    measured = measured_peaks(experiment, resolution, (low, high), settings.prominence)
    found = peaks(spectrum, settings.prominence, low_cm1=low)
    found = found[found <= high]
    computed = Peaks.of(found, np.interp(found, spectrum.wavenumber_cm1, spectrum.epsilon))
    curve, factor = relative_scale(spectrum, experiment, (low, high))
    comparison = Comparison(
        source=source,
        settings=Settings.of(spectrum),
        experiment=Experiment(
            title=experiment.title,
            source=experiment.source,
            unit=experiment.unit,
            absolute=experiment.absolute,
            relative_factor=factor,
            points=experiment.wavenumber_cm1.size,
            opaque_points=int(experiment.saturated.sum()),
            notes=list(experiment.notes),
        ),
        range_cm1=(low, high),
        similarity=similarity,
        bands=band_shares(experiment, spectrum, names, (low, high)),
        peak_resolution_cm1=resolution,
        md=match_peaks(measured, computed, settings.max_distance_cm1),
        harmonic_dft=_against_sticks(measured, reference, low, high, settings) if reference else None,
        harmonic_model=_against_sticks(measured, model, low, high, settings) if model else None,
    )
    sticks = [*([reference_sticks(reference)] if reference else []), *([model_sticks(model)] if model else [])]
    figure = comparison_figure(
        spectrum, experiment, sticks, names, (low, high), settings.omit_cm1, decreasing=settings.decreasing, title=title
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_figure(folder / "comparison", figure)
    write_bytes(folder / "comparison.csv", _table(spectrum, curve, comparison).encode())
    write_json(folder / "comparison.json", comparison)
    _say(comparison, folder)
    return comparison


def _named(item: Sequence) -> NamedRange:
    if isinstance(item, str) or len(item) != 3:
        raise SpectrumError(f"named range is {item!r}; expected a name and two wavenumbers; write [C-O, 940, 1150]")
    return NamedRange(str(item[0]), float(item[1]), float(item[2]))


def _against_sticks(measured: Peaks, modes: NormalModes, low: float, high: float, settings: ComparisonSettings) -> PeakTable:
    """Sticks weaker than a peak would have to be are left out, or every silent mode would stand among the unmatched."""
    inside = (modes.frequency_cm1 >= low) & (modes.frequency_cm1 <= high)
    strong = inside & (modes.intensity_km_mol >= settings.prominence * modes.intensity_km_mol[inside].max(initial=0.0))
    sticks = Peaks.of(modes.frequency_cm1[strong], modes.intensity_km_mol[strong])
    return match_peaks(measured, sticks, settings.max_distance_cm1)


def _table(spectrum: Spectrum, measured: tuple[np.ndarray, np.ndarray], comparison: Comparison) -> str:
    """Experiment, dynamics and error over the measured wavenumbers, L/mol/cm."""
    points, curve = measured
    factor = comparison.experiment.relative_factor
    scale = "absolute" if factor is None else f"relative, multiplied by {factor:.6g} to the area of the computed one"
    lines = ["# infrared spectrum, experiment and molecular dynamics, L/mol/cm (decadic)", f"# source: {comparison.source}"]
    lines += [f"# experiment: {comparison.experiment.source} ({scale})", *(f"# note: {n}" for n in comparison.experiment.notes)]
    lines += [f"# {name}: {value}" for name, value in asdict(comparison.settings).items()]
    lines += ["# computed wavenumbers are not scaled", "wavenumber_cm1,experiment,md,md_error"]
    columns = [np.interp(points, spectrum.wavenumber_cm1, c) for c in (spectrum.epsilon, spectrum.epsilon_error)]
    buffer = io.StringIO()
    np.savetxt(buffer, np.column_stack([points, curve, *columns]), fmt="%.8g", delimiter=",")
    return "\n".join(" ".join(line.splitlines()) for line in lines) + "\n" + buffer.getvalue()


def _say(comparison: Comparison, folder: Path) -> None:
    both = comparison.similarity
    for one, words in (
        (both.unscaled, "unscaled"),
        (both.scaled, f"wavenumbers x {both.scaled.scale_factor:.4f} (best Pearson)"),
    ):
        log.info("%s: Pearson %.3f, cosine %.3f, SIS %.3f, Wasserstein %.1f cm^-1", words, one.pearson, one.cosine, one.sis,
                 one.wasserstein_cm1)  # fmt: skip
    if both.at_bound:
        log.warning("the best scale factor lies at a bound of the search, %s: it means little", list(both.scale_bounds))
    for band in comparison.bands:
        error = "" if band.computed_error is None else f" +- {band.computed_error:.3f}"
        log.info("%s, %g to %g cm^-1: %.3f of the absorption measured, %.3f%s computed", band.name, band.low_cm1, band.high_cm1,
                 band.measured, band.computed, error)  # fmt: skip
    for pair in comparison.md.pairs:
        log.info("peak at %.0f cm^-1 measured, %.0f computed: %+.0f", pair.measured_cm1, pair.computed_cm1, pair.deviation_cm1)
    log.info("wrote %s", folder / "comparison.{png,svg,csv,json}")
