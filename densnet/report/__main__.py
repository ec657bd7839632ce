"""A run as one HTML page: python -m densnet.report spectrum=folder [evaluation=folder] [training=folder] [out=report.html]."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from densnet.cli import job, run
from densnet.errors import ConfigError
from densnet.files import write_text
from densnet.record import command_line
from densnet.report.accuracy import accuracy_part
from densnet.report.extras import extra_parts
from densnet.report.origin import left_by_hydra, model_part, settings_part, trajectory_part
from densnet.report.page import Missing, render
from densnet.report.parts import Part
from densnet.report.spectrum import spectrum_part
from densnet.report.training import training_part

MISSING = (
    Missing("Infrared spectrum, harmonic lines, bands and peaks", "spectrum=FOLDER"),
    Missing("Accuracy of the model, with parity plots", "evaluation=FOLDER"),
    Missing("Training curves", "training=FOLDER"),
    Missing("Architecture, basis and origin of the model", "model=FOLDER"),
    Missing("What the trajectory states about itself", "trajectory=FILE"),
    Missing("Settings of the programs that ran", "settings=FOLDER"),
)


@hydra.main(version_base="1.3", config_path="../../conf/report", config_name="report")
@job
def main(cfg: DictConfig) -> None:
    out = Path(cfg.out)
    if out.suffix != ".html" or out.is_dir():
        raise ConfigError(f"out is {out}; expected a file that ends in .html; write out=report.html")
    spectrum, evaluation, training, model, trajectory, more, places = (
        _paths(cfg, name) for name in ("spectrum", "evaluation", "training", "model", "trajectory", "more", "settings")
    )
    one: tuple[tuple[str, Sequence[Path]], ...] = (("spectrum", spectrum), ("evaluation", evaluation), ("trajectory", trajectory))
    for name, paths in one:
        if len(paths) > 1:
            raise ConfigError(f"{name} is a list of {len(paths)}; expected one; make a report for each, or use more=[...]")
    parts: list[Part] = []
    for folder in spectrum:
        parts += [spectrum_part(folder), *extra_parts(folder)]
    for folder in more:
        parts += extra_parts(folder)
    parts += [accuracy_part(folder) for folder in evaluation]
    parts += [training_part(folder, i, len(training)) for i, folder in enumerate(training, start=1)]
    parts += [model_part(folder) for folder in model[:1]] + [trajectory_part(path) for path in trajectory]
    programs = settings_part([*left_by_hydra([*spectrum, *more, *evaluation, *training]), *places])
    given = (spectrum, evaluation, training, model, trajectory, [programs] if programs is not None else [])
    missing = [absent for absent, found in zip(MISSING, given) if not found]
    parts += [programs] if programs is not None else []
    write_text(out, render(parts, missing, cfg.title, command_line(), datetime.now().astimezone(), cfg.carry))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(parts)} sections, without {len(missing)} of {len(MISSING)} inputs")


def _paths(cfg: DictConfig, name: str) -> list[Path]:
    """One path, a list of them, or null."""
    value = cfg[name]
    if value is None:
        return []
    values = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_list(value) else [value]
    if not isinstance(values, list) or not all(isinstance(v, str) and v for v in values):
        raise ConfigError(f"{name} is {values}; expected a path; write {name}=PATH, in quotes if it has blanks")
    return [Path(v) for v in values]


if __name__ == "__main__":
    run(main)
