"""The optimisers a stage can have: their schedule, what SOAP is for, and that a restart changes nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from densnet.errors import ConfigError
from densnet.training.optimizer import LARGEST_PRECONDITIONED, METHODS, OptimizerSettings


def correlated(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """W, inputs and targets of a linear regression whose inputs and outputs are strongly correlated."""
    draw = torch.Generator().manual_seed(seed)
    mix, out = (torch.linalg.qr(torch.randn(16, 16, generator=draw)).Q for _ in range(2))
    spread = torch.logspace(0, -2, 16)
    inputs = torch.randn(256, 16, generator=draw) * spread @ mix
    return torch.zeros(16, 16), inputs, inputs @ (mix.T / spread @ out) * 0.1 @ (out.T * spread)


def fit(settings: OptimizerSettings, steps: int, restart_at: int | None = None) -> tuple[torch.Tensor, float]:
    start, inputs, targets = correlated()
    weight = torch.nn.Parameter(start)
    optimizer = settings.build([weight])
    for step in range(steps):
        if step == restart_at:
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            weight = torch.nn.Parameter(weight.detach().clone())
            optimizer = settings.build([weight])
            optimizer.load_state_dict(torch.load(file, weights_only=True))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * settings.factor(step, steps)
        optimizer.zero_grad()
        loss = (inputs @ weight - targets).square().mean()
        loss.backward()
        optimizer.step()
    return weight.detach(), float((inputs @ weight - targets).square().mean().detach())


def test_soap_is_worth_its_dearer_steps() -> None:
    """Correlated inputs, as features of a network are: in 200 steps each, SOAP comes out far below Adam."""
    rate = {"adam": 2e-2, "soap": 1e-2}
    error = {method: fit(OptimizerSettings(rate[method], 10, method=method), 200)[1] for method in METHODS}
    assert error["soap"] < 0.1 * error["adam"]


@pytest.mark.parametrize("method", METHODS)
def test_a_restart_changes_nothing(method: str) -> None:
    """State saved and loaded (without pickle) in the middle, between two updates of the eigenvectors."""
    settings = OptimizerSettings(1e-2, 5, method=method)
    whole, cut = (fit(settings, 40, restart_at)[0] for restart_at in (None, 17))
    assert torch.equal(whole, cut)


@pytest.mark.parametrize("method", METHODS)
def test_weights_do_not_decay_and_large_ones_move(method: str) -> None:
    """A weight without gradient stays; rows beyond those that SOAP preconditions train too."""
    still = torch.nn.Parameter(torch.ones(4, 4))
    large = torch.nn.Parameter(torch.ones(LARGEST_PRECONDITIONED + 1, 2))
    optimizer = OptimizerSettings(1e-2, method=method).build([still, large])
    for _ in range(12):  # past an update of the eigenvectors
        still.grad, large.grad = torch.zeros(4, 4), torch.ones_like(large)
        optimizer.step()
    assert torch.equal(still, torch.ones(4, 4))
    assert (large < 1).all()


def test_the_schedule() -> None:
    settings = OptimizerSettings(1.0, warmup_steps=4, final=0.1)
    found = [settings.factor(step, 24) for step in (0, 3, 4, 14, 24, 99)]
    assert found == pytest.approx([0.25, 1.0, 1.0, 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi / 2)), 0.1, 0.1])


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match="'muon'; expected adam or soap"):
        OptimizerSettings(1e-3, method="muon")
