"""Nose-Hoover chains against the canonical distribution of exact oscillators, and their conserved energy."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from simulation_potentials import WATER, Springs, settings

from densnet.errors import SimulationError
from densnet.simulation.engine import simulate
from densnet.simulation.integrators import Evaluation, State
from densnet.simulation.nose_hoover import NoseHoover
from densnet.simulation.trajectory import read_trajectory
from densnet.simulation.velocities import angular_momentum, kinetic_energy, momentum
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import BOLTZMANN

MASS = torch.tensor([1800.0, 25000.0], dtype=torch.float64)
STIFFNESS = torch.tensor([[0.31, 0.17, 0.08], [0.9, 0.53, 0.21]], dtype=torch.float64)
FASTEST = float((STIFFNESS / MASS[:, None]).sqrt().max())
TEMPERATURE = 400.0
THERMAL = BOLTZMANN * TEMPERATURE


def oscillators(position: torch.Tensor) -> Evaluation:
    """Six modes of six frequencies."""
    energy = 0.5 * (STIFFNESS * position**2).sum(dim=(-2, -1))
    return Evaluation(energy, -STIFFNESS * position, position.sum(dim=1))


def canonical(replicas: int, generator: torch.Generator) -> State:
    xi = torch.randn((2, replicas, 2, 3), generator=generator, dtype=torch.float64)
    position = xi[0] * torch.sqrt(THERMAL / STIFFNESS)
    return State(position, xi[1] * torch.sqrt(THERMAL / MASS)[:, None], oscillators(position))


def chain(time_step: float, replicas: int, freedom: int = 6, length: int = 3, periods: float = 1.0) -> NoseHoover:
    period = 2.0 * np.pi / FASTEST
    return NoseHoover(time_step, MASS, TEMPERATURE, periods * period, torch.full((replicas,), freedom), length)


def test_the_canonical_distribution_is_kept():
    """Mean and variance of K, mean K and V of every mode: f/2 kT, f/2 (kT)^2, kT/2 each; error bars over independent replicas.

    What velocity Verlet does to the velocities, m <v^2> = kT (1 - (w dt)^2/4), is below the error bars at this step.
    """
    replicas, generator = 3000, torch.Generator().manual_seed(2)
    integrator = chain(0.1 / FASTEST, replicas)
    state = integrator.begin(canonical(replicas, generator), generator)
    kinetic, modes, samples = [], torch.zeros((2, replicas, 6), dtype=torch.float64), 100
    for _ in range(samples):
        for _ in range(7):
            state = integrator.step(state, oscillators)
        kinetic.append(kinetic_energy(state.velocity, MASS) / THERMAL)
        modes[0] += (0.5 * MASS[:, None] * state.velocity**2).flatten(1) / THERMAL / samples
        modes[1] += (0.5 * STIFFNESS * state.position**2).flatten(1) / THERMAL / samples
    per_replica = torch.stack(kinetic)
    square = (per_replica - 3.0) ** 2
    for sample, expected, tolerance in ((per_replica.mean(0), 3.0, 0.04), (square.mean(0), 3.0, 0.15)):
        error = (sample.std() / sqrt(replicas)).item()
        assert 4.0 * error < tolerance
        assert abs(sample.mean().item() - expected) < 4.0 * error
    error = modes.std(dim=1) / sqrt(replicas)
    assert 4.0 * error.max() < 0.06
    assert ((modes.mean(dim=1) - 0.5).abs() < 4.0 * error).all()


def spread_after(length: int, steps: int) -> tuple[float, float]:
    """Mean and variance of K/kT of one-dimensional oscillators that all start cold, over the second half of the steps."""
    replicas, generator = 500, torch.Generator().manual_seed(5)
    stiffness, mass = torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64), torch.tensor([1800.0], dtype=torch.float64)
    omega = sqrt(0.3 / 1800.0)

    def line(position: torch.Tensor) -> Evaluation:
        energy = 0.5 * (stiffness * position**2).sum(dim=(-2, -1))
        return Evaluation(energy, -stiffness * position, position[:, 0])

    integrator = NoseHoover(0.2 / omega, mass, TEMPERATURE, 2.0 * np.pi / omega, torch.ones(replicas), length)
    position = torch.zeros((replicas, 1, 3), dtype=torch.float64)
    velocity = position.clone()
    velocity[..., 0] = 0.3 * sqrt(THERMAL / 1800.0)
    state = integrator.begin(State(position, velocity, line(position)), generator)
    kinetic = []
    for step in range(steps):
        state = integrator.step(state, line)
        if step >= steps // 2 and step % 7 == 0:
            kinetic.append(kinetic_energy(state.velocity, mass) / THERMAL)
    found = torch.stack(kinetic)
    return found.mean().item(), found.var().item()


def test_a_chain_finds_the_distribution_where_one_thermostat_does_not():
    """The classic failure of a single thermostat: a cold oscillator never samples its distribution (mean 1/2, variance 1/2)."""
    mean, variance = spread_after(length=4, steps=2400)
    assert mean == pytest.approx(0.5, abs=0.05)
    assert variance == pytest.approx(0.5, abs=0.08)
    assert abs(spread_after(length=1, steps=2400)[1] - 0.5) > 0.2


def test_the_conserved_energy_is_conserved_to_second_order():
    """Its error falls fourfold as the step is halved, and does not drift; the total energy meanwhile goes up and down by kT."""
    replicas, errors = 50, []
    for halvings in range(3):
        steps = 400 * 2**halvings
        generator = torch.Generator().manual_seed(8)
        integrator = chain(0.2 / 2**halvings / FASTEST, replicas)
        state = integrator.begin(canonical(replicas, generator), generator)
        conserved, total = [], []
        for step in range(steps):
            if step % 2**halvings == 0:
                conserved.append(integrator.conserved(state) / THERMAL)
                total.append(integrator.verlet.conserved(state) / THERMAL)
            state = integrator.step(state, oscillators)
        series = torch.stack(conserved)
        errors.append((series - series[0]).std(dim=0).mean().item())
        assert torch.stack(total).std(dim=0).mean() > 1.0
    assert np.array(errors[:-1]) / np.array(errors[1:]) == pytest.approx([4.0, 4.0], rel=0.1)
    assert errors[-1] < 2e-3
    assert abs((series[-150:].mean() - series[:150].mean()).item()) < errors[-1]


def test_it_follows_the_equations_of_motion():
    """Those of the module, solved by scipy for six coupled modes: the error of the steps falls fourfold with each halving.

    No other test sees how fast the chain runs, for the canonical distribution does not depend on it.
    """
    generator = torch.Generator().manual_seed(9)
    start, errors, duration = canonical(1, generator), [], 12.0 / FASTEST
    mass, stiffness, links = MASS[:, None].expand(2, 3).flatten().numpy(), STIFFNESS.flatten().numpy(), 4
    whole = chain(1.0, 1, length=links).begin(start, generator)
    assert whole.chain is not None
    tau = 2.0 * np.pi / FASTEST
    inertia = THERMAL * tau**2 * np.array([6.0, 1.0, 1.0, 1.0])

    def motion(_: float, y: np.ndarray) -> np.ndarray:
        position, velocity, w = y[:6], y[6:12], y[16:]
        heat = np.array([(mass * velocity**2).sum() - 6 * THERMAL, *(inertia[:-1] * w[:-1] ** 2 - THERMAL)]) / inertia
        return np.concatenate([velocity, -stiffness * position / mass - velocity * w[0], w, heat - w * np.append(w[1:], 0.0)])

    parts = (whole.position, whole.velocity, whole.chain.position, whole.chain.velocity)
    y = np.concatenate([part.flatten().numpy() for part in parts])
    exact = solve_ivp(motion, (0.0, duration), y, method="DOP853", rtol=1e-11, atol=1e-14).y[:, -1]
    for steps in (200, 400, 800):
        integrator, state = chain(duration / steps, 1, length=links), whole
        for _ in range(steps):
            state = integrator.step(state, oscillators)
        assert state.chain is not None
        found = (state.position, state.velocity * 1800.0**0.5, state.chain.position, state.chain.velocity * tau)
        wanted = np.split(exact, [6, 12, 16])
        wanted[1], wanted[3] = wanted[1] * 1800.0**0.5, wanted[3] * tau
        errors.append([np.abs(part.flatten().numpy() - other).max() for part, other in zip(found, wanted, strict=True)])
    ratio = np.array(errors[:-1]) / np.array(errors[1:])
    np.testing.assert_allclose(ratio, 4.0, rtol=0.1)
    assert np.max(errors[-1]) < 1e-2


def test_it_runs_backwards():
    """The factorisation is symmetric in time, hence reversible: velocities of atoms and thermostats turned round."""
    generator = torch.Generator().manual_seed(4)
    integrator = chain(0.2 / FASTEST, 5, length=4)
    start = integrator.begin(canonical(5, generator), generator)
    state = start
    for _ in range(200):
        state = integrator.step(state, oscillators)
    assert (state.position - start.position).abs().max() > 0.01
    assert state.chain is not None
    assert start.chain is not None
    turned = type(start.chain)(state.chain.position, -state.chain.velocity)
    state = State(state.position, -state.velocity, state.evaluation, turned)
    for _ in range(200):
        state = integrator.step(state, oscillators)
    assert state.chain is not None
    np.testing.assert_allclose(state.position, start.position, rtol=0, atol=1e-9)
    np.testing.assert_allclose(state.chain.position, start.chain.position, rtol=0, atol=1e-8)


def test_every_replica_has_its_own_chain():
    generator = torch.Generator().manual_seed(6)
    integrator = chain(0.1 / FASTEST, 4)
    state = integrator.begin(canonical(4, generator), generator)
    assert state.chain is not None
    few = slice(2, 3)
    alone = NoseHoover(0.1 / FASTEST, MASS, TEMPERATURE, 2.0 * np.pi / FASTEST, torch.tensor([6]))
    single = State(
        state.position[few],
        state.velocity[few],
        oscillators(state.position[few]),
        type(state.chain)(state.chain.position[few], state.chain.velocity[few]),
    )
    for _ in range(50):
        state, single = integrator.step(state, oscillators), alone.step(single, oscillators)
    np.testing.assert_allclose(state.position[few], single.position, rtol=0, atol=1e-13)


def test_a_molecule_is_warmed_to_its_temperature(tmp_path):
    """From the minimum, half of the energy missing: 3N - 6 degrees of freedom reach 300 K with canonical fluctuations.

    Momentum and angular momentum stay zero and the drift is that of the conserved energy.
    """
    options = {"ensemble": "nose_hoover", "replicas": 300, "steps": 3000, "record_every": 10, "thermostat_time_fs": 20.0}
    summary = simulate(Springs(WATER), WATER, settings(**options), tmp_path / "run.h5", progress=False)
    run = read_trajectory(tmp_path / "run.h5")
    assert run.kinetic_temperature is not None
    assert run.conserved is not None
    by_hand = np.einsum("n,srnx->sr", run.mass, run.velocity**2) / (3 * BOLTZMANN)
    np.testing.assert_allclose(run.kinetic_temperature, by_hand, rtol=1e-12)
    kelvin = run.kinetic_temperature[100:]
    error = kelvin.mean(axis=0).std() / sqrt(300)
    assert error < 4.0
    assert abs(kelvin.mean() - 300.0) < 4.0 * error
    kinetic = 1.5 * kelvin / 300.0
    assert ((kinetic - 1.5) ** 2).mean() == pytest.approx(1.5, rel=0.12)
    mass, position, velocity = (torch.as_tensor(x) for x in (run.mass, run.position[-1], run.velocity[-1]))
    scale = (mass[:, None] * velocity.abs()).sum(dim=(1, 2)).mean()
    assert momentum(velocity, mass).abs().max() < 1e-9 * scale
    assert angular_momentum(position, velocity, mass).abs().max() < 1e-9 * scale
    wobble = (run.conserved - run.conserved[0]).std() / (BOLTZMANN * 300.0)
    assert wobble < 0.1
    assert summary.drift_meV_per_atom_per_ps is not None
    assert abs(summary.drift_meV_per_atom_per_ps) < 0.3


class Pulling(Springs):
    """Springs with forces that do not quite sum to zero, as those of a network in float32."""

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        exact = super().predict(molecules, forces)
        assert exact.force is not None
        return Prediction(exact.energy, exact.force + 1e-7, exact.dipole, exact.density)


def test_what_forces_leave_of_momentum_does_not_build_up(tmp_path):
    """A chain multiplies it by exp(-eta), and eta wanders; the kinetic temperature counts internal motion alone."""
    options = settings(ensemble="nose_hoover", replicas=3, steps=1000, record_every=50)
    simulate(Pulling(WATER), WATER, options, tmp_path / "run.h5", progress=False)
    run = read_trajectory(tmp_path / "run.h5")
    mass, velocity = torch.as_tensor(run.mass), torch.as_tensor(run.velocity)
    per_step = 3 * 1e-7 * run.integration_step
    assert momentum(velocity[:, 1], mass).abs().max() < 100 * per_step
    assert momentum(velocity[-1], mass).abs().max() < 1e-3 * per_step


def test_a_single_atom_is_refused(tmp_path):
    atom = Molecule(np.array([2]), np.zeros((1, 3)))
    with pytest.raises(SimulationError, match="single atom has no internal motion"):
        simulate(Springs(atom, charges=(0.0,)), atom, settings(ensemble="nose_hoover"), tmp_path / "run.h5", progress=False)
