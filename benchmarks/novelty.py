"""Does novelty know when the model is wrong? Verdicts on frames old and new, and the force error where a label exists.

    python benchmarks/novelty.py --model models/ethanol --data datasets/ethanol.h5 --spool runs/novelty \
        --record docs/results/novelty.json

Test frames have labels. New frames get theirs by Kohn-Sham calculations at the level of the data: bonds to oxygen stretched,
test frames with random displacements, and frames of GFN2-xTB dynamics at 1500 K. Other molecules of the model's elements are
judged without labels. Every calculation is kept in --spool, so a run that was stopped goes on; --no-labels leaves them out.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase import units as ase_units
from ase.build import molecule as build_molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from scipy.stats import spearmanr
from tqdm import tqdm

from densnet.cli import run
from densnet.data.fits import Fits, read_fits
from densnet.data.labels import Level
from densnet.data.novelty_file import read_seen
from densnet.files import replacing
from densnet.model.checkpoint import load_model
from densnet.model.densnet import DensNet
from densnet.predict.judgement import Novelty, judge
from densnet.record import write_record
from densnet.reference.kohn_sham import NoLabel, compute_label
from densnet.reference.potential import XtbPotential
from densnet.simulation.calculator import DensNetCalculator
from densnet.structures import Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR, MEV_PER_ANGSTROM_PER_AU

OTHERS = ("CH3OH", "CH3OCH3", "H2O", "CH4", "C2H6", "CH3COOH", "C6H6")
STRETCHES = (0.1, 0.2, 0.3, 0.5)  # angstrom
DISPLACEMENTS = (0.05, 0.1)  # angstrom, standard deviation of every coordinate


@dataclass(frozen=True)
class Group:
    """One kind of frames. novelty: median distance; force_mae_mev_per_angstrom: mean over the frames, None without labels."""

    name: str
    frames: int
    inside: int
    edge: int
    outside: int
    novelty: float
    force_mae_mev_per_angstrom: float | None


@dataclass(frozen=True)
class Study:
    """Rank correlations (Spearman) of novelty and force error over the test frames and over all frames with labels;

    by_verdict: mean force error of the frames of each verdict.
    """

    model: str
    groups: tuple[Group, ...]
    spearman_test: float
    spearman_all: float
    by_verdict: dict[str, tuple[int, float]]


def stretched(molecule: Molecule, partner: int, angstrom: float) -> Molecule:
    """The oxygen's bond to its nearest atom of this element longer; that atom moves, alone."""
    oxygen = int(np.flatnonzero(molecule.number == 8)[0])
    candidates = np.flatnonzero(molecule.number == partner)
    k = candidates[np.argmin(np.linalg.norm(molecule.position[candidates] - molecule.position[oxygen], axis=1))]
    bond = molecule.position[k] - molecule.position[oxygen]
    position = molecule.position.copy()
    position[k] += angstrom / ANGSTROM_PER_BOHR * bond / np.linalg.norm(bond)
    return molecule.moved(position)


def hot(molecule: Molecule, frames: int, temperature: float) -> list[Molecule]:
    """Frames of GFN2-xTB Langevin dynamics, one every 50 fs."""
    atoms = Atoms(molecule.number, molecule.position * ANGSTROM_PER_BOHR, calculator=DensNetCalculator(XtbPotential()))
    chance = np.random.RandomState(3)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=chance)
    dynamics = Langevin(atoms, 0.5 * ase_units.fs, temperature_K=temperature, friction=0.02 / ase_units.fs, rng=chance)
    out = []
    for _ in range(frames):
        dynamics.run(100)
        out.append(molecule.moved(atoms.positions / ANGSTROM_PER_BOHR))
    return out


def force_of(molecule: Molecule, level: Level, path: Path) -> np.ndarray | None:
    """(N, 3) hartree/bohr of a Kohn-Sham calculation, kept in `path`; None if there is none."""
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            if np.array_equal(kept["position"], molecule.position):
                return kept["force"]
    label = compute_label(molecule, level)
    if isinstance(label, NoLabel):
        return None
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, position=molecule.position, force=label.force)
    return label.force


def error(model: DensNet, molecule: Molecule, force: np.ndarray) -> float:
    found = model.predict(Molecules.of([molecule])).force
    assert found is not None
    return float(np.abs(found.numpy() - force).mean()) * MEV_PER_ANGSTROM_PER_AU


def new_frames(fits: Fits, test: np.ndarray) -> dict[str, list[Molecule]]:
    """Frames that are to be labelled, by kind."""
    lowest = fits.frame(int(test[np.argmin(fits.energy[test])]))
    out = {f"O-H longer by {d} angstrom": [stretched(lowest, 1, d)] for d in STRETCHES}
    rng = np.random.default_rng(2)
    for sigma in DISPLACEMENTS:
        moved = [fits.frame(f) for f in test[:: len(test) // 5][:5].tolist()]
        shift = [rng.normal(scale=sigma / ANGSTROM_PER_BOHR, size=m.position.shape) for m in moved]
        out[f"test frames displaced by {sigma} angstrom"] = [m.moved(m.position + s) for m, s in zip(moved, shift)]
    return out | {"GFN2-xTB at 1500 K": hot(lowest, 12, 1500.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/ethanol")
    parser.add_argument("--data", default="datasets/ethanol.h5")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--no-labels", action="store_true", help="judge the new frames, but do not compute labels")
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    model, fits = load_model(arguments.model), read_fits(arguments.data)
    record, test = read_seen(arguments.model, model.hash), fits.indices("test")

    groups: list[Group] = []
    pairs: list[tuple[Novelty, float]] = []

    def add(name: str, frames: list[Molecule], forces: list[np.ndarray | None]) -> None:
        found = [judge(molecule, record) for molecule in frames]
        errors = [None if f is None else error(model, molecule, f) for molecule, f in zip(frames, forces)]
        pairs.extend((n, e) for n, e in zip(found, errors) if e is not None)
        known = [e for e in errors if e is not None]
        counts = [sum(n.verdict == v for n in found) for v in ("inside", "edge", "outside")]
        distance = float(np.median([n.distance for n in found]))
        groups.append(Group(name, len(frames), *counts, distance, float(np.mean(known)) if known else None))
        print(groups[-1])

    add("test frames", [fits.frame(f) for f in test], [fits.force[fits.atoms(f)] for f in test.tolist()])
    of_test = len(pairs)
    for name, frames in new_frames(fits, test).items():
        forces: list[np.ndarray | None] = [None] * len(frames)
        if not arguments.no_labels:
            paths = [arguments.spool / f"{name.replace(' ', '-')}-{k}.npz" for k in range(len(frames))]
            forces = [force_of(m, fits.level, path) for m, path in tqdm(list(zip(frames, paths)), desc=name, unit="label")]
        add(name, frames, forces)
    for name in OTHERS:
        atoms = build_molecule(name)
        add(name, [Molecule(atoms.numbers, atoms.positions / ANGSTROM_PER_BOHR)], [None])

    distance, errors = (np.array(x) for x in zip(*((n.distance, e) for n, e in pairs)))
    verdicts = np.array([n.verdict for n, _ in pairs])
    study = Study(
        arguments.model,
        tuple(groups),
        float(spearmanr(distance[:of_test], errors[:of_test])[0]),
        float(spearmanr(distance, errors)[0]),
        {v: (int((verdicts == v).sum()), float(errors[verdicts == v].mean())) for v in np.unique(verdicts).tolist()},
    )
    print(study.by_verdict, study.spearman_test, study.spearman_all)
    if arguments.record:
        write_record(arguments.record, study)


if __name__ == "__main__":
    run(main)
