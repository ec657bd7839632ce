"""Spherical multipoles: against PySCF's moment integrals, numeric integration, the dipole and quadrupole, and their gradients."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from e3nn import o3
from pyscf import gto
from test_real_space import pyscf_functions, random_density

from densnet.basis.ordering import rotation
from densnet.basis.shells import Basis, Element, Shell
from densnet.errors import ConfigError
from densnet.observables.multipoles import dipole, electrons, quadrupole, spherical_multipoles
from densnet.observables.quadrature import integrate
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecule, Molecules

ORIGIN = np.array([0.4, -0.7, 1.1])
FLAT = 1e-14  # exponent of a Gaussian that is constant over the molecule


@pytest.fixture(scope="module")
def tall(basis: Basis) -> Basis:
    """The test basis with l = 5 on oxygen."""
    hydrogen, oxygen = basis.elements
    return dataclasses.replace(basis, elements=(hydrogen, Element(8, (*oxygen.shells, Shell(5, 1.2)), oxygen.atom)))


@pytest.fixture(scope="module")
def density(tall: Basis, water: Molecule) -> Density:
    """Random coefficients, exponents of their own on every atom, and a charge."""
    return random_density(tall, water.number, 7)


def solid(l: int, r: np.ndarray) -> np.ndarray:
    """(K, 2l+1) Racah-normalised r^l C_lm by e3nn."""
    values = o3.spherical_harmonics(l, torch.as_tensor(r), normalize=False, normalization="norm").numpy()
    return values / np.sqrt(2 * l + 1) if abs(np.linalg.norm(values[0]) - np.linalg.norm(r[0]) ** l) > 1e-9 else values


def flat_function(l: int) -> gto.Mole:
    """r^l Y_lm about ORIGIN, times a Gaussian that is 1; not normalised, or PySCF takes the integrals for zero."""
    mol = gto.M(atom=[("ghost-H", ORIGIN)], unit="Bohr", basis={"ghost-H": [[l, [FLAT, 1.0]]]}, verbose=0)
    mol._env[mol._bas[0, gto.mole.PTR_COEFF]] = 1.0
    return mol


def test_against_overlaps_with_flat_harmonics(water: Molecule, density: Density, tall: Basis) -> None:
    """PySCF: r^l Y_lm at the origin times a Gaussian so wide that it is 1, overlapped with every function. l up to 7."""
    ours = spherical_multipoles(water, density, tall, 7, ORIGIN)
    mol, c = pyscf_functions(water, density, tall)
    for l in range(8):
        flat = flat_function(l)
        theirs = -(c @ gto.intor_cross("int1e_ovlp", mol, flat)) * np.sqrt(4 * np.pi / (2 * l + 1))
        found = ours[l][0].numpy()
        assert found.shape == (2 * l + 1,)
        assert found @ rotation(l) == pytest.approx(theirs, rel=1e-7, abs=1e-7 * np.abs(theirs).max())
        assert np.abs(theirs).max() > 0.01


def test_against_cartesian_moments(water: Molecule, density: Density, tall: Basis) -> None:
    """int1e_r, int1e_rr and int1e_rrr about the origin, contracted to harmonics by integration over directions."""
    mol, c = pyscf_functions(water, density, tall)
    constant = np.sqrt(1 / (4 * np.pi))
    pair = mol + flat_function(0)
    pair.set_common_orig_(ORIGIN)
    slices = (0, mol.nbas, mol.nbas, mol.nbas + 1)
    ours = spherical_multipoles(water, density, tall, 3, ORIGIN)
    direction = np.random.default_rng(0).normal(size=(60, 3))
    for l, name in ((1, "int1e_r"), (2, "int1e_rr"), (3, "int1e_rrr")):
        moment = -np.einsum("xpo,p->x", pair.intor(name, comp=3**l, shls_slice=slices), c) / constant
        powers = direction
        for _ in range(l - 1):
            powers = (powers[:, :, None] * direction[:, None]).reshape(len(direction), -1)
        # harmonics as polynomials: S = powers . T, found from their values
        tensor = np.linalg.lstsq(powers, solid(l, direction), rcond=None)[0]
        assert powers @ tensor == pytest.approx(solid(l, direction), abs=1e-10)
        assert ours[l][0].numpy() == pytest.approx(moment @ tensor, abs=1e-6)


def test_by_quadrature(water: Molecule, density: Density, tall: Basis) -> None:
    """Nuclei and all electrons, free atoms included, summed on a grid."""
    ours = spherical_multipoles(water, density, tall, 4, ORIGIN)
    for l in range(5):

        def moment(point: torch.Tensor, l: int = l) -> torch.Tensor:
            rho = density_on_points(water, density, tall, point)
            return torch.as_tensor(solid(l, point.numpy() - ORIGIN)).T * rho

        nuclear = water.number @ solid(l, water.position - ORIGIN)
        expected = nuclear - integrate(water, moment, 4).numpy()
        assert ours[l][0].numpy() == pytest.approx(expected, abs=2e-4 * max(1, np.abs(nuclear).max()))


def test_low_degrees_are_those_that_exist(tall: Basis, water: Molecule, density: Density) -> None:
    """Charge, dipole (about the origin of coordinates), traceless part of the second moment."""
    batch = Molecules.of([water])
    charge, first, second = (q[0] for q in spherical_multipoles(batch, density, tall, 2, np.zeros(3)))
    assert float(charge) == pytest.approx(10 - float(electrons(batch, density, tall.multiplicity)), abs=1e-12)
    assert first.numpy() == pytest.approx(dipole(batch, density, tall.multiplicity)[0].numpy(), abs=1e-12)
    q = quadrupole(batch, density, tall)[0].numpy()
    x = np.random.default_rng(1).normal(size=(20, 3))
    traceless = 1.5 * np.einsum("ki,ij,kj->k", x, q, x) - 0.5 * np.trace(q) * (x * x).sum(1)
    assert solid(2, x) @ second.numpy() == pytest.approx(traceless, abs=1e-10)


def test_origins_and_batches(tall: Basis, water: Molecule, density: Density) -> None:
    """None is the centre of nuclear charge, one per molecule; a neutral free atom has nothing anywhere."""
    other = water.moved(water.position + np.array([1.0, 2.0, 3.0]))
    batch = Molecules.of([water, other])
    both = Density(torch.cat([density.coefficient] * 2), torch.cat([density.exponent] * 2))
    for q in spherical_multipoles(batch, both, tall, 3):
        assert q[0].numpy() == pytest.approx(q[1].numpy(), abs=1e-10)
    nuclear = water.number @ water.position / water.number.sum()
    own, given = (spherical_multipoles(water, density, tall, 3, o) for o in (None, nuclear))
    assert all(torch.allclose(a, b, atol=1e-12, rtol=0) for a, b in zip(own, given))
    each = torch.as_tensor(np.stack([ORIGIN, ORIGIN + other.position[0] - water.position[0]]))
    for q in spherical_multipoles(batch, both, tall, 3, each):
        assert q[0].numpy() == pytest.approx(q[1].numpy(), abs=1e-9)
    empty = Density(torch.zeros_like(density.coefficient), density.exponent)
    assert all(float(q.abs().max()) == 0 for q in spherical_multipoles(water, empty, tall, 4, ORIGIN))
    for lmax in (-1, 13, 1.5):
        with pytest.raises(ConfigError, match="from 0 to 12"):
            spherical_multipoles(water, density, tall, lmax)  # pyright: ignore[reportArgumentType]


def test_gradients(tall: Basis, water: Molecule, density: Density) -> None:
    """Positions, coefficients and exponents by finite differences."""
    batch = Molecules.of([water])

    def octupole(position: torch.Tensor, coefficient: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
        return spherical_multipoles(batch.at(position), Density(coefficient, exponent), tall, 3)[3]

    arguments = tuple(t.clone().requires_grad_() for t in (batch.position, density.coefficient, density.exponent))
    assert torch.autograd.gradcheck(octupole, arguments, fast_mode=True)


def test_inference_then_training(tall: Basis, water: Molecule, density: Density) -> None:
    """Tables made while predicting serve a backward pass later."""
    with torch.inference_mode():
        spherical_multipoles(water, density, tall, 6)
    c = density.coefficient.clone().requires_grad_()
    spherical_multipoles(water, Density(c, density.exponent), tall, 6)[6].sum().backward()
    assert c.grad is not None
    assert float(c.grad.abs().max()) > 0
