"""Exponents that follow the environment: bounded, invariant, off at the start, and used by everything that reads a density."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_rotation

from densnet.basis.shells import Basis
from densnet.errors import ConfigError
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, Provenance, build, read_model, save_model
from densnet.model.densnet import DensNet
from densnet.observables.multipoles import dipole, electrons
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecule, Molecules
from densnet.training.objectives import MetricLoss
from densnet.training.optimizer import OptimizerSettings
from densnet.training.stage import Stage

BOUND = 1.3


def architecture(flexible: float) -> Architecture:
    return Architecture(
        DensitySettings(channels=6, lmax=(2, 3), hidden=8, radial=4, neighbours=2.0, flexible=flexible),
        EnergySettings(channels=6, layers=2, lmax=2, hidden=8, radial=4, neighbours=2.0, invariants=3),
    )


def make(basis: Basis, flexible: float, trained: bool = True) -> DensNet:
    """A float64 model with random weights; trained: also where weights start at zero."""
    torch.manual_seed(5)
    model = build(architecture(flexible), basis)
    for name, parameter in model.named_parameters():
        if name.startswith("density.exponents"):
            torch.nn.init.normal_(parameter, std=0.5 if trained else 0.0)
        elif name.startswith("density.readout") or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.double().eval()


@pytest.fixture(scope="module")
def flexible(basis: Basis) -> DensNet:
    return make(basis, BOUND)


def density_of(model: DensNet, molecule: Molecule) -> Density:
    with torch.no_grad():
        return model.density(Molecules.of([molecule]))


def test_starts_as_the_fixed_basis(basis: Basis, water: Molecule) -> None:
    start = make(basis, BOUND, trained=False)
    rows = basis.rows(water.number)
    density = density_of(start, water)
    assert density.exponent.numpy() == pytest.approx(basis.slot_exponent[rows], rel=1e-14)
    fixed = build(architecture(1.0), basis).double().eval()
    fixed.load_state_dict({k: v for k, v in start.state_dict().items() if "exponents" not in k})
    assert torch.allclose(density_of(fixed, water).coefficient, density.coefficient, atol=1e-12)


def test_bounded_invariant_and_of_the_environment(basis: Basis, flexible: DensNet, water: Molecule) -> None:
    rows = basis.rows(water.number)
    exists = basis.slot_mask[rows]
    found = density_of(flexible, water).exponent.numpy()
    shift = np.log(found / basis.slot_exponent[rows])
    assert np.abs(shift).max() <= log(BOUND)
    assert np.abs(shift[exists]).min() > 0, "all exponents move"
    assert (found[~exists] == 1).all()
    assert np.abs(found[1] - found[2]).max() > 1e-4, "the hydrogens have different surroundings"
    turned = density_of(flexible, water.moved(water.position @ random_rotation().T)).exponent.numpy()
    assert turned == pytest.approx(found, rel=1e-12)
    stretched = water.position.copy()
    stretched[1] *= 1.1
    assert np.abs(density_of(flexible, water.moved(stretched)).exponent.numpy() - found).max() > 1e-4


def integrated_dipole(molecule: Molecule, density: Density, basis: Basis) -> np.ndarray:
    """- integral r (rho - rho_SAD) over a uniform grid, e bohr: nothing but the density on points."""
    step = 0.2
    axes = [np.arange(low - 8.0, high + 8.0, step) for low, high in zip(molecule.position.min(0), molecule.position.max(0))]
    point = torch.as_tensor(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))
    deformation = density_on_points(molecule, density, basis, point, prior=False)
    return -(deformation[:, None] * point).sum(0).numpy() * step**3


def test_dipole_follows_an_atom_and_an_exponent(basis: Basis, flexible: DensNet, water: Molecule) -> None:
    """The analytic dipole equals that of the density on points, before and after atom and exponents have moved."""
    moved = water.position.copy()
    moved[2] += [0.2, -0.1, 0.15]
    dipoles = []
    for molecule in (water, water.moved(moved)):
        density = density_of(flexible, molecule)
        # Tight functions would need a finer grid; leave out those the quadrature cannot see.
        smooth = torch.where(density.exponent < 5.0, 1.0, 0.0)
        repeats = [2 * l + 1 for l, n in enumerate(basis.multiplicity) for _ in range(n)]
        kept = Density(density.coefficient * smooth.repeat_interleave(torch.tensor(repeats), dim=1), density.exponent)
        stretched = Density(kept.coefficient, torch.where(kept.exponent == 1, kept.exponent, 0.9 * kept.exponent))
        for one in (kept, stretched):
            found = dipole(Molecules.of([molecule]), one, basis.multiplicity)[0].numpy()
            assert found == pytest.approx(integrated_dipole(molecule, one, basis), abs=2e-4)
            dipoles.append(found)
    for other in dipoles[1:]:
        assert np.abs(other - dipoles[0]).max() > 0.01


def test_charge_is_exact(flexible: DensNet, water: Molecule) -> None:
    for charge in (0, 1):
        molecules = Molecules.of([Molecule(water.number, water.position, charge)])
        count = electrons(
            molecules, density_of(flexible, Molecule(water.number, water.position, charge)), flexible.basis.multiplicity
        )
        assert float(count) == pytest.approx(10 - charge, abs=1e-10)


def test_forces_are_the_gradient(flexible: DensNet, water: Molecule) -> None:
    """Through the exponents too: central differences of the energy."""
    force = flexible.predict(Molecules.of([water])).force
    assert force is not None
    for atom, axis in ((0, 1), (2, 0)):
        values = []
        for step in (1e-4, -1e-4):
            position = water.position.copy()
            position[atom, axis] += step
            values.append(float(flexible.predict(Molecules.of([water.moved(position)]), forces=False).energy))
        assert float(force[atom, axis]) == pytest.approx(-(values[0] - values[1]) / 2e-4, abs=1e-6)


def test_energy_sees_the_exponents(flexible: DensNet, water: Molecule) -> None:
    """The energy is a functional of the density: the same coefficients with other exponents are another density."""
    molecules, density = Molecules.of([water]), density_of(flexible, water)
    assert flexible.energy is not None
    with torch.no_grad():
        first = flexible.energy(molecules, density)
        second = flexible.energy(molecules, Density(density.coefficient, density.exponent * 1.02))
    assert abs(float(first - second)) > 1e-7


def test_saved_and_read(flexible: DensNet, water: Molecule, tmp_path: Path) -> None:
    save_model(tmp_path, flexible, architecture(BOUND), Provenance())
    read = read_model(tmp_path).model.double()
    assert torch.equal(density_of(read, water).exponent, density_of(flexible, water).exponent)


def test_what_needs_fixed_exponents_says_so(flexible: DensNet) -> None:
    with pytest.raises(ConfigError, match="fixed exponents"):
        Stage(flexible, ["density"], [MetricLoss()], OptimizerSettings(1e-3))
    with pytest.raises(ConfigError, match="flexible is 3"):
        DensitySettings(channels=4, lmax=(1,), flexible=3.0)
