"""Pruning against brute force, the gradient of the refinement against finite differences, and that both are worth it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyscf import dft

from densnet.basis.shells import Basis, Element, Shell
from densnet.data.labels import read_labels
from densnet.errors import ConfigError
from densnet.reference.design import describe, main, name_of, sizes
from densnet.reference.even_tempered import even_tempered, make_basis
from densnet.reference.fit_dataset import BasisSettings, basis_for
from densnet.reference.fitting import project
from densnet.reference.pruning import DesignFrame, prune
from densnet.reference.refinement import MIN_RATIO, RefinementFrame, refine
from densnet.structures import Molecule

WEIGHT = 0.1


@pytest.fixture
def start(basis: Basis) -> Basis:
    atoms = {e.number: e.atom for e in basis.elements}
    return make_basis("start", "pbe", "6-31g", {z: even_tempered(z, 3.0, 2) for z in (1, 8)}, atoms)


def equations(start: Basis, water: Molecule, scf: dft.rks.RKS) -> tuple[np.ndarray, np.ndarray]:
    """M and b of the fit of water in a basis."""
    found = project(water, scf.make_rdm1(), "6-31g", start, overlap=True)
    assert found.overlap_projection is not None
    return found.coulomb + WEIGHT * found.overlap, found.projection + WEIGHT * found.overlap_projection


@pytest.fixture
def frame(start: Basis, water: Molecule, water_scf: dft.rks.RKS) -> DesignFrame:
    return DesignFrame.of(*equations(start, water, water_scf), start, water.number)


@pytest.fixture
def refinement(start: Basis, water: Molecule, water_scf: dft.rks.RKS) -> RefinementFrame:
    metric, b = equations(start, water, water_scf)
    return RefinementFrame(water, start, np.linalg.solve(metric, b), WEIGHT)


def test_rise_is_that_of_the_squared_error(start: Basis, frame: DesignFrame, water: Molecule, water_scf: dft.rks.RKS) -> None:
    """Brute force: solve again without the functions. The error falls by b^T c, so its rise is the difference of those."""
    metric, b = equations(start, water, water_scf)
    key = (1, next(s for s in start.elements[0].shells if s.l == 1))
    gone = frame.members[key]
    assert len(gone) == 6, "two hydrogens, three components"
    keep = np.setdiff1d(np.arange(len(b)), gone)
    rise = b @ np.linalg.solve(metric, b) - b[keep] @ np.linalg.solve(metric[np.ix_(keep, keep)], b[keep])
    assert frame.rise(gone) == pytest.approx(rise, rel=1e-6)
    frame.remove([key])
    assert frame.solution == pytest.approx(np.linalg.solve(metric[np.ix_(keep, keep)], b[keep]), abs=1e-7)


def captured(basis: Basis, water: Molecule, scf: dft.rks.RKS) -> float:
    """b^T c: what of the squared density the fit holds; the larger the better."""
    metric, b = equations(basis, water, scf)
    return float(b @ np.linalg.solve(metric, b))


def test_pruning_beats_a_coarse_basis(start: Basis, frame: DesignFrame, water: Molecule, water_scf: dft.rks.RKS) -> None:
    size = start.size(water.number) // 2
    small = prune([frame], size, water.number, start)
    assert small.size(water.number) <= size
    coarse = make_basis(
        "coarse", "pbe", "6-31g", {z: even_tempered(z, 9.0, 2) for z in (1, 8)}, {e.number: e.atom for e in start.elements}
    )
    assert coarse.size(water.number) >= small.size(water.number) * 0.9
    values = [captured(b, water, water_scf) for b in (start, small, coarse)]
    assert values[0] >= values[1] > values[2]


def test_pruned_frames_know_their_functions(start: Basis, frame: DesignFrame, water: Molecule, water_scf: dft.rks.RKS) -> None:
    """After many removals the frame is what it would be if it had been made for the small basis."""
    small = prune([frame], start.size(water.number) // 2, water.number, start)
    fresh = DesignFrame.of(*equations(small, water, water_scf), small, water.number)
    assert set(fresh.members) == set(frame.members)
    for key, rows in fresh.members.items():
        assert rows.tolist() == frame.members[key].tolist()
        assert fresh.rise(rows) == pytest.approx(frame.rise(rows), rel=1e-5)


def moved(basis: Basis, row: int, k: int, step: float) -> Basis:
    """One exponent times exp(step)."""
    shells = [list(e.shells) for e in basis.elements]
    shells[row][k] = Shell(shells[row][k].l, shells[row][k].exponent * float(np.exp(step)))
    elements = tuple(Element(e.number, tuple(s), e.atom) for e, s in zip(basis.elements, shells))
    return Basis(basis.name, basis.xc, basis.ao_basis, elements)


def test_gradient_of_the_refinement(start: Basis, frame: DesignFrame, refinement: RefinementFrame, water: Molecule) -> None:
    small = prune([frame], 40, water.number, start)
    _, gradient = refinement.error(small)
    assert len(gradient) == sum(len(e.shells) for e in small.elements)
    largest = max(abs(g) for g in gradient.values())
    for (row, k), slope in gradient.items():
        up, down = (refinement.error(moved(small, row, k, h))[0] for h in (1e-3, -1e-3))
        assert slope == pytest.approx((up - down) / 2e-3, abs=2e-3 * largest)


def test_refinement_lowers_the_error(
    start: Basis, frame: DesignFrame, refinement: RefinementFrame, water: Molecule, water_scf: dft.rks.RKS
) -> None:
    small = prune([frame], 40, water.number, start)
    better = refine(small, [refinement], iterations=15, progress=False)
    assert better.size(water.number) == small.size(water.number)
    before, after = refinement.error(small)[0], refinement.error(better)[0]
    assert after < 0.7 * before
    # Also against the density itself, not only against its fit in the start basis.
    assert captured(better, water, water_scf) > captured(small, water, water_scf)
    for element in better.elements:
        for l in {s.l for s in element.shells}:
            exponents = np.array([s.exponent for s in element.shells if s.l == l])
            assert (exponents[:-1] / exponents[1:] >= MIN_RATIO - 1e-4).all()


def test_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_fits: Path) -> None:
    """The whole program on one molecule: two bases, the larger the better, and the record says so."""
    path = tiny_fits.with_name("labels.h5")
    labels = read_labels(path)
    command = ["design", "--labels", str(path), "--held-out", str(path), "--ratio", "3.0"]
    command += ["--functions", "few=50", "many=80", "--iterations", "2", "--floor-frames", "1"]
    monkeypatch.setattr("sys.argv", [*command, "--out", str(tmp_path), "--record", str(tmp_path / "record.json")])
    main()
    few, many = Basis.load(tmp_path / "few.json"), Basis.load(tmp_path / "many.json")
    number = labels.frame(0).number
    assert few.size(number) <= 50 < many.size(number) <= 80
    bases = {b["name"]: b for b in json.loads((tmp_path / "record.json").read_text())["report"]["bases"]}
    assert bases["few"]["hash"] == few.hash
    assert bases["many"]["used"][0]["functions"] == many.size(number)
    assert bases["many"]["used"][0]["nmae_percent"] < bases["few"]["used"][0]["nmae_percent"] < 5
    assert bases["many"]["used"] == bases["many"]["held_out"], "the same file on both sides"
    assert "fit floor" in capsys.readouterr().out
    assert name_of(labels) == "H2O"
    assert describe(few).startswith("H: ")


def test_sizes() -> None:
    assert sizes(["a=3", "b=5"]) == {"a": 3, "b": 5}
    with pytest.raises(ConfigError, match="expected name=number"):
        sizes(["a:3"])


def test_even_tempered_covers_elements_no_library_has() -> None:
    made = basis_for(BasisSettings(None, ratio=3.0, lmax=2), "pbe", "6-31g", [9, 1, 1])
    assert made.numbers == (1, 9)
    assert made.lmax == 2
    for element in made.elements:
        s = [x.exponent for x in element.shells if x.l == 0]
        assert max(np.array(s[:-1]) / np.array(s[1:])) <= 3.0 + 1e-6


def test_library_basis_gets_free_atoms_of_the_level() -> None:
    shipped, other = (basis_for(BasisSettings("medium"), "pbe", ao, [1, 8]) for ao in ("aug-cc-pvdz", "6-31g"))
    assert shipped.numbers == (1, 8)
    assert other.elements[0].shells == shipped.elements[0].shells
    assert other.elements[1].atom != shipped.elements[1].atom
    assert other.hash != shipped.hash
