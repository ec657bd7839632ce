"""Basis as data, and the one door to PySCF's order, pinned in space."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from e3nn import o3
from pyscf import gto

from densnet.basis import moments, ordering
from densnet.basis.shells import Basis, Element, Shell
from densnet.errors import BasisError
from densnet.reference.fitting import moment_constraints, pyscf_molecule
from densnet.structures import Molecule


@pytest.mark.parametrize("l", range(7))
def test_rotation_is_pinned_pointwise(l: int) -> None:
    """PySCF's function values, turned, are e3nn's harmonics at the same points; the transpose is not (l >= 2)."""
    point = np.random.default_rng(l).normal(size=(40, 3))
    mol = gto.M(atom="He 0 0 0", basis={"He": [[l, [0.7, 1.0]]]}, verbose=0)
    values = mol.eval_gto("GTOval_sph", point)
    x = torch.as_tensor(point)
    solid = o3.spherical_harmonics(l, x, normalize=False, normalization="integral").numpy()
    radial = np.exp(-0.7 * (point**2).sum(1)) * float(moments.normalisation(l, torch.tensor(0.7, dtype=torch.float64)))
    expected = solid * radial[:, None]
    assert np.abs(values @ ordering.rotation(l).T - expected).max() < 1e-12
    if l >= 2:
        assert np.abs(values @ ordering.rotation(l) - expected).max() > 1e-2


def test_block_evaluates_to_the_same_density(basis: Basis, water: Molecule) -> None:
    rng = np.random.default_rng(1)
    c = rng.normal(size=basis.size(water.number))
    block = ordering.to_irreps(c, basis, water.number)
    assert block.shape == (3, basis.width)
    assert np.abs(ordering.to_pyscf(block, basis, water.number) - c).max() < 1e-14
    assert (block[~basis.mask[basis.rows(water.number)]] == 0).all()


def test_matrix_turns_as_both_sides(basis: Basis, water: Molecule) -> None:
    aux = pyscf_molecule(water, ordering.pyscf_basis(basis))
    coulomb = aux.intor("int2c2e")
    c = np.random.default_rng(2).normal(size=len(coulomb))
    turned = ordering.matrix_to_irreps(coulomb, basis, water.number)
    flat = ordering.to_irreps(c, basis, water.number)[basis.mask[basis.rows(water.number)]]
    assert flat @ turned @ flat == pytest.approx(c @ coulomb @ c, rel=1e-12)
    assert abs(c @ turned @ c / (c @ coulomb @ c) - 1) > 1e-6  # unturned coefficients do not fit the turned matrix


def test_charge_and_dipole_integrals_against_pyscf(basis: Basis, water: Molecule) -> None:
    """Integrals over all space = overlaps with a Gaussian so wide that it is one: independent of the closed forms."""
    aux = pyscf_molecule(water, ordering.pyscf_basis(basis))
    exponent = 1e-14
    one = gto.M(atom="He 0 0 0", basis={"He": [[0, [exponent, 1.0]]]}, verbose=0)
    height = (2 * exponent / np.pi) ** 0.75
    charge = gto.intor_cross("int1e_ovlp", aux, one)[:, 0] / height
    dipole = gto.intor_cross("int1e_r", aux, one)[:, :, 0] / height
    ours = moment_constraints(basis, water)
    assert np.abs(ours[:, 0] - charge).max() < 1e-10
    assert np.abs(ours[:, 1:].T - dipole).max() < 1e-10


@pytest.mark.parametrize("l", range(5))
def test_one_centre_integrals_against_pyscf(l: int) -> None:
    mol = gto.M(atom="He 0 0 0", basis={"He": [[l, [3.1, 1.0]], [l, [0.8, 1.0]]]}, verbose=0)
    a, b = torch.tensor(3.1, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    assert float(moments.one_centre_overlap(l, a, b)) == pytest.approx(mol.intor("int1e_ovlp")[0, 2 * l + 1], rel=1e-12)
    assert float(moments.one_centre_coulomb(l, a, b)) == pytest.approx(mol.intor("int2c2e")[0, 2 * l + 1], rel=1e-12)


def test_hash_names_the_content_not_the_name(basis: Basis) -> None:
    assert dataclasses.replace(basis, name="other").hash == basis.hash
    hydrogen, oxygen = basis.elements
    moved = Element(1, (Shell(0, hydrogen.shells[0].exponent * (1 + 1e-12)), *hydrogen.shells[1:]), hydrogen.atom)
    assert dataclasses.replace(basis, elements=(moved, oxygen)).hash != basis.hash
    assert dataclasses.replace(basis, ao_basis="6-31g*").hash != basis.hash
    assert Basis.from_json(basis.to_json()) == basis


@pytest.mark.parametrize(("name", "functions"), [("small", 380), ("medium", 680), ("large", 870)])
def test_library(name: str, functions: int) -> None:
    """Size for ethanol, elements, level of theory, and free atoms with all their electrons."""
    shipped = Basis.load(name)
    assert shipped.name == name
    assert shipped.numbers == (1, 6, 7, 8, 9, 16, 17)
    assert (shipped.xc, shipped.ao_basis) == ("pbe", "aug-cc-pvdz")
    assert 0.9 * functions < shipped.size(np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])) <= functions
    for element in shipped.elements:
        a, c = np.array(element.atom.exponent), np.array(element.atom.coefficient)
        assert (c * (2 * np.pi / a) ** 0.75).sum() == pytest.approx(element.number, abs=1e-10)


def test_bad_bases_are_refused(basis: Basis, tmp_path) -> None:
    with pytest.raises(BasisError, match=r"no functions for Z=\[7\].*knows Z=\[1, 8\]"):
        basis.rows(np.array([1, 7]))
    raw = json.loads(basis.to_json())
    raw["elements"][0]["shells"][0]["exponent"] *= 2
    with pytest.raises(BasisError, match="was edited"):
        Basis.from_json(json.dumps(raw))
    with pytest.raises(BasisError, match="not a basis file"):
        Basis.from_json('{"foo": 1}')
    with pytest.raises(BasisError, match="no basis file"):
        Basis.load(tmp_path / "absent.json")
    hydrogen = basis.elements[0]
    with pytest.raises(BasisError, match="non-positive exponent"):
        dataclasses.replace(basis, elements=(Element(1, (Shell(0, -1.0),), hydrogen.atom),))
