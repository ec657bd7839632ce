"""The optimiser of a training stage, with a linear warm-up and a cosine decay of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pytorch_optimizer import SOAP
from torch import Tensor

from densnet.errors import ConfigError

METHODS = ("adam", "soap")
LARGEST_PRECONDITIONED = 512  # rows or columns; with 2000, as radial networks have, eigenvectors cost nearly as much as a step


@dataclass(frozen=True)
class OptimizerSettings:
    """A linear warm-up, then a cosine decay to `final` times the learning rate; clip: gradient norm.

    method: "adam" (Kingma and Ba 2015, with AMSGrad); "soap", Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al.,
    arXiv:2409.11321), for which Adam's learning rate or half of it is a good start. Raises ConfigError for another one.
    """

    learning_rate: float
    warmup_steps: int = 100
    final: float = 0.01
    clip: float = 10.0
    method: str = "adam"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"stage.optimizer.method is {self.method!r}; expected {' or '.join(METHODS)}; set one of them")

    def factor(self, step: int, steps: int) -> float:
        """Of the learning rate at `step` of `steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, steps - self.warmup_steps))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(done * math.pi))

    def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters at its full learning rate."""
        if self.method == "adam":
            return torch.optim.Adam(parameters, lr=self.learning_rate, amsgrad=True)
        return SOAP(parameters, lr=self.learning_rate, weight_decay=0.0, max_precondition_dim=LARGEST_PRECONDITIONED)
