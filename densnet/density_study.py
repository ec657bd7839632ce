"""The density of ethanol from labels to figures: learning curve, metric training, real-space fine-tuning, evaluation.

    python -m densnet.density_study --labels data/ethanol/labels.h5 --out runs/density --record docs/results/density.json

Every step is a command that is printed before it runs and skipped when its result is there, so a killed study goes on. The
steps that fine-tune start from the metric-trained model; `metric-longer` trains that one on in the metric for as many steps,
so that what real space gains is not what more training gains. `real-space-dipole` goes on from `real-space` with a
heavy dipole term. `optimizer-adam` and `optimizer-soap` differ in the optimiser and its learning rate alone.
`models/ethanol-first` has the density network of `real-space-flexible`, `models/ethanol` the same trained on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from densnet.cli import run
from densnet.errors import ConfigError, DataError
from densnet.files import replacing
from densnet.record import write_record
from densnet.steps import ROOT, Step, from_root, run_steps

SIZES = (50, 100, 200, 400)
RATE, SOAP_RATE = "3e-3", "1.5e-3"  # learning rates of metric training; the second of `optimizer-soap` alone


@dataclass(frozen=True)
class Settings:
    """steps: optimiser steps of the metric training on all frames; curve_steps: of each point of the learning curve;

    tune_steps: of each fine-tuning; overrides: settings for every training command.
    """

    steps: int
    curve_steps: int
    tune_steps: int
    sizes: tuple[int, ...]
    overrides: tuple[str, ...]


def training(name: str, out: Path, stage: str, steps: int, extra: Sequence[str]) -> Step:
    """Train and evaluate; the model lies in out/name/model."""
    folder = out / name
    command = ["train.py", "experiment=ethanol", f"dataset.path={out / 'fits.h5'}", f"stage={stage}", "logger=csv"]
    command += [
        f"run_dir={folder}",
        f"runs_dir={folder}",
        "ckpt_path=auto",
        "trainer.max_epochs=-1",
        f"trainer.max_steps={steps}",
    ]
    return Step(folder / "evaluation.json", (*command, *extra))


def plan(labels: Path, out: Path, settings: Settings) -> list[Step]:
    """Every command of the study, in order."""
    fit = ["-m", "densnet.reference", "task=fit", f"labels={from_root(labels)}", f"data_dir={out}", "basis=large"]
    steps = [Step(out / "fits.h5", (*fit, "fit.grid_frames_test=120", "fit.points_train=4000"))]
    extra = (f"stage.optimizer.learning_rate={RATE}", *settings.overrides)
    for size in settings.sizes:
        steps.append(training(f"frames-{size}", out, "density", settings.curve_steps, (*extra, f"dataset.limit={size}")))
    if settings.curve_steps != settings.steps:
        steps.append(training("frames-all", out, "density", settings.curve_steps, extra))
    steps.append(training("metric", out, "density", settings.steps, extra))
    tune = (*settings.overrides, f"init={out / 'metric' / 'model'}", "stage.optimizer.learning_rate=5e-4")
    steps.append(training("metric-longer", out, "density", settings.tune_steps, tune))
    points = (*tune, "dataset.points=1000")
    steps.append(training("real-space", out, "density_real_space", settings.tune_steps, points))
    flexible = (*points, "model.density.flexible=1.3")
    steps.append(training("real-space-flexible", out, "density_real_space", settings.tune_steps, flexible))
    dipole = (*settings.overrides, f"init={out / 'real-space' / 'model'}", "dataset.points=1000", "stage.objectives.1.weight=3")
    steps.append(training("real-space-dipole", out, "density_real_space", settings.tune_steps, dipole))
    for method, rate in (("adam", RATE), ("soap", SOAP_RATE)):
        optimizer = (f"stage.optimizer.method={method}", f"stage.optimizer.learning_rate={rate}")
        steps.append(training(f"optimizer-{method}", out, "density", settings.curve_steps, (*settings.overrides, *optimizer)))
    return steps


@dataclass(frozen=True)
class Run:
    """One training run. train_frames: it saw; seconds: of the whole command, evaluation included."""

    name: str
    train_frames: int
    steps: int
    seconds: float
    evaluation: dict[str, object]


@dataclass(frozen=True)
class Study:
    """Everything the documentation quotes about the density."""

    runs: tuple[Run, ...]


def collect(out: Path, steps: Sequence[Step], seconds: dict[str, float]) -> Study:
    """Read what the commands wrote. Raises DataError if a step has no result."""
    runs = []
    for step in steps:
        if step.done.name != "evaluation.json":
            continue
        name = step.done.parent.name
        try:
            evaluation = json.loads((ROOT / step.done).read_text())
            frames = int(evaluation["train_frames"])
        except (FileNotFoundError, KeyError, ValueError) as error:
            raise DataError(f"{step.done} cannot be used ({type(error).__name__}: {error}); delete it and run again") from error
        wanted = next(int(c.split("=")[1]) for c in step.command if c.startswith("trainer.max_steps="))
        runs.append(Run(name, frames, wanted, seconds.get(f"{name}/evaluation.json", float("nan")), evaluation))
    return Study(tuple(runs))


def learning_curve_figure(study: Study) -> Figure:
    """Errors on the test frames against the number of training frames, both axes logarithmic."""
    runs = sorted((r for r in study.runs if r.name.startswith("frames-")), key=lambda r: r.train_frames)
    frames = [r.train_frames for r in runs]
    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, label, marker in (("nmae_percent", "against the SCF density", "o"), ("nmae_fit_percent", "against the fit", "s")):
        left.plot(frames, [float(str(r.evaluation[key])) for r in runs], marker=marker, label=label)
    floor = float(str(runs[0].evaluation["fit_floor_percent"]))
    left.axhline(floor, color="grey", linestyle="--", label="floor of the fit")
    left.set_ylabel("NMAE / %")
    left.legend(frameon=False)
    right.plot(frames, [float(str(r.evaluation["dipole_mae_mD"])) for r in runs], marker="o", color="tab:red")
    right.set_ylabel("dipole error / mD")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(frames, [str(f) for f in frames])
        axes.minorticks_off()
        axes.set_xlabel("training frames")
        ticks = [
            t
            for k in range(-3, 4)
            for t in (10**k * d for d in (1, 1.5, 2, 3, 5, 7))
            if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]
        ]
        axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    figure.suptitle(f"Ethanol, {runs[0].steps} optimiser steps for every point", fontsize=10)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.density_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, required=True, help="label file of ethanol with density matrices")
    parser.add_argument("--out", type=Path, default=Path("runs/density"))
    parser.add_argument("--steps", type=int, default=15000, help="optimiser steps of the metric training")
    parser.add_argument("--curve-steps", type=int, default=2500, help="of every point of the learning curve")
    parser.add_argument("--tune-steps", type=int, default=2000, help="of every fine-tuning")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="training frames of the learning curve")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings for every training command")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="only these runs (their names), and no record")
    parser.add_argument("--record", type=Path, help="write all figures, with hardware and versions beside them, to this file")
    parser.add_argument("--figure", type=Path, help="where the plot of the learning curve goes; default: beside the runs")
    arguments = parser.parse_args()
    if not arguments.labels.is_file():
        raise ConfigError(
            f"no label file at {arguments.labels}; expected one with density matrices; see python -m densnet.reference"
        )
    out = arguments.out.resolve()
    settings = Settings(
        arguments.steps, arguments.curve_steps, arguments.tune_steps, tuple(arguments.sizes), tuple(arguments.set)
    )
    steps = plan(arguments.labels, from_root(out), settings)
    if arguments.only:
        run_steps([s for s in steps if s.done.parent.name in arguments.only], out / "seconds.json")
        return
    study = collect(out, steps, run_steps(steps, out / "seconds.json"))
    figure = learning_curve_figure(study)
    FigureCanvasAgg(figure)
    with replacing(arguments.figure or out / "learning_curve.png") as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    print(f"{'run':22s} frames  NMAE %  fit %  floor %  dipole mD  hours")
    for r in study.runs:
        e = {k: float(str(r.evaluation[k])) for k in ("nmae_percent", "nmae_fit_percent", "fit_floor_percent", "dipole_mae_mD")}
        print(f"{r.name:22s} {r.train_frames:6d} {' '.join(f'{v:7.3f}' for v in e.values())} {r.seconds / 3600:6.2f}")
    if arguments.record:
        write_record(arguments.record, study)


if __name__ == "__main__":
    run(main)
