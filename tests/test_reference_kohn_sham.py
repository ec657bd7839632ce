"""One Kohn-Sham label: force against energy differences, moments against quadrature, failures as reasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pyscf import dft, gto

from densnet.data.geometry import load_geometry
from densnet.data.labels import Label, Level, unpack
from densnet.errors import ConfigError, StructureError
from densnet.reference.kohn_sham import NoLabel, ScfSettings, check, compute_label
from densnet.structures import Molecule

CHEAP = Level(ao_basis="sto-3g", grid_level=2)
WATER = load_geometry("water")[0].moved(np.array([[0.3, -0.1, 0.2], [0.4, 1.4, -0.9], [0.2, -1.5, -0.8]]))
HYDROXIDE = Molecule(np.array([8, 1]), np.array([[0.5, 0.2, -0.1], [0.4, 1.5, 1.2]]), -1)


def label(molecule: Molecule, level: Level = CHEAP, **settings: int) -> Label:
    result = compute_label(molecule, level, ScfSettings(**settings))
    assert isinstance(result, Label)
    return result


def test_force_is_minus_the_slope_of_the_energy() -> None:
    # The plain gradient lacks the grid response: on this grid that is 5e-6 hartree/bohr, an error of sign or unit is 1e-2.
    level = replace(CHEAP, ao_basis="6-31g", grid_level=5, conv_tol=1e-11)
    force, step = label(WATER, level).force, 0.005
    for atom, axis in ((0, 2), (1, 1), (2, 0)):
        energy = []
        for sign in (1, -1):
            position = WATER.position.copy()
            position[atom, axis] += sign * step
            energy.append(label(WATER.moved(position), level).energy)
        assert force[atom, axis] == pytest.approx(-(energy[0] - energy[1]) / (2 * step), abs=2e-5)


@pytest.mark.parametrize("molecule", [WATER, HYDROXIDE], ids=["water", "hydroxide"])
def test_moments_and_matrix_against_quadrature_of_an_independent_density(molecule: Molecule) -> None:
    found = label(molecule)
    atoms = list(zip(molecule.number.tolist(), molecule.position.tolist()))
    mol = gto.M(atom=atoms, unit="Bohr", basis="sto-3g", charge=molecule.charge, verbose=0)
    mf = dft.RKS(mol, xc="pbe").density_fit()
    mf.grids.level, mf.conv_tol = 2, 1e-9
    assert found.energy == pytest.approx(mf.kernel(), abs=1e-9)
    if not molecule.charge:  # PySCF puts the origin of an ion's dipole elsewhere
        np.testing.assert_allclose(found.dipole, mf.dip_moment(unit="AU", verbose=0), atol=1e-6)

    grid = dft.gen_grid.Grids(mol)
    grid.level = 5
    grid.build()
    values = dft.numint.eval_ao(mol, grid.coords)
    for matrix, tolerance in ((mf.make_rdm1(), 2e-5), (unpack(found.density_matrix), 2e-5)):
        rho = grid.weights * dft.numint.eval_rho(mol, values, matrix)
        assert rho.sum() == pytest.approx(molecule.n_electrons, abs=tolerance)
        z = molecule.number.astype(float)
        np.testing.assert_allclose(found.dipole, z @ molecule.position - rho @ grid.coords, atol=tolerance)
        second = np.einsum("a,ax,ay->xy", z, molecule.position, molecule.position)
        second -= np.einsum("g,gx,gy->xy", rho, grid.coords, grid.coords)
        np.testing.assert_allclose(found.quadrupole, second, atol=5 * tolerance)


def test_packed_matrix_keeps_electrons_and_dipole() -> None:
    found = label(WATER)
    mol = gto.M(atom=[("O", WATER.position[0]), ("H", WATER.position[1]), ("H", WATER.position[2])], unit="Bohr", basis="sto-3g",
                verbose=0)  # fmt: skip
    matrix = unpack(found.density_matrix)
    assert np.einsum("pq,pq", matrix, mol.intor("int1e_ovlp")) == pytest.approx(10, abs=1e-6)
    electronic = np.einsum("xpq,pq->x", mol.intor("int1e_r"), matrix)
    np.testing.assert_allclose(WATER.number @ WATER.position - electronic, found.dipole, atol=1e-6)


def test_a_label_repeats_bit_by_bit() -> None:
    first, second = label(WATER), label(WATER)
    assert first.energy == second.energy
    np.testing.assert_array_equal(first.force, second.force)
    np.testing.assert_array_equal(first.density_matrix, second.density_matrix)


def test_scf_failure_is_a_reason_and_the_second_order_solver_is_tried_first() -> None:
    result = compute_label(WATER, CHEAP, ScfSettings(max_cycle=1))
    assert isinstance(result, NoLabel)
    assert "not converged" in result.reason
    assert "\n" not in result.reason
    rescued = label(WATER, max_cycle=4)  # too few for the first solver, which needs 7
    assert rescued.energy == pytest.approx(label(WATER).energy, abs=1e-8)
    np.testing.assert_allclose(rescued.force, label(WATER).force, atol=1e-5)


def test_faults_are_found_before_any_work() -> None:
    with pytest.raises(StructureError, match="11 electrons at charge -1; expected an even number"):
        check(replace(WATER, charge=-1), CHEAP)
    with pytest.raises(StructureError, match="expected an even number"):
        check(replace(WATER, charge=10), CHEAP)
    iodide = Molecule(np.array([1, 53]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
    faults = [
        (WATER, replace(CHEAP, xc="nonsense"), "functional nonsense"),
        (WATER, replace(CHEAP, xc="b3lyp-d3bj"), "xc=b3lyp dispersion=d3bj"),
        (WATER, replace(CHEAP, ao_basis="nonsense"), "basis nonsense has no functions for [HO]"),
        (WATER, replace(CHEAP, auxbasis="nonsense"), "basis nonsense has no functions for [HO]"),
        (WATER, replace(CHEAP, grid_level=12), "grid_level is 12"),
        (WATER, replace(CHEAP, conv_tol=1.0), "conv_tol is 1.0"),
        (WATER, replace(CHEAP, dispersion="d7"), "dispersion is d7"),
        (iodide, replace(CHEAP, ao_basis="def2-svp"), "replaces core electrons of I"),
    ]
    for molecule, level, message in faults:
        with pytest.raises(ConfigError, match=message) as error:
            check(molecule, level)
        assert "\n" not in str(error.value)
    check(WATER, CHEAP)
    check(WATER, replace(CHEAP, xc="pbe0", ao_basis="def2-tzvp"))
