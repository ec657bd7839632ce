"""Charges of the atom-centred functions: against PySCF and quadrature of the functions, and wherever a Prediction is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import untrained
from pyscf import gto
from test_flexible import BOUND, architecture, make
from test_multipoles import flat_function
from test_real_space import pyscf_functions, random_density

from densnet.basis.shells import Basis
from densnet.model.checkpoint import build
from densnet.model.densnet import DensNet
from densnet.observables.multipoles import atomic_charges, charges_and_dipole, dipole
from densnet.observables.quadrature import integrate
from densnet.observables.real_space import density_on_points
from densnet.predict.frames import _separate
from densnet.structures import Density, Molecule, Molecules, Prediction
from densnet.training.frozen_density import FrozenDensity, density_response
from densnet.training.passes import Passes


@pytest.fixture(scope="module")
def density(basis: Basis, water: Molecule) -> Density:
    """Random coefficients, exponents of their own on every atom, and a charge."""
    return random_density(basis, water.number, 7)


@pytest.fixture(scope="module", params=["fixed", "flexible"])
def model(request: pytest.FixtureRequest, basis: Basis) -> DensNet:
    return untrained(basis) if request.param == "fixed" else make(basis, BOUND)


@pytest.fixture
def several(water: Molecule) -> list[Molecule]:
    """Water, its cation, OH- and an atom: molecules of different sizes and charges."""
    oh = Molecule(water.number[:2], water.position[:2], -1)
    return [water, Molecule(water.number, water.position + 0.1, 1), oh, Molecule(np.array([8]), np.array([[0.2, 0.1, 0.4]]), -2)]


def of_atom(density: Density, atom: int) -> Density:
    """The functions of one atom alone."""
    kept = torch.zeros(len(density.coefficient), 1, dtype=torch.float64)
    kept[atom] = 1.0
    return Density(density.coefficient * kept, density.exponent)


def test_against_pyscf(basis: Basis, water: Molecule, density: Density) -> None:
    """Overlaps of the functions with one that is constant, summed over those of every atom."""
    mol, c = pyscf_functions(water, density, basis)
    integral = c * gto.intor_cross("int1e_ovlp", mol, flat_function(0))[:, 0] * np.sqrt(4 * np.pi)
    owner = np.array([label[0] for label in mol.ao_labels(fmt=False)])  # pyright: ignore[reportArgumentType]
    expected = [-integral[owner == atom].sum() for atom in range(3)]
    found = atomic_charges(density, basis.multiplicity).numpy()
    assert found == pytest.approx(expected, abs=1e-7)
    assert np.ptp(found) > 0.1


def test_by_quadrature(basis: Basis, water: Molecule, density: Density) -> None:
    """Z_A minus the electrons of the free atom A and the functions of A, on a grid: nothing but densities on points."""
    found = atomic_charges(density, basis.multiplicity).numpy()
    bare = Density(torch.zeros_like(density.coefficient), density.exponent)
    for atom in range(3):
        alone = Molecule(water.number[atom : atom + 1], water.position[atom : atom + 1])
        free = Density(bare.coefficient[:1], basis_exponents(basis, alone))
        electrons = integrate(alone, lambda point: density_on_points(alone, free, basis, point)[None], 4)[0]  # noqa: B023
        own = of_atom(density, atom)
        electrons = electrons + integrate(water, lambda p: density_on_points(water, own, basis, p, prior=False)[None], 4)[0]  # noqa: B023
        assert found[atom] == pytest.approx(water.number[atom] - float(electrons), abs=1e-4)


def basis_exponents(basis: Basis, molecule: Molecule) -> torch.Tensor:
    return torch.as_tensor(basis.slot_exponent[basis.rows(molecule.number)])


def test_an_exponent_moved_by_hand(basis: Basis, water: Molecule, density: Density) -> None:
    """integral chi_00 goes with a^(-3/4): one s function of one atom wider, and the charge of that atom alone follows."""
    before = atomic_charges(density, basis.multiplicity)
    exponent = density.exponent.clone()
    exponent[1, 2] *= 0.8
    after = atomic_charges(Density(density.coefficient, exponent), basis.multiplicity)
    norm = (2 * (2 * float(density.exponent[1, 2])) ** 1.5 / (np.sqrt(np.pi) / 2)) ** 0.5
    share = float(density.coefficient[1, 2]) * norm * (np.pi / float(density.exponent[1, 2])) ** 1.5 / np.sqrt(4 * np.pi)
    expected = np.array([0.0, -share * (0.8**-0.75 - 1.0), 0.0])
    assert (after - before).numpy() == pytest.approx(expected, abs=1e-12)
    assert abs(expected[1]) > 1e-3


@pytest.mark.parametrize("charge", [-1, 0, 2])
def test_they_carry_the_dipole(basis: Basis, water: Molecule, density: Density, charge: int) -> None:
    """An atom's functions moved by themselves change the dipole by its charge; the centre of nuclear charge moves for ions."""
    start = Molecule(water.number, water.position, charge)
    found, moment = charges_and_dipole(Molecules.of([start]), density, basis.multiplicity)
    for atom in range(3):
        position, step = start.position.copy(), np.array([0.3, -0.2, 0.5])
        position[atom] += step
        change = dipole(Molecules.of([start.moved(position)]), density, basis.multiplicity)[0] - moment[0]
        moving = float(found[atom]) - charge * start.number[atom] / start.number.sum()
        assert change.numpy() == pytest.approx(moving * step, abs=1e-12)


def assert_exact(prediction: Prediction, molecules: list[Molecule]) -> None:
    assert prediction.charge is not None
    assert prediction.charge.dtype == torch.float64
    totals = Molecules.of(molecules).sum(prediction.charge.detach())
    assert totals.numpy() == pytest.approx([m.charge for m in molecules], abs=1e-10)


def test_they_sum_to_the_charge(model: DensNet, several: list[Molecule]) -> None:
    """Of every molecule of a batch, neutral and ions, wherever a prediction comes from."""
    batch = Molecules.of(several)
    for prediction in (model(batch), model(batch, forces=False), model.density_only(batch), model.predict(batch)):
        assert_exact(prediction, several)
    found = model.predict(batch).charge
    assert found is not None
    assert not found.requires_grad
    assert float(found.abs().min()) > 1e-3


def test_the_network_in_single_precision(basis: Basis, several: list[Molecule]) -> None:
    model = build(architecture(BOUND), basis).eval()
    for name, parameter in model.named_parameters():
        if name.startswith(("density.readout", "density.exponents")):
            torch.nn.init.normal_(parameter, std=0.1)
    assert model.density.dtype == torch.float32
    assert_exact(model.predict(Molecules.of(several)), several)


def test_those_of_the_exponents_in_use(model: DensNet, several: list[Molecule]) -> None:
    """By PySCF, from the prediction's own coefficients and exponents."""
    prediction = model.predict(Molecules.of(several))
    assert prediction.charge is not None
    mol, c = pyscf_functions(several[0], first_three(prediction.density), model.basis)
    integral = c * gto.intor_cross("int1e_ovlp", mol, flat_function(0))[:, 0] * np.sqrt(4 * np.pi)
    owner = np.array([label[0] for label in mol.ao_labels(fmt=False)])  # pyright: ignore[reportArgumentType]
    assert prediction.charge[:3].numpy() == pytest.approx([-integral[owner == a].sum() for a in range(3)], abs=1e-7)


def first_three(density: Density) -> Density:
    return Density(density.coefficient[:3], density.exponent[:3])


def test_a_batch_taken_apart(model: DensNet, several: list[Molecule]) -> None:
    whole = model.predict(Molecules.of(several))
    for one, molecule in zip(_separate(whole, several), several):
        alone = model.predict(Molecules.of([molecule])).charge
        assert one.charge is not None
        assert alone is not None
        assert one.charge.numpy() == pytest.approx(alone.numpy(), abs=1e-10)
        assert_exact(one, [molecule])


def test_training_sees_them(basis: Basis, water: Molecule) -> None:
    """Of both networks, of the density alone and of stored densities."""
    model = make(basis, BOUND)
    molecules = [water, water.moved(water.position * 1.02)]
    inputs = Molecules.of(molecules)

    class Batch:
        number, position, charge, batch = inputs.number, inputs.position, inputs.charge, inputs.molecule
        num_graphs, frame = 2, torch.arange(2)

    batch: Any = Batch()
    expected = model.predict(inputs).charge
    assert expected is not None
    stored = FrozenDensity(np.arange(2), [density_response(model.density, Molecules.of([m])) for m in molecules])
    for source in (Passes(model, None, False), Passes(model, None, False, energies=False), Passes(model, stored, False)):
        found = source.predict(batch, create_graph=False)
        assert_exact(found, molecules)
        assert found.charge is not None
        assert found.charge.detach().numpy() == pytest.approx(expected.numpy(), abs=1e-10)
