"""The input type refuses what is not a molecule; batches keep molecules apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densnet.data.neighbours import neighbours
from densnet.errors import StructureError
from densnet.structures import MIN_DISTANCE, Molecule, Molecules


@pytest.mark.parametrize(
    ("number", "position", "message"),
    [
        ([8, 1], [[0, 0, 0], [0, 0, 0.5]], r"atoms 0 and 1 are 0\.265 angstrom apart; expected at least 0\.3"),
        ([8, 1], [[0, 0, 0]], r"positions have shape \(1, 3\); expected \(2, 3\)"),
        ([8, 1], [[0, 0, 0], [0, 0, np.nan]], "NaN or infinity"),
        ([8, 0], [[0, 0, 0], [0, 0, 2]], "ghost or dummy"),
        ([8.0, 1.0], [[0, 0, 0], [0, 0, 2]], "type float64"),
        ([], np.zeros((0, 3)), "N >= 1"),
    ],
)
def test_impossible_molecules_are_refused(number, position, message: str) -> None:
    with pytest.raises(StructureError, match=message) as found:
        Molecule(np.array(number), np.array(position))
    assert "\n" not in str(found.value)


def test_the_closest_allowed_distance_is_allowed() -> None:
    Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, MIN_DISTANCE * 1.001]]))


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(1.0, 12.0), st.integers(0, 1000))
def test_neighbours_against_a_double_loop(sizes: list[int], cutoff: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    molecules = []
    for n in sizes:
        grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[rng.permutation(27)[:n]]
        molecules.append(Molecule(np.ones(n, dtype=int), 3.0 * grid + rng.normal(scale=0.3, size=(n, 3))))
    batch = Molecules.of(molecules)
    edges = neighbours(batch, cutoff)
    position, owner = batch.position.numpy(), batch.molecule.numpy()
    expected = {
        (i, j)
        for i in range(len(owner))
        for j in range(len(owner))
        if i != j and owner[i] == owner[j] and np.linalg.norm(position[i] - position[j]) < cutoff
    }
    found = list(zip(edges.source.tolist(), edges.target.tolist()))
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert torch.allclose(edges.vector, batch.position[edges.source] - batch.position[edges.target])
    assert torch.equal(batch.sum(torch.ones(len(owner))), torch.tensor([float(n) for n in sizes]))


def test_charge_counts_electrons() -> None:
    hydroxide = Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 1.8]]), charge=-1)
    assert hydroxide.n_electrons == 10
    assert hydroxide.moved(2 * hydroxide.position).charge == -1
