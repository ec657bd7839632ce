"""Free atoms and the constrained fit, against PySCF and against themselves under rotation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import AO_BASIS, random_rotation, wigner_d
from pyscf import dft, gto
from pyscf.scf import atom_ks

from densnet.basis.shells import Basis, Element, Shell
from densnet.data.fits import read_fits
from densnet.data.labels import read_labels
from densnet.errors import BasisError
from densnet.observables.multipoles import dipole, electrons, quadrupole
from densnet.reference.atoms import free_atom
from densnet.reference.fit_dataset import BasisSettings, FitSettings, fit_labels
from densnet.reference.fitting import density_on_grid, fit, fitted_density, nmae_percent, project, pyscf_molecule
from densnet.structures import Density, Molecule, Molecules


def fitted(molecule: Molecule, scf: dft.rks.RKS, basis: Basis):
    moment = scf.dip_moment(unit="AU", verbose=0)
    return fit(molecule, project(molecule, scf.make_rdm1(), AO_BASIS, basis), moment, basis), moment


def density_of(basis: Basis, molecule: Molecule, coefficient: np.ndarray) -> Density:
    return Density(torch.as_tensor(coefficient), torch.as_tensor(basis.slot_exponent[basis.rows(molecule.number)]))


@pytest.mark.parametrize("number", [1, 8, 16])
def test_free_atom_density(number: int) -> None:
    """The fitted atom against the density of PySCF's own atomic calculation on a grid."""
    atom = free_atom(number, "pbe", AO_BASIS)
    mol = pyscf_molecule(Molecule(np.array([number]), np.zeros((1, 3))), AO_BASIS)
    energy, _, orbitals, occupations = atom_ks.get_atm_nrks(mol, xc="pbe")[mol.atom_symbol(0)]
    grid = dft.gen_grid.Grids(mol)
    grid.level = 3
    grid.build()
    values = mol.eval_gto("GTOval_sph", grid.coords) @ orbitals
    exact = (values**2) @ occupations
    a, c = np.array(atom.exponent), np.array(atom.coefficient)
    ours = np.exp(-(grid.coords**2).sum(1)[:, None] * a) @ (c * (2 * a / np.pi) ** 0.75)
    assert np.abs(ours - exact) @ grid.weights < 1e-3 * number
    assert (c * (2 * np.pi / a) ** 0.75).sum() == pytest.approx(number, abs=1e-10)
    assert atom.energy == pytest.approx(energy, abs=1e-8)


def test_fit_is_close_and_exact_in_charge_and_dipole(basis: Basis, water: Molecule, water_scf: dft.rks.RKS) -> None:
    result, moment = fitted(water, water_scf, basis)
    assert result.electrons_error < 1e-10
    assert result.dipole_error < 1e-9
    molecules = Molecules.of([water])
    density = density_of(basis, water, result.coefficient)
    assert (dipole(molecules, density, basis.multiplicity)[0].numpy() - moment) == pytest.approx(0, abs=1e-9)
    assert float(electrons(molecules, density, basis.multiplicity)) == pytest.approx(10, abs=1e-10)
    grid = density_on_grid(water, water_scf.make_rdm1(), AO_BASIS, level=2)
    floor = nmae_percent(fitted_density(water, result.coefficient, basis, grid.point), grid, 10)
    sad = nmae_percent(fitted_density(water, 0 * result.coefficient, basis, grid.point), grid, 10)
    assert floor < 3 < 10 < sad  # a small basis: a fifth of what the free atoms alone leave


def test_dipole_and_quadrupole_against_pyscf_integrals(basis: Basis, water: Molecule) -> None:
    """Random coefficients: moments from densnet against quadrature of PySCF's evaluation of the same function."""
    rng = np.random.default_rng(5)
    c = np.where(basis.mask[basis.rows(water.number)], rng.normal(scale=0.1, size=(3, basis.width)), 0.0)
    mol = pyscf_molecule(water, AO_BASIS)
    grid = dft.gen_grid.Grids(mol)
    grid.atom_grid = {"H": (120, 434), "O": (140, 434)}
    grid.prune = None
    grid.build()
    rho = fitted_density(water, c, basis, grid.coords) * grid.weights
    z, r = water.number, water.position
    mu = z @ r - rho @ grid.coords
    q = np.einsum("a,ai,aj->ij", z, r, r) - np.einsum("g,gi,gj->ij", rho, grid.coords, grid.coords)
    density = density_of(basis, water, c)
    molecules = Molecules.of([water])
    total = float(electrons(molecules, density, basis.multiplicity))
    assert total == pytest.approx(rho.sum(), abs=1e-5)
    assert dipole(molecules, density, basis.multiplicity)[0].numpy() == pytest.approx(mu, abs=1e-5)
    ours = quadrupole(molecules, density, basis)[0].numpy()
    assert ours == pytest.approx(q, abs=1e-4)
    swapped = ours.copy()
    swapped[0, 1], swapped[0, 2] = ours[0, 2], ours[0, 1]
    assert np.abs(swapped - q).max() > 1e-2  # the tolerance sees a wrong component order


def test_rotate_and_refit(basis: Basis, water: Molecule, water_scf: dft.rks.RKS) -> None:
    """Kohn-Sham on the turned molecule, fitted anew, gives the turned coefficients (to the SCF's own convergence)."""
    turn = random_rotation(4)
    turned = water.moved(water.position @ turn.T)
    calculation = dft.RKS(pyscf_molecule(turned, AO_BASIS), xc="hf").density_fit()
    reference = dft.RKS(pyscf_molecule(water, AO_BASIS), xc="hf").density_fit()  # no grid: exactly invariant
    results = []
    for molecule, scf in ((water, reference), (turned, calculation)):
        scf.conv_tol, scf.conv_tol_grad = 1e-12, 1e-8
        scf.kernel()
        results.append(fitted(molecule, scf, basis)[0].coefficient)
    start = 0
    for l, n in enumerate(basis.multiplicity):
        stop = start + n * (2 * l + 1)
        x, y = (torch.as_tensor(c[:, start:stop]).view(3, n, 2 * l + 1) for c in results)
        d = wigner_d(l, turn)
        assert (x @ d.T - y).abs().max() < 1e-6
        if l:
            assert (x @ d - y).abs().max() > 1e-4
        start = stop


def test_linear_dependence_is_refused(basis: Basis, water: Molecule, water_scf: dft.rks.RKS) -> None:
    hydrogen, oxygen = basis.elements
    close = tuple(Shell(0, 1.0 + 1e-8 * i) for i in range(3, 0, -1))
    bad = dataclasses.replace(basis, elements=(Element(1, close, hydrogen.atom), oxygen))
    with pytest.raises(BasisError, match="linearly dependent"):
        fitted(water, water_scf, bad)


def test_an_ion_keeps_its_charge_and_dipole(basis: Basis) -> None:
    """Hydroxide away from the origin: electrons, density on a grid, and the dipole about the centre of nuclear charge."""
    ion = Molecule(np.array([8, 1]), np.array([[1.0, -2.0, 0.5], [1.3, -0.4, 1.2]]), charge=-1)
    mol = gto.M(atom=list(zip("OH", ion.position)), unit="Bohr", basis=AO_BASIS, charge=-1, verbose=0)
    scf = dft.RKS(mol, xc="pbe").density_fit()
    scf.grids.level = 1
    scf.kernel()
    moment = scf.dip_moment(unit="AU", verbose=0, origin=np.zeros(3))
    result = fit(ion, project(ion, scf.make_rdm1(), AO_BASIS, basis), moment, basis)
    molecules, density = Molecules.of([ion]), density_of(basis, ion, result.coefficient)
    assert float(electrons(molecules, density, basis.multiplicity)) == pytest.approx(10, abs=1e-9)
    centre = np.array([8, 1]) @ ion.position / 9
    expected = moment + centre  # mu about the centre = mu about 0 - charge * centre
    assert dipole(molecules, density, basis.multiplicity)[0].numpy() == pytest.approx(expected, abs=1e-9)
    grid = density_on_grid(ion, scf.make_rdm1(), AO_BASIS, level=1)
    assert nmae_percent(fitted_density(ion, result.coefficient, basis, grid.point), grid, 10) < 4


def test_the_fitted_file_holds_what_was_fitted(tiny_fits: Path, basis: Basis) -> None:
    """Coefficients and grids: of the test frames and of the last training frames."""
    labels, fits = read_labels(tiny_fits.with_name("labels.h5")), read_fits(tiny_fits)
    assert fits.grid_frame.tolist() == [5, 6, 7, 8, 9]
    for f in (4, 8):
        integrals = project(labels.frame(f), labels.density_matrix(f), AO_BASIS, basis)
        own = fit(labels.frame(f), integrals, labels.dipole[f], basis).coefficient
        assert fits.coefficient[fits.atoms(f)] == pytest.approx(own.astype("f4"), abs=1e-6)
    grid = density_on_grid(labels.frame(8), labels.density_matrix(8), AO_BASIS, 0)
    assert np.array_equal(fits.grid(8).point, grid.point)
    assert fits.grid(8).density == pytest.approx(grid.density, abs=1e-6)


def test_more_grids_than_training_frames(tiny_fits: Path, tmp_path: Path) -> None:
    settings = FitSettings(grid_level=0, grid_frames_train=8, grid_frames_test=0)  # seven training frames
    source = BasisSettings(str(tiny_fits.with_name("basis.json")))
    assert fit_labels(tiny_fits.with_name("labels.h5"), source, tmp_path / "fits.h5", settings).grid_frames == 7
