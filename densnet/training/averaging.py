"""Exponential moving average of the weights: what is validated, checkpointed under `state_dict` and exported."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class ExponentialAverage(WeightAveraging):
    """average <- average + (1 - d)(weights - average) after every step, d = min(decay, (1 + n)/(10 + n)) at step n.

    The warm-up keeps a short run from remembering its random start. In this form a frozen weight stays bit for bit what
    it was (decay * a + (1 - decay) * a would round). Buffers are constants of the model and are not averaged.
    """

    def __init__(self, decay: float) -> None:
        def update(average: Tensor, weights: Tensor, n: Tensor | int) -> Tensor:
            return average + (1 - min(decay, (1 + int(n)) / (10 + int(n)))) * (weights - average)

        super().__init__(use_buffers=False, avg_fn=update)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The average stays in place, so that callbacks which look at the model here see what was validated."""

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Now the weights come back; checkpoint callbacks run after all others."""
        super().on_validation_epoch_end(trainer, pl_module)
