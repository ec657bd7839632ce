"""The spectra and observables of ethanol from a model and a trajectory to figures: harmonic, infrared, charges, first guess.

    python -m densnet.spectra_study --model models/ethanol --trajectory runs/md/nve300.h5 \\
        --harmonic trans=data/ethanol/harmonic.h5 gauche=data/ethanol-gauche/harmonic.h5 --labels data/ethanol/labels.h5 \\
        --data runs/density/fits.h5 --experiment ethanol.jdx --out runs/spectra --record docs/results/spectra.json

Every step is a command that is printed before it runs and skipped when its result is there, so a killed study goes on.
The measured spectrum is yours to bring: those of the collections are not free to be passed on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densnet.cli import run
from densnet.errors import ConfigError
from densnet.files import write_json
from densnet.model.checkpoint import read_model
from densnet.record import portable, write_record
from densnet.steps import ROOT, Step, from_root, run_steps

BANDS = {"C-O": (940, 1150), "C-H": (2700, 3150), "O-H": (3550, 3800)}
HIDDEN = (1600, 2600)  # cm^-1, nothing of ethanol lies there
GUESS_FRAMES = 20


@dataclass(frozen=True)
class Part:
    """One command and a file it wrote. name: of the file; seconds: all attempts; result: the JSON as it stands."""

    name: str
    command: str
    seconds: float
    result: Any


@dataclass(frozen=True)
class SpectraStudy:
    """Everything the documentation quotes about them."""

    parts: tuple[Part, ...]


def plan(given: argparse.Namespace, minima: Mapping[str, Path], out: Path) -> list[Step]:
    """Every command of the study, in order. minima: conformers and their harmonic references."""
    model = f"model={given.model}"
    steps = [
        Step(out / name / "modes.json", ("-m", "densnet.harmonic", model, f"harmonic={path}", f"out={out / name}"))
        for name, path in minima.items()
    ]
    if given.trajectory:
        infrared = ["spectra.py", f"trajectory={given.trajectory}", model, f"harmonic={next(iter(minima.values()))}"]
        infrared += [f"out={out / 'ir'}", f"bands={_mapping({n: f'[{low}, {high}]' for n, (low, high) in BANDS.items()})}"]
        infrared.append(f"minima={_mapping({name: out / name / 'harmonic.h5' for name in minima})}")
        if given.experiment:
            names = ", ".join(f"[{name}, {low}, {high}]" for name, (low, high) in BANDS.items())
            infrared += [f"experiment={given.experiment}", f"comparison.names=[{names}]", f"comparison.omit_cm1={list(HIDDEN)}"]
        steps.append(Step(out / "ir" / "assignment.json", infrared))  # the last that spectra.py writes
    if given.labels and given.data:
        common = ("--data", str(given.data), "--model", str(given.model))
        scored = ("--labels", str(given.labels), *common, "--record", str(out / "observables.json"))
        guessed = (*common, "--spool", str(out / "initial_guess"), "--frames", str(GUESS_FRAMES))
        steps.append(Step(out / "observables.json", ("benchmarks/observables.py", *scored)))
        guessed = (*guessed, "--record", str(out / "initial_guess.json"))
        steps.append(Step(out / "initial_guess.json", ("benchmarks/initial_guess.py", *guessed)))
    return steps


def _mapping(values: Mapping[str, object]) -> str:
    """As Hydra reads it."""
    return f"{{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"


def collect(out: Path, steps: Sequence[Step], seconds: Mapping[str, float]) -> SpectraStudy:
    """What the commands wrote, with what lies beside it (ir, comparison)."""
    parts = []
    for step in steps:
        name, done = str(step.done.relative_to(out)), ROOT / step.done
        command = " ".join(("python", *(portable(word) for word in step.command)))
        for path in [done] if step.done.parent == out else sorted(done.parent.glob("*.json")):
            of = str(path.relative_to(ROOT / out).with_suffix(""))
            parts.append(Part(of, command, seconds.get(name, 0.0), json.loads(path.read_text())))
    return SpectraStudy(tuple(parts))


def named_path(text: str) -> tuple[str, Path]:
    """name=file, as --harmonic wants it. Raises ConfigError if it is not that, or there is no such file."""
    name, equals, file = text.partition("=")
    if not (name and equals and Path(file).is_file()):
        raise ConfigError(
            f"--harmonic {text}; expected name=file of a harmonic reference that exists, as in trans=data/ethanol/harmonic.h5; "
            "python -m densnet.reference task=harmonic makes one"
        )
    return name, from_root(Path(file))


def refuse_other_inputs(path: Path, given: argparse.Namespace) -> None:
    """Keep which model and trajectory the results in a folder are of. Raises ConfigError if they are of others."""
    found = {"model": read_model(given.model).model.hash, "trajectory": given.trajectory and str(given.trajectory)}
    if path.exists() and (before := json.loads(path.read_text())) != found:
        raise ConfigError(f"{path.parent} holds results of {before}; expected {found}; give another --out, or remove it")
    write_json(path, found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.spectra_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model with density and energy")
    parser.add_argument("--harmonic", nargs="+", required=True, metavar="NAME=FILE", help="harmonic references of its conformers")
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
    if (given.labels is None) != (given.data is None):
        raise ConfigError(
            "one of --labels and --data is missing; expected both or none, which leaves out charges and first guess"
        )
    if given.experiment is not None and given.trajectory is None:
        raise ConfigError("--experiment without --trajectory; expected the dynamics to compare; add it")
    minima = dict(named_path(text) for text in given.harmonic)
    out = from_root(given.out)
    refuse_other_inputs(ROOT / out / "inputs.json", given)
    steps = plan(given, minima, out)
    study = collect(out, steps, run_steps(steps, out / "seconds.json"))
    if given.record:
        write_record(given.record, study)


if __name__ == "__main__":
    run(main)
