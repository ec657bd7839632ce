"""What a learned density costs, as ratios to the same work by PySCF in the same run (times depend on the machine).

    python benchmarks/density.py --model models/ethanol --data datasets/ethanol.h5 --record docs/results/density_benchmark.json

Compared: coefficients of a molecule (network against a Kohn-Sham calculation), the metric J + mu S (torch against libcint),
the density on a Becke grid (torch against PySCF's evaluation of the same functions), and what the losses cost beside the
network. One thread unless OMP_NUM_THREADS says otherwise; every time is the least of several repetitions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from densnet.basis.metrics import metrics
from densnet.basis.ordering import pyscf_basis
from densnet.cli import run
from densnet.data.fits import read_fits
from densnet.model.checkpoint import load_model
from densnet.model.densnet import DensNet
from densnet.observables.real_space import BasisTables, density_at_samples, density_on_points
from densnet.record import write_record
from densnet.reference.fitting import fitted_density, pyscf_molecule
from densnet.reference.kohn_sham import ScfSettings, compute_label
from densnet.structures import Density, Molecule, Molecules

SAMPLES = 1000  # points per molecule of the real-space loss
TRAINING_BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """The density network on a batch; coefficients are the existing functions of all its molecules."""

    molecules: int
    ms: float
    molecules_per_s: float
    coefficients_per_s: float
    kohn_sham_over_network: float


@dataclass(frozen=True)
class Comparison:
    """The same quantity twice. ratio: PySCF's time over densnet's (above one: densnet is faster); error: largest difference

    relative to the largest value.
    """

    densnet_ms: float
    pyscf_ms: float
    ratio: float
    error: float


@dataclass(frozen=True)
class Losses:
    """Forward and backward on a training batch, ms, and the losses relative to the network."""

    molecules: int
    network_ms: float
    metric_ms: float
    real_space_ms: float
    metric_over_network: float
    real_space_over_network: float


@dataclass(frozen=True)
class Benchmark:
    device: str
    threads: int
    functions: int
    kohn_sham_s: float
    prediction: tuple[Prediction, ...]
    metric: Comparison
    density: Comparison
    losses: Losses


def least(work: Callable[[], object], repeats: int, device: str) -> float:
    """Seconds of the fastest repetition; the first call is not counted (it warms caches up)."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/ethanol")
    parser.add_argument("--data", default="datasets/ethanol.h5", help="fitted data: geometries to predict")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 1024])
    parser.add_argument("--chunk", type=int, default=64, help="molecules in one call of the network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    device = arguments.device
    model, fits = load_model(arguments.model, device), read_fits(arguments.data)
    basis, first = model.basis, fits.frame(0)
    functions = basis.size(first.number)

    print("one Kohn-Sham calculation ...", flush=True)
    start = time.perf_counter()
    compute_label(first, fits.level, ScfSettings())
    scf = time.perf_counter() - start

    def frames(n: int) -> list[Molecule]:
        return [fits.frame(i % len(fits)) for i in range(n)]

    prediction = []
    with torch.no_grad():
        for size in arguments.batches:
            chunks = [Molecules.of(frames(size)[k : k + arguments.chunk], device) for k in range(0, size, arguments.chunk)]
            seconds = least(lambda: [model.density(c) for c in chunks], 2 if size > 100 else 10, device)  # noqa: B023
            rate = size / seconds
            prediction.append(Prediction(size, 1e3 * seconds, rate, rate * functions, scf * rate))
            print(prediction[-1], flush=True)

    position = torch.as_tensor(first.position, device=device)[None]
    mol = pyscf_molecule(first, pyscf_basis(basis))
    ours = least(lambda: metrics(basis, first.number, position, 0.5), 10, device)
    theirs = least(lambda: mol.intor("int2c2e") + 0.5 * mol.intor("int1e_ovlp"), 10, device)
    found = np.linalg.eigvalsh(metrics(basis, first.number, position, 0.5)[0].cpu().numpy())
    expected = np.linalg.eigvalsh(mol.intor("int2c2e") + 0.5 * mol.intor("int1e_ovlp"))
    metric = Comparison(1e3 * ours, 1e3 * theirs, theirs / ours, float(np.abs(found - expected).max() / expected.max()))
    print("metric:", metric, flush=True)

    with torch.no_grad():
        found = model.density(Molecules.of([first], device))
    # With the exponents of the basis, which PySCF's side has too, whatever the model's own are.
    density = Density(
        found.coefficient, model.density.frame.exponent[model.density.frame.row(Molecules.of([first], device).number)]
    )
    point = np.random.default_rng(0).normal(scale=3.0, size=(50_000, 3)) + first.position.mean(0)
    grid = torch.as_tensor(point, device=device)
    coefficient = density.coefficient.cpu().numpy()
    ours = least(lambda: density_on_points(first, density, basis, grid), 3, device)
    theirs = least(lambda: fitted_density(first, coefficient, basis, point), 3, device)
    values = density_on_points(first, density, basis, grid).cpu().numpy()
    expected = fitted_density(first, coefficient, basis, point)
    error = float(np.abs(values - expected).max() / expected.max())
    on_grid = Comparison(1e3 * ours, 1e3 * theirs, theirs / ours, error)
    print("density:", on_grid, flush=True)

    losses = training_cost(model, Molecules.of(frames(TRAINING_BATCH), device), functions, device)
    print(losses)
    report = Benchmark(device, torch.get_num_threads(), functions, scf, tuple(prediction), metric, on_grid, losses)
    if arguments.record:
        write_record(arguments.record, report)


def training_cost(model: DensNet, molecules: Molecules, functions: int, device: str) -> Losses:
    """Network alone, the quadratic form of the metric alone, and the density on samples alone, each with its backward."""
    tables = BasisTables.of(model.basis, device)
    n = molecules.n
    matrix = torch.randn(n, functions, functions, device=device)
    point = torch.randn(n, SAMPLES, 3, dtype=torch.float64, device=device) * 2
    density = model.density(molecules)
    row = model.density.frame.row(molecules.number)
    exists = torch.as_tensor(model.basis.mask, device=device)[row]

    def network() -> None:
        model.zero_grad()
        model.density(molecules).coefficient.square().sum().backward()

    def leaf() -> Density:
        return Density(density.coefficient.detach().requires_grad_(), density.exponent.detach())

    def quadratic() -> None:
        x = leaf().coefficient[exists].to(matrix.dtype).view(n, functions, 1)
        (x * torch.bmm(matrix, x)).sum().backward()

    def samples() -> None:
        density_at_samples(molecules, leaf(), tables, point).abs().sum().backward()

    a, b, c = (1e3 * least(work, 5, device) for work in (network, quadratic, samples))
    return Losses(n, a, b, c, b / a, c / a)


if __name__ == "__main__":
    run(main)
