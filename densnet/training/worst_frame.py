"""The frame with the largest error, drawn on a plane."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from densnet.basis.shells import Basis
from densnet.data.fits import Fits
from densnet.model.densnet import DensNet
from densnet.observables.real_space import density_on_points
from densnet.spectra.plot import GREY, INK
from densnet.structures import Density, Molecule, Molecules
from densnet.training.density_errors import density_errors, fitted_density
from densnet.training.evaluate import density_of, predict, reference_of
from densnet.training.evaluation import Evaluation
from densnet.units import ANGSTROM_PER_BOHR

POINTS = 161  # along either axis
MARGIN = 1.6 / ANGSTROM_PER_BOHR  # bohr around the atoms
SLAB = 0.1 / ANGSTROM_PER_BOHR  # bohr; quadrature points this near the plane are drawn
MAP = "RdBu_r"


def plane_through(molecule: Molecule, atom: int) -> tuple[np.ndarray, np.ndarray]:
    """Origin (3,) and orthonormal axes (3, 3) of the plane through an atom and its two nearest neighbours.

    Rows of the axes: to the nearest neighbour, in the plane, normal. Neighbours on a line with the atom are passed over; a
    linear molecule has any plane that holds it.
    """
    origin = molecule.position[atom]
    arm = molecule.position - origin
    order = np.argsort(np.linalg.norm(arm, axis=1))[1:]
    first = arm[order[0]] / np.linalg.norm(arm[order[0]]) if len(order) else np.array([1.0, 0.0, 0.0])
    # After the neighbours the Cartesian axes: at least one of them is not parallel to the line.
    for candidate in (*arm[order[1:]], *np.eye(3)):
        across = candidate - (candidate @ first) * first
        if np.linalg.norm(across) > 0.3 * np.linalg.norm(candidate):
            break
    second = across / np.linalg.norm(across)
    return origin, np.stack([first, second, np.cross(first, second)])


def worst_frame_figure(model: DensNet, fits: Fits, result: Evaluation) -> Figure:
    """Error of the density in a plane through the atom whose Hirshfeld share of it is largest, and its nearest neighbours.

    Left: model less SCF density. It is known at quadrature points only, so these are drawn, those within 0.1 angstrom of the
    plane, and nothing between them. Right: model less fitted density, everywhere on the plane, on the same scale.
    """
    frame = result.worst_frame
    molecule, points = fits.frame(frame), reference_of(fits, frame, result.quadrature)
    molecules = Molecules.of([molecule], next(model.parameters()).device)
    density = density_of(predict(model, molecules), molecules, 0)
    fit = fitted_density(fits, frame, density.coefficient)
    share = density_errors(molecule, density, fit, model.basis, points).atoms.error
    origin, axes = plane_through(molecule, int(share.argmax()))
    atoms = (molecule.position - origin) @ axes.T

    close = atoms[np.abs(atoms[:, 2]) < MARGIN, :2]
    low, high = close.min(0) - MARGIN, close.max(0) + MARGIN
    x, y = (np.linspace(a, b, POINTS) for a, b in zip(low, high))
    lattice = origin + np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) @ axes[:2]
    smooth = (_values(molecule, density, model.basis, lattice) - _values(molecule, fit, model.basis, lattice)).reshape(
        POINTS, POINTS
    )
    place = (points.point - origin) @ axes.T
    near = (np.abs(place[:, 2]) < SLAB) & (place[:, :2] > low).all(1) & (place[:, :2] < high).all(1)
    rho = _values(molecule, density, model.basis, points.point[near])
    exact = rho - points.density[near]

    size = np.ptp([low, high], axis=0)
    figure = Figure(figsize=(9.4, 1.1 + min(6.0, 4.0 * size[1] / size[0])), dpi=200, layout="constrained")
    one, other = figure.subplots(1, 2, sharex=True, sharey=True)
    # The few points next to a nucleus would leave no colours for the bonds.
    limit = max(float(np.quantile(np.abs(smooth), 0.999)), 1e-9)
    scale = SymLogNorm(linthresh=limit / 10.0, linscale=0.7, vmin=-limit, vmax=limit)
    far_first = np.argsort(np.abs(exact))
    colours = {"cmap": MAP, "norm": scale, "rasterized": True}
    dots = ANGSTROM_PER_BOHR * place[near][far_first]
    one.scatter(dots[:, 0], dots[:, 1], c=exact[far_first], s=5.0, lw=0, **colours)
    image = other.pcolormesh(ANGSTROM_PER_BOHR * x, ANGSTROM_PER_BOHR * y, smooth, shading="gouraud", **colours)
    one.set_title("Model − SCF density, at the quadrature points within 0.1 Å", loc="left", fontsize=9, color=INK)
    other.set_title("Model − fitted density, on the plane", loc="left", fontsize=9, color=INK)
    one.set_ylabel("Å", fontsize=9)
    for panel in (one, other):
        panel.set_aspect("equal")
        panel.set_xlabel("Å", fontsize=9)
        panel.tick_params(labelsize=8, colors=INK)
        panel.set(xlim=ANGSTROM_PER_BOHR * np.array([low[0], high[0]]), ylim=ANGSTROM_PER_BOHR * np.array([low[1], high[1]]))
        _draw_atoms(panel, molecule, ANGSTROM_PER_BOHR * atoms)
    bar = figure.colorbar(image, ax=[one, other], pad=0.01, aspect=30, shrink=0.9, extend="both")
    bar.set_label("Δρ / e bohr$^{-3}$", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(
        f"Worst frame: {frame} ({result.worst_source}), NMAE {result.nmae_worst_percent:.3g} %. "
        "In brackets: height of an atom above the plane / Å",
        x=0.01,
        ha="left",
        fontsize=9.5,
    )
    return figure


def _values(molecule: Molecule, density: Density, basis: Basis, point: np.ndarray) -> np.ndarray:
    where = torch.as_tensor(point, dtype=torch.float64).to(density.coefficient.device)
    return density_on_points(molecule, density, basis, where).cpu().numpy()


def _draw_atoms(panel: Axes, molecule: Molecule, place: np.ndarray) -> None:
    """Symbols of atoms in the plane; of those beside it the height in brackets, paler."""
    for number, (x, y, z) in zip(molecule.number.tolist(), place):
        inside = abs(z) < 0.3
        text = chemical_symbols[number] + ("" if inside else f" ({z:+.1f})")
        panel.text(
            x, y, text, ha="center", va="center", fontsize=8 if inside else 6.5, weight="bold" if inside else "normal",
            color=INK if inside else GREY, zorder=5, path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )  # fmt: skip
