"""What is minimised: every objective against its formula by hand, zero at the labels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from densnet.structures import Density, Prediction
from densnet.training.objectives import DipoleLoss, EnergyLoss, ForceLoss, MetricLoss, metric_squares

# Two molecules of one and two atoms with two slots each; the second slot of atom 1 does not exist: 2 and 3 functions.
EXISTS = torch.tensor([[True, True], [True, False], [True, True]])
METRICS = [np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[3.0, 0.2, 0.1], [0.2, 2.0, 0.7], [0.1, 0.7, 1.5]])]
LABEL = torch.tensor([[0.3, -0.2], [0.5, 0.0], [-0.1, 0.4]], dtype=torch.float64)


def batch(**other: torch.Tensor) -> SimpleNamespace:
    metric = torch.as_tensor(np.concatenate([m.ravel() for m in METRICS]), dtype=torch.float32)
    return SimpleNamespace(metric=metric, functions=torch.tensor([2, 3]), coefficient=LABEL, **other)


def prediction(**values: torch.Tensor) -> Prediction:
    empty = {"energy": torch.zeros(2), "force": None, "dipole": torch.zeros(2, 3), "density": Density(LABEL, LABEL)}
    return Prediction(**{**empty, **values})  # type: ignore[arg-type]


def by_hand(x: torch.Tensor) -> list[float]:
    parts = x[EXISTS].numpy()
    return [float(p @ m @ p) for p, m in zip((parts[:2], parts[2:]), METRICS)]


def test_metric_squares_of_molecules_of_different_size() -> None:
    x = torch.tensor([[1.0, 2.0], [-1.0, 9.0], [0.5, 3.0]], dtype=torch.float64)  # 9 is where no function is
    assert metric_squares(x, batch(), EXISTS).tolist() == pytest.approx(by_hand(x), rel=1e-6)  # type: ignore[arg-type]


def test_metric_loss_is_relative_to_the_label() -> None:
    error = torch.tensor([[0.1, 0.0], [0.0, 0.0], [0.2, -0.1]], dtype=torch.float64)
    expected = np.mean(np.array(by_hand(error)) / np.array(by_hand(LABEL)))
    found = MetricLoss()(prediction(density=Density(LABEL + error, LABEL)), batch(), EXISTS)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(MetricLoss()(prediction(), batch(), EXISTS)) == 0  # type: ignore[arg-type]


def test_dipole_energy_and_force() -> None:
    dipole, energy, force = torch.randn(2, 3), torch.tensor([-3.0, 1.0]), torch.randn(3, 3)
    labels = batch(dipole=dipole, energy=energy, force=force)
    exact = prediction(dipole=dipole, energy=energy, force=force)
    wrong = prediction(
        dipole=dipole + torch.tensor([[0.1, -0.1, 0.2], [0.0, 0.0, 0.0]]),
        energy=energy + torch.tensor([0.02, 0.0]),
        force=force + torch.tensor([[0.3, 0.0, 0.0], [0.0, -0.3, 0.0], [0.0, 0.0, 0.0]]),
    )
    for objective, expected in (
        (DipoleLoss(), 0.06 / 2),
        (EnergyLoss(scale=0.01), 4.0 / 2),
        (ForceLoss(scale=0.1), 18.0 / 9),
    ):
        assert float(objective(exact, labels, EXISTS)) == 0  # type: ignore[arg-type]
        assert float(objective(wrong, labels, EXISTS)) == pytest.approx(expected, rel=1e-4)  # type: ignore[arg-type]
