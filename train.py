"""Train a stage: python train.py experiment=water stage=density|energy|joint [init=model folder] [export=model folder]."""

import json

import hydra
import lightning
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from densnet.cli import job, run
from densnet.training.evaluate import evaluate
from densnet.training.run import export, find_checkpoint, mark_run, refuse_sweep_with_ddp, start_model, write_json


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@job
def main(cfg: DictConfig) -> None:
    hydra_job = HydraConfig.get()
    refuse_sweep_with_ddp(
        hydra_job.mode == RunMode.MULTIRUN, str(cfg.trainer.strategy), cfg.trainer.devices, hydra_job.launcher._target_
    )
    lightning.seed_everything(cfg.seed, workers=True)
    data = instantiate(cfg.dataset)
    start = start_model(instantiate(cfg.model), data, cfg.init, energy="energy" in cfg.stage.trains)
    stage = instantiate(cfg.stage, model=start.model)

    same_run = OmegaConf.masked_copy(cfg, ["seed", "init", "dataset", "model", "stage", "trainer"])
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
        result = evaluate(start.model.eval(), data.fits, data.test_frames)
        write_json(f"{cfg.run_dir}/evaluation.json", result)
        print(json.dumps(result.__dict__, indent=1))


if __name__ == "__main__":
    run(main)
