"""What the predicted density saves an SCF: iterations and time from it and from PySCF's own starting densities.

    python benchmarks/initial_guess.py --model models/ethanol --data datasets/ethanol.h5 --spool runs/initial_guess \
        --record docs/results/initial_guess.json

Test frames, spread evenly over the test set, at the level of theory of the data. Every finished SCF is kept in the folder
--spool, so a run that was stopped goes on where it was; give a new folder for another model.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pyscf import lib
from tqdm import tqdm

from densnet.cli import run
from densnet.data.fits import read_fits
from densnet.errors import ConfigError
from densnet.files import write_json
from densnet.model.checkpoint import load_model
from densnet.record import write_record
from densnet.reference.initial_guess import converge, initial_density_matrix
from densnet.structures import Molecules

OURS = "densnet"
PYSCF_GUESSES = ("minao", "atom", "vsap", "huckel", "1e", "sap")


@dataclass(frozen=True)
class GuessCost:
    """One start, over the frames. iterations: mean, least, most; guess_s: processor time of making the start, mean;

    scf_s: that of the SCF after it, mean (PySCF's own guesses are made in there); first_error_microhartree: median distance of
    the energy of the start from the converged one; not_converged: frames.
    """

    guess: str
    frames: int
    iterations: float
    iterations_least: int
    iterations_most: int
    guess_s: float
    scf_s: float
    first_error_microhartree: float
    not_converged: int


@dataclass(frozen=True)
class Savings:
    """iterations_saved, time_ratio: of our start against `against`; time_ratio: processor time, making the start included, below

    one is faster; energy_difference_max: hartree, between converged energies of one frame from different starts.
    """

    model: str
    level: dict
    frames: int
    threads: int
    costs: tuple[GuessCost, ...]
    against: str
    iterations_saved: float
    iterations_saved_percent: float
    time_ratio: float
    energy_difference_max: float


def kept(path: Path, work: Callable[[], dict]) -> dict:
    """The result in this file, or of the work, which the file then holds."""
    if not path.exists():
        write_json(path, work())
    return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/ethanol")
    parser.add_argument("--data", default="datasets/ethanol.h5", help="fitted data: test frames and level of theory")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--against", nargs="+", default=["minao", "vsap"], help="PySCF's guesses; the first is compared with")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.against) - set(PYSCF_GUESSES):
        raise ConfigError(f"--against has {', '.join(sorted(unknown))}; expected some of {', '.join(PYSCF_GUESSES)}")
    torch.set_num_threads(arguments.threads)
    lib.num_threads(arguments.threads)
    model, fits = load_model(arguments.model), read_fits(arguments.data)
    test = fits.indices("test")
    if not 1 <= arguments.frames <= len(test):
        raise ConfigError(f"--frames is {arguments.frames}; expected 1 to {len(test)}, the test frames of {arguments.data}")
    chosen = test[np.linspace(0, len(test) - 1, arguments.frames).round().astype(int)]
    spool = arguments.spool / model.hash

    def scf(f: int, guess: str) -> dict:
        molecule, start, begun = fits.frame(f), guess, time.process_time()
        if guess == OURS:
            with torch.no_grad():
                density = model.density(Molecules.of([molecule]))
            start = initial_density_matrix(molecule, density, model.basis, fits.level)
        made = time.process_time() - begun
        return {"guess_s": made, **asdict(converge(molecule, fits.level, start))}

    guesses = (OURS, *arguments.against)
    work = [(f, guess) for f in chosen.tolist() for guess in guesses]  # frame by frame
    results = {(f, g): kept(spool / f"{f}-{g}.json", lambda: scf(f, g)) for f, g in tqdm(work, desc="SCF", unit="run")}  # noqa: B023

    costs = []
    for guess in guesses:
        of = [results[f, guess] for f in chosen.tolist()]
        steps = np.array([r["iterations"] for r in of])
        costs.append(
            GuessCost(
                guess,
                len(of),
                iterations=float(steps.mean()),
                iterations_least=int(steps.min()),
                iterations_most=int(steps.max()),
                guess_s=float(np.mean([r["guess_s"] for r in of])),
                scf_s=float(np.mean([r["processor_s"] for r in of])),
                first_error_microhartree=1e6 * float(np.median([abs(r["first_error"]) for r in of])),
                not_converged=sum(not r["converged"] for r in of),
            )
        )
        print(costs[-1])
    ours, default = costs[0], costs[1]
    energies = np.array([[results[f, g]["energy"] for g in guesses] for f in chosen.tolist()])
    saved = default.iterations - ours.iterations
    savings = Savings(
        arguments.model,
        asdict(fits.level),
        len(chosen),
        arguments.threads,
        tuple(costs),
        default.guess,
        saved,
        100 * saved / default.iterations,
        (ours.guess_s + ours.scf_s) / (default.guess_s + default.scf_s),
        float(np.ptp(energies, axis=1).max()),
    )
    print(f"{saved:.2f} of {default.iterations:.2f} iterations saved, {savings.time_ratio:.2f} times the time")
    if arguments.record:
        write_record(arguments.record, savings)


if __name__ == "__main__":
    run(main)
