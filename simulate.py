"""Molecular dynamics: python simulate.py model=folder molecule=water [simulation=nve|langevin] [out=run.h5] [resume=true]."""

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from densnet.cli import job, run
from densnet.data.geometry import load_geometry
from densnet.model.checkpoint import load_model
from densnet.simulation.engine import simulate


@hydra.main(version_base="1.3", config_path="conf/simulate", config_name="simulate")
@job
def main(cfg: DictConfig) -> None:
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    settings = instantiate(cfg.simulation)
    molecules = load_geometry(cfg.molecule, cfg.charge)
    model = load_model(cfg.model).to(cfg.device)
    summary = simulate(
        model, molecules, settings, cfg.out, cfg.progress, cfg.resume, cfg.overwrite, model=cfg.model, device=cfg.device
    )
    drift = summary.drift_meV_per_atom_per_ps
    print(
        f"{cfg.out}: {summary.steps} steps, {summary.ms_per_step:.3g} ms each, {summary.mean_temperature:.0f} K"
        + ("" if drift is None else f", drift {drift:.2g} meV/atom/ps")
    )


if __name__ == "__main__":
    run(main)
