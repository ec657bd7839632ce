"""Integrators against the exact solutions of their own recursions on a harmonic oscillator."""

from __future__ import annotations

from math import asin, cos, sin, sqrt

import numpy as np
import pytest
import torch

from densnet.simulation.integrators import Evaluation, LangevinBAOAB, State, VelocityVerlet
from densnet.units import BOLTZMANN

K, MASS = 0.3, 1800.0
OMEGA = sqrt(K / MASS)


class Oscillator:
    """E = K/2 r^2, counting its calls."""

    calls = 0

    def __call__(self, position: torch.Tensor) -> Evaluation:
        self.calls += 1
        return Evaluation(0.5 * K * (position**2).sum(dim=(-2, -1)), -K * position, position.sum(dim=1))


def start(position: torch.Tensor, velocity: torch.Tensor) -> State:
    return State(position, velocity, Oscillator()(position))


def one(x: float, v: float) -> State:
    return start(torch.full((1, 1, 3), x, dtype=torch.float64), torch.full((1, 1, 3), v, dtype=torch.float64))


def verlet(state: State, time_step: float, steps: int) -> State:
    integrator = VelocityVerlet(time_step, torch.tensor([MASS], dtype=torch.float64))
    for _ in range(steps):
        state = integrator.step(state, Oscillator())
    return state


@pytest.mark.parametrize("step_angle", [0.05, 0.5, 1.5])
def test_verlet_follows_the_exact_solution_of_its_recursion(step_angle):
    """x_n = x_0 cos(n theta) + v_0 sin(n theta) / (w sqrt(1 - (w dt)^2/4)) with sin(theta/2) = w dt/2, at any step."""
    x, v, n = 0.2, 3e-4, 137
    found = verlet(one(x, v), step_angle / OMEGA, n)
    theta, root = 2.0 * asin(0.5 * step_angle), sqrt(1.0 - 0.25 * step_angle**2)
    expected = x * cos(n * theta) + v / (OMEGA * root) * sin(n * theta)
    expected_velocity = v * cos(n * theta) - x * OMEGA * root * sin(n * theta)
    assert found.position[0, 0, 1].item() == pytest.approx(expected, abs=1e-12)
    assert found.velocity[0, 0, 1].item() == pytest.approx(expected_velocity, abs=1e-14)


def test_verlet_error_is_of_second_order():
    time, errors = 4.0 / OMEGA, []
    for n in (100, 200, 400):
        found = verlet(one(0.2, 0.0), time / n, n)
        errors.append(abs(found.position[0, 0, 0].item() - 0.2 * cos(4.0)))
    assert np.array(errors[:-1]) / np.array(errors[1:]) == pytest.approx([4.0, 4.0], rel=2e-3)


def test_verlet_keeps_its_shadow_energy():
    """m v^2/2 + k x^2/2 (1 - (w dt)^2/4) is an exact invariant, so the energy itself cannot drift."""
    step_angle = 0.4
    state = one(0.2, 3e-4)
    for _ in range(10):
        shadow = 0.5 * MASS * state.velocity**2 + 0.5 * K * (1.0 - 0.25 * step_angle**2) * state.position**2
        assert shadow[0, 0, 0].item() == pytest.approx(0.5 * MASS * 9e-8 + 0.5 * K * 0.96 * 0.04, rel=1e-12)
        state = verlet(state, step_angle / OMEGA, 200)


def test_verlet_runs_backwards():
    end = verlet(one(0.2, 3e-4), 0.3 / OMEGA, 500)
    back = verlet(State(end.position, -end.velocity, end.evaluation), 0.3 / OMEGA, 500)
    assert back.position[0, 0, 0].item() == pytest.approx(0.2, abs=1e-13)
    assert back.velocity[0, 0, 0].item() == pytest.approx(-3e-4, abs=1e-16)


@pytest.mark.parametrize(("step_angle", "decay_time"), [(0.2, 0.3), (1.0, 1.0)])
def test_baoab_samples_positions_exactly(step_angle, decay_time):
    """At any step k <x^2> = kT, and m <v^2> = kT (1 - (w dt)^2/4) (Leimkuhler and Matthews 2013).

    The error bars come from independent replicas; the start is the exact distribution of the positions.
    """
    temperature, replicas = 500.0, 4000
    thermal = BOLTZMANN * temperature
    generator = torch.Generator().manual_seed(3)
    xi = torch.randn((2, replicas, 1, 3), generator=generator, dtype=torch.float64)
    state = start(xi[0] * sqrt(thermal / K), xi[1] * sqrt(thermal * (1.0 - 0.25 * step_angle**2) / MASS))
    time_step = step_angle / OMEGA
    integrator = LangevinBAOAB(
        time_step, torch.tensor([MASS], dtype=torch.float64), temperature, decay_time / time_step, generator
    )
    for _ in range(100):
        state = integrator.step(state, Oscillator())
    configurational, kinetic, steps = torch.zeros(replicas), torch.zeros(replicas), 1000
    for _ in range(steps):
        state = integrator.step(state, Oscillator())
        configurational = configurational + K * (state.position**2).mean(dim=(-2, -1)) / steps / thermal
        kinetic = kinetic + MASS * (state.velocity**2).mean(dim=(-2, -1)) / steps / thermal
    for sample, expected in ((configurational, 1.0), (kinetic, 1.0 - 0.25 * step_angle**2)):
        error = (sample.std() / sqrt(replicas)).item()
        assert error < 2e-3
        assert abs(sample.mean().item() - expected) < 4.0 * error


def test_langevin_decay_is_the_friction():
    """A free particle at zero noise loses exp(-gamma t) of its velocity."""
    generator = torch.Generator().manual_seed(1)
    integrator = LangevinBAOAB(20.0, torch.tensor([MASS], dtype=torch.float64), 0.0, 1e-3, generator)
    zero = torch.zeros((1, 1, 3), dtype=torch.float64)

    def free(position: torch.Tensor) -> Evaluation:
        return Evaluation(torch.zeros(1), torch.zeros_like(position), zero[0])

    state = State(zero, zero + 1e-3, free(zero))
    for _ in range(50):
        state = integrator.step(state, free)
    assert state.velocity[0, 0, 0].item() == pytest.approx(1e-3 * np.exp(-1.0), rel=1e-12)


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_one_force_evaluation_per_step(ensemble):
    mass, generator = torch.tensor([MASS], dtype=torch.float64), torch.Generator().manual_seed(1)
    integrator = VelocityVerlet(20.0, mass) if ensemble == "nve" else LangevinBAOAB(20.0, mass, 300.0, 1e-3, generator)
    state, oscillator = one(0.2, 0.0), Oscillator()
    for _ in range(7):
        state = integrator.step(state, oscillator)
    assert oscillator.calls == 7


def test_langevin_uses_its_own_random_numbers():
    mass, results = torch.tensor([MASS], dtype=torch.float64), []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        integrator = LangevinBAOAB(20.0, mass, 300.0, 1e-3, torch.Generator().manual_seed(9))
        before = torch.get_rng_state()
        results.append(integrator.step(one(0.2, 0.0), Oscillator()).position)
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*results)
