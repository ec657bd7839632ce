"""Molecular dynamics: python simulate.py model=folder molecule=water [simulation=nve|...] [out=run.h5] [resume=true].

potential=xtb|kohn_sham in place of model=folder runs the same dynamics on a reference method.
"""

from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from densnet.cli import job, run
from densnet.data.geometry import load_geometry
from densnet.record import write_record
from densnet.simulation.engine import simulate


@hydra.main(version_base="1.3", config_path="conf/simulate", config_name="simulate")
@job
def main(cfg: DictConfig) -> None:
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    for name in cfg:  # a setting without a value is named here, not where another setting refers to it
        OmegaConf.select(cfg, str(name), throw_on_missing=True)
    settings = instantiate(cfg.simulation)
    molecules = load_geometry(cfg.molecule, cfg.charge)
    potential = instantiate(cfg.potential)
    summary = simulate(
        potential, molecules, settings, cfg.out, cfg.progress, cfg.resume, cfg.overwrite, model=cfg.source, device=cfg.device
    )
    if cfg.record is not None:
        write_record(Path(cfg.record), summary)
    drift = summary.drift_meV_per_atom_per_ps
    print(
        f"{cfg.out}: {summary.steps} steps, {summary.ms_per_step:.3g} ms each, {summary.mean_temperature:.0f} K"
        + ("" if drift is None else f", drift {drift:.2g} meV/atom/ps")
        + (f", {summary.frozen_replicas} replicas failed and were frozen" if summary.frozen_replicas else "")
    )


if __name__ == "__main__":
    run(main)
