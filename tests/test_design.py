"""The pruning formula against brute force, and a pruned basis against an arbitrary one of its size."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft

from densnet.basis.shells import Basis
from densnet.reference.design import DesignFrame, even_tempered, make_basis, prune
from densnet.reference.fit_dataset import BasisSettings, basis_for
from densnet.reference.fitting import project
from densnet.structures import Molecule


@pytest.fixture
def start(basis: Basis) -> Basis:
    atoms = {e.number: e.atom for e in basis.elements}
    return make_basis("start", "pbe", "6-31g", {z: even_tempered(z, 3.0, 2) for z in (1, 8)}, atoms)


@pytest.fixture
def frame(start: Basis, water: Molecule, water_scf: dft.rks.RKS) -> DesignFrame:
    found = project(water, water_scf.make_rdm1(), "6-31g", start, overlap=True)
    assert found.overlap_projection is not None
    return DesignFrame.of(
        found.coulomb + 0.1 * found.overlap, found.projection + 0.1 * found.overlap_projection, start, water.number
    )


def test_cost_is_the_rise_of_the_squared_error(start: Basis, frame: DesignFrame, water: Molecule, water_scf: dft.rks.RKS) -> None:
    """Brute force: solve again without the functions. The error falls by b^T c, so its rise is the difference of those."""
    found = project(water, water_scf.make_rdm1(), "6-31g", start, overlap=True)
    metric, b = found.coulomb + 0.1 * found.overlap, found.projection + 0.1 * found.overlap_projection
    gone = np.array([3, 4, 5, 20])
    keep = np.setdiff1d(np.arange(len(b)), gone)
    rise = b @ np.linalg.solve(metric, b) - b[keep] @ np.linalg.solve(metric[np.ix_(keep, keep)], b[keep])
    assert frame.cost(gone) * frame.norm == pytest.approx(rise, rel=1e-6)
    frame.remove(gone)
    assert frame.solution == pytest.approx(np.linalg.solve(metric[np.ix_(keep, keep)], b[keep]), abs=1e-7)


def test_pruning_beats_dropping_the_tail(start: Basis, frame: DesignFrame, water: Molecule, water_scf: dft.rks.RKS) -> None:
    size = start.size(water.number) // 2
    small = prune([frame], {"half": size}, water.number, start)["half"]
    assert small.size(water.number) <= size

    def captured(basis: Basis) -> float:
        found = project(water, water_scf.make_rdm1(), "6-31g", basis, overlap=True)
        b = found.projection + 0.1 * found.overlap_projection
        return float(b @ np.linalg.solve(found.coulomb + 0.1 * found.overlap, b))

    coarse = make_basis(
        "coarse", "pbe", "6-31g", {z: even_tempered(z, 9.0, 2) for z in (1, 8)}, {e.number: e.atom for e in start.elements}
    )
    assert coarse.size(water.number) >= small.size(water.number) * 0.9
    assert captured(start) >= captured(small) > captured(coarse)


def test_even_tempered_covers_elements_no_library_has() -> None:
    made = basis_for(BasisSettings(None, ratio=3.0, lmax=2), "pbe", "6-31g", [9, 1, 1])
    assert made.numbers == (1, 9)
    assert made.lmax == 2
    for element in made.elements:
        s = [x.exponent for x in element.shells if x.l == 0]
        assert max(np.array(s[:-1]) / np.array(s[1:])) <= 3.0 + 1e-6


def test_library_basis_gets_free_atoms_of_the_level() -> None:
    shipped, other = (basis_for(BasisSettings("hco_medium"), "pbe", ao, [1, 8]) for ao in ("aug-cc-pvdz", "6-31g"))
    assert shipped.numbers == (1, 8)
    assert other.elements[0].shells == shipped.elements[0].shells
    assert other.elements[1].atom != shipped.elements[1].atom
    assert other.hash != shipped.hash
