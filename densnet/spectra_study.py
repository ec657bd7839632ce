"""The spectra and observables of ethanol from a model and a trajectory to figures: harmonic, infrared, charges, first guess.

    python -m densnet.spectra_study --model models/ethanol --trajectory runs/md/nve300.h5 \\
        --harmonic data/ethanol/harmonic.h5 data/ethanol-gauche/harmonic.h5 --labels data/ethanol/labels.h5 \\
        --data runs/density/fits.h5 --experiment ethanol.jdx --out runs/spectra --record docs/results/spectra.json

Every step is a command that is printed before it runs and skipped when its result is there, so a killed study goes on.
The measured spectrum is yours to bring: those of the collections are not free to be passed on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densnet.cli import run
from densnet.errors import ConfigError
from densnet.record import write_record
from densnet.steps import ROOT, Step, from_root, run_steps

BANDS = {"C-O": (940, 1150), "C-H": (2700, 3150), "O-H": (3550, 3800)}
HIDDEN = (1600, 2600)  # cm^-1, nothing of ethanol lies there
GUESS_FRAMES = 20


@dataclass(frozen=True)
class Part:
    """One command and what it wrote. name: of its folder; seconds: all attempts; result: the JSON as it stands."""

    name: str
    command: str
    seconds: float
    result: Any


@dataclass(frozen=True)
class SpectraStudy:
    """Everything the documentation quotes about them."""

    parts: tuple[Part, ...]


def plan(given: argparse.Namespace, out: Path) -> list[Step]:
    """Every command of the study, in order."""
    model, first = f"model={given.model}", given.harmonic[0]
    steps = [
        Step(out / name / "modes.json", ("-m", "densnet.harmonic", model, f"harmonic={path}", f"out={out / name}"))
        for name, path in zip(_names(given.harmonic), given.harmonic)
    ]
    if given.trajectory:
        bands = ", ".join(f"{name}: [{low}, {high}]" for name, (low, high) in BANDS.items())
        infrared = ["spectra.py", f"trajectory={given.trajectory}", model, f"harmonic={first}", f"out={out / 'ir'}"]
        minima = ", ".join(
            f"{path.parent.name}: {out / name / 'harmonic.h5'}" for name, path in zip(_names(given.harmonic), given.harmonic)
        )
        infrared += [f"bands={{{bands}}}", f"minima={{{minima}}}"]
        if given.experiment:
            names = ", ".join(f"[{name}, {low}, {high}]" for name, (low, high) in BANDS.items())
            infrared += [f"experiment={given.experiment}", f"comparison.names=[{names}]", f"comparison.omit_cm1={list(HIDDEN)}"]
        steps.append(Step(out / "ir" / "ir.json", infrared))
    if given.labels and given.data:
        files = ("--data", str(given.data), "--model", str(given.model), "--record", str(out / "observables.json"))
        steps.append(Step(out / "observables.json", ("benchmarks/observables.py", "--labels", str(given.labels), *files)))
        files = ("--data", str(given.data), "--model", str(given.model), "--spool", str(out / "initial_guess"))
        more = ("--frames", str(GUESS_FRAMES), "--record", str(out / "initial_guess.json"))
        steps.append(Step(out / "initial_guess.json", ("benchmarks/initial_guess.py", *files, *more)))
    return steps


def _names(harmonic: Sequence[Path]) -> list[str]:
    """Folders for the conformers: the names of the folders the references lie in."""
    return [f"harmonic-{path.parent.name}" for path in harmonic]


def collect(out: Path, steps: Sequence[Step], seconds: dict[str, float]) -> SpectraStudy:
    """What the commands wrote, with what lies beside it (comparison, assignment, convergence)."""
    parts = []
    for step in steps:
        name, command = str(step.done.relative_to(out)), " ".join(("python", *step.command))
        for path in sorted(
            {ROOT / step.done, *(ROOT / step.done).parent.glob("*.json")} if step.done.parent != out else [ROOT / step.done]
        ):
            text = json.loads(path.read_text())
            parts.append(Part(str(path.relative_to(ROOT / out).with_suffix("")), command, seconds.get(name, 0.0), text))
    return SpectraStudy(tuple(parts))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.spectra_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model with density and energy")
    parser.add_argument("--harmonic", type=Path, nargs="+", required=True, help="harmonic references of its conformers")
    parser.add_argument("--trajectory", type=Path, help="of simulate.py")
    parser.add_argument("--experiment", type=Path, help="measured spectrum, JCAMP-DX or a table")
    parser.add_argument("--labels", type=Path, help="label file with density matrices, for the observables")
    parser.add_argument("--data", type=Path, help="its fits")
    parser.add_argument("--out", type=Path, default=Path("runs/spectra"))
    parser.add_argument("--record", type=Path, help="write all figures, with hardware and versions beside them, to this file")
    given = parser.parse_args()
    for name in ("model", "trajectory", "experiment", "labels", "data"):
        path = getattr(given, name)
        if path is not None:
            if not path.exists():
                raise ConfigError(f"--{name} {path} does not exist; expected a file or folder; check the path")
            setattr(given, name, from_root(path))
    missing = [str(path) for path in given.harmonic if not path.is_file()]
    if missing:
        raise ConfigError(f"no harmonic reference at {missing[0]}; make it with python -m densnet.reference task=harmonic")
    given.harmonic = [from_root(path) for path in given.harmonic]
    out = from_root(given.out)
    steps = plan(given, out)
    study = collect(out, steps, run_steps(steps, out / "seconds.json"))
    if given.record:
        write_record(given.record, study)


if __name__ == "__main__":
    run(main)
