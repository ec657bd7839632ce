"""One figure of a molecule's infrared spectrum: experiment, molecular dynamics with its error band, harmonic sticks below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.integrate import trapezoid

from densnet.errors import SpectrumError
from densnet.spectra.experiment import ExperimentalSpectrum
from densnet.spectra.infrared import ErrorOrigin, Spectrum
from densnet.spectra.peak_matching import NamedRange
from densnet.spectra.plot import (
    GREY,
    INK,
    MD_COLOUR,
    WAVENUMBER_LABEL,
    Sticks,
    band_label,
    draw_sticks,
    small_print,
    style,
    unsigned,
)

EXPERIMENT_COLOUR = "#111111"
LABEL_ROOM = 0.2  # of the height of the curves, above them, for the names of ranges


def comparison_figure(
    spectrum: Spectrum,
    experiment: ExperimentalSpectrum,
    sticks: Sequence[Sticks] = (),
    names: Sequence[NamedRange] = (),
    range_cm1: tuple[float, float] | None = None,
    omit_cm1: tuple[float, float] | None = None,
    scale_factor: float = 1.0,
    decreasing: bool = True,
    title: str = "",
) -> Figure:
    """Experiment and molecular dynamics on one scale, L/mol/cm, and up to two sets of harmonic sticks, km/mol, under them.

    An absolute experiment is drawn as it is; a relative one is scaled to the area of the dynamics within the range shown, and
    the legend says so. names: stretches to name above the curves; range_cm1: by default all that was measured, as far as it was
    computed; omit_cm1: a stretch without bands to leave out, with a break in the axis; scale_factor: of all computed
    wavenumbers, named under the axis unless it is 1. decreasing: wavenumbers fall from left to right, the custom of printed
    infrared spectra and so the default here, where one compares with them.
    Raises SpectrumError if the range is not covered by both, one absorbs nothing within it, or omit_cm1 lies outside of it.
    """
    low, high = common_range(spectrum, experiment, range_cm1, scale_factor)
    own = spectrum.wavenumber_cm1 * scale_factor
    grid = np.concatenate([[low], own[(own > low) & (own < high)], [high]])
    curve = np.interp(grid, own, spectrum.epsilon)
    lower, upper = (np.interp(grid, own, np.where(np.isnan(limit), spectrum.epsilon, limit)) for limit in spectrum.interval)
    (points, measured), factor = relative_scale(spectrum, experiment, (low, high), scale_factor)
    stretches = _stretches(low, high, omit_cm1, decreasing)

    figure = Figure(figsize=(7.0, 4.9 if sticks else 3.6), dpi=300, layout="constrained")
    figure.get_layout_engine().set(wspace=0.02)  # type: ignore[union-attr]
    panels = figure.subplots(
        2 if sticks else 1, len(stretches), squeeze=False, sharex="col", sharey="row",
        width_ratios=[b - a for a, b in stretches], height_ratios=[2.5, 1.0] if sticks else [1.0],
    )  # fmt: skip
    top = max(float(upper.max()), float(measured.max()))
    bottom = min(0.0, float(lower.min()), float(measured.min()))
    handles: list[Artist] = []
    opaque = False
    for axes, stretch in zip(panels[0], stretches):
        (seen,) = axes.plot(points, measured, color=EXPERIMENT_COLOUR, lw=0.9, zorder=4)
        axes.fill_between(points, 0.0, measured, color=EXPERIMENT_COLOUR, alpha=0.07, lw=0.0, zorder=1)
        (line,) = axes.plot(grid, curve, color=MD_COLOUR, lw=1.3, zorder=3)
        band = axes.fill_between(grid, lower, upper, color=MD_COLOUR, alpha=0.28, lw=0.0, zorder=2)
        handles = [seen, line, band]
        axes.axhline(0.0, color=GREY, lw=0.5, zorder=1)
        axes.set_ylim(bottom - 0.01 * top, top * (1.0 + (LABEL_ROOM if names else 0.05)))
        axes.set_xlim(*(stretch[::-1] if decreasing else stretch))
        opaque |= _mark_opaque(axes, experiment, *stretch)
        _name_ranges(axes, names, stretch, top)
    legend = ["Experiment" if factor is None else "Experiment (scaled to the area of MD)", f"MD, {spectrum.temperature:g} K"]
    legend.append(band_label(spectrum))
    if spectrum.error_origin is ErrorOrigin.NONE:
        del handles[2], legend[2]
    if opaque:
        handles.append(Patch(facecolor="none", edgecolor=GREY, hatch="////", lw=0.0))
        legend.append("Experiment opaque (lower bound)")
    shown = [_shown(item, scale_factor, stretches) for item in sticks[:2]]
    highest = max((float(s.modes.intensity_km_mol.max(initial=0.0)) for s in shown), default=0.0) or 1.0
    for axes in panels[1] if sticks else ():
        marks = [draw_sticks(axes, item, sign) for item, sign in zip(shown, (1.0, -1.0))]
        axes.axhline(0.0, color=INK, lw=0.6)
        axes.set_ylim(-1.15 * highest if len(shown) > 1 else 0.0, 1.15 * highest)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(unsigned))
        if axes is panels[1][0]:
            handles += marks
            legend += [item.label for item in shown]
            axes.set_ylabel("Intensity /\nkm mol$^{-1}$")
    panels[0][0].set_ylabel("Molar absorptivity / L mol$^{-1}$ cm$^{-1}$")
    if title:
        panels[0][0].set_title(title, loc="left", fontsize=10, color=INK)
    for row in panels:
        for axes in row:
            style(axes)
        _break(row)
    scaled = "" if scale_factor == 1.0 else f"; computed wavenumbers × {scale_factor:.4f}"
    figure.supxlabel(WAVENUMBER_LABEL + small_print(spectrum).removesuffix(")") + scaled + ")", fontsize=9, color=INK)
    figure.align_ylabels(panels[:, 0])
    figure.legend(handles, legend, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def relative_scale(
    spectrum: Spectrum, experiment: ExperimentalSpectrum, range_cm1: tuple[float, float], scale_factor: float = 1.0
) -> tuple[tuple[np.ndarray, np.ndarray], float | None]:
    """The measured curve (wavenumber, L/mol/cm) within a range, and the factor that a relative one was multiplied with.

    The factor, None for an absolute experiment, gives it the area of the computed spectrum in that range.
    Raises SpectrumError if one of the areas is not positive.
    """
    low, high = range_cm1
    grid = experiment.wavenumber_cm1
    points = np.concatenate([[low], grid[(grid > low) & (grid < high)], [high]])
    measured = experiment.on(points)
    if experiment.absolute:
        return (points, measured), None
    computed = np.interp(points / scale_factor, spectrum.wavenumber_cm1, spectrum.epsilon)
    areas = float(trapezoid(computed, points)), float(trapezoid(measured, points))
    if min(areas) <= 0.0:
        raise SpectrumError(
            f"area between {low:g} and {high:g} cm^-1 is {areas[0]:g} computed, {areas[1]:g} measured; expected both above 0 to "
            "bring a relative experiment to the same scale; change the range or the base line"
        )
    factor = areas[0] / areas[1]
    return (points, measured * factor), factor


def common_range(
    spectrum: Spectrum, experiment: ExperimentalSpectrum, range_cm1: tuple[float, float] | None = None, scale_factor: float = 1.0
) -> tuple[float, float]:
    """The range, or if None all that both spectra cover. Raises SpectrumError if they do not cover it."""
    low = max(experiment.wavenumber_cm1[0], spectrum.wavenumber_cm1[0] * scale_factor)
    high = min(experiment.wavenumber_cm1[-1], spectrum.wavenumber_cm1[-1] * scale_factor)
    wanted = (low, high) if range_cm1 is None else range_cm1
    if not low <= wanted[0] < wanted[1] <= high:
        raise SpectrumError(
            f"range is {wanted[0]:g}..{wanted[1]:g} cm^-1; experiment and computed spectrum both cover {low:g}..{high:g}; "
            "expected a range within that; narrow it or compute the spectrum further"
        )
    return float(wanted[0]), float(wanted[1])


def _stretches(low: float, high: float, omit: tuple[float, float] | None, decreasing: bool) -> list[tuple[float, float]]:
    """Limits of the panels from left to right."""
    if omit is None:
        return [(low, high)]
    if not low < omit[0] < omit[1] < high:
        raise SpectrumError(
            f"stretch to leave out is {list(omit)} cm^-1; expected low < high within {low:g}..{high:g}; change or drop it"
        )
    parts = [(low, float(omit[0])), (float(omit[1]), high)]
    return parts[::-1] if decreasing else parts


def _shown(item: Sticks, factor: float, stretches: Sequence[tuple[float, float]]) -> Sticks:
    """The sticks within what is shown: those outside must not set the height of the axis."""
    frequency = item.modes.frequency_cm1 * factor
    inside = np.any([(frequency >= a) & (frequency <= b) for a, b in stretches], axis=0)
    intensity = item.modes.intensity_km_mol[inside]
    return replace(item, modes=replace(item.modes, frequency_cm1=frequency[inside], intensity_km_mol=intensity))


def _break(row: Sequence[Axes]) -> None:
    """Marks on the axis where a stretch is left out."""
    slash = {"marker": [(-0.4, -1), (0.4, 1)], "ms": 6, "ls": "", "color": INK, "mec": INK, "mew": 0.8, "clip_on": False}
    for i, axes in enumerate(row):
        if i > 0:
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", which="both", left=False)
            axes.plot([0], [0], transform=axes.transAxes, **slash)
        if i < len(row) - 1:
            axes.plot([1], [0], transform=axes.transAxes, **slash)


def _mark_opaque(axes: Axes, experiment: ExperimentalSpectrum, low: float, high: float) -> bool:
    """Hatch the stretches where the absorbance is only a lower bound; whether there are any."""
    grid = experiment.wavenumber_cm1
    flags = np.concatenate([[False], experiment.saturated & (grid >= low) & (grid <= high), [False]]).astype(int)
    first, last = np.flatnonzero(np.diff(flags) == 1), np.flatnonzero(np.diff(flags) == -1) - 1
    for a, b in zip(first, last):
        axes.axvspan(grid[a], grid[b], facecolor="none", edgecolor=GREY, hatch="////", lw=0.0, zorder=0)
    return bool(first.size)


def _name_ranges(axes: Axes, names: Sequence[NamedRange], stretch: tuple[float, float], top: float) -> None:
    """A bracket over each range with its name; ranges that would touch go to a second row."""
    ends = [-np.inf, -np.inf]
    for item in sorted(names, key=lambda n: n.low_cm1):
        row = 0 if item.low_cm1 > ends[0] else 1
        ends[row] = item.high_cm1
        low, high = max(item.low_cm1, stretch[0]), min(item.high_cm1, stretch[1])
        if low >= high:
            continue
        height = top * (1.05 + 0.075 * row)
        axes.plot([low, high], [height, height], color=GREY, lw=0.8, marker="|", ms=4, mew=0.8)
        axes.text(0.5 * (low + high), height + 0.015 * top, item.name, ha="center", va="bottom", fontsize=8, color=INK)
