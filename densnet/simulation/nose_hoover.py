"""Constant temperature by deterministic Nose-Hoover chains, one for every replica; everything in atomic units and float64.

G. J. Martyna, M. L. Klein, M. E. Tuckerman, J. Chem. Phys. 97, 2635 (1992): positions r, thermostats eta_1 .. eta_M,

    dv/dt      = F/m - v w_1                             w_j = d eta_j / dt
    dw_1/dt    = (2K - f kT)/Q_1 - w_1 w_2               Q_1 = f kT tau^2
    dw_j/dt    = (Q_j-1 w_j-1^2 - kT)/Q_j - w_j w_j+1    Q_j = kT tau^2      (no last term for j = M)

    conserved:  K + V + sum_j Q_j w_j^2 / 2 + f kT eta_1 + kT sum_{j>1} eta_j

integrated as  chain(dt/2) B A B chain(dt/2)  with the chain factorised after G. J. Martyna, M. E. Tuckerman, D. J. Tobias,
M. L. Klein, Mol. Phys. 87, 1117 (1996), eqs. 29-35, in three Suzuki-Yoshida steps of fourth order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from densnet.simulation.integrators import Chain, Evaluate, State, VelocityVerlet
from densnet.simulation.velocities import kinetic_energy
from densnet.units import BOLTZMANN

OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
SUZUKI_YOSHIDA = (OUTER, 1.0 - 2.0 * OUTER, OUTER)  # H. Yoshida, Phys. Lett. A 150, 262 (1990), fourth order


class NoseHoover:
    """Velocity Verlet between two half steps of a chain; canonical in the degrees of freedom it is told of.

    time_step: atomic time; mass: (N,) or (R, N) electron masses; temperature: kelvin; thermostat_time tau: atomic time;
    freedom f: (R,) degrees of freedom that move, e.g. 3N - 6 without momentum and angular momentum, which the chain leaves at
    zero; at least 1 each; length: thermostats in each chain.
    """

    def __init__(
        self, time_step: float, mass: Tensor, temperature: float, thermostat_time: float, freedom: Tensor, length: int = 3
    ) -> None:
        self.verlet, self.mass, self.time_step = VelocityVerlet(time_step, mass), mass, time_step
        self.thermal = BOLTZMANN * temperature
        # Degrees of freedom per thermostat: the first sees those of the atoms, every other one its neighbour.
        ones = torch.ones((len(freedom), length - 1), dtype=mass.dtype, device=mass.device)
        self.freedom = torch.cat([freedom.to(mass.dtype)[:, None], ones], dim=1)
        self.inertia = self.freedom * self.thermal * thermostat_time**2
        self.gain = 0.25 / self.inertia

    def begin(self, state: State, generator: torch.Generator) -> State:
        """The state with a chain at eta = 0 and thermal w."""
        xi = torch.randn(self.inertia.shape, generator=generator, dtype=self.mass.dtype, device=self.mass.device)
        chain = Chain(torch.zeros_like(self.inertia), torch.sqrt(self.thermal / self.inertia) * xi)
        return State(state.position, state.velocity, state.evaluation, chain)

    def step(self, state: State, evaluate: Evaluate) -> State:
        assert state.chain is not None
        chain, velocity = self._thermostat(state.chain, state.velocity)
        moved = self.verlet.step(State(state.position, velocity, state.evaluation), evaluate)
        chain, velocity = self._thermostat(chain, moved.velocity)
        return State(moved.position, velocity, moved.evaluation, chain)

    def conserved(self, state: State) -> Tensor:
        """(R,) hartree; constant up to an error of order time_step^2, whatever the bath does."""
        assert state.chain is not None
        bath = (0.5 * self.inertia * state.chain.velocity**2 + self.thermal * self.freedom * state.chain.position).sum(dim=1)
        return self.verlet.conserved(state) + bath

    def _thermostat(self, chain: Chain, velocity: Tensor) -> tuple[Chain, Tensor]:
        """Half a time step of chain and velocities at resting atoms."""
        position, w, last = chain.position, list(chain.velocity.unbind(1)), self.inertia.shape[1] - 1
        twice_kinetic, scale = 2.0 * kinetic_energy(velocity, self.mass), torch.ones_like(w[0])
        inertia, target, gain = self.inertia.unbind(1), (self.thermal * self.freedom).unbind(1), self.gain.unbind(1)

        def push(j: int, delta: float) -> None:
            heat = twice_kinetic if j == 0 else inertia[j - 1] * w[j - 1] ** 2
            kick = delta * gain[j] * (heat - target[j])
            if j == last:
                w[j] = w[j] + kick
            else:
                drag = torch.exp(-0.125 * delta * w[j + 1])
                w[j] = (w[j] * drag + kick) * drag

        for weight in SUZUKI_YOSHIDA:
            delta = weight * self.time_step
            for j in range(last, -1, -1):
                push(j, delta)
            shrink = torch.exp(-0.5 * delta * w[0])
            scale, twice_kinetic = scale * shrink, twice_kinetic * shrink**2
            position = position + 0.5 * delta * torch.stack(w, dim=1)
            for j in range(last + 1):
                push(j, delta)
        return Chain(position, torch.stack(w, dim=1)), velocity * scale[:, None, None]
