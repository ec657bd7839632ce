"""Figures of infrared spectra. Each function returns a matplotlib Figure and touches no global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.markers import TICKDOWN, TICKUP
from matplotlib.ticker import AutoMinorLocator, FuncFormatter

from densnet.spectra.compare import compare_modes
from densnet.spectra.harmonic import NormalModes
from densnet.spectra.infrared import ErrorOrigin, Spectrum
from densnet.spectra.uncertainty import ErrorMethod
from densnet.spectra.vibrational_density import VibrationalDensity
from densnet.units import FS_PER_AU

INK = "#1b1b1b"
GREY = "#6b6b6b"
MD_COLOUR = "#1f4e79"
MODEL_COLOUR = "#c8553d"
REFERENCE_COLOUR = "#3b3b3b"
WAVENUMBER_LABEL = "Wavenumber / cm$^{-1}$"
LABEL_GAP = 0.022  # of the axis width; peak labels closer than this would touch


@dataclass(frozen=True)
class Sticks:
    """A harmonic stick spectrum to draw: label for the legend, modes, colour and marker in matplotlib's names."""

    label: str
    modes: NormalModes
    colour: str
    marker: str


def reference_sticks(modes: NormalModes, label: str = "DFT, harmonic") -> Sticks:
    return Sticks(label, modes, REFERENCE_COLOUR, "o")


def model_sticks(modes: NormalModes, label: str = "Model, harmonic") -> Sticks:
    return Sticks(label, modes, MODEL_COLOUR, "D")


def infrared_figure(
    spectrum: Spectrum,
    sticks: Sequence[Sticks] = (),
    peaks_cm1: np.ndarray | None = None,
    range_cm1: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """The molecular-dynamics spectrum (L/mol/cm) with its error band and, on a second scale below it, harmonic sticks (km/mol).

    sticks: at most two sets; the first points up, the second down, so that lines a few cm^-1 apart can be compared.
    peaks_cm1: maxima to label with their wavenumber; labels that would touch a higher one are left out.
    range_cm1: what to show; the whole spectrum by default.
    """
    figure = Figure(figsize=(7.0, 4.6 if sticks else 3.7), dpi=200, layout="constrained")
    if sticks:
        axes, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1.0])
    else:
        axes, lower = figure.add_subplot(), None
    grid, curve, (lower_edge, upper_edge) = spectrum.wavenumber_cm1, spectrum.epsilon, spectrum.interval
    low, high = range_cm1 or (0.0, spectrum.recipe.max_cm1)
    shown = (grid >= low) & (grid <= high)
    top = float(np.fmax(curve, upper_edge)[shown].max(initial=0.0)) or 1.0

    (line,) = axes.plot(grid, curve, color=MD_COLOUR, lw=1.2, zorder=3)
    handles: list[Artist] = [line]
    names = [f"MD, {spectrum.temperature:g} K"]
    if spectrum.error_origin is not ErrorOrigin.NONE:
        band = axes.fill_between(grid, *spectrum.interval, color=MD_COLOUR, alpha=0.28, lw=0.4, zorder=2)
        handles.append(band)
        names.append(band_label(spectrum))
    axes.set(xlim=(low, high), ylim=(min(0.0, float(np.fmin(curve, lower_edge)[shown].min(initial=0.0))), 1.25 * top))
    axes.set_ylabel("Molar absorptivity / L mol$^{-1}$ cm$^{-1}$")
    if peaks_cm1 is not None:
        _label_peaks(axes, spectrum, peaks_cm1, top)
    if title:
        axes.set_title(title, loc="left", fontsize=10, color=INK)
    style(axes)
    if lower is not None:
        for item, sign in zip(sticks[:2], (1.0, -1.0)):
            handles.append(draw_sticks(lower, item, sign))
            names.append(item.label)
        highest = max(float(s.modes.intensity_km_mol.max(initial=0.0)) for s in sticks) or 1.0
        lower.axhline(0.0, color=INK, lw=0.8)
        lower.set_ylim(-1.15 * highest if len(sticks) > 1 else 0.0, 1.15 * highest)
        lower.set_ylabel("Intensity /\nkm mol$^{-1}$")
        lower.yaxis.set_major_formatter(FuncFormatter(unsigned))
        style(lower)
    (axes if lower is None else lower).set_xlabel(WAVENUMBER_LABEL + small_print(spectrum), fontsize=9)
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def harmonic_comparison_figure(
    model: NormalModes,
    reference: NormalModes,
    fwhm_cm1: float = 15.0,
    labels: tuple[str, str] = ("Model", "DFT"),
) -> Figure:
    """Model sticks (up) against reference sticks (down), with line shapes of the same height and the deviations in words.

    Made for watching a model learn: modes of a bad model beyond the range of the reference are cut off and counted,
    and imaginary modes lie on a hatched ground at negative wavenumbers.
    Raises SpectrumError if the molecules differ.
    """
    comparison = compare_modes(model, reference, fwhm_cm1)
    figure = Figure(figsize=(7.0, 4.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    top = max(float(reference.frequency_cm1.max()), 1.0)
    high = 1.12 * top
    low = min(0.0, max(float(model.frequency_cm1.min()) * 1.1, -0.35 * top))
    tallest = max(float(reference.intensity_km_mol.max()), 1.0)
    limit = 1.25 * min(max(tallest, float(model.intensity_km_mol.max())), 3.0 * tallest)
    grid = np.linspace(low, high, 4000)
    for modes, sign, colour in ((model, 1.0, MODEL_COLOUR), (reference, -1.0, REFERENCE_COLOUR)):
        # Unit-height line shapes: a lone line is as tall as its stick.
        shape = (0.5 * fwhm_cm1) ** 2 / ((grid[:, None] - modes.frequency_cm1) ** 2 + (0.5 * fwhm_cm1) ** 2)
        curve = sign * (shape @ modes.intensity_km_mol)
        axes.fill_between(grid, 0.0, curve, color=colour, alpha=0.15, lw=0)
        axes.plot(grid, curve, color=colour, lw=0.8)
        axes.vlines(modes.frequency_cm1, 0.0, sign * modes.intensity_km_mol, color=colour, lw=1.8)
        # Inactive modes have no stick; a tick on the line says where they are.
        tick = TICKUP if sign > 0.0 else TICKDOWN
        axes.plot(modes.frequency_cm1, np.zeros_like(modes.frequency_cm1), ls="", marker=tick, ms=5, mew=1.2, color=colour)
    axes.axhline(0.0, color=INK, lw=0.8)
    if low < 0.0:
        axes.axvspan(low, 0.0, facecolor="none", edgecolor="#d9d9d9", hatch="///", lw=0, zorder=0)
        axes.text(0.5 * low, 0.97 * limit, "imaginary", ha="center", va="top", fontsize=7, color=GREY)
    axes.set(xlim=(low, high), ylim=(-limit, limit), xlabel=WAVENUMBER_LABEL, ylabel="Intensity / km mol$^{-1}$")
    axes.yaxis.set_major_formatter(FuncFormatter(unsigned))
    style(axes)
    for y, va, label, colour in ((0.985, "top", labels[0], MODEL_COLOUR), (0.015, "bottom", labels[1], REFERENCE_COLOUR)):
        axes.text(0.995, y, label, transform=axes.transAxes, ha="right", va=va, fontsize=10, weight="bold", color=colour,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
    relative = comparison.max_intensity_relative
    words = [
        f"frequency: mean |Δ| {comparison.mean_frequency_deviation_cm1:.1f}, "
        f"max |Δ| {comparison.max_frequency_deviation_cm1:.1f} cm$^{{-1}}$",
        f"intensity: max |Δ| {comparison.max_intensity_deviation_km_mol:.1f} km mol$^{{-1}}$"
        + ("" if np.isnan(relative) else f" ({100.0 * relative:.0f} %)"),
        f"Pearson r = {comparison.pearson:.3f}",
    ]
    beyond = (model.frequency_cm1 > high) | (model.frequency_cm1 < low) | (model.intensity_km_mol > limit)
    outside = int(beyond.sum())
    if outside:
        words.append(f"{outside} model mode{'s' if outside > 1 else ''} off scale")
    rows = ["    ".join(words[:3]), *words[3:]]
    axes.set_title("\n".join(rows), fontsize=7.5, color=INK, pad=8)
    return figure


def figure_image(figure: Figure) -> np.ndarray:
    """The figure as pixels, (height, width, 4) uint8 RGBA, for loggers that take images."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def draw_sticks(axes: Axes, sticks: Sticks, sign: float) -> Line2D:
    modes = sticks.modes
    axes.vlines(modes.frequency_cm1, 0.0, sign * modes.intensity_km_mol, color=sticks.colour, lw=1.4)
    axes.plot(modes.frequency_cm1, sign * modes.intensity_km_mol, ls="", marker=sticks.marker, ms=3.2, color=sticks.colour)
    return Line2D([], [], color=sticks.colour, lw=1.4, marker=sticks.marker, ms=3.2)


def _label_peaks(axes: Axes, spectrum: Spectrum, peaks_cm1: np.ndarray, top: float) -> None:
    low, high = axes.get_xlim()
    gap = LABEL_GAP * (high - low)
    upper_edge = np.fmax(spectrum.epsilon, spectrum.interval[1])
    # A label stands clear of everything its own width covers, not only of its peak.
    candidates = [
        (float(p), float(upper_edge[np.abs(spectrum.wavenumber_cm1 - p) < 0.6 * gap].max(initial=0.0)))
        for p in peaks_cm1
        if low + 0.5 * gap < p < high - 0.5 * gap
    ]
    order = sorted(candidates, key=lambda c: -float(np.interp(c[0], spectrum.wavenumber_cm1, spectrum.epsilon)))
    placed: list[float] = []
    for position, height in order:
        if all(abs(position - other) > gap for other in placed):
            placed.append(position)
            axes.annotate(f"{position:.0f}", (position, height + 0.01 * top), rotation=90, ha="center", va="bottom",
                          fontsize=7, color=MD_COLOUR, xytext=(0, 2), textcoords="offset points")  # fmt: skip


def band_label(spectrum: Spectrum | VibrationalDensity) -> str:
    """What the error band is, for the legend: confidence, replicas or blocks, bootstrap if that is where it comes from."""
    rule = spectrum.recipe.uncertainty
    source = f"{spectrum.n_replicas} replicas" if spectrum.error_origin is ErrorOrigin.REPLICAS else "blocks of one run"
    how = ", bootstrap" if rule.method is ErrorMethod.BOOTSTRAP else ""
    return f"{100.0 * rule.confidence:g} % confidence ({source}{how})"


def small_print(spectrum: Spectrum) -> str:
    recipe = spectrum.recipe
    burg = recipe.maximum_entropy
    # Too much for one line with maximum entropy.
    how = "    (" if burg is None else f"\n(maximum entropy, memory {burg.memory * FS_PER_AU:g} fs; "
    return (
        f"{how}{recipe.window.kind.value} window, {recipe.window.resolution_cm1:g} cm$^{{-1}}$; "
        f"quantum correction: {recipe.quantum_correction.value})"
    )


def unsigned(value: float, _: object) -> str:
    return f"{abs(value):g}"


def style(axes: Axes) -> None:
    """Ticks, spines and label size of the house."""
    axes.xaxis.set_minor_locator(AutoMinorLocator())
    axes.yaxis.set_minor_locator(AutoMinorLocator())
    axes.tick_params(which="both", direction="out", labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)
