"""Physics of the untrained model: forces, symmetry, exact charge, batching, smoothness. Everything in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import random_rotation, untrained, wigner_d

from densnet.basis.shells import Basis
from densnet.errors import BasisError
from densnet.model.densnet import DensNet
from densnet.observables.multipoles import electrons, quadrupole
from densnet.structures import Molecule, Molecules


def energy_at(model: DensNet, molecule: Molecule, position: np.ndarray) -> float:
    return float(model.predict(Molecules.of([molecule.moved(position)]), forces=False).energy)


@pytest.mark.parametrize("frozen", [True, False], ids=["density frozen", "joint"])
def test_forces_are_the_gradient(basis: Basis, water: Molecule, frozen: bool) -> None:
    """Against central differences of the energy, whether the density network trains or is frozen."""
    model = untrained(basis)
    model.density.requires_grad_(not frozen)
    force = model.predict(Molecules.of([water])).force
    assert force is not None
    step, numeric = 1e-4, np.zeros((3, 3))
    for i in range(3):
        for k in range(3):
            for sign, factor in ((1, 8), (-1, -8), (2, -1), (-2, 1)):  # fourth order: error below round-off
                moved = water.position.copy()
                moved[i, k] += sign * step
                numeric[i, k] -= factor * energy_at(model, water, moved) / (12 * step)
    assert np.abs(force.numpy() - numeric).max() < 1e-6 * np.abs(numeric).max()


def test_a_detached_density_would_give_wrong_forces(model: DensNet, water: Molecule) -> None:
    """The planted error of the test above: without the gradient through the density the forces are wrong."""
    molecules = Molecules.of([water])
    right = model.predict(molecules).force
    position = molecules.position.clone().requires_grad_()
    density = model.density(molecules)  # at fixed positions: no gradient
    assert model.energy is not None
    energy = model.energy(molecules.at(position), density)
    wrong = -torch.autograd.grad(energy.sum(), position)[0]
    assert right is not None
    assert (right - wrong).abs().max() > 1e-2 * right.abs().max()


def test_second_derivatives(model: DensNet, water: Molecule) -> None:
    molecules = Molecules.of([water])

    def energy_and_dipole(position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result = model(molecules.at(position), forces=False)
        return result.energy, result.dipole

    position = molecules.position.clone().requires_grad_()
    assert torch.autograd.gradcheck(energy_and_dipole, (position,), atol=1e-7)
    assert torch.autograd.gradgradcheck(energy_and_dipole, (position,), atol=1e-6)


@pytest.mark.parametrize("parity", ["natural", "both"])
@pytest.mark.parametrize("inversion", [False, True], ids=["rotation", "inversion"])
def test_equivariance_for_every_l(basis: Basis, water: Molecule, parity: str, inversion: bool) -> None:
    """Coefficients of every l turn with D_l, energy stays, forces and dipole turn; the inverse rotation is rejected."""
    model = untrained(basis, parity)
    turn = random_rotation() * (-1 if inversion else 1)
    matrix = torch.as_tensor(turn)
    before, after = (model.predict(Molecules.of([m])) for m in (water, water.moved(water.position @ turn.T)))
    blocks = [model.density.frame.split(p.density.coefficient) for p in (before, after)]
    for l, (x, y) in enumerate(zip(*blocks)):
        size = float(x.abs().max())
        assert size > 1e-4
        d = wigner_d(l, turn)
        assert (x @ d.T - y).abs().max() < 1e-9 * max(1.0, size), f"l = {l}"
        if l > 0:
            assert (x @ d - y).abs().max() > 1e-3 * size, f"the inverse rotation passes at l = {l}"
        if inversion and l % 2:  # a pseudo-tensor would keep its sign
            assert (-(x @ d.T) - y).abs().max() > 1e-3 * size
    assert float(before.energy) == pytest.approx(float(after.energy), abs=1e-10)
    assert before.force is not None
    assert (before.force @ matrix.T - after.force).abs().max() < 1e-9
    assert (before.dipole @ matrix.T - after.dipole).abs().max() < 1e-9
    assert (before.dipole @ matrix - after.dipole).abs().max() > 1e-4


def test_translation(model: DensNet, water: Molecule) -> None:
    shift = np.array([3.0, -2.0, 5.0])
    a, b = (model.predict(Molecules.of([m])) for m in (water, water.moved(water.position + shift)))
    assert float(a.energy) == pytest.approx(float(b.energy), abs=1e-10)
    assert (a.dipole - b.dipole).abs().max() < 1e-9


@pytest.mark.parametrize("charge", [0, 1, -2])
def test_charge_is_exact(model: DensNet, basis: Basis, water: Molecule, charge: int) -> None:
    molecules = Molecules.of([Molecule(water.number, water.position, charge)])
    result = model.predict(molecules)
    count = electrons(molecules, result.density, basis.multiplicity)
    assert float(count) == pytest.approx(10 - charge, abs=1e-10)


def test_ion_dipole_has_its_origin_at_the_centre_of_nuclear_charge(model: DensNet, water: Molecule) -> None:
    ion = Molecule(water.number, water.position, 1)
    shift = np.array([10.0, 0.0, 0.0])
    a, b = (model.predict(Molecules.of([m])).dipole for m in (ion, ion.moved(ion.position + shift)))
    assert (a - b).abs().max() < 1e-8


def test_batching_and_permutation(model: DensNet, basis: Basis, water: Molecule) -> None:
    """A molecule alone, in a mixed batch, and with its atoms in another order is the same molecule."""
    other = Molecule(np.array([1, 8]), np.array([[0.0, 0.0, 0.0], [0.0, 0.2, 1.8]]))
    order = np.array([2, 0, 1])
    permuted = Molecule(water.number[order], water.position[order])
    alone = model.predict(Molecules.of([water]))
    batch = model.predict(Molecules.of([other, water, permuted]))
    assert alone.force is not None
    assert batch.force is not None
    for i, atoms, index in ((1, slice(2, 5), slice(None)), (2, slice(5, 8), torch.as_tensor(order))):
        assert float(batch.energy[i]) == pytest.approx(float(alone.energy), abs=1e-10)
        assert (batch.dipole[i] - alone.dipole[0]).abs().max() < 1e-10
        assert (batch.force[atoms] - alone.force[index]).abs().max() < 1e-10
        assert (batch.density.coefficient[atoms] - alone.density.coefficient[index]).abs().max() < 1e-10
    q = quadrupole(Molecules.of([other, water, permuted]), batch.density, basis)
    assert (q[1] - q[2]).abs().max() < 1e-9


def test_cutoff_is_smooth(model: DensNet) -> None:
    """Energy and force of a pair have no step where it leaves the cutoff, though it matters just inside."""
    cutoff = model.density.cutoff

    def force(distance: float) -> float:
        pair = Molecule(np.array([8, 1]), np.array([[0.0, 0, 0], [distance, 0, 0]]))
        result = model.predict(Molecules.of([pair])).force
        assert result is not None
        return float(result[1, 0])

    assert abs(force(cutoff - 1e-5)) < 1e-8
    assert force(cutoff + 1e-5) == 0
    assert abs(force(0.5 * cutoff)) > 1e-6


def test_unknown_element_is_refused(model: DensNet) -> None:
    with pytest.raises(BasisError, match=r"does not know elements Z=\[6\]; it was made for Z=\[1, 8\]"):
        model.predict(Molecules.of([Molecule(np.array([6, 1]), np.array([[0.0, 0, 0], [2.0, 0, 0]]))]))
