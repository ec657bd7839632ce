"""The figure of an assignment: infrared spectrum and velocity spectrum of a trajectory, stacked by what moves."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import AutoMinorLocator, MaxNLocator

from densnet.spectra.assignment import ModeInfrared, ModeSpectra
from densnet.spectra.band_table import AssignedBand, Mode, Share
from densnet.spectra.infrared import KM_MOL_PER_EPSILON

# Eight hues that stay apart for colour-blind readers (Okabe, Ito), then the same hatched.
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#5b3f8c")
HATCHES = ("", "////", "....")
REST_COLOUR = "#c9c9c9"
INK = "#1b1b1b"
WIDEST_GAP = 500.0  # cm^-1 without bands; a wider one is cut out of the axis
MARGIN = 60.0
TICK_CM1 = 180.0  # per label of the axis, else labels of four digits touch
HARDLY_BEHIND = 0.9  # of the largest share
LABEL_GAP = 0.035  # of the axis width


def assignment_figure(
    modes: Sequence[Sequence[Mode]],
    spectra: ModeSpectra,
    infrared: ModeInfrared,
    bands: Sequence[AssignedBand],
    title: str = "",
) -> Figure:
    """Absorptivity above (harmonic quantum correction), degrees of freedom per cm^-1 below, filled by kinds of motion.

    Every mode is drawn in the colour of its largest internal coordinate; modes of one coordinate and of all conformers are one
    colour. Negative shares are not drawn; the black line is the whole spectrum, the grey what no mode explains.
    """
    pieces = _windows(bands, float(infrared.wavenumber_cm1[-1]))
    figure = Figure(figsize=(9.0, 6.0), dpi=200, layout="constrained")
    rows = figure.subplots(
        2, len(pieces), sharex="col", sharey="row", squeeze=False, height_ratios=[1.5, 1.0],
        width_ratios=[high - low for low, high in pieces],
    )  # fmt: skip
    groups = _groups(modes)
    density, weighted = infrared.density / KM_MOL_PER_EPSILON, spectra.weighted
    total, rest = infrared.total / KM_MOL_PER_EPSILON, infrared.rest / KM_MOL_PER_EPSILON
    upper = {name: np.sum([density[c, k] for c, k in members], axis=0) for name, members in groups.items()}
    lower = {name: np.sum([weighted[c, k] for c, k in members], axis=0) for name, members in groups.items()}
    styles = {name: (HUES[i % 8], HATCHES[(i // 8) % 3]) for i, name in enumerate(groups)}
    for column, (low, high) in enumerate(pieces):
        top, bottom = rows[0, column], rows[1, column]
        _stack(top, infrared.wavenumber_cm1, upper, styles, rest)
        top.plot(infrared.wavenumber_cm1, total, color=INK, lw=0.9)
        _stack(bottom, spectra.wavenumber_cm1, lower, styles, None)
        top.set_xlim(low, high)
        _label(top, [b for b in bands if low <= b.peak_cm1 <= high], infrared.wavenumber_cm1, total)
        for axes in (top, bottom):
            axes.xaxis.set_major_locator(MaxNLocator(max(1, int((high - low) / TICK_CM1)), steps=[1, 2, 5, 10], min_n_ticks=1))
            axes.xaxis.set_minor_locator(AutoMinorLocator())
            axes.tick_params(which="both", labelsize=8, colors=INK)
            axes.spines[["top", "right"]].set_visible(False)
            if column:
                axes.spines["left"].set_visible(False)
                axes.tick_params(axis="y", which="both", length=0)
    shown = np.zeros(total.size, dtype=bool)
    for low, high in pieces:
        shown |= (infrared.wavenumber_cm1 >= low) & (infrared.wavenumber_cm1 <= high)
    rows[0, 0].set_ylim(0.0, 1.7 * float(total[shown].max()))
    highest = np.maximum(weighted, 0.0).sum(axis=(0, 1))[spectra.wavenumber_cm1 >= pieces[0][0]].max()
    rows[1, 0].set_ylim(0.0, 1.05 * float(highest))
    rows[0, 0].set_ylabel("Molar absorptivity / L mol$^{-1}$ cm$^{-1}$", fontsize=9)
    rows[1, 0].set_ylabel("Velocity spectrum /\ndegrees of freedom per cm$^{-1}$", fontsize=9)
    figure.supxlabel("Wavenumber / cm$^{-1}$", fontsize=9)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    handles: list[Artist] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white" if hatch else colour, lw=0) for colour, hatch in styles.values()
    ]
    handles += [Patch(facecolor=REST_COLOUR), Line2D([], [], color=INK, lw=0.9)]
    figure.legend(
        handles, [*map(_chemical, styles), "no mode", "whole spectrum"], loc="outside right upper", frameon=False, fontsize=7.5,
        title="largest coordinate", title_fontsize=8,
    )  # fmt: skip
    return figure


def _groups(modes: Sequence[Sequence[Mode]]) -> dict[str, list[tuple[int, int]]]:
    """Reference and mode of all modes by the name of their largest internal coordinate, in order of frequency."""
    flat = [(mode.harmonic_cm1, mode.coordinates, c, k) for c, some in enumerate(modes) for k, mode in enumerate(some)]
    found: dict[str, list[tuple[int, int]]] = {}
    for _, coordinates, c, k in sorted(flat, key=lambda f: f[0]):
        found.setdefault(coordinates[0].name if coordinates else "other", []).append((c, k))
    return found


def _stack(
    axes: Axes,
    grid: np.ndarray,
    curves: dict[str, np.ndarray],
    styles: dict[str, tuple[str, str]],
    rest: np.ndarray | None,
) -> None:
    base = np.zeros(grid.size)
    for name, curve in curves.items():
        colour, hatch = styles[name]
        top = base + np.maximum(curve, 0.0)
        axes.fill_between(grid, base, top, facecolor=colour, hatch=hatch, edgecolor="white" if hatch else "none", lw=0)
        base = top
    if rest is not None:
        axes.fill_between(grid, base, base + np.maximum(rest, 0.0), facecolor=REST_COLOUR, lw=0)


def _label(axes: Axes, bands: Sequence[AssignedBand], grid: np.ndarray, total: np.ndarray) -> None:
    """Position and what moves most beside the bands; of two that would touch the weaker stays without."""
    low, high = axes.get_xlim()
    gap = LABEL_GAP * (high - low) / max(axes.get_position().width, 0.2)
    placed: list[float] = []
    for band in sorted(bands, key=lambda b: -b.km_mol):
        if all(abs(band.peak_cm1 - other) > gap for other in placed):
            placed.append(band.peak_cm1)
            height = float(total[np.abs(grid - band.peak_cm1) < 0.5 * gap].max(initial=0.0))
            words = f"{band.peak_cm1:.0f}  {_chemical(leading(band.coordinates))}"
            axes.annotate(words, (band.peak_cm1, height), rotation=90, ha="center", va="bottom",
                          fontsize=6.5, color=INK, xytext=(0, 3), textcoords="offset points")  # fmt: skip


def leading(coordinates: Sequence[Share]) -> str:
    """The name of the largest share, and of the next if that is hardly behind, for which of them comes first is chance.

    C-O stretch 30 % and C-C stretch 29 % become `C-O/C-C stretch`.
    """
    first, *others = coordinates
    names = [first.name, *(s.name for s in others[:1] if s.share >= HARDLY_BEHIND * first.share)]
    motions = {name.split(" ", 1)[-1] for name in names}
    if len(motions) == 1:
        return "/".join(name.split(" ", 1)[0] for name in names) + f" {motions.pop()}"
    return ", ".join(names)


def _chemical(name: str) -> str:
    """CH3 with its number below the line."""
    return re.sub(r"(?<=[A-Za-z])(\d)", r"$_\1$", name)


def _windows(bands: Sequence[AssignedBand], highest: float) -> list[tuple[float, float]]:
    """The stretches of wavenumber to draw: all, but for wide gaps between bands."""
    edges = sorted((b.low_cm1, b.high_cm1) for b in bands)
    found: list[tuple[float, float]] = []
    for low, high in edges:
        if found and low - found[-1][1] < WIDEST_GAP:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    if not found:
        return [(0.0, highest)]
    return [(max(0.0, low - MARGIN), min(highest, high + MARGIN)) for low, high in found]
