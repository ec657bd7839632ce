"""What a stage minimises. An objective is a callable (prediction, batch, basis) -> scalar, chosen and weighted in conf/stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from densnet.data.datamodule import Frames
from densnet.structures import Prediction


class Objective(Protocol):
    """name: how it is logged; weight: its factor in the sum; needs_energy: whether it looks at energy or forces."""

    name: str
    weight: float
    needs_energy: bool

    def __call__(self, prediction: Prediction, batch: Frames, exists: Tensor) -> Tensor:
        """exists: (N, width) True where the function exists. Returns the mean over molecules, unweighted."""
        ...


def metric_squares(difference: Tensor, batch: Frames, exists: Tensor) -> Tensor:
    """(B,) x^T M x of an (N, width) block of coefficients, M = J + mu S of every frame."""
    flat = difference[exists].to(batch.metric.dtype)
    functions = batch.functions.tolist()
    if len(set(functions)) == 1:  # one kind of molecule, the usual case: a single batched product
        x = flat.view(len(functions), functions[0], 1)
        metric = batch.metric.view(len(functions), functions[0], functions[0])
        return (x * torch.bmm(metric, x)).sum((1, 2))
    out, matrices = [], batch.metric.split([n * n for n in functions])
    for x, metric in zip(flat.split(functions), matrices):
        out.append(x @ (metric.view(len(x), len(x)) @ x))
    return torch.stack(out)


@dataclass
class MetricLoss:
    """|d - d~|^2_M / |d|^2_M with M = J + mu S: exact, no grid."""

    weight: float = 1.0
    name: str = "density_metric"
    needs_energy: bool = False

    def __call__(self, prediction: Prediction, batch: Frames, exists: Tensor) -> Tensor:
        error = metric_squares(prediction.density.coefficient - batch.coefficient, batch, exists)
        return (error / metric_squares(batch.coefficient, batch, exists)).mean()


@dataclass
class DipoleLoss:
    """Mean squared length of the dipole error, (e bohr)^2."""

    weight: float = 1.0
    name: str = "dipole"
    needs_energy: bool = False

    def __call__(self, prediction: Prediction, batch: Frames, exists: Tensor) -> Tensor:
        return (prediction.dipole - batch.dipole).square().sum(-1).mean()


@dataclass
class EnergyLoss:
    """Mean squared energy error per molecule, hartree^2, divided by `scale`^2 (hartree)."""

    weight: float = 1.0
    scale: float = 1e-3
    name: str = "energy"
    needs_energy: bool = True

    def __call__(self, prediction: Prediction, batch: Frames, exists: Tensor) -> Tensor:
        return ((prediction.energy - batch.energy) / self.scale).square().mean()


@dataclass
class ForceLoss:
    """Mean squared force component error, (hartree/bohr)^2, divided by `scale`^2 (hartree/bohr)."""

    weight: float = 1.0
    scale: float = 1e-3
    name: str = "force"
    needs_energy: bool = True

    def __call__(self, prediction: Prediction, batch: Frames, exists: Tensor) -> Tensor:
        assert prediction.force is not None  # the stage asks for forces when an objective needs the energy
        return ((prediction.force - batch.force) / self.scale).square().mean()
