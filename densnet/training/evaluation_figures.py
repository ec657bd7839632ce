"""Figures of an evaluation. Each function returns a matplotlib Figure and touches no global state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoMinorLocator

from densnet.spectra.plot import GREY, INK, MODEL_COLOUR, REFERENCE_COLOUR
from densnet.training.density_errors import SHELL_WIDTH
from densnet.training.evaluation import Evaluation, FrameErrors, mean_shells
from densnet.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU, EV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE

SHOWN_A = 3.5  # angstrom; beyond it there are no electrons to speak of


def parity_figure(errors: Sequence[FrameErrors]) -> Figure:
    """Model against reference, above, and model less reference, below: density at random quadrature points, components of the

    dipole, and with an energy network energies (from the mean reference) and force components.
    """
    density = np.concatenate([e.density.sample for e in errors if e.density is not None]).T
    dipole = DEBYE_PER_AU * np.concatenate([e.dipole for e in errors], axis=1)
    columns = [("Density", "e bohr$^{-3}$", density), ("Dipole components", "D", dipole)]
    energies, forces = [e.energy for e in errors if e.energy is not None], [e.force for e in errors if e.force is not None]
    if energies and forces:
        energy = MEV_PER_HARTREE * (np.array(energies).T - np.array(energies)[:, 0].mean())
        force = EV_PER_ANGSTROM_PER_AU * np.concatenate(forces, axis=1).reshape(2, -1)
        columns += [("Energy", "meV", energy), ("Force components", "eV Å$^{-1}$", force)]
    figure = Figure(figsize=(2.8 * len(columns), 4.6), dpi=200, layout="constrained")
    panels = figure.subplots(2, len(columns), sharex="col", height_ratios=[2.2, 1.0], squeeze=False)
    for (title, unit, (reference, model)), upper, lower in zip(columns, *panels):
        reference, model = reference.ravel(), model.ravel()
        size = float(np.clip(60.0 / np.sqrt(len(reference)), 1.0, 8.0))
        dots = {"s": size, "color": MODEL_COLOUR, "alpha": 0.5, "lw": 0, "rasterized": True, "zorder": 3}
        low, high = (float(f(np.concatenate([reference, model]))) for f in (np.min, np.max))
        upper.scatter(reference, model, **dots)
        if title == "Density":
            _density_parity(upper, lower, reference, model, dots)
        else:
            margin = 0.05 * (high - low)
            upper.plot([low, high], [low, high], color=GREY, lw=0.8, zorder=2)
            upper.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
            lower.scatter(reference, model - reference, **dots)
            error = np.abs(model - reference)
            words = f"MAE {error.mean():.2g} {unit}\nmax {error.max():.2g} {unit}"
            upper.text(0.05, 0.95, words, transform=upper.transAxes, va="top", fontsize=8, color=INK)
            for axes in (upper, lower):
                axes.xaxis.set_minor_locator(AutoMinorLocator())
                axes.yaxis.set_minor_locator(AutoMinorLocator())
            lower.set_ylabel(f"Error / {unit}")
        lower.axhline(0.0, color=GREY, lw=0.8, zorder=2)
        upper.set_title(title, loc="left", fontsize=10, color=INK)
        upper.set_ylabel(f"Model / {unit}")
        lower.set_xlabel(f"DFT / {unit}")
        _style(upper)
        _style(lower)
    figure.align_ylabels(panels)
    return figure


def _density_parity(upper: Axes, lower: Axes, reference: np.ndarray, model: np.ndarray, dots: dict) -> None:
    """Over many powers of ten: logarithmic above, relative below."""
    lowest = 1e-5
    highest = 2.0 * float(reference.max())
    upper.plot([lowest, highest], [lowest, highest], color=GREY, lw=0.8, zorder=2)
    upper.set(xscale="log", yscale="log", xlim=(lowest, highest), ylim=(lowest, highest))
    shown = reference > lowest
    percent = 100.0 * (model - reference)[shown] / reference[shown]
    lower.scatter(reference[shown], percent, **dots)
    lower.set_yscale("symlog", linthresh=0.1)
    lower.set_ylim(-60.0, 60.0)
    lower.set_yticks([-10.0, -1.0, -0.1, 0.0, 0.1, 1.0, 10.0], ["−10", "−1", "−0.1", "0", "0.1", "1", "10"])
    lower.set_ylabel("Relative error / %")


def radial_figure(result: Evaluation, errors: Sequence[FrameErrors]) -> Figure:
    """Where the error is. Left: what lies within a distance of the nearest nucleus, which ends at the NMAE (cumulative, because

    the shells of a Becke grid would make a histogram ragged). Middle: relative to the electrons there. Right: by element.
    """
    shells = mean_shells([e.density for e in errors if e.density is not None])
    electrons = shells.electrons[:-1]
    edge = SHELL_WIDTH * ANGSTROM_PER_BOHR * np.arange(len(electrons) + 1)
    pairs, lowest = edge[::2], 100.0
    figure = Figure(figsize=(9.0, 3.4), dpi=200, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.6, 1.6, 1.0])
    for values, colour, label in (
        (shells.error[:-1], MODEL_COLOUR, f"Model, {result.nmae_percent:.3g} % in all"),
        (shells.fit_error[:-1], REFERENCE_COLOUR, f"Fit floor, {result.fit_floor_percent:.3g} % in all"),
    ):
        within = np.concatenate([[0.0], values.cumsum()])
        left.plot(edge, within, color=colour, lw=1.4, label=label)
        left.fill_between(edge, within, color=colour, alpha=0.12, lw=0)
        there = electrons.reshape(-1, 2).sum(1)
        relative = np.divide(100.0 * values.reshape(-1, 2).sum(1), there, out=np.full(len(there), np.nan), where=there > 0)
        lowest = min([lowest, *relative[relative > 0]])
        middle.stairs(relative, pairs, baseline=None, color=colour, lw=1.4)
    left.set(xlim=(0.0, SHOWN_A), xlabel="Distance from nearest nucleus / Å")
    left.set_ylabel("∫|Δρ| within the distance / % of N")
    left.legend(frameon=False, fontsize=8, loc="upper left")
    left.set_ylim(0.0, 1.25 * result.nmae_percent)
    middle.set(xlim=(0.0, SHOWN_A), yscale="log", xlabel="Distance from nearest nucleus / Å")
    middle.set_ylim(0.5 * lowest, 200.0)
    middle.set_ylabel("∫|Δρ| / % of the electrons there")
    place = np.arange(len(result.elements))
    for values, colour, shift in (
        ([e.error_percent for e in result.elements], MODEL_COLOUR, -0.2),
        ([100.0 * e.fit_error_e / e.electrons for e in result.elements], REFERENCE_COLOUR, 0.2),
    ):
        right.bar(place + shift, values, 0.36, color=colour, alpha=0.85)
    right.set_xticks(place, [e.element for e in result.elements])
    right.set_ylabel("∫|Δρ| / % of the electrons\nof its Hirshfeld atoms")
    for axes in (left, middle, right):
        _style(axes)
    return figure


def _style(axes: Axes) -> None:
    axes.tick_params(which="both", direction="out", labelsize=8, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)
