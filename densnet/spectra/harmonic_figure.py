"""The figure of a harmonic analysis: broadened absolute spectrum above, sticks below, of one or two sets of modes."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoMinorLocator, FuncFormatter

from densnet.spectra.compare import LineShape, broaden
from densnet.spectra.plot import GREY, INK, WAVENUMBER_LABEL, Sticks

EPSILON_PER_KM_MOL = 100.0 / log(10.0)  # L/mol/cm times cm^-1 in one km/mol: N_A sigma = ln 10 epsilon
LABEL_GAP = 0.0135  # of the axis width; labels closer than this would touch
LABEL_LEAST = 0.04  # of the highest point; weaker maxima get no label


def harmonic_figure(sticks: Sequence[Sticks], fwhm_cm1: float, shape: LineShape, title: str = "") -> Figure:
    """sticks: one or two sets; the first points up and carries the labels, the second points down.

    Molar absorptivity, L/mol/cm, of lines of full width fwhm_cm1 at half maximum; intensities, km/mol. Imaginary modes stand at
    negative wavenumbers in a hatched range.
    """
    figure = Figure(figsize=(7.0, 4.6), dpi=200, layout="constrained")
    curves, lines = figure.subplots(2, 1, sharex=True, height_ratios=[2.0, 1.0])
    ends = np.concatenate([s.modes.frequency_cm1 for s in sticks])
    high, low = 1.07 * max(float(ends.max()), 100.0), min(0.0, 1.15 * float(ends.min()))
    grid = np.arange(low, high, min(1.0, 0.1 * fwhm_cm1))
    spectra = [
        EPSILON_PER_KM_MOL * broaden(s.modes.frequency_cm1, s.modes.intensity_km_mol, grid, fwhm_cm1, shape) for s in sticks
    ]
    envelope = np.max(spectra, axis=0)
    curves.set_ylim(0.0, 1.25 * (float(envelope.max()) or 1.0))
    for item, curve, sign, style in zip(sticks, spectra, (1.0, -1.0), ("-", (0, (4, 1.5)))):
        modes = item.modes
        curves.plot(grid, curve, color=item.colour, lw=1.1, ls=style, label=item.label)
        if sign > 0:
            curves.fill_between(grid, 0.0, curve, color=item.colour, alpha=0.15, lw=0)
            _label(curves, grid, curve, envelope)
        lines.vlines(modes.frequency_cm1, 0.0, sign * modes.intensity_km_mol, color=item.colour, lw=1.4)
        lines.plot(modes.frequency_cm1, sign * modes.intensity_km_mol, ls="", marker=item.marker, ms=3, color=item.colour)
    tallest = max(float(s.modes.intensity_km_mol.max()) for s in sticks) or 1.0
    lines.axhline(0.0, color=INK, lw=0.8)
    lines.set(ylim=(-1.15 * tallest if len(sticks) > 1 else 0.0, 1.15 * tallest), xlim=(low, high))
    lines.set_ylabel("Intensity /\nkm mol$^{-1}$", fontsize=9)
    lines.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    curves.set_ylabel("Molar absorptivity / L mol$^{-1}$ cm$^{-1}$", fontsize=9)
    lines.set_xlabel(f"{WAVENUMBER_LABEL}    (harmonic; {shape.value} lines, full width {fwhm_cm1:g} cm$^{{-1}}$)", fontsize=9)
    for axes in (curves, lines):
        axes.xaxis.set_minor_locator(AutoMinorLocator())
        axes.yaxis.set_minor_locator(AutoMinorLocator())
        axes.tick_params(which="both", labelsize=8, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        if low < 0.0:
            axes.axvspan(low, 0.0, facecolor="none", edgecolor="#d9d9d9", hatch="///", lw=0, zorder=0)
    if low < 0.0:
        curves.text(low, 0.97, " imaginary", transform=curves.get_xaxis_transform(), va="top", fontsize=7, color=GREY)
    if title:
        curves.set_title(title, loc="left", fontsize=10, color=INK)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure


def _label(axes: Axes, grid: np.ndarray, curve: np.ndarray, envelope: np.ndarray) -> None:
    """Wavenumbers of the maxima of curve, the highest first, where there is room, above the envelope of all curves."""
    inner = np.flatnonzero((curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:])) + 1
    gap, placed = LABEL_GAP * (grid[-1] - grid[0]), []
    for i in sorted(inner, key=lambda k: -curve[k]):
        if curve[i] > LABEL_LEAST * curve.max() and all(abs(grid[i] - other) > gap for other in placed):
            placed.append(grid[i])
            height = envelope[np.abs(grid - grid[i]) < 0.4 * gap].max()
            axes.annotate(f"{grid[i]:.0f}", (grid[i], height), rotation=90, ha="center", va="bottom", fontsize=7, color=INK,
                          xytext=(0, 3), textcoords="offset points")  # fmt: skip
