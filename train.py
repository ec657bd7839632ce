"""Train a stage: python train.py experiment=water stage=density|energy|joint [init=model folder] [export=model folder].

Evaluate a model: python train.py mode=evaluate init=models/ethanol-preview dataset=ethanol [test_frames=10]
"""

import json

import hydra
import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from densnet.cli import job, run
from densnet.training.evaluate import frames_for
from densnet.training.evaluation_report import evaluate_into, evaluate_saved, evaluating
from densnet.training.run import export, find_checkpoint, mark_run, refuse_sweep_with_ddp, start_model


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@job
def main(cfg: DictConfig) -> None:
    if evaluating(cfg.mode):
        few = cfg.test_frames, cfg.test_grids
        print(evaluate_saved(cfg.run_dir, cfg.init, cfg.dataset.path, *few, cfg.trainer.accelerator, cfg.record))
        return
    OmegaConf.resolve(cfg)
    here = HydraConfig.get()
    refuse_sweep_with_ddp(here.mode == RunMode.MULTIRUN, cfg.trainer.strategy, cfg.trainer.devices, here.launcher._target_)
    lightning.seed_everything(cfg.seed, workers=True)
    data = instantiate(cfg.dataset)
    start = start_model(instantiate(cfg.model), data, cfg.init, "energy" in cfg.stage.trains, cfg.init_energy)
    stage = instantiate(cfg.stage, model=start.model)
    data.serve(stage.needs_metric, stage.needs_points, stage.needs_derivatives)

    same_run = OmegaConf.masked_copy(cfg, ["seed", "init", "dataset", "model", "stage", "trainer"])
    # What is younger than the runs that ckpt_path=auto may find counts where it is used.
    if cfg.init_energy is not None:
        same_run.init_energy = cfg.init_energy
    if not cfg.dataset.get("derivatives"):
        same_run.dataset.pop("derivatives", None)
    if cfg.model.density.get("high_channels") is None:
        same_run.model.density.pop("high_channels", None)
    if cfg.stage.optimizer.get("method") == "adam":
        same_run.stage.optimizer.pop("method", None)
    for setting in ("compile", "precompute", "precompute_limit_mb"):  # how fast, not what
        same_run.stage.pop(setting, None)
    recipe = json.dumps(OmegaConf.to_container(same_run, resolve=True), sort_keys=True)
    checkpoint = find_checkpoint(cfg.ckpt_path, cfg.runs_dir, recipe)
    mark_run(cfg.run_dir, recipe)
    logger = instantiate(cfg.logger) or False
    trainer = instantiate(cfg.trainer, logger=logger, callbacks=list(instantiate(cfg.callbacks).values()))
    if logger:
        logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))
    trainer.fit(stage, datamodule=data, ckpt_path=checkpoint, weights_only=True)

    if trainer.is_global_zero:
        export(cfg.export, start, recipe)
        model, frames = start.model.eval(), frames_for(data.fits, cfg.test_frames)
        print(evaluate_into(cfg.run_dir, model, data.fits, frames, data.train_frames, figures=False, grids=cfg.test_grids))


if __name__ == "__main__":
    run(main)
