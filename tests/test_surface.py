"""Molecular surfaces: areas in closed form, closedness, and the potential on them against PySCF's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.data import vdw_radii
from library_water import fitted_water, scf_potential

from densnet.basis.shells import Basis
from densnet.errors import ConfigError, DataError, StructureError
from densnet.observables.potential import electrostatic_potential_on_points
from densnet.observables.real_space import density_gradient_on_points, density_on_points
from densnet.observables.surface import (
    fibonacci_sphere,
    isodensity_surface,
    scaled_spheres,
    statistics,
    surface_potential,
    van_der_waals_surface,
)
from densnet.structures import Density, Molecule
from densnet.units import ANGSTROM_PER_BOHR

FIT_ERROR = 8e-5  # hartree/e, of the potential; points off by a thousandth cost more


def free_atoms(basis: Basis, molecule: Molecule) -> Density:
    rows = basis.rows(molecule.number)
    return Density(torch.zeros(len(rows), basis.width, dtype=torch.float64), torch.as_tensor(basis.slot_exponent[rows]))


def test_potential_of_the_scf_density() -> None:
    """On the surface of 1.4 times the radii the fitted density gives PySCF's potential of the density matrix."""
    case = fitted_water()
    point = van_der_waals_surface(case.molecule, 1.4, density=1.0)
    expected = scf_potential(case, point.numpy())
    ours = electrostatic_potential_on_points(case.molecule, case.density, case.basis, point).numpy()
    assert np.abs(expected).max() > 0.03
    assert np.abs(ours - expected).max() < FIT_ERROR
    free = free_atoms(case.basis, case.molecule)
    assert np.abs(electrostatic_potential_on_points(case.molecule, free, case.basis, point).numpy() - expected).max() > 0.03


def test_fibonacci_points_are_even() -> None:
    """No direction is preferred to second order, and neighbours keep a distance near that of a hexagonal lattice."""
    for n in (50, 500):
        x = fibonacci_sphere(n)
        assert torch.linalg.vector_norm(x, dim=1).numpy() == pytest.approx(np.ones(n), abs=1e-14)
        assert float(x.mean(0).abs().max()) < 2 / n
        assert (x.T @ x / n - torch.eye(3) / 3).abs().max() < 4 / n
        nearest = torch.cdist(x, x).fill_diagonal_(9).amin(1)
        lattice = np.sqrt(8 * np.pi / np.sqrt(3) / n)
        assert 0.6 * lattice < float(nearest.min()) < float(nearest.max()) < 1.05 * lattice


@pytest.mark.parametrize("apart", [2.0, 4.0, 20.0])
def test_area_of_two_spheres(apart: float) -> None:
    """H and O: each loses the cap 2 pi R h the other covers, h = R - (d^2 + R^2 - r^2) / 2d."""
    molecule = Molecule(np.array([8, 1]), np.array([[0.0, 0, 0], [0, 0, apart]]))
    a, b = 1.2 * vdw_radii[[8, 1]] / ANGSTROM_PER_BOHR
    expected = 0.0
    for big, small in ((a, b), (b, a)):
        cap = max(0.0, big - (apart**2 + big**2 - small**2) / (2 * apart)) if apart < a + b else 0.0
        expected += 4 * np.pi * big**2 - 2 * np.pi * big * cap
    for density, tolerance in ((1.0, 3e-2), (50.0, 1e-3)):
        surface = scaled_spheres(molecule, 1.2, density)
        assert float(surface.area.sum()) == pytest.approx(expected, rel=tolerance)
        assert len(surface.point) == pytest.approx(density * float(surface.area.sum()), rel=2e-2 / density + 1e-3)


def test_every_point_lies_on_its_sphere_and_in_no_other(water: Molecule) -> None:
    surface = scaled_spheres(water, 1.6, 3.0)
    distance = torch.cdist(surface.point, torch.as_tensor(water.position)).numpy()
    radius = 1.6 * vdw_radii[water.number] / ANGSTROM_PER_BOHR
    k = np.arange(len(distance))
    assert distance[k, surface.atom.numpy()] == pytest.approx(radius[surface.atom.numpy()], rel=1e-12)
    assert (distance / radius).min() == pytest.approx(1.0, abs=1e-12)
    assert set(surface.atom.tolist()) == {0, 1, 2}
    assert torch.equal(surface.point, van_der_waals_surface(water, 1.6, density=3.0))


def test_hidden_atoms_have_no_points() -> None:
    """Hydrogen inside the sphere of iodine."""
    molecule = Molecule(np.array([53, 1]), np.array([[0.0, 0, 0], [0, 0, 1.0]]))
    assert set(scaled_spheres(molecule, 1.0).atom.tolist()) == {0}


def test_isodensity_surface() -> None:
    """Every point has that density; the surface is closed (its vector area vanishes); the volume by Gauss is that of a count."""
    case = fitted_water()
    value = 0.002
    surface = isodensity_surface(case.molecule, case.density, case.basis, value, rays=4000)
    rho, gradient = density_gradient_on_points(case.molecule, case.density, case.basis, surface.point)
    assert rho.numpy() == pytest.approx(np.full(len(rho), value), rel=1e-6)
    normal = -gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    total = float(surface.area.sum())
    assert float((surface.area[:, None] * normal).sum(0).abs().max()) < 2e-3 * total
    volume = float((surface.area * (normal * surface.point).sum(1)).sum() / 3)
    axis = np.arange(-7.05, 7.1, 0.15)
    grid = torch.as_tensor(np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3) + case.molecule.position.mean(0))
    inside = density_on_points(case.molecule, case.density, case.basis, grid) > value
    assert volume == pytest.approx(float(inside.sum()) * 0.15**3, rel=5e-3)


def test_isodensity_surface_of_an_atom(basis: Basis) -> None:
    """A sphere around one free atom, exactly; levels that are nowhere to be found."""
    atom = Molecule(np.array([8]), np.array([[1.0, 2.0, 3.0]]))
    surface = isodensity_surface(atom, free_atoms(basis, atom), basis, 0.01, rays=100)
    radius = torch.linalg.vector_norm(surface.point - torch.as_tensor(atom.position), dim=1)
    assert float(radius.max() - radius.min()) < 1e-9
    assert float(surface.area.sum()) == pytest.approx(4 * np.pi * float(radius.mean()) ** 2, rel=1e-9)
    with pytest.raises(ConfigError, match="expected a value > 0"):
        isodensity_surface(atom, free_atoms(basis, atom), basis, 0.0)
    wide = free_atoms(basis, atom)
    wide.coefficient[0, 0], wide.exponent[0, 0] = 1.0, 0.01
    with pytest.raises(DataError, match="bohr from the nuclei"):
        isodensity_surface(atom, wide, basis, 1e-5)
    nowhere = isodensity_surface(atom, free_atoms(basis, atom), basis, 1e6)
    with pytest.raises(DataError, match="no points"):
        surface_potential(atom, free_atoms(basis, atom), basis, nowhere)


def test_statistics() -> None:
    """Politzer's quantities as sums over parts of the area, by numpy; one sign alone has no balance."""
    rng = np.random.default_rng(0)
    v, a = rng.normal(size=300) * 0.02 + 0.003, rng.uniform(0.5, 1.5, size=300)
    found = statistics(torch.as_tensor(v), torch.as_tensor(a))
    mean = np.average(v, weights=a)
    assert (found.maximum, found.minimum, found.area) == pytest.approx((v.max(), v.min(), a.sum()), rel=1e-12)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.average_deviation == pytest.approx(np.average(np.abs(v - mean), weights=a), rel=1e-12)
    variances = []
    for sign, own_mean, variance in (
        (v > 0, found.positive_mean, found.positive_variance),
        (v < 0, found.negative_mean, found.negative_variance),
    ):
        assert own_mean == pytest.approx(np.average(v[sign], weights=a[sign]), rel=1e-12)
        variances.append(np.average((v[sign] - own_mean) ** 2, weights=a[sign]))
        assert variance == pytest.approx(variances[-1], rel=1e-12)
    assert found.total_variance == pytest.approx(sum(variances), rel=1e-12)
    assert found.balance == pytest.approx(variances[0] * variances[1] / sum(variances) ** 2, rel=1e-12)
    assert found.balanced_variance == pytest.approx(variances[0] * variances[1] / sum(variances), rel=1e-12)
    lone = statistics(torch.as_tensor(np.abs(v)), torch.as_tensor(a))
    assert (lone.negative_mean, lone.negative_variance, lone.balance) == (0.0, 0.0, 0.0)
    with pytest.raises(DataError, match="no points"):
        statistics(torch.zeros(0), torch.zeros(0))


def test_water_has_its_signs() -> None:
    """Most negative at the oxygen, most positive at a hydrogen."""
    case = fitted_water()
    surface = scaled_spheres(case.molecule, 1.4, 2.0)
    found = surface_potential(case.molecule, case.density, case.basis, surface)
    v = electrostatic_potential_on_points(case.molecule, case.density, case.basis, surface.point)
    assert int(surface.atom[v.argmin()]) == 0
    assert int(surface.atom[v.argmax()]) in (1, 2)
    assert found.minimum < -0.03 < 0.03 < found.maximum
    assert 0.1 < found.balance <= 0.25


def test_what_is_refused(water: Molecule) -> None:
    for scale, density in ((0.0, 1.0), (1.4, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (1.4, float("inf"))):
        with pytest.raises(ConfigError, match="expected both > 0"):
            scaled_spheres(water, scale, density)
    with pytest.raises(ConfigError, match="lower it"):
        scaled_spheres(water, 1.4, 1e9)
    with pytest.raises(StructureError, match="for Fe"):
        scaled_spheres(Molecule(np.array([26, 1]), np.array([[0.0, 0, 0], [0, 0, 3]])))
