"""What a run was, in a few numbers."""

from __future__ import annotations

import numpy as np

from densnet.simulation.settings import SimulationSettings
from densnet.simulation.trajectory import RunSummary
from densnet.simulation.writer import TrajectoryWriter
from densnet.units import MEV_PER_HARTREE, PS_PER_AU


def summarise(writer: TrajectoryWriter, settings: SimulationSettings, atoms: np.ndarray, wall_s: float) -> RunSummary:
    """The summary of the frames written, over the replicas that were never frozen. atoms: (R,)."""
    alive = writer.frozen_from < 0
    drift = None
    if settings.ensemble != "langevin" and writer.frames > 1:
        energy = writer.series("conserved")[:, alive]
        # The mean is taken out first: total energies of 1e2 hartree would cost the digits that a drift has.
        per_atom = ((energy - energy.mean(axis=0)) / atoms[alive]).mean(axis=1)
        time = np.arange(len(per_atom)) * settings.time_step * settings.record_every
        slope = np.polyfit(time - time.mean(), per_atom, 1)[0]
        drift = float(slope * MEV_PER_HARTREE / PS_PER_AU)
    return RunSummary(
        steps=settings.steps,
        ms_per_step=1e3 * wall_s / (settings.steps + settings.equilibration_steps),
        mean_temperature=float(writer.series("kinetic_temperature")[:, alive].mean()),
        drift_meV_per_atom_per_ps=drift,
        wall_s=wall_s,
        frozen_replicas=int((~alive).sum()),
    )
