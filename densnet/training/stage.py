"""A training stage as a LightningModule: which networks train, against which objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor

from densnet.data.datamodule import Frames, inputs
from densnet.errors import ConfigError
from densnet.model.densnet import DensNet
from densnet.observables.real_space import BasisTables
from densnet.structures import Prediction
from densnet.training.objectives import Functions, MetricLoss, Objective, RealSpaceLoss
from densnet.units import MEV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE, MILLIDEBYE_PER_AU

NETWORKS = ("density", "energy")


@dataclass(frozen=True)
class OptimizerSettings:
    """Adam with a linear warm-up and a cosine decay to `final` times the learning rate; clip: gradient norm."""

    learning_rate: float
    warmup_steps: int = 100
    final: float = 0.01
    clip: float = 10.0


class Stage(lightning.LightningModule):
    """Train some networks of a DensNet. A frozen network is not detached: its gradient in the positions stays in the forces.

    trains: of "density" and "energy"; objectives: their weighted sum is minimised. Logs every objective and, in validation,
    the density error in the metric, dipole, energy and force MAE in edge units.
    """

    exists: Tensor

    def __init__(
        self, model: DensNet, trains: Sequence[str], objectives: Sequence[Objective], optimizer: OptimizerSettings
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

    def configure_optimizers(self) -> Any:
        settings, steps = self.optimizer, max(1, int(self.trainer.estimated_stepping_batches))

        def factor(step: int) -> float:
            if step < settings.warmup_steps:
                return (step + 1) / settings.warmup_steps
            done = min(1.0, (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps))
            return settings.final + (1 - settings.final) * 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi))))

        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, amsgrad=True)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, factor), "interval": "step"},
        }

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=self.optimizer.clip, gradient_clip_algorithm="norm")

    def _predict(self, batch: Frames, train: bool) -> Prediction:
        molecules = inputs(batch)
        if self.needs_energy:
            return self.model(molecules, forces=True, create_graph=train)
        # An energy network that is present but not asked for would cost time and forces; leave it out.
        return self.model.density_only(molecules)

    def _functions(self, batch: Frames) -> Functions:
        if self.tables is None or self.tables.elements[0].exponent.device != batch.position.device:
            self.tables = BasisTables.of(self.model.basis, batch.position.device)
        frame = self.model.density.frame
        row = frame.row(batch.number)
        return Functions(self.model.basis, row, self.exists[row], frame.exponent[row], self.tables)

    def training_step(self, batch: Frames, _: int) -> Tensor:
        prediction, functions = self._predict(batch, train=True), self._functions(batch)
        total = torch.zeros((), dtype=torch.float64, device=batch.position.device)
        for objective in self.objectives:
            value = objective(prediction, batch, functions)
            total = total + objective.weight * value.to(torch.float64)
            self.log(f"train/{objective.name}", value.detach(), batch_size=batch.num_graphs)
        self.log("train/loss", total.detach(), batch_size=batch.num_graphs, prog_bar=True)
        return total

    def validation_step(self, batch: Frames, _: int) -> None:
        with torch.enable_grad() if self.needs_energy else torch.no_grad():
            prediction = self._predict(batch, train=False)
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
            total = torch.stack([o.weight * o(prediction, batch, functions).to(torch.float64) for o in self.objectives]).sum()
            log("loss", total)
