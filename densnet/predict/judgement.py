"""How far a prediction can be trusted: is the geometry new to the model, and do several models agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols

from densnet.data.novelty import CUTOFF, Seen
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import ANGSTROM_PER_BOHR, MEV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE, MILLIDEBYE_PER_AU

INSIDE, EDGE, OUTSIDE = "inside", "edge", "outside"
USUAL = 0.99  # of the training frames; farther than that is the edge, farther than all of them is outside


@dataclass(frozen=True)
class Novelty:
    """distance: of the farthest atom, 1 is the 99 % quantile of its element; atom: which one; verdict: inside (as near as 99 %

    of the training frames are to each other), edge, or outside (farther than any of them); atoms: (N,) all distances;
    statement: one line for people, with what it is based on.
    """

    distance: float
    atom: int
    verdict: str
    atoms: np.ndarray
    statement: str


def judge(molecule: Molecule, seen: Seen) -> Novelty:
    """Compare a molecule with the record of the training data."""
    atoms = seen.atoms(Molecules.of([molecule]))
    atom = int(atoms.argmax())
    distance, usual = float(atoms[atom]), dict(zip(seen.levels, seen.quantile))
    verdict = INSIDE if distance <= usual[USUAL] else EDGE if distance <= usual[1.0] else OUTSIDE
    which = f"{chemical_symbols[molecule.number[atom]]} (atom {atom})"
    below = sum(distance > q for q in seen.quantile)
    if verdict == OUTSIDE:
        share = f"farther from its nearest training environment than in any of the {seen.frames} training frames"
    elif below:
        share = f"farther from its nearest training environment than in {100 * seen.levels[below - 1]:g} % of the training frames"
    else:
        share = f"as near to its nearest training environment as in {100 * seen.levels[0]:g} % of the training frames"
    return Novelty(distance, atom, verdict, atoms, f"{which} is {share}: {distance:.2f}, usual up to {usual[USUAL]:.2f}")


def basis_of_judgement(seen: Seen) -> str:
    """How the verdicts come about, one line."""
    return (
        f"distance of every atom's surroundings within {CUTOFF * ANGSTROM_PER_BOHR:g} angstrom from those of {seen.frames} "
        f"training frames, in units of the 99 % quantile for its element; training frames measured against each other: 99 % "
        f"up to {dict(zip(seen.levels, seen.quantile))[USUAL]:.2f}, all up to {seen.quantile[-1]:.2f}"
    )


@dataclass(frozen=True)
class Spread:
    """Standard deviations over the models of a committee (n - 1). energy, force: None if a model has no energies; force is

    the root mean square over components, force_worst the largest of an atom (length). Models trained on the same data share
    some of their error, so the true one can be larger.
    """

    models: int
    energy_mev: float | None
    force_mev_per_angstrom: float | None
    force_worst_mev_per_angstrom: float | None
    dipole_millidebye: float


def spread(predictions: Sequence[Prediction]) -> Spread:
    """Of one molecule, by at least two models."""
    dipole = torch.stack([p.dipole[0].double() for p in predictions]).std(0).norm()
    energy = force = worst = None
    forces = [p.force.double() for p in predictions if p.force is not None]
    if len(forces) == len(predictions):
        energy = float(torch.stack([p.energy[0].double() for p in predictions]).std()) * MEV_PER_HARTREE
        deviation = torch.stack(forces).std(0)
        force = float(deviation.square().mean().sqrt()) * MEV_PER_ANGSTROM_PER_AU
        worst = float(deviation.norm(dim=-1).max()) * MEV_PER_ANGSTROM_PER_AU
    return Spread(len(predictions), energy, force, worst, float(dipole) * MILLIDEBYE_PER_AU)
