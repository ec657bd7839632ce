"""The dipole change of a mode split in three: against densities whose split is known, and against autograd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from ase.data import atomic_masses

from densnet.errors import ModelError
from densnet.model.charge_flow import charge_flow, charge_flow_of
from densnet.model.densnet import DensNet
from densnet.structures import Molecule, Molecules
from densnet.units import ELECTRON_MASS_PER_DALTON


@dataclass(frozen=True)
class Atoms:
    charge: np.ndarray
    dipole: np.ndarray


def orthonormal(n: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]


def masses(molecule: Molecule) -> np.ndarray:
    return atomic_masses[molecule.number] * ELECTRON_MASS_PER_DALTON


def per_mode(mass: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """(n, N, 3) dR/dQ"""
    return (vector / np.repeat(np.sqrt(mass), 3)[:, None]).T.reshape(-1, mass.size, 3)


def test_rigid_point_charges_only_move(water):
    charge, mass, vector = np.array([-0.7, 0.3, 0.4]), masses(water), orthonormal(9)
    flow = charge_flow_of(lambda _: Atoms(charge, np.zeros((3, 3))), water, mass, vector)
    assert flow.moving == pytest.approx(np.einsum("a,kai->ki", charge, per_mode(mass, vector)), abs=1e-14)
    assert not flow.flowing.any()
    assert not flow.deforming.any()
    norm = np.linalg.norm(flow.total, axis=1)
    assert flow.along == pytest.approx(np.stack([norm, 0 * norm, 0 * norm], axis=1))


@pytest.mark.parametrize("charge", [0, 1])
def test_known_flow_and_deformation(water, charge):
    """Charges and atomic dipoles linear in the positions: each part in closed form, also for an ion, wherever it lies."""
    rng = np.random.default_rng(1)
    start = Molecule(water.number, water.position, charge)
    mass, vector = masses(water), orthonormal(9)
    rigid = np.array([-0.7, 0.3, 0.4]) + charge / 3.0
    slope = rng.normal(size=(3, 9))
    slope -= slope.mean(axis=0)  # charge is conserved
    change = rng.normal(size=(9, 9))

    def moments(at: Molecule, origin: np.ndarray) -> Atoms:
        shift = (at.position - origin).reshape(-1)
        return Atoms(rigid + slope @ shift, (change @ shift).reshape(3, 3))

    column = per_mode(mass, vector)
    z = water.number / water.number.sum()
    for away in (np.zeros(3), np.array([5.0, -3.0, 2.0])):
        moved = start.moved(start.position + away)
        flow = charge_flow_of(lambda at, m=moved: moments(at, m.position), moved, mass, vector)
        flat = column.reshape(9, 9)
        assert flow.moving == pytest.approx(np.einsum("a,kai->ki", rigid, column), abs=1e-12)
        assert flow.flowing == pytest.approx(flat @ slope.T @ (water.position - z @ water.position), abs=1e-10)
        assert flow.deforming == pytest.approx((flat @ change.T).reshape(9, 3, 3).sum(axis=1), abs=1e-10)
        parts = np.stack([flow.moving, flow.flowing, flow.deforming], axis=1)
        direction = flow.total / np.linalg.norm(flow.total, axis=1, keepdims=True)
        assert flow.along == pytest.approx(np.einsum("kpi,ki->kp", parts, direction))


@pytest.mark.parametrize("charge", [0, 1])
def test_parts_of_a_model_add_up_to_its_dipole_derivative(model: DensNet, water: Molecule, charge: int):
    start = Molecule(water.number, water.position, charge)
    mass, vector = masses(water), orthonormal(9)[:, :4]
    batch = Molecules.of([start])
    position = batch.position.clone().requires_grad_()
    dipole = model.density_only(batch.at(position)).dipole[0]
    rows = torch.stack([torch.autograd.grad(x, position, retain_graph=True)[0] for x in dipole]).numpy()
    # The model's dipole of an ion is about the centre of nuclear charge; here, as in DFT, it is about a fixed origin.
    rows += charge * np.einsum("a,ij->iaj", water.number / water.number.sum(), np.eye(3))
    exact = np.einsum("iaj,kaj->ki", rows, per_mode(mass, vector))
    errors = []
    for step in (0.02, 0.01):
        flow = charge_flow(model, start, mass, vector, step=step)
        errors.append(np.abs(flow.total - exact).max() / np.abs(exact).max())
    assert errors[0] < 2e-3
    assert errors[1] < 0.3 * errors[0] + 1e-8  # what is missing is the error of the differences, of second order
    assert min(np.abs(part).max() for part in (flow.moving, flow.flowing, flow.deforming)) > 1e-3 * np.abs(exact).max()


def test_what_cannot_be_split(water):
    def none(_: Molecule) -> Atoms:
        return Atoms(np.zeros(3), np.zeros((3, 3)))

    for mass, vector, step, match in (
        (masses(water), orthonormal(6), 0.02, "shape"),
        (masses(water)[:2], orthonormal(9), 0.02, "shape"),
        (masses(water), orthonormal(9), 0.0, "positive"),
    ):
        with pytest.raises(ModelError, match=match) as caught:
            charge_flow_of(none, water, mass, vector, step=step)
        assert "\n" not in str(caught.value)
    assert charge_flow_of(none, water, masses(water), np.empty((9, 0))).total.shape == (0, 3)
