"""What is minimised: every objective against its formula by hand, zero at the labels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyscf import gto

from densnet.basis.ordering import to_pyscf
from densnet.basis.shells import Basis, Element, Shell
from densnet.model.densnet import DensNet
from densnet.observables.multipoles import dipole, quadrupole
from densnet.observables.real_space import BasisTables, density_on_points
from densnet.structures import Density, Molecule, Molecules, Prediction
from densnet.training.objectives import (
    EPSILON,
    DipoleLoss,
    EnergyLoss,
    FlexibleMetricLoss,
    ForceLoss,
    Functions,
    MetricLoss,
    QuadrupoleLoss,
    RealSpaceLoss,
    metric_squares,
)

# Two molecules of one and two atoms with two slots each; the second slot of atom 1 does not exist: 2 and 3 functions.
EXISTS = torch.tensor([[True, True], [True, False], [True, True]])
METRICS = [np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[3.0, 0.2, 0.1], [0.2, 2.0, 0.7], [0.1, 0.7, 1.5]])]
LABEL = torch.tensor([[0.3, -0.2], [0.5, 0.0], [-0.1, 0.4]], dtype=torch.float64)


FUNCTIONS = SimpleNamespace(exists=EXISTS)


def batch(**other: torch.Tensor) -> SimpleNamespace:
    metric = torch.as_tensor(np.concatenate([m.ravel() for m in METRICS]), dtype=torch.float32)
    return SimpleNamespace(metric=metric, functions=torch.tensor([2, 3]), coefficient=LABEL, **other)


def prediction(**values: torch.Tensor) -> Prediction:
    empty = {"energy": torch.zeros(2), "force": None, "dipole": torch.zeros(2, 3), "density": Density(LABEL, LABEL)}
    return Prediction(**{**empty, **values})  # type: ignore[arg-type]


def by_hand(x: torch.Tensor) -> list[float]:
    parts = x[EXISTS].numpy()
    return [float(p @ m @ p) for p, m in zip((parts[:2], parts[2:]), METRICS)]


def test_metric_squares_of_molecules_of_different_size() -> None:
    x = torch.tensor([[1.0, 2.0], [-1.0, 9.0], [0.5, 3.0]], dtype=torch.float64)  # 9 is where no function is
    assert metric_squares(x, batch(), EXISTS).tolist() == pytest.approx(by_hand(x), rel=1e-6)  # type: ignore[arg-type]


def test_metric_loss_is_relative_to_the_label() -> None:
    error = torch.tensor([[0.1, 0.0], [0.0, 0.0], [0.2, -0.1]], dtype=torch.float64)
    expected = np.mean(np.sqrt(np.array(by_hand(error)) / np.array(by_hand(LABEL))))
    found = MetricLoss()(prediction(density=Density(LABEL + error, LABEL)), batch(), FUNCTIONS)  # type: ignore[arg-type]
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(MetricLoss()(prediction(), batch(), FUNCTIONS)) == 0  # type: ignore[arg-type]


def test_gradient_at_an_exact_label_is_finite() -> None:
    coefficient = LABEL.clone().requires_grad_()
    MetricLoss()(prediction(density=Density(coefficient, LABEL)), batch(), FUNCTIONS).backward()  # type: ignore[arg-type]
    assert coefficient.grad is not None
    assert torch.isfinite(coefficient.grad).all()


def test_dipole_energy_and_force() -> None:
    dipole, energy, force = torch.randn(2, 3), torch.tensor([-3.0, 1.0]), torch.randn(3, 3)
    labels = batch(dipole=dipole, energy=energy, force=force)
    exact = prediction(dipole=dipole, energy=energy, force=force)
    wrong = prediction(
        dipole=dipole + torch.tensor([[0.1, -0.1, 0.2], [0.0, 0.0, 0.0]]),
        energy=energy + torch.tensor([0.02, 0.0]),
        force=force + torch.tensor([[0.3, 0.0, 0.0], [0.0, -0.3, 0.0], [0.0, 0.0, 0.0]]),
    )
    for objective, expected in (
        (DipoleLoss(), (0.06**0.5 - EPSILON) / 2),
        (EnergyLoss(scale=0.01), 4.0 / 2),
        (ForceLoss(scale=0.1), 18.0 / 9),
    ):
        assert float(objective(exact, labels, FUNCTIONS)) == 0  # type: ignore[arg-type]
        assert float(objective(wrong, labels, FUNCTIONS)) == pytest.approx(expected, rel=1e-4)  # type: ignore[arg-type]


@pytest.fixture
def waters(water: Molecule, model: DensNet) -> tuple[Molecules, Density]:
    """Two waters, one far from the origin, with some density."""
    molecules = Molecules.of([water, water.moved(water.position[:, [2, 0, 1]] + [7.0, -3.0, 5.0])])
    with torch.no_grad():
        return molecules, model.density(molecules)


def real_batch(molecules: Molecules, **labels: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(
        number=molecules.number,
        position=molecules.position,
        charge=molecules.charge,
        batch=molecules.molecule,
        num_graphs=molecules.n,
        **labels,
    )


def functions(basis: Basis, molecules: Molecules) -> Functions:
    rows = basis.rows(molecules.number.numpy())
    exists, exponent = torch.as_tensor(basis.mask[rows]), torch.as_tensor(basis.slot_exponent[rows])
    return Functions(basis, torch.as_tensor(rows), exists, exponent, BasisTables.of(basis))


def test_flexible_metric_is_that_of_the_union_of_functions(basis: Basis, waters: tuple[Molecules, Density]) -> None:
    """Against PySCF: label and prediction as functions of one molecule with both sets of exponents."""
    molecules, density = waters
    rows = torch.as_tensor(basis.rows(molecules.number.numpy()))
    exists = torch.as_tensor(basis.slot_mask)[rows]
    exponent = torch.where(exists, density.exponent * torch.linspace(0.8, 1.3, density.exponent.shape[1]), 1.0)
    label = density.coefficient * torch.linspace(0.5, 1.5, basis.width)
    expected = []
    for k in range(2):
        own = molecules.molecule == k
        position = molecules.position[own].numpy()
        parts = []
        for table, c in ((density.exponent[own], label[own]), (exponent[own], -density.coefficient[own])):
            # Every atom an element of its own, so that each may have its own exponents.
            for atom, row in enumerate(rows[own].tolist()):
                shells, slot = [], 0
                for l, n in enumerate(basis.multiplicity):
                    shells += [[l, [float(a), 1.0]] for a in table[atom, slot : slot + n][exists[own][atom, slot : slot + n]]]
                    slot += n
                mol = gto.M(atom=[("H", position[atom])], unit="Bohr", basis={"H": shells}, spin=1, verbose=0)
                one = Basis(
                    "one", "pbe", "x", (Element(1, tuple(Shell(s[0], s[1][0]) for s in shells), basis.elements[row].atom),)
                )
                flat = c[atom].numpy()[basis.mask[row]]
                parts.append((mol, to_pyscf(flat[None], one, np.array([1]))))
        joined = parts[0][0]
        for mol, _ in parts[1:]:
            joined = gto.conc_mol(joined, mol)
        x = np.concatenate([v for _, v in parts])
        metric = joined.intor("int2c2e") + 0.5 * joined.intor("int1e_ovlp")
        half = np.arange(len(x)) < len(x) // 2
        expected.append(np.sqrt((x @ metric @ x) / (x[half] @ metric[np.ix_(half, half)] @ x[half])))
    labels = real_batch(molecules, coefficient=label)
    found = FlexibleMetricLoss()(
        prediction(density=Density(density.coefficient, exponent)),
        labels,
        functions(basis, molecules),  # type: ignore[arg-type]
    )
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)
    same = FlexibleMetricLoss()(prediction(density=Density(label, density.exponent)), labels, functions(basis, molecules))  # type: ignore[arg-type]
    assert float(same) < 1e-6


def test_real_space_is_the_nmae_of_the_samples(basis: Basis, waters: tuple[Molecules, Density], water: Molecule) -> None:
    molecules, density = waters
    point = (
        torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        + molecules.position[[0, 3]][:, None]
    )
    weight = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    reference = torch.full((2, 5), 0.1, dtype=torch.float64)
    expected = []
    for k in range(2):
        own = molecules.molecule == k
        one = Density(density.coefficient[own], density.exponent[own])
        rho = density_on_points(water.moved(molecules.position[own].numpy()), one, basis, point[k])
        expected.append(float(((rho - reference[k]).abs() * weight[k]).sum()) / 10)
    labels = real_batch(
        molecules, sample_point=point.flatten(0, 1), sample_weight=weight.flatten(), sample_density=reference.flatten()
    )
    found = RealSpaceLoss()(prediction(density=density), labels, functions(basis, molecules))  # type: ignore[arg-type]
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


def test_quadrupole_does_not_depend_on_the_origin(basis: Basis, waters: tuple[Molecules, Density]) -> None:
    """A label with another dipole and second moment: the same loss wherever the molecules are."""
    molecules, density = waters
    vector = torch.tensor([[0.03, 0.0, -0.02], [0.0, 0.05, 0.0]], dtype=torch.float64)
    tensor = torch.tensor([[0.3, 0.1, 0.0], [0.1, -0.2, 0.0], [0.0, 0.0, 0.05]], dtype=torch.float64)
    z = molecules.number.to(torch.float64)
    losses = []
    for shift in (0.0, 11.0):
        there = molecules.at(molecules.position + shift)
        centre = there.sum(z[:, None] * there.position) / there.sum(z)[:, None]
        dipoles = dipole(there, density, basis.multiplicity)
        # The label's dipole is off by `vector`, its second moment about the centre of nuclear charge by `tensor`.
        moved = centre[:, :, None] * vector[:, None, :]
        label = quadrupole(there, density, basis) + tensor + moved + moved.transpose(1, 2)
        labels = real_batch(there, dipole=dipoles + vector, quadrupole=label)
        found = QuadrupoleLoss()(prediction(density=density, dipole=dipoles), labels, functions(basis, there))  # type: ignore[arg-type]
        losses.append(float(found))
    assert losses[0] == pytest.approx(float(tensor.norm()) - EPSILON, rel=1e-6)
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
