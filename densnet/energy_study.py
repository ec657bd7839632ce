"""What matters for energies and forces of ethanol: the density in, the geometry in, depth, width, data, joint training.

    python -m densnet.energy_study --data runs/density/fits.h5 --init runs/density/real-space-flexible/model \\
        --out runs/energy-study --record docs/results/energy.json

Every variant trains an energy network on the same frozen density network for the same number of optimiser steps. The
fine-tunings start from the variant `both`: one with the density network still frozen, one with both networks free, for as
many steps. Commands are printed before they run and skipped when their result is there, so a killed study goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densnet.cli import run
from densnet.density_study import Run, collect
from densnet.errors import ConfigError
from densnet.model.checkpoint import read_model
from densnet.record import write_record
from densnet.steps import Step, from_root, run_steps

VARIANTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("both", ()),
    ("geometry", ("model.energy.density=false",)),
    ("density", ("model.energy.layers=0",)),
    ("one-layer", ("model.energy.layers=1",)),
    ("l1", ("model.energy.lmax=1",)),
    ("l3", ("model.energy.lmax=3",)),
    ("channels-32", ("model.energy.channels=32",)),
)


@dataclass(frozen=True)
class Settings:
    """steps: of every variant; tune_steps: of the two fine-tunings; sizes: training frames of the learning curve;

    overrides: settings for every training command.
    """

    steps: int
    tune_steps: int
    sizes: tuple[int, ...]
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class EnergyStudy:
    """Everything the documentation quotes about it."""

    runs: tuple[Run, ...]


def plan(data: Path, init: Path, out: Path, settings: Settings) -> list[Step]:
    """Every command of the study, in order."""

    def training(name: str, stage: str, steps: int, *extra: str) -> Step:
        folder = out / name
        command = (
            "train.py", "experiment=ethanol", "model=energy", f"dataset.path={data}", f"stage={stage}", "logger=csv",
            f"run_dir={folder}", f"runs_dir={out}", "trainer.max_epochs=-1", f"trainer.max_steps={steps}",
            "dataset.batch_size=4", "test_grids=1", "callbacks.grid.every_n_epochs=100000",
        )  # fmt: skip
        return Step(folder / "evaluation.json", (*command, *settings.overrides, *extra))

    start = f"init={init}"
    steps = [training(name, "energy", settings.steps, start, *extra) for name, extra in VARIANTS]
    steps += [training(f"frames-{n}", "energy", settings.steps, start, f"dataset.limit={n}") for n in settings.sizes]
    slow = (f"init={out / 'both' / 'model'}", "stage.optimizer.learning_rate=3e-4")
    steps.append(training("frozen-longer", "energy", settings.tune_steps, *slow))
    steps.append(training("joint", "joint_real_space", settings.tune_steps, *slow, "dataset.points=500"))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.energy_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="fits of ethanol, with samples of the density")
    parser.add_argument("--init", type=Path, required=True, help="model of the density alone")
    parser.add_argument("--out", type=Path, default=Path("runs/energy-study"))
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps of every variant")
    parser.add_argument("--tune-steps", type=int, default=1000, help="of the two fine-tunings")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 200, 400], help="training frames of the learning curve")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings for every training command")
    parser.add_argument("--record", type=Path, help="write all figures, with hardware and versions beside them, to this file")
    arguments = parser.parse_args()
    for path in (arguments.data, arguments.init):
        if not path.exists():
            raise ConfigError(f"{path} does not exist; expected fitted data and a trained model; see docs/density.md")
    if read_model(arguments.init).architecture.energy is not None:
        raise ConfigError(
            f"{arguments.init} has an energy network, which all variants would take over; expected one of the density alone; "
            "give the one it was trained from"
        )
    settings = Settings(arguments.steps, arguments.tune_steps, tuple(arguments.sizes), tuple(arguments.set))
    out = arguments.out.resolve()
    steps = plan(from_root(arguments.data), from_root(arguments.init), from_root(out), settings)
    runs = collect(out, steps, run_steps(steps, out / "seconds.json")).runs
    print(in_words(runs))
    if arguments.record:
        write_record(arguments.record, EnergyStudy(runs))


def in_words(runs: Sequence[Run]) -> str:
    """A table for the terminal."""
    lines = [f"{'run':16s} frames  steps  energy / meV  force / meV/A  minutes"]
    for r in runs:
        energy, force = (float(str(r.evaluation[k])) for k in ("energy_mae_meV", "force_mae_meV_per_A"))
        lines.append(f"{r.name:16s} {r.train_frames:6d} {r.steps:6d} {energy:13.2f} {force:14.2f} {r.seconds / 60:8.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
