"""What happens beside the optimisation: the density on grids and the harmonic infrared spectrum, logged as training runs."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from densnet.data.datamodule import FitsDataModule
from densnet.data.harmonic import read_harmonic
from densnet.errors import ModelError
from densnet.model.derivatives import model_harmonic
from densnet.spectra.compare import compare_modes
from densnet.spectra.files import write_figure
from densnet.spectra.harmonic import normal_modes_of
from densnet.spectra.plot import harmonic_comparison_figure
from densnet.structures import Molecule
from densnet.training.evaluate import evaluate
from densnet.training.stage import Stage

log = logging.getLogger(__name__)


class DensityOnGrid(Callback):
    """Logs val/nmae_percent (against the SCF density) beside val/fit_floor_percent, every so many epochs.

    frames: at most so many validation frames that carry a grid.
    """

    def __init__(self, every_n_epochs: int, frames: int = 2) -> None:
        self.every_n_epochs, self.frames = every_n_epochs, frames

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, Stage)
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, FitsDataModule)
        if trainer.sanity_checking or (trainer.current_epoch + 1) % self.every_n_epochs or not trainer.is_global_zero:
            return
        frames = data.validation_frames[np.isin(data.validation_frames, data.fits.grid_frame)]
        if not len(frames):
            return
        with torch.inference_mode(False), torch.no_grad():
            result = evaluate(pl_module.model, data.fits, frames[: self.frames], progress=False)
        pl_module.log("val/nmae_percent", result.nmae_percent, rank_zero_only=True, prog_bar=True)
        pl_module.log("val/fit_floor_percent", result.fit_floor_percent, rank_zero_only=True)


class InfraredValidation(Callback):
    """Harmonic infrared spectrum of the current model against a harmonic reference, every so many epochs.

    reference: a densnet/harmonic file; folder: where the figures go. Logs the largest deviations of frequencies (cm^-1) and
    intensities (km/mol), the Pearson similarity of the broadened spectra, and the figure as an image.
    """

    def __init__(self, reference: str, folder: str, every_n_epochs: int) -> None:
        self.data = read_harmonic(Path(reference))
        self.modes = normal_modes_of(self.data)
        self.folder, self.every_n_epochs = Path(folder), every_n_epochs

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, Stage)
        if trainer.sanity_checking or (trainer.current_epoch + 1) % self.every_n_epochs or not trainer.is_global_zero:
            return
        if pl_module.model.energy is None:
            return
        try:
            with torch.inference_mode(False), torch.enable_grad():
                found = model_harmonic(pl_module.model, Molecule(self.data.number, self.data.position, self.data.charge))
        except ModelError as error:  # early in training the surface may have no minimum near; say so and go on
            log.warning("no infrared validation at epoch %d: %s", trainer.current_epoch, error)
            return
        modes = normal_modes_of(found)
        comparison = compare_modes(modes, self.modes)
        for name, value in (
            ("ir_frequency_max_cm1", comparison.max_frequency_deviation_cm1),
            ("ir_frequency_mean_cm1", comparison.mean_frequency_deviation_cm1),
            ("ir_intensity_max_km_mol", comparison.max_intensity_deviation_km_mol),
            ("ir_pearson", comparison.pearson),
        ):
            pl_module.log(f"val/{name}", value, rank_zero_only=True)
        figure = harmonic_comparison_figure(modes, self.modes)
        path = self.folder / f"ir_epoch_{trainer.current_epoch:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_figure(path, figure)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("val/ir", [str(path)], step=trainer.global_step)
