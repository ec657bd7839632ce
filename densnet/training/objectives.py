"""What a stage minimises. An objective is a callable (prediction, batch, basis) -> scalar, chosen and weighted in conf/stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from densnet.basis.metrics import cross_metrics, metrics
from densnet.basis.shells import Basis
from densnet.data.datamodule import Frames, inputs
from densnet.observables.multipoles import quadrupole
from densnet.observables.real_space import BasisTables, density_at_samples
from densnet.structures import Molecules, Prediction

EPSILON = 1e-6  # of a relative density error, or e bohr: far below any error that matters


@dataclass(frozen=True)
class Functions:
    """The basis functions of a batch.

    rows: (N,) element of every atom in the tables of the basis; exists: (N, width) True where an atom has the function;
    exponent: (N, shells) bohr^-2, those of the basis, in which the labels are; tables: the basis for evaluation on points;
    dipoles: the dipoles (B, 3) that the same networks give other molecules, None where there are no networks.
    """

    basis: Basis
    rows: Tensor
    exists: Tensor
    exponent: Tensor
    tables: BasisTables
    dipoles: Callable[[Molecules], Tensor] | None = None


class Objective(Protocol):
    """name: how it is logged; weight: its factor in the sum; needs_energy: whether it looks at energy or forces;

    needs_metric, needs_points, needs_derivatives: whether it wants the metric, the real-space samples or the dipole derivatives
    of the frames;
    fixed_exponents: whether it is only right for a density with the exponents of the basis.
    """

    name: str
    weight: float
    needs_energy: bool
    needs_metric: bool
    needs_points: bool
    needs_derivatives: bool
    fixed_exponents: bool

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        """The mean over molecules, unweighted."""
        ...


def _length(square: Tensor) -> Tensor:
    """Root whose gradient stays finite at zero (an error of exactly zero is a label met, not a mistake)."""
    return (square + EPSILON**2).sqrt() - EPSILON


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
class _Kind:
    """What most objectives are; each says where it differs."""

    needs_energy: ClassVar[bool] = False
    needs_metric: ClassVar[bool] = False
    needs_points: ClassVar[bool] = False
    needs_derivatives: ClassVar[bool] = False
    fixed_exponents: ClassVar[bool] = False


@dataclass
class MetricLoss(_Kind):
    """|d - d~|_M / |d|_M with M = J + mu S: exact, no grid, for fixed exponents.

    The length, not its square: its gradient keeps its size as the error falls, and other terms keep their share.
    """

    weight: float = 1.0
    name: str = "density_metric"
    needs_metric: ClassVar[bool] = True
    fixed_exponents: ClassVar[bool] = True

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        error = metric_squares(prediction.density.coefficient - batch.coefficient, batch, functions.exists)
        return _length(error / metric_squares(batch.coefficient, batch, functions.exists)).mean()


@dataclass
class FlexibleMetricLoss(_Kind):
    """|d - d~|_M / |d|_M where d and d~ have exponents of their own: exact, without a grid, differentiable in both.

    With x the label's coefficients and minus the predicted ones on the functions of both, |d - d~|^2_M = x^T M x; M comes
    from the closed-form integrals at every step, in float64. overlap_weight: mu of M = J + mu S, hartree*bohr.
    """

    weight: float = 1.0
    overlap_weight: float = 0.5
    name: str = "density_flexible_metric"

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        values = []
        for k in range(batch.num_graphs):
            atoms = batch.batch == k
            number = batch.number[atoms].cpu().numpy()
            position = batch.position[atoms][None].to(torch.float64)
            label, found = functions.exponent[atoms][None], prediction.density.exponent[atoms][None]
            here = functions.exists[atoms]
            c, p = batch.coefficient[atoms][here], prediction.density.coefficient[atoms][here]
            basis, mu = functions.basis, self.overlap_weight
            own = c @ metrics(basis, number, position, mu, label)[0] @ c
            other = p @ metrics(basis, number, position, mu, found)[0] @ p
            cross = c @ cross_metrics(basis, label, basis, found, number, position, mu)[0] @ p
            # Round-off can leave the difference of large numbers below zero.
            values.append(((own - 2 * cross + other) / own).clamp_min(0.0))
        return _length(torch.stack(values)).mean()


@dataclass
class RealSpaceLoss(_Kind):
    """integral |rho - rho_SCF| / N, by the stored samples of every frame: the NMAE itself (as a fraction), any exponents."""

    weight: float = 1.0
    name: str = "density_real_space"
    needs_points: ClassVar[bool] = True

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        molecules, n = inputs(batch), batch.num_graphs
        rho = density_at_samples(molecules, prediction.density, functions.tables, batch.sample_point.view(n, -1, 3))
        error = ((rho - batch.sample_density.view(n, -1)).abs() * batch.sample_weight.view(n, -1)).sum(1)
        return (error / (molecules.sum(molecules.number) - molecules.charge).to(error)).mean()


@dataclass
class DipoleLoss(_Kind):
    """Mean length of the dipole error, e bohr."""

    weight: float = 1.0
    name: str = "dipole"

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        return _length((prediction.dipole - batch.dipole).square().sum(-1)).mean()


@dataclass
class DipoleDerivativeLoss(_Kind):
    """Mean over the labelled frames of the length of the error of d(u . mu)/dR, all 3N components together, e.

    A second pass over those frames alone, differentiable twice. A batch without such labels counts as without error.
    """

    weight: float = 1.0
    name: str = "dipole_derivative"
    needs_derivatives: ClassVar[bool] = True

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        labelled = torch.nonzero(batch.field.square().sum(1) > 0)[:, 0]
        if not len(labelled):
            return 0.0 * prediction.dipole.sum()  # a loss that has a gradient, for processes in step with each other
        assert functions.dipoles is not None
        atoms = torch.isin(batch.batch, labelled)
        place, n = torch.searchsorted(labelled, batch.batch[atoms]), len(labelled)
        with torch.enable_grad():  # validation too
            position = batch.position[atoms].requires_grad_()
            some = Molecules(batch.number[atoms], position, batch.charge[labelled], place, n)
            component = (functions.dipoles(some) * batch.field[labelled]).sum()
            (derivative,) = torch.autograd.grad(component, position, create_graph=True)
        error = (derivative - batch.dipole_derivative[atoms]).square().sum(1)
        return _length(error.new_zeros(n).index_add_(0, place, error)).mean()


@dataclass
class QuadrupoleLoss(_Kind):
    """Mean Frobenius norm of the error of the second moment, e bohr^2, about the centre of nuclear charge.

    About that centre a wrong dipole does not count again, however far the molecule is from the origin of coordinates.
    """

    weight: float = 1.0
    name: str = "quadrupole"

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        molecules = inputs(batch)
        z = molecules.number.to(torch.float64)
        centre = molecules.sum(z[:, None] * molecules.position) / molecules.sum(z)[:, None]
        shift = centre[:, :, None] * (prediction.dipole - batch.dipole)[:, None, :]
        error = quadrupole(molecules, prediction.density, functions.basis) - batch.quadrupole - shift - shift.transpose(1, 2)
        return _length(error.square().sum((1, 2))).mean()


@dataclass
class EnergyLoss(_Kind):
    """Mean squared energy error per molecule, hartree^2, divided by `scale`^2 (hartree)."""

    weight: float = 1.0
    scale: float = 1e-3
    name: str = "energy"
    needs_energy: ClassVar[bool] = True

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        return ((prediction.energy - batch.energy) / self.scale).square().mean()


@dataclass
class ForceLoss(_Kind):
    """Mean squared force component error, (hartree/bohr)^2, divided by `scale`^2 (hartree/bohr)."""

    weight: float = 1.0
    scale: float = 1e-3
    name: str = "force"
    needs_energy: ClassVar[bool] = True

    def __call__(self, prediction: Prediction, batch: Frames, functions: Functions) -> Tensor:
        assert prediction.force is not None  # the stage asks for forces when an objective needs the energy
        return ((prediction.force - batch.force) / self.scale).square().mean()
