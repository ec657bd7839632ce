"""A training stage as a LightningModule: which networks train, against which objectives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from densnet.data.datamodule import FitsDataModule, Frames
from densnet.errors import ConfigError
from densnet.model.compiled import check_mode
from densnet.model.densnet import DensNet
from densnet.observables.real_space import BasisTables
from densnet.structures import Prediction
from densnet.training.frozen_density import FrozenDensity, megabytes
from densnet.training.objectives import Functions, MetricLoss, Objective, RealSpaceLoss
from densnet.training.optimizer import OptimizerSettings  # recipes of older runs know it by this module
from densnet.training.passes import Passes
from densnet.units import MEV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE, MILLIDEBYE_PER_AU

log = logging.getLogger(__name__)
NETWORKS = ("density", "energy")


class Stage(lightning.LightningModule):
    """Train some networks of a DensNet. A frozen network is not detached: its gradient in the positions stays in the forces.

    trains: of "density" and "energy"; objectives: their weighted sum is minimised. Logs every objective and, in validation,
    the density error in the metric, dipole, energy and force MAE in edge units.

    precompute: with a frozen density network, compute all densities and their derivatives once (several times faster); they
    are kept in this folder for the next run, null evaluates the density network at every step. precompute_limit_mb: memory
    they may take; beyond it the density network is evaluated at every step, and a warning says so.
    compile: "training" runs one compiled graph per training step once its gradients agreed with the eager ones; "off".
    """

    exists: Tensor

    def __init__(
        self,
        model: DensNet,
        trains: Sequence[str],
        objectives: Sequence[Objective],
        optimizer: OptimizerSettings,
        precompute: str | None = None,
        precompute_limit_mb: float = 4000.0,
        compile: str = "off",
    ) -> None:
        super().__init__()
        unknown = set(trains) - set(NETWORKS)
        if unknown or not trains:
            raise ConfigError(f"stage.trains is {list(trains)}; expected one or both of {list(NETWORKS)}")
        if not objectives:
            raise ConfigError("stage.objectives is empty; expected at least one objective; see conf/stage")
        self.model, self.objectives, self.optimizer = model, list(objectives), optimizer
        self.needs_energy = any(o.needs_energy for o in objectives)
        self.needs_metric = any(o.needs_metric for o in objectives)
        self.needs_points = any(o.needs_points for o in objectives)
        self.needs_derivatives = any(o.needs_derivatives for o in objectives)
        flexible = [o.name for o in objectives if o.fixed_exponents] if model.density.exponents is not None else []
        if flexible:
            raise ConfigError(
                f"objective {flexible[0]} is for fixed exponents but this model has flexible ones; expected objectives that "
                "follow them; use stage=density_real_space, or model.density.flexible=1"
            )
        if (self.needs_energy or "energy" in trains) and model.energy is None:
            raise ConfigError("this stage needs an energy network but the model has none; set model.energy")
        for name, network in (("density", model.density), ("energy", model.energy)):
            if network is not None:
                network.requires_grad_(name in trains)
        self.register_buffer("exists", torch.as_tensor(model.basis.mask), persistent=False)
        self.tables: BasisTables | None = None
        if precompute is not None and "density" in trains:
            raise ConfigError(f"stage.precompute is {precompute} but the density network trains; expected stage.precompute=null")
        self.precompute, self.precompute_limit_mb = precompute, precompute_limit_mb
        check_mode(compile, ("off", "training"))
        self.compile_step = compile == "training"
        # An energy network that is present but not asked for would cost time and forces; it is left out.
        # Which device the model will be on is known when the fit starts.
        self.passes = Passes(model, None, False, self.needs_energy, kernel=False)

    def on_fit_start(self) -> None:
        """Densities once for all, and the compiled step: both belong to a fit, not to the checkpoint."""
        self.passes = Passes(self.model, self._frozen_density(), self.compile_step, self.needs_energy)

    def _frozen_density(self) -> FrozenDensity | None:
        data = getattr(self.trainer, "datamodule", None)
        if self.precompute is None or not self.needs_energy or not isinstance(data, FitsDataModule):
            return None
        frames = np.concatenate([data.train_frames, data.validation_frames])
        size = megabytes(self.model, data.fits, frames)
        if size > self.precompute_limit_mb:
            log.warning(
                "densities of %d frames would take %.0f MB, more than stage.precompute_limit_mb=%.0f: the density network is "
                "evaluated at every step", len(frames), size, self.precompute_limit_mb,
            )  # fmt: skip
            return None
        return FrozenDensity.cached(Path(self.precompute), self.model.density, data.fits, frames, self.device)

    def configure_optimizers(self) -> Any:
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        optimizer = self.optimizer.build([p for p in self.model.parameters() if p.requires_grad])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.optimizer.factor(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=self.optimizer.clip, gradient_clip_algorithm="norm")

    def _predict(self, batch: Frames, functions: Functions | None) -> Prediction:
        """functions: those of the batch in a training step, None otherwise."""
        if functions is None:
            return self.passes.predict(batch, create_graph=False)
        return self.passes.predict_for(batch, lambda p: self._total(p, batch, functions)[0])

    def _total(self, prediction: Prediction, batch: Frames, functions: Functions) -> tuple[Tensor, list[Tensor]]:
        """The weighted sum of the objectives, float64, and each by itself."""
        values = [objective(prediction, batch, functions) for objective in self.objectives]
        weighted = [o.weight * v.to(torch.float64) for o, v in zip(self.objectives, values)]
        return torch.stack(weighted).sum(), values

    def _functions(self, batch: Frames) -> Functions:
        if self.tables is None or self.tables.elements[0].exponent.device != batch.position.device:
            self.tables = BasisTables.of(self.model.basis, batch.position.device)
        frame = self.model.density.frame
        row = frame.row(batch.number)
        return Functions(self.model.basis, row, self.exists[row], frame.exponent[row], self.tables, self.passes.dipoles)

    def training_step(self, batch: Frames, _: int) -> Tensor:
        functions = self._functions(batch)
        total, values = self._total(self._predict(batch, functions), batch, functions)
        for objective, value in zip(self.objectives, values):
            self.log(f"train/{objective.name}", value.detach(), batch_size=batch.num_graphs)
        self.log("train/loss", total.detach(), batch_size=batch.num_graphs, prog_bar=True)
        return total

    def validation_step(self, batch: Frames, _: int) -> None:
        with torch.enable_grad() if self.needs_energy else torch.no_grad():
            prediction = self._predict(batch, None)
        functions = self._functions(batch)

        def log(name: str, value: Tensor, bar: bool = False) -> None:
            self.log(f"val/{name}", value.detach(), batch_size=batch.num_graphs, prog_bar=bar, sync_dist=True)

        with torch.no_grad():
            if self.needs_metric and self.model.density.exponents is None:
                log("density_error_percent", 100 * MetricLoss()(prediction, batch, functions), True)
            if self.needs_points:
                log("nmae_samples_percent", 100 * RealSpaceLoss()(prediction, batch, functions), True)
            log("dipole_mae_mD", MILLIDEBYE_PER_AU * (prediction.dipole - batch.dipole).norm(dim=-1).mean(), True)
            if prediction.force is not None:
                log("energy_mae_meV", MEV_PER_HARTREE * (prediction.energy - batch.energy).abs().mean(), True)
                log("force_mae_meV_per_A", MEV_PER_ANGSTROM_PER_AU * (prediction.force - batch.force).abs().mean(), True)
            log("loss", self._total(prediction, batch, functions)[0])
