"""Time of one step of dynamics: energy, forces and dipole, beside other potentials on the same molecules in the same run.

    python benchmarks/dynamics.py --nequip-python nequip-env/bin/python --mace-python mace-env/bin/python \\
        --record docs/results/dynamics.json

Ethanol geometries are those of a fitted data set; chains are n-alkanes. One thread. densnet's time is the whole chain R -> rho
-> E, F, dipole with its neighbour search, large batches in passes as in simulate.py; the peers (benchmarks/peers.py says which
networks) compute energies and forces, on graphs made before. All take turns, so ratios hold on a busy machine too. First it is
checked that the variants agree.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from alkanes import alkane
from contest import TIMERS, Clock, Entry, Peer, Spread, clock, contest, peers
from timed_models import check_agreement, random_model, variant

from densnet.cli import run
from densnet.data.fits import read_fits
from densnet.data.neighbours import near_pairs
from densnet.model.densnet import DensNet
from densnet.model.in_passes import ATOMS_ON_CPU, InPasses
from densnet.record import write_record
from densnet.simulation.engine import Potential
from densnet.structures import Molecule, Molecules

CHAIN = 30  # carbons: 92 atoms
RATTLE = 0.03  # angstrom


@dataclass(frozen=True)
class System:
    """What was timed, and everybody's time on it; ratios are to densnet eager.

    agreement: of densnet's variants with float64, forces and dipoles, norm of the difference over the norm.
    """

    name: str
    molecules: int
    atoms: int
    edges: int
    agreement: dict[str, float]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class ChainLength:
    """densnet eager on one alkane. memory_mb: what the process' peak grew by, after a first call on methane."""

    carbons: int
    atoms: int
    edges: int
    ms: Spread
    memory_mb: float


@dataclass(frozen=True)
class Scaling:
    """exponent: p of time ~ edges^p and of time ~ atoms^p over the longer half of the chains; memory likewise over atoms."""

    chains: tuple[ChainLength, ...]
    time_over_atoms: float
    time_over_edges: float
    memory_over_atoms: float


@dataclass(frozen=True)
class Benchmark:
    """settings of densnet's model, number of parameters of everybody, the clock, and the results."""

    model: str
    basis: str
    flexible: float
    parameters: dict[str, int]
    threads: int
    timer: str
    systems: tuple[System, ...]
    scaling: Scaling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/ethanol", help="folder of a trained model, or a name of conf/model")
    parser.add_argument("--basis", default="large", help="of densnet/basis/library, for a name of conf/model")
    parser.add_argument("--flexible", type=float, default=1.3, help="bound of the exponents, 1 for fixed ones")
    parser.add_argument("--data", default="datasets/ethanol.h5", help="fitted data: geometries of ethanol")
    parser.add_argument("--variants", nargs="*", default=["compiled", "e3nn"], help="beside eager: compiled, e3nn")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 1024], help="ethanols")
    parser.add_argument("--peer-batches", type=int, nargs="*", default=[1, 32], help="those the peers take part in")
    parser.add_argument("--atoms-per-pass", type=int, default=ATOMS_ON_CPU, help="of densnet, as in simulate.py")
    parser.add_argument("--chains", type=int, nargs="+", default=[3, 10, 20, 30, 50, 70, 100], help="carbons")
    parser.add_argument("--nequip-python", help="interpreter of an environment with nequip")
    parser.add_argument("--nequip-compiled", action="store_true", help="and its ahead-of-time export on one molecule (minutes)")
    parser.add_argument("--mace-python", help="interpreter of an environment with mace-torch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of everybody in every round")
    parser.add_argument("--timer", choices=list(TIMERS), default="wall")
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = random_model(arguments.model, arguments.basis, arguments.flexible)
    fits = read_fits(arguments.data)
    variants = {name: variant(model, name) for name in arguments.variants}
    others = peers(arguments.nequip_python, arguments.mace_python)

    systems = []
    batches = {f"{n} ethanol": [fits.frame(i % len(fits)) for i in range(n)] for n in arguments.batches}
    for name, molecules in {**batches, f"C{CHAIN}H{2 * CHAIN + 2}": [alkane(CHAIN, RATTLE)]}.items():
        invited = others if len(molecules) in arguments.peer_batches else []
        systems.append(measure(name, molecules, model, variants, invited, arguments))
        print(*_lines(systems[-1]), sep="\n", flush=True)
    scaling = chain_scaling(model, arguments)
    for chain in scaling.chains:
        print(f"C{chain.carbons}: {chain.atoms} atoms, {chain.ms.median:.1f} ms, {chain.memory_mb:.0f} MB")
    print(f"time ~ atoms^{scaling.time_over_atoms:.2f}, memory ~ atoms^{scaling.memory_over_atoms:.2f}")
    parameters = {"densnet": _parameters(model), **{peer.kind: peer.parameters for peer in others}}
    for peer in others:
        peer.close()
    if arguments.record:
        report = Benchmark(
            arguments.model, arguments.basis, arguments.flexible, parameters, 1, arguments.timer, tuple(systems), scaling
        )
        write_record(arguments.record, report)


def measure(
    name: str,
    molecules: list[Molecule],
    model: DensNet,
    variants: dict[str, Potential],
    others: list[Peer],
    arguments: argparse.Namespace,
) -> System:
    """Everybody on these molecules, in turns."""
    batch, few = Molecules.of(molecules), Molecules.of(molecules[:32])
    everybody = {"eager": model, **variants}
    agreement = {way: check_agreement(model, potential, way, few) for way, potential in everybody.items()}
    contestants: dict[str, Clock] = {}
    for way, potential in everybody.items():
        passes = InPasses(potential, arguments.atoms_per_pass)
        contestants[f"densnet {way}"] = clock(lambda p=passes: p.predict(batch), arguments.timer)
    for peer in others:
        contestants[f"{peer.kind} eager"] = peer.clock("evaluate", molecules, arguments.timer)
        if peer.kind == "nequip" and arguments.nequip_compiled and len(molecules) == 1:
            contestants["nequip compiled"] = peer.clock("compiled", molecules, arguments.timer)
    entries = contest(contestants, arguments.rounds, arguments.seconds)
    edges = len(near_pairs(batch, model.cutoff).source)
    return System(name, len(molecules), len(batch.number), edges, agreement, entries)


def chain_scaling(model: DensNet, arguments: argparse.Namespace) -> Scaling:
    """Eager time, all lengths in turns, and peak memory, every length in a process of its own."""
    batches = {n: Molecules.of([alkane(n, RATTLE)]) for n in arguments.chains}
    clocks: dict[str, Clock] = {str(n): clock(lambda b=batch: model.predict(b), arguments.timer) for n, batch in batches.items()}
    entries = {int(e.name): e for e in contest(clocks, arguments.rounds, arguments.seconds)}
    chains = []
    for n, batch in batches.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            memory = pool.submit(peak_memory, n, arguments.model, arguments.basis, arguments.flexible).result()
        edges = len(near_pairs(batch, model.cutoff).source)
        chains.append(ChainLength(n, len(batch.number), edges, entries[n].ms, memory))
    half = chains[len(chains) // 2 :]

    def exponent(x: list[float], y: list[float]) -> float:
        return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(x) > 1 else float("nan")

    atoms, edges = [float(c.atoms) for c in half], [float(c.edges) for c in half]
    time, memory = [c.ms.median for c in half], [c.memory_mb for c in half]
    return Scaling(tuple(chains), exponent(atoms, time), exponent(edges, time), exponent(atoms, memory))


def peak_memory(carbons: int, name: str, basis: str, flexible: float) -> float:
    """MB by which one call on the alkane raises the peak of this (fresh) process."""
    torch.set_num_threads(1)
    model = random_model(name, basis, flexible)
    model.predict(Molecules.of([alkane(1)]))
    molecules = Molecules.of([alkane(carbons, RATTLE)])
    before = _peak()
    model.predict(molecules)
    return _peak() - before


def _peak() -> float:
    """MB, most memory this process ever had resident (Linux). Not ru_maxrss, which a child takes over from its parent."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 1024


def _parameters(model: DensNet) -> int:
    return sum(p.numel() for p in model.parameters())


def _lines(system: System) -> list[str]:
    head = f"{system.name}: {system.atoms} atoms, {system.edges} edges"
    return [head] + [
        f"  {e.name:18s} {e.ms.median:9.2f} ms ({e.ms.low:.2f} .. {e.ms.high:.2f})   "
        f"{e.ratio.median:6.2f} of densnet eager ({e.ratio.low:.2f} .. {e.ratio.high:.2f})"
        for e in system.entries
    ]


if __name__ == "__main__":
    run(main)
