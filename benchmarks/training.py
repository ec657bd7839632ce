"""Time of one training step on energies and forces (double backward, Adam), beside other potentials on the same molecules.

    python benchmarks/training.py --nequip-python nequip-env/bin/python --mace-python mace-env/bin/python \\
        --record docs/results/training.json

One thread, eight ethanols. densnet: both networks ("joint"), the energy network behind a frozen density network ("energy"),
and the same with the densities and their derivatives computed before, as stage=energy does ("energy, densities stored").
Squared errors of energies and forces against zero; labels cost nothing. All take turns, so ratios hold on a busy machine too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from contest import TIMERS, Clock, Entry, clock, contest, peers
from timed_models import random_model
from torch_geometric.loader import DataLoader

from densnet.cli import run
from densnet.data.datamodule import FrameDataset, Frames, Wanted
from densnet.data.fits import read_fits
from densnet.errors import ModelError
from densnet.model.densnet import DensNet
from densnet.record import write_record
from densnet.structures import Prediction
from densnet.training.frozen_density import FrozenDensity
from densnet.training.passes import Passes


@dataclass(frozen=True)
class Benchmark:
    """settings of densnet's model, the clock, and everybody's time; ratios are to densnet's joint step."""

    model: str
    basis: str
    flexible: float
    molecules: int
    threads: int
    timer: str
    entries: tuple[Entry, ...]


def loss(found: Prediction) -> torch.Tensor:
    assert found.force is not None
    return found.energy.square().mean() + found.force.square().mean()


def step(model: DensNet, trains: Sequence[torch.nn.Module], passes: Passes, batch: Frames) -> Callable[[], None]:
    """One optimizer step; its rate is too small to change anything, so the work stays the same."""
    optimizer = torch.optim.Adam([p for network in trains for p in network.parameters()], lr=1e-12, amsgrad=True)

    def run_step() -> None:
        # The next contestant trains other networks of the same model.
        model.requires_grad_(False)
        for network in trains:
            network.requires_grad_(True)
        optimizer.zero_grad()
        loss(passes.predict_for(batch, loss)).backward()
        optimizer.step()

    return run_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/ethanol", help="folder of a trained model, or a name of conf/model")
    parser.add_argument("--basis", default="large", help="of densnet/basis/library, for a name of conf/model")
    parser.add_argument("--flexible", type=float, default=1.3, help="bound of the exponents, 1 for fixed ones")
    parser.add_argument("--data", default="datasets/ethanol.h5", help="fitted data: geometries of ethanol")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--compiled", action="store_true", help="densnet's compiled steps, too (minutes)")
    parser.add_argument("--nequip-python", help="interpreter of an environment with nequip")
    parser.add_argument("--mace-python", help="interpreter of an environment with mace-torch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of everybody in every round")
    parser.add_argument("--timer", choices=list(TIMERS), default="wall")
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = random_model(arguments.model, arguments.basis, arguments.flexible).train()
    assert model.energy is not None
    fits = read_fits(arguments.data)
    some = np.arange(arguments.batch)
    batch = next(iter(DataLoader(FrameDataset(fits, some, Wanted(None, 0, 0)), batch_size=arguments.batch)))
    frozen = FrozenDensity.compute(model.density, fits, some, torch.device("cpu"))
    contestants: dict[str, Clock] = {}
    for way in ("", *(["compiled "] if arguments.compiled else [])):
        for name, trains, stored in (
            ("joint", [model.density, model.energy], None),
            ("energy", [model.energy], None),
            ("energy, densities stored", [model.energy], frozen),
        ):
            passes = Passes(model, stored, compiled=bool(way))
            contestants[f"densnet {way}{name}"] = clock(step(model, trains, passes, batch), arguments.timer)
            if way and not passes.active:
                raise ModelError(f"the compiled step of {name} fell back to eager; see the warning above")
    frames = [fits.frame(i) for i in range(arguments.batch)]
    others = peers(arguments.nequip_python, arguments.mace_python)
    for peer in others:
        contestants[peer.kind] = peer.clock("train", frames, arguments.timer)
    entries = contest(contestants, arguments.rounds, arguments.seconds)
    for e in entries:
        print(f"{e.name:34s} {e.ms.median:9.1f} ms ({e.ms.low:.1f} .. {e.ms.high:.1f})   {e.ratio.median:6.3f} of joint")
    for peer in others:
        peer.close()
    if arguments.record:
        report = Benchmark(arguments.model, arguments.basis, arguments.flexible, arguments.batch, 1, arguments.timer, entries)
        write_record(arguments.record, report)


if __name__ == "__main__":
    run(main)
