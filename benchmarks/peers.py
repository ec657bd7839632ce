"""Another potential, timed by request: the other side of benchmarks/dynamics.py and benchmarks/training.py.

    python -m venv nequip-env && nequip-env/bin/pip install torch==2.13.0 nequip==0.19.1
    python -m venv mace-env && mace-env/bin/pip install torch==2.13.0 mace-torch==0.3.16    (needs e3nn 0.4.4)

The benchmark starts `PYTHON peers.py nequip` (or mace) in such an environment. This file imports nothing of densnet. Every
line of standard input is a request {"task", "timer", "number": [[..]], "position": [[[..]]], "calls"}, in angstrom, timer wall
or cpu; every answer is one line {"ms": [one number per call], "parameters", "edges"}. Tasks: "evaluate" (energies and forces,
eager), "compiled" (the same, NequIP's ahead-of-time export), "train" (a step: loss of energies and forces, its gradient, Adam).

Weights are random: time does not depend on them. Graphs are made before the clock starts, in favour of the peer.
NequIP: 3 layers, l = 2, 64 features, no parity, else defaults. MACE: 2 layers, 128x0e + 128x1o, l = 3, correlation 3, the
defaults of mace_run_train. Cutoff 5 angstrom, float32, one thread for both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

CUTOFF = 5.0  # angstrom
SYMBOLS = {1: "H", 6: "C", 8: "O"}
NEIGHBOURS = 8.0  # average of ethanol


def graph(position: list[np.ndarray]) -> np.ndarray:
    """(2, E) edges of all molecules, one after the other."""
    first, found = 0, []
    for x in position:
        distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
        found.append(np.stack(np.nonzero((distance < CUTOFF) & (distance > 0))) + first)
        first += len(x)
    return np.concatenate(found, axis=1)


class NequIP:
    """What `nequip` evaluates and trains, without its data pipeline."""

    def __init__(self) -> None:
        from nequip.model import NequIPGNNModel
        from nequip.utils.global_state import set_global_state

        set_global_state(allow_tf32=False)
        self.model = NequIPGNNModel(
            seed=0,
            model_dtype="float32",
            r_max=CUTOFF,
            type_names=list(SYMBOLS.values()),
            num_layers=3,
            l_max=2,
            parity=False,
            num_features=64,
            avg_num_neighbors=NEIGHBOURS,
        ).eval()
        self.exported: dict[tuple[str, ...], Callable[[list[torch.Tensor]], list[torch.Tensor]]] = {}

    def data(self, number: list[np.ndarray], position: list[np.ndarray]) -> dict[str, torch.Tensor]:
        from nequip.data import AtomicDataDict as keys

        sizes = torch.tensor([len(z) for z in number])
        kinds = {z: i for i, z in enumerate(SYMBOLS)}
        made = {
            keys.POSITIONS_KEY: torch.tensor(np.concatenate(position)),
            keys.EDGE_INDEX_KEY: torch.tensor(graph(position)),
            keys.ATOM_TYPE_KEY: torch.tensor([kinds[int(z)] for z in np.concatenate(number)]),
        }
        if len(sizes) > 1:  # a single molecule goes without them, as in the package's own calculator
            made[keys.BATCH_KEY] = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
            made[keys.NUM_NODES_KEY] = sizes
        return made

    def evaluate(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(data.copy())["forces"]

    def compiled(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
        """By the package's own ahead-of-time export, for open atom and edge counts, made at the first call."""
        fields = tuple(data)
        if fields not in self.exported:
            self.exported[fields] = self._export(data)
        return self.exported[fields](list(data.values()))[1]

    def _export(self, data: dict[str, torch.Tensor]) -> Callable[[list[torch.Tensor]], list[torch.Tensor]]:
        from nequip.utils.aot import aot_export_model

        sizes = {name: torch.export.Dim(name, min=2, max=torch.inf) for name in ("graph", "node", "edge")}
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "model.nequip.pt2")
            aot_export_model(
                self.model, "cpu", list(data), ["total_energy", "forces"], data, sizes, file, seed=0
            )  # compares itself with the eager model
            return torch._inductor.aoti_load_package(file)

    def loss(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
        found = self.model(data.copy())
        return found["total_energy"].square().mean() + found["forces"].square().mean()


class Mace:
    """What `mace` evaluates and trains, without its data pipeline."""

    def __init__(self) -> None:
        torch.serialization.add_safe_globals([slice])  # e3nn 0.4.4 keeps its coefficients in a pickle with slices
        from e3nn import o3
        from mace import modules

        torch.manual_seed(0)
        block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        self.model = modules.ScaleShiftMACE(
            r_max=CUTOFF,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=len(SYMBOLS),
            hidden_irreps=o3.Irreps("128x0e + 128x1o"),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(SYMBOLS)),
            avg_num_neighbors=NEIGHBOURS,
            atomic_numbers=list(SYMBOLS),
            correlation=3,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        ).eval()

    def data(self, number: list[np.ndarray], position: list[np.ndarray]) -> dict[str, torch.Tensor]:
        sizes = torch.tensor([len(z) for z in number])
        kinds = {z: i for i, z in enumerate(SYMBOLS)}
        row = torch.tensor([kinds[int(z)] for z in np.concatenate(number)])
        edges = torch.tensor(graph(position))
        return {
            "positions": torch.tensor(np.concatenate(position), dtype=torch.float32),
            "node_attrs": torch.nn.functional.one_hot(row, len(SYMBOLS)).float(),
            "edge_index": edges,
            "shifts": torch.zeros(edges.shape[1], 3),
            "unit_shifts": torch.zeros(edges.shape[1], 3),
            "cell": torch.zeros(3 * len(sizes), 3),
            "batch": torch.repeat_interleave(torch.arange(len(sizes)), sizes),
            "ptr": torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)]),
            "head": torch.zeros(len(sizes), dtype=torch.long),
        }

    def evaluate(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.model(data.copy(), training=False)["forces"]

    def loss(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
        found = self.model(data.copy(), training=True)
        return found["energy"].square().mean() + found["forces"].square().mean()


def train_step(peer: NequIP | Mace, data: dict[str, torch.Tensor]) -> Callable[[], object]:
    # The rate is too small to change anything: the work stays the same from step to step.
    optimizer = torch.optim.Adam(peer.model.parameters(), lr=1e-9, amsgrad=True)

    def step() -> None:
        optimizer.zero_grad()
        peer.loss(data).backward()
        optimizer.step()

    return step


def work(peer: NequIP | Mace, task: str, data: dict[str, torch.Tensor]) -> Callable[[], object]:
    if task == "train":
        peer.model.train()
        return train_step(peer, data)
    peer.model.eval()
    return lambda: getattr(peer, task)(data)


def milliseconds(call: Callable[[], object], calls: int, timer: str) -> list[float]:
    now = time.process_time if timer == "cpu" else time.perf_counter
    times = []
    for _ in range(calls):
        start = now()
        call()
        times.append(1e3 * (now() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["nequip", "mace"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # whatever the packages print
        peer = NequIP() if arguments.peer == "nequip" else Mace()
        ready: dict[str, Callable[[], object]] = {}
        for line in sys.stdin:
            request = json.loads(line)
            key = json.dumps([request["task"], request["number"], request["position"]])
            data = peer.data(
                [np.array(z) for z in request["number"]], [np.array(x, dtype=np.float64) for x in request["position"]]
            )
            if key not in ready:
                ready[key] = work(peer, request["task"], data)
                for _ in range(3):  # the first calls trace and fill caches
                    ready[key]()
            if request["task"] == "train":
                peer.model.train()
            else:
                peer.model.eval()
            answer = {
                "ms": milliseconds(ready[key], request["calls"], request["timer"]),
                "parameters": sum(p.numel() for p in peer.model.parameters()),
                "edges": len(data["edge_index"][0]),
            }
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
