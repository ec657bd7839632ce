"""Integrators of Newton's and Langevin's equations for R replicas of N atoms at once; one force evaluation a step.

    B  v += dt/2 F/m              half kick
    A  r += dt v  (or dt/2)       drift
    O  v  = c1 v + c2 xi          exact Ornstein-Uhlenbeck, c1 = exp(-gamma dt), c2 = sqrt((1 - c1^2) kT/m), xi ~ N(0, 1)

Everything in atomic units and float64: bohr, bohr per atomic time, hartree/bohr, electron masses, kelvin.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt
from typing import Protocol

import torch
from torch import Tensor

from densnet.simulation.velocities import kinetic_energy
from densnet.units import BOLTZMANN


@dataclass(frozen=True)
class Evaluation:
    """What the potential says about R geometries. energy: (R,) hartree; force: (R, N, 3) hartree/bohr; dipole: (R, 3) e*bohr;

    charge: (R, N) e of the atoms, or None if nobody wants them.
    """

    energy: Tensor
    force: Tensor
    dipole: Tensor
    charge: Tensor | None = None


@dataclass(frozen=True)
class Chain:
    """A Nose-Hoover chain of M thermostats for each of R replicas. position: (R, M); velocity: (R, M) per atomic time."""

    position: Tensor
    velocity: Tensor


@dataclass(frozen=True)
class State:
    """R replicas at one instant, all that their future depends on but random numbers.

    position: (R, N, 3) bohr; velocity: (R, N, 3) bohr per atomic time; evaluation at position; chain: of a Nose-Hoover run.
    Atoms that only pad a smaller molecule rest at 0.
    """

    position: Tensor
    velocity: Tensor
    evaluation: Evaluation
    chain: Chain | None = None


class Evaluate(Protocol):
    """The potential: position (R, N, 3) bohr to its Evaluation."""

    def __call__(self, position: Tensor) -> Evaluation: ...


class Integrator(Protocol):
    """One time step of all replicas; conserved: (R,) hartree, what the exact motion keeps, or None."""

    def step(self, state: State, evaluate: Evaluate) -> State: ...

    def conserved(self, state: State) -> Tensor | None: ...


def inverse(mass: Tensor) -> Tensor:
    """1/mass, and 0 for the atoms of mass 0 that pad a smaller molecule: nothing moves them."""
    return torch.where(mass > 0, 1.0 / mass, 0.0)


class VelocityVerlet:
    """Constant energy (NVE), B A B.

    W. C. Swope, H. C. Andersen, P. H. Berens, K. R. Wilson, J. Chem. Phys. 76, 637 (1982), eqs. 4-5:

        v(t + dt/2) = v(t) + dt/2 F(t)/m           half_kick * force
        r(t + dt)   = r(t) + dt v(t + dt/2)        time_step * velocity
        v(t + dt)   = v(t + dt/2) + dt/2 F(t + dt)/m

    time_step: atomic time; mass: (N,) or (R, N) electron masses.
    """

    def __init__(self, time_step: float, mass: Tensor) -> None:
        self.time_step, self.mass = time_step, mass
        self.half_kick = 0.5 * time_step * inverse(mass)[..., None]

    def step(self, state: State, evaluate: Evaluate) -> State:
        velocity = state.velocity + self.half_kick * state.evaluation.force
        position = state.position + self.time_step * velocity
        evaluation = evaluate(position)
        return State(position, velocity + self.half_kick * evaluation.force, evaluation)

    def conserved(self, state: State) -> Tensor:
        """The total energy."""
        return state.evaluation.energy + kinetic_energy(state.velocity, self.mass)


class LangevinBAOAB:
    """Constant temperature, B A O A B; samples the positions of a harmonic system exactly at any stable time step.

    B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013, 34 (2013), "BAOAB"; J. Chem. Phys. 138, 174102 (2013), eq. 12:

        v = v + dt/2 F(r)/m                         half_kick * force
        r = r + dt/2 v                              half_step * velocity
        v = exp(-gamma dt) v + sqrt((1 - exp(-2 gamma dt)) kT/m) xi
                                                    decay * velocity + noise * xi
        r = r + dt/2 v
        v = v + dt/2 F(r)/m

    The velocities at the end of a step carry an error of order dt^2: a harmonic mode of angular frequency w shows
    m <v^2> = kT (1 - (w dt)^2 / 4).
    time_step: atomic time; mass: (N,) or (R, N) electron masses; temperature: kelvin; friction gamma: per atomic time;
    generator: the only source of random numbers, on the device of mass.
    """

    def __init__(self, time_step: float, mass: Tensor, temperature: float, friction: float, generator: torch.Generator) -> None:
        self.half_step = 0.5 * time_step
        self.half_kick = 0.5 * time_step * inverse(mass)[..., None]
        self.decay = exp(-friction * time_step)
        self.noise = sqrt((1.0 - self.decay**2) * BOLTZMANN * temperature) * inverse(mass).sqrt()[..., None]
        self.generator = generator

    def step(self, state: State, evaluate: Evaluate) -> State:
        velocity = state.velocity + self.half_kick * state.evaluation.force
        position = state.position + self.half_step * velocity
        xi = torch.randn(velocity.shape, generator=self.generator, dtype=velocity.dtype, device=velocity.device)
        velocity = self.decay * velocity + self.noise * xi
        position = position + self.half_step * velocity
        evaluation = evaluate(position)
        return State(position, velocity + self.half_kick * evaluation.force, evaluation)

    def conserved(self, state: State) -> None:
        """Nothing: the bath gives and takes energy."""
