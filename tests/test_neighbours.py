"""Neighbour lists against a double loop, kept lists against fresh ones, and what they cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densnet.data import neighbours as lists
from densnet.data.neighbours import Edges, SkinList, all_pairs, edges, near_pairs, neighbours
from densnet.structures import Molecules

CUTOFF = 5.0


def cloud(sizes: list[int], seed: int = 0, spread: float = 1.2) -> Molecules:
    """Molecules of random atoms, about five neighbours each within the cutoff, all around the origin: they overlap."""
    rng = np.random.default_rng(seed)
    position = np.concatenate([rng.normal(scale=spread * n ** (1 / 3), size=(n, 3)) for n in sizes])
    molecule = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return Molecules(
        torch.ones(len(position), dtype=torch.long), torch.as_tensor(position), torch.zeros(len(sizes)), molecule, len(sizes)
    )


def double_loop(molecules: Molecules, cutoff: float) -> list[tuple[int, int]]:
    """(target, source) of every edge, in order, one pair at a time."""
    x, owner = molecules.position.numpy(), molecules.molecule.tolist()
    return [
        (t, s)
        for t in range(len(x))
        for s in range(len(x))
        if s != t and owner[s] == owner[t] and np.sqrt(((x[s] - x[t]) ** 2).sum()) < cutoff
    ]


def listed(found: Edges | lists.Pairs) -> list[tuple[int, int]]:
    return list(zip(found.target.tolist(), found.source.tolist()))


BATCHES = {"small": [1, 9, 12, 5], "large": [60, 3, 1, 45], "one": [80]}


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("limit", [0, 10_000], ids=["tree", "all pairs"])
def test_edges_are_those_of_a_double_loop(sizes: list[int], limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "ALL_PAIRS_UP_TO", limit)
    molecules = cloud(sizes)
    expected = double_loop(molecules, CUTOFF)
    assert len(expected) > 10
    found = neighbours(molecules, CUTOFF)
    assert listed(found) == expected
    assert listed(near_pairs(molecules, CUTOFF)) == expected
    assert listed(edges(molecules, all_pairs(molecules), CUTOFF)) == expected
    x = molecules.position
    assert torch.equal(found.vector, x[found.source] - x[found.target])
    assert torch.equal(found.length, found.vector.norm(dim=-1))


def test_both_ways_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large molecules go through the tree, small ones do not."""
    calls = []
    original = lists._tree_pairs
    monkeypatch.setattr(lists, "_tree_pairs", lambda *a: calls.append(1) or original(*a))
    neighbours(cloud([lists.ALL_PAIRS_UP_TO]), CUTOFF)
    assert not calls
    neighbours(cloud([2, lists.ALL_PAIRS_UP_TO + 1]), CUTOFF)
    assert calls


def test_all_pairs_need_no_positions() -> None:
    molecules = cloud([3, 1, 2])
    nowhere = molecules.at(torch.full_like(molecules.position, torch.nan))
    assert listed(all_pairs(nowhere)) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (4, 5), (5, 4)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_pairs_at_the_rim(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crystal has many pairs at the cutoff to the last digit: the tree must not decide differently from all pairs."""
    axis = torch.arange(5, dtype=torch.float64) * (CUTOFF / 3)
    position = (torch.cartesian_prod(axis, axis, axis) + 100.3).to(dtype)
    one = torch.zeros(125, dtype=torch.long)
    crystal = Molecules(one + 6, position, torch.zeros(1), one, 1)
    with_tree = neighbours(crystal, CUTOFF)
    monkeypatch.setattr(lists, "ALL_PAIRS_UP_TO", 10_000)
    assert listed(with_tree) == listed(neighbours(crystal, CUTOFF))
    assert with_tree.vector.dtype == dtype
    assert (with_tree.length - CUTOFF).abs().min() < 1e-4


@pytest.mark.parametrize("limit", [0, 10_000], ids=["tree", "all pairs"])
def test_lost_atoms_disturb_nobody(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An atom at NaN, infinity or 1e200 has no edges; all other molecules keep theirs, to the last digit."""
    monkeypatch.setattr(lists, "ALL_PAIRS_UP_TO", limit)
    molecules = cloud([8, 8, 8, 8])
    whole = neighbours(molecules, CUTOFF)
    position = molecules.position.clone()
    position[0, 0], position[8, 1], position[16, 2] = torch.nan, torch.inf, 1e200
    found = neighbours(molecules.at(position), CUTOFF)
    lost = torch.tensor([0, 8, 16])
    stays = ~torch.isin(whole.source, lost) & ~torch.isin(whole.target, lost)
    assert torch.equal(found.source, whole.source[stays])
    assert torch.equal(found.vector, whole.vector[stays])
    kept = SkinList(CUTOFF, 1.0)
    kept.edges(molecules)
    closer = molecules.at(0.8 * position)  # the others have moved as well
    assert listed(kept.edges(closer)) == listed(neighbours(closer, CUTOFF))


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES.keys())
def test_gradient_of_edges(sizes: list[int]) -> None:
    """d/dR of sum |r_st|^2 / 2 over directed edges is 2 sum over neighbours of (R_t - R_s)."""
    molecules = cloud(sizes)
    position = molecules.position.clone().requires_grad_()
    kept = SkinList(CUTOFF, 2.0).edges(molecules.at(position))
    kept.length.square().sum().div(2).backward()
    expected = torch.zeros_like(position)
    for t, s in double_loop(molecules, CUTOFF):
        expected[t] += 2 * (molecules.position[t] - molecules.position[s])
    assert position.grad is not None
    assert (position.grad - expected).abs().max() < 1e-10


@given(
    seed=st.integers(0, 10_000),
    skin=st.floats(0.2, 4.0),
    step=st.floats(0.01, 0.4),
    sizes=st.sampled_from([[9, 9, 9], [2, 41], [60]]),
)
@settings(max_examples=40, deadline=None)
def test_a_kept_list_gives_the_edges_of_a_fresh_one(seed: int, skin: float, step: float, sizes: list[int]) -> None:
    """Random walks of colliding clouds, over several rebuilds. A list kept until an atom moved by the skin, not half, fails."""
    rng = np.random.default_rng(seed)
    molecules, kept = cloud(sizes, seed), SkinList(CUTOFF, skin)
    # Two halves of each molecule run through each other: pairs come closer by twice what any atom moves.
    axis = torch.nn.functional.normalize(torch.as_tensor(rng.normal(size=3)), dim=0)
    drift = -step * torch.sign(molecules.position @ axis)[:, None] * axis
    position = molecules.position
    for _ in range(25):
        position = position + drift + torch.as_tensor(rng.uniform(-step, step, size=position.shape)) / 10
        now = molecules.at(position)
        found, fresh = kept.edges(now), neighbours(now, CUTOFF)
        assert torch.equal(found.source, fresh.source)
        assert torch.equal(found.target, fresh.target)
        assert torch.equal(found.vector, fresh.vector)


@pytest.mark.parametrize(("moved", "builds"), [(0.499, 1), (0.501, 2)], ids=["within skin/2", "beyond"])
def test_two_atoms_that_meet(moved: float, builds: int) -> None:
    """The worst case: a pair just outside cutoff + skin, both atoms moving towards each other by nearly skin/2 or a bit more."""
    skin = 1.0
    start = torch.tensor([[0.0, 0, 0], [CUTOFF + skin + 1e-9, 0, 0]], dtype=torch.float64)
    pair = Molecules(torch.ones(2, dtype=torch.long), start, torch.zeros(1), torch.zeros(2, dtype=torch.long), 1)
    kept = SkinList(CUTOFF, skin)
    kept.edges(pair)
    closer = pair.at(start + torch.tensor([[moved * skin, 0, 0], [-moved * skin, 0, 0]], dtype=torch.float64))
    assert len(kept.edges(closer).source) == len(neighbours(closer, CUTOFF).source) == 2 * (builds - 1)
    assert kept.builds == builds


def test_a_list_is_kept_while_atoms_rattle() -> None:
    """Otherwise the skin would buy nothing."""
    molecules, kept, rng = cloud([60, 50]), SkinList(CUTOFF, 1.0), np.random.default_rng(0)
    for _ in range(50):
        kept.edges(molecules.at(molecules.position + torch.as_tensor(rng.uniform(-0.14, 0.14, size=(110, 3)))))
    assert kept.builds == 1


@pytest.mark.parametrize(
    "other",
    [[5, 4], [4, 5, 1], [9], [3, 3, 3, 1], [20, 20]],
    ids=["same atoms, other sizes", "one more", "one molecule", "more molecules", "more atoms"],
)
def test_another_batch_gets_its_own_list(other: list[int]) -> None:
    """Also when its atoms stand exactly where those of the batch before stood."""
    first, kept = cloud([4, 5]), SkinList(CUTOFF, 3.0)
    assert listed(kept.edges(first)) == double_loop(first, CUTOFF)
    second = cloud(other)
    atoms = min(len(first.position), len(second.position))
    second.position[:atoms] = first.position[:atoms]
    assert listed(kept.edges(second)) == double_loop(second, CUTOFF)
    assert listed(kept.edges(first)) == double_loop(first, CUTOFF)
    assert kept.builds == 3


def test_positions_changed_in_place_are_noticed() -> None:
    molecules, kept = cloud([50]), SkinList(CUTOFF, 1.0)
    kept.edges(molecules)
    molecules.position.mul_(0.7)
    assert listed(kept.edges(molecules)) == double_loop(molecules, CUTOFF)


MEMORY = """
import json, sys, torch
from densnet.data.neighbours import SkinList
from densnet.structures import Molecules
torch.set_num_threads(1)
def peak():
    # Not ru_maxrss: a child takes that over from its parent.
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
def chain(atoms):
    # Straight and oblique: its bounding box has 10^5 times the volume that the atoms take.
    position = torch.outer(torch.arange(atoms, dtype=torch.float64), torch.tensor([0.6, 0.7, 0.5], dtype=torch.float64))
    one = torch.zeros(atoms, dtype=torch.long)
    return Molecules(one + 6, position, torch.zeros(1), one, 1)
SkinList(9.4, 2.0).edges(chain(100))
before = peak()
found = SkinList(9.4, 2.0).edges(chain(int(sys.argv[1])))
print(json.dumps([peak() - before, len(found.source)]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux' /proc")
def test_memory_of_long_chains() -> None:
    """4,000 atoms take a few MB; the 16 million pairs of all atoms would take 256 MB for the two indices alone."""
    command = [sys.executable, "-c", MEMORY, "4000"]
    kilobytes, found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found == 2 * sum(4000 - k for k in range(1, 9))  # spacing 1.0488 bohr: eight neighbours each side
    assert kilobytes < 60_000
