"""Large batches in several passes: the same answers, no pass larger than asked, few passes of even size."""

from __future__ import annotations

import gc
from copy import deepcopy
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from simulation_potentials import WATER, Springs, settings
from torch.multiprocessing.reductions import StorageWeakRef

from densnet.data import neighbours
from densnet.data.geometry import load_geometry
from densnet.data.neighbours import near_pairs
from densnet.errors import ConfigError, SimulationError
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, build
from densnet.model.in_passes import InPasses, Potential, even_parts
from densnet.simulation.engine import simulate
from densnet.structures import Molecules, Prediction

MIXED = [load_geometry(name)[0] for name in ("water", "H2O2", "water", "hydrogen", "H2O2")]  # 3, 4, 3, 2, 4 atoms
MIXED[2] = replace(MIXED[2], charge=1)


@dataclass
class Counting:
    """Passes on to another potential and remembers how many atoms came, and whether the densities it gave still exist."""

    potential: Potential
    hash: str = "counting"
    atoms: list[int] = field(default_factory=list)
    densities: list[StorageWeakRef] = field(default_factory=list)

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        self.atoms.append(molecules.number.numel())
        found = self.potential.predict(molecules, forces)
        self.densities.append(StorageWeakRef(found.density.coefficient.untyped_storage()))
        return found

    def alive(self) -> int:
        return sum(not storage.expired() for storage in self.densities)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 70))
def test_parts_are_few_and_whole(sizes: list[int], most: int) -> None:
    parts = even_parts(sizes, most)
    assert [k for molecules, _ in parts for k in range(molecules.start, molecules.stop)] == list(range(len(sizes)))
    for molecules, atoms in parts:
        assert (atoms.start, atoms.stop) == (sum(sizes[: molecules.start]), sum(sizes[: molecules.stop]))
        assert atoms.stop - atoms.start <= most or molecules.stop - molecules.start == 1
    full, room = 0, 0  # the least number of parts: each filled before the next
    for size in sizes:
        full, room = (full, room - size) if room >= size else (full + 1, most - size)
    assert len(parts) == full


@pytest.mark.parametrize(("count", "found"), [(8, [8]), (10, [5, 5]), (17, [6, 6, 5]), (32, [8, 8, 8, 8])])
def test_equal_molecules_are_shared_out_evenly(count: int, found: list[int]) -> None:
    assert [molecules.stop - molecules.start for molecules, _ in even_parts([9] * count, 80)] == found


def test_the_same_as_in_one_pass(basis) -> None:
    torch.manual_seed(1)
    model = build(Architecture(DensitySettings(4, (1, 2)), EnergySettings(4)), basis).double()
    torch.nn.init.normal_(next(model.density.readout.parameters()), std=0.1)
    batch = Molecules.of(MIXED)
    counting = Counting(model)
    found, expected = InPasses(counting, 7, densities=True).predict(batch), model.predict(batch)
    assert counting.atoms == [7, 5, 4]
    for name in ("energy", "force", "dipole", "charge"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.density.coefficient, expected.density.coefficient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.density.exponent, expected.density.exponent)
    assert float(found.dipole.abs().max()) > 0.01
    assert counting.alive() == 0  # joined in a new tensor
    assert InPasses(model, 7).predict(batch, forces=False).force is None
    assert InPasses(model, 7).predict(batch).density.coefficient.shape == (0, expected.density.coefficient.shape[1])
    # Another batch, or the same atoms with another charge, is not taken for the last one.
    passes, others = InPasses(model, 7), Molecules.of([*MIXED[2:], *MIXED[:2], MIXED[0]])
    for other in (batch, others, replace(others, charge=others.charge + 1), batch):
        torch.testing.assert_close(passes.predict(other).energy, model.predict(other).energy, rtol=1e-9, atol=1e-9)


def test_densities_of_parts_are_let_go(basis) -> None:
    """While the next part is computed, which is when memory is short."""
    model = build(Architecture(DensitySettings(4, (1, 2)), EnergySettings(4)), basis)

    class Looking(Counting):
        def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
            seen.append(self.alive())
            return super().predict(molecules, forces)

    seen: list[int] = []
    for densities, expected in ((False, [0, 0, 0]), (True, [0, 1, 2])):
        seen.clear()
        InPasses(Looking(model), 7, densities).predict(Molecules.of(MIXED))
        assert seen == expected


def test_parts_keep_their_neighbour_lists(basis, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(neighbours, "near_pairs", lambda *given: made.append(1) or near_pairs(*given))
    model = build(Architecture(DensitySettings(4, (1, 2)), EnergySettings(4)), basis)
    passes, batch = InPasses(model, 7), Molecules.of(MIXED)
    for step in range(4):
        passes.predict(batch.at(batch.position + 0.01 * step))
    assert len(made) == model._kept.builds == 3
    assert deepcopy(model._kept).builds == 0
    del passes
    gc.collect()
    assert model._kept.builds == 0  # lists go with their batches


def test_a_small_batch_and_a_single_molecule_go_at_once() -> None:
    three = Molecules.of([WATER] * 3)
    cases = [(three, 9, [9]), (three, 8, [6, 3]), (three, 0, [9]), (three, 1, [3, 3, 3]), (Molecules.of([WATER]), 1, [3])]
    for molecules, most, calls in cases:
        counting = Counting(Springs(WATER))
        passes = InPasses(counting, most)
        passes.predict(molecules)
        assert counting.atoms == calls
        assert passes.splits(molecules) == (len(calls) > 1)


def test_dynamics_is_that_of_one_pass_and_knows_how_it_was_run(tmp_path) -> None:
    asked = settings(replicas=7, steps=20)
    counting = Counting(Springs(WATER))
    simulate(InPasses(counting, 8), WATER, asked, tmp_path / "a.h5", progress=False)
    assert set(counting.atoms) == {3, 6}
    longer = replace(asked, steps=30)
    with pytest.raises(SimulationError, match="was run with atoms_per_pass=8; found atoms_per_pass=0"):
        simulate(Counting(Springs(WATER)), WATER, longer, tmp_path / "a.h5", progress=False, resume=True)
    simulate(InPasses(counting, 8), WATER, longer, tmp_path / "a.h5", progress=False, resume=True)
    # Passes that hold everything are no passes.
    simulate(Counting(Springs(WATER)), WATER, asked, tmp_path / "b.h5", progress=False)
    simulate(InPasses(counting, 21), WATER, longer, tmp_path / "b.h5", progress=False, resume=True)
    # Nor is a single molecule larger than a pass.
    one = replace(asked, replicas=1)
    simulate(Counting(Springs(WATER)), WATER, one, tmp_path / "c.h5", progress=False)
    simulate(InPasses(counting, 2), WATER, replace(one, steps=30), tmp_path / "c.h5", progress=False, resume=True)


@pytest.mark.parametrize("atoms", [-1, True, 80.0, "many"])
def test_a_number_of_atoms_that_is_none_is_refused(atoms: object) -> None:
    with pytest.raises(ConfigError, match=f"atoms_per_pass is {atoms!r}; expected a whole number, 0 for all at once"):
        InPasses(Springs(WATER), atoms)  # type: ignore[arg-type]
