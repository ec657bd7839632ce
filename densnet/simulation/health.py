"""Replicas that leave the physical region are frozen where they were last well; the others go on as if nothing had happened.

Everything stays on the device: the watch asks the host nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from densnet.simulation.integrators import Chain, Evaluation, State
from densnet.simulation.settings import SimulationSettings
from densnet.simulation.velocities import kinetic_temperature
from densnet.units import EV_PER_HARTREE

EARLY = 20  # steps after the start in which a failure speaks of the time step or of the start, not of rare geometries


@dataclass(frozen=True)
class Health:
    """R replicas. alive: bool; of the frozen ones also step: at which they failed, and what was seen there, jump: change of the

    potential energy in that step, hartree; kelvin: kinetic temperature.
    """

    alive: Tensor
    step: Tensor
    jump: Tensor
    kelvin: Tensor

    @staticmethod
    def of(replicas: int, device: torch.device | str) -> Health:
        """All alive."""
        nothing = torch.zeros(replicas, dtype=torch.float64, device=device)
        return Health(nothing == 0.0, nothing.long(), nothing, nothing)


class Watch:
    """The bounds of the settings. mass: (R, N) electron masses; atoms: (R,)."""

    def __init__(self, settings: SimulationSettings, mass: Tensor, atoms: Tensor) -> None:
        self.settings, self.mass, self.freedom = settings, mass, 3 * atoms

    def step(self, before: State, after: State, health: Health, step: int) -> tuple[State, Health]:
        """What stands after the step: `after` for the replicas that are well, `before` for the others."""
        now = self.examine(before, after, step)
        alive = health.alive & now.alive
        new = health.alive & ~now.alive
        return select(alive, after, before), Health(
            alive,
            torch.where(new, now.step, health.step),
            torch.where(new, now.jump, health.jump),
            torch.where(new, now.kelvin, health.kelvin),
        )

    def examine(self, before: State, after: State, step: int) -> Health:
        """The replicas after this step alone. A force that is not finite shows in the temperature."""
        jump = after.evaluation.energy - before.evaluation.energy
        kelvin = kinetic_temperature(after.velocity, self.mass, self.freedom)
        finite = after.evaluation.dipole.sum(dim=-1).isfinite()
        if after.evaluation.charge is not None:
            finite = finite & after.evaluation.charge.sum(dim=-1).isfinite()
        # Comparisons with NaN are false, so that a replica has to prove that it is healthy.
        good = (jump.abs() <= self.settings.energy_jump_limit) & (kelvin <= self.settings.temperature_limit) & finite
        return Health(good, torch.full_like(self.freedom, step), jump, kelvin)

    def describe(self, health: Health, replica: int) -> str:
        """Why this replica was frozen, in one line."""
        settings, step = self.settings, int(health.step[replica])
        jump, kelvin = health.jump[replica].item() * EV_PER_HARTREE, health.kelvin[replica].item()
        inside = abs(jump) <= settings.max_energy_jump_ev and kelvin <= settings.temperature_limit
        unsound = "dipole or charges" if settings.record_charges else "dipole"
        if step + settings.equilibration_steps <= EARLY:
            advice = "so soon after the start the time step is too large or the start is strained: try a time step below"
            advice = f"{advice} {settings.time_step_fs:g} fs, or relax the start"
        else:
            advice = f"try a time step below {settings.time_step_fs:g} fs, or a start nearer to the training geometries"
        return (
            f"step {step}, replica {replica}: energy changed by {jump:.3g} eV in one step, temperature {kelvin:.3g} K"
            f"{f', {unsound} not finite' if inside else ''}; expected at most {settings.max_energy_jump_ev:g} eV and "
            f"{settings.temperature_limit:g} K; {advice}"
        )


def select(mask: Tensor, first: State, second: State) -> State:
    """The replicas of `first` where the mask (R,) is true, of `second` elsewhere."""

    def pick(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (one.dim() - 1)), one, other)

    chain = None
    if first.chain is not None and second.chain is not None:
        chain = Chain(pick(first.chain.position, second.chain.position), pick(first.chain.velocity, second.chain.velocity))
    one, other = first.evaluation, second.evaluation
    charge = None if one.charge is None or other.charge is None else pick(one.charge, other.charge)
    evaluation = Evaluation(pick(one.energy, other.energy), pick(one.force, other.force), pick(one.dipole, other.dipole), charge)
    return State(pick(first.position, second.position), pick(first.velocity, second.velocity), evaluation, chain)
