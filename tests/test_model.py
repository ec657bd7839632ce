"""Physics of the untrained model: forces, symmetry, exact charge, batching, smoothness. Everything in float64."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_rotation, untrained, wigner_d
from pyscf import gto

from densnet.basis.shells import Basis
from densnet.data.neighbours import all_pairs, neighbours
from densnet.errors import BasisError, ConfigError
from densnet.model.checkpoint import (
    Architecture,
    DensitySettings,
    EnergySettings,
    Provenance,
    build,
    build_energy,
    load_model,
    save_model,
)
from densnet.model.densnet import DensNet
from densnet.model.derivatives import hessian_and_dipole_derivative, model_harmonic
from densnet.nn.edges import EdgeEmbedding
from densnet.observables.multipoles import electrons, quadrupole
from densnet.structures import Density, Molecule, Molecules, Prediction


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


@pytest.mark.parametrize(("parity", "high"), [("natural", None), ("both", None), ("natural", 3), ("both", 2)])
@pytest.mark.parametrize("inversion", [False, True], ids=["rotation", "inversion"])
def test_equivariance_for_every_l(basis: Basis, water: Molecule, parity: str, high: int | None, inversion: bool) -> None:
    """Coefficients of every l turn with D_l, energy stays, forces and dipole turn; the inverse rotation is rejected."""
    model = untrained(basis, parity, high)
    irreps = {ir for layer in model.density.layers for ir in layer.irreps_out.irreps}
    assert ((0, -1) in irreps) == (parity == "both")
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
    cutoff = model.density.edges.cutoff

    def energy_and_force(distance: float) -> tuple[float, float]:
        pair = Molecule(np.array([8, 1]), np.array([[0.0, 0, 0], [distance, 0, 0]]))
        result = model.predict(Molecules.of([pair]))
        assert result.force is not None
        return float(result.energy), float(result.force[1, 0])

    (inside, force), (outside, none), (near, strong) = (energy_and_force(d) for d in (cutoff - 1e-5, cutoff + 1e-5, cutoff / 2))
    assert abs(inside - outside) < 1e-10
    assert abs(force) < 1e-8
    assert none == 0
    assert abs(near - outside) > 1e-4
    assert abs(strong) > 1e-6


def test_unknown_element_is_refused(model: DensNet) -> None:
    with pytest.raises(BasisError, match=r"does not know elements Z=\[6\]; it was made for Z=\[1, 8\]"):
        model.predict(Molecules.of([Molecule(np.array([6, 1]), np.array([[0.0, 0, 0], [2.0, 0, 0]]))]))


def test_charge_moves_at_the_least_cost(model: DensNet, basis: Basis) -> None:
    """W r = q for every element, W = J + S/2 of its s functions by PySCF: the stationary condition of r^T W r at fixed q^T r."""
    frame = model.density.frame
    for row, element in enumerate(basis.elements):
        exponents = [shell.exponent for shell in element.shells if shell.l == 0]
        mol = gto.M(atom="He 0 0 0", basis={"He": [[0, [a, 1.0]] for a in exponents]}, verbose=0)
        metric = mol.intor("int2c2e") + 0.5 * mol.intor("int1e_ovlp")
        response = frame.charge_response[row, : len(exponents)].numpy()
        assert metric @ response == pytest.approx((2 * np.pi / np.array(exponents)) ** 0.75, rel=1e-9)
        assert (frame.charge_response[row, len(exponents) :] == 0).all()


def test_energy_of_an_atom_is_its_references(basis: Basis) -> None:
    """Free atom + shift + scale * network: what the shift adds, what the scale multiplies."""
    model, oxygen = untrained(basis), Molecules.of([Molecule(np.array([8]), np.zeros((1, 3)))])
    assert model.energy is not None
    raw = float(model.predict(oxygen).energy) - basis.elements[1].atom.energy
    model.energy.shift += torch.tensor([5.0, 0.25])
    model.energy.scale *= 3.0
    assert float(model.predict(oxygen).energy) == pytest.approx(basis.elements[1].atom.energy + 0.25 + 3 * raw, abs=1e-10)
    assert abs(raw) > 1e-3


def test_cutoff_is_converted(model: DensNet) -> None:
    assert model.energy is not None
    assert model.density.edges.cutoff == model.energy.edges.cutoff == pytest.approx(5.0 * 1.8897261246, rel=1e-9)


def test_hessian_and_dipole_derivative(model: DensNet, water: Molecule) -> None:
    """Against central differences of the forces and of the dipole."""
    hessian, derivative = hessian_and_dipole_derivative(model, water)
    step, forces, dipoles = 1e-4, np.zeros((9, 9)), np.zeros((9, 3))
    for i in range(9):
        for sign in (1, -1):
            moved = water.position.reshape(-1).copy()
            moved[i] += sign * step
            result = model.predict(Molecules.of([water.moved(moved.reshape(3, 3))]))
            assert result.force is not None
            forces[i] += sign * result.force.numpy().reshape(-1) / (2 * step)
            dipoles[i] += sign * result.dipole[0].numpy() / (2 * step)
    assert np.abs(hessian + forces).max() < 1e-5 * np.abs(forces).max()
    assert np.abs(derivative - dipoles).max() < 1e-5 * np.abs(dipoles).max()


class Spring(torch.nn.Module):
    """Two atoms on a spring with charges -q and q: minimum, Hessian and dipole derivative are known."""

    hash = "spring"

    def __init__(self, k: float, length: float, q: float) -> None:
        super().__init__()
        self.k, self.length, self.q = k, length, q
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, molecules: Molecules, forces: bool = True, create_graph: bool = False) -> Prediction:
        position = molecules.position
        if not position.requires_grad:
            position = position.detach().requires_grad_()
        bond = position[1] - position[0]
        energy = (self.k / 2 * (bond.norm() - self.length) ** 2)[None]
        force = -torch.autograd.grad(energy.sum(), position, create_graph=create_graph, retain_graph=True)[0]
        empty = torch.zeros(2, 0)
        return Prediction(energy, force, self.q * bond[None], Density(empty, empty))

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        result = self(molecules)
        assert result.force is not None
        return Prediction(result.energy.detach(), result.force.detach(), result.dipole.detach(), result.density)


def test_harmonic_analysis_of_a_spring() -> None:
    start = Molecule(np.array([8, 1]), np.array([[0.0, 0.0, 0.0], [1.0, 1.3, 0.2]]))
    found = model_harmonic(Spring(0.5, 1.8, 0.3), start)  # pyright: ignore[reportArgumentType]
    bond = found.position[1] - found.position[0]
    assert np.linalg.norm(bond) == pytest.approx(1.8, abs=1e-6)
    along = np.kron(np.array([[1, -1], [-1, 1]]), np.outer(bond, bond) / (bond @ bond))
    assert found.hessian == pytest.approx(0.5 * along, abs=1e-5)
    assert found.dipole_derivative == pytest.approx(0.3 * np.concatenate([-np.eye(3), np.eye(3)]), abs=1e-12)
    assert found.dipole == pytest.approx(0.3 * bond, abs=1e-12)
    assert found.mass[1] == pytest.approx(1837.15, rel=1e-3)


def test_edges_are_embedded_once_for_both_networks(model: DensNet, water: Molecule, monkeypatch) -> None:
    """One pass: shared where the settings allow it, made twice where the energy network looks farther."""
    calls = []
    original = EdgeEmbedding.forward
    monkeypatch.setattr(EdgeEmbedding, "forward", lambda self, *a: calls.append(self) or original(self, *a))
    model.predict(Molecules.of([water]))
    assert calls == [model.density.edges]
    farther = deepcopy(model)
    farther.energy.edges = EdgeEmbedding(1.5 * model.cutoff, 4, 2).double()
    assert not farther.density.edges.covers(farther.energy.edges)
    calls.clear()
    farther.predict(Molecules.of([water]))
    assert calls == [farther.density.edges, farther.energy.edges]


def test_edges_that_are_too_long_change_nothing(model: DensNet, water: Molecule) -> None:
    """What lets a kept list of pairs be longer than the cutoff."""
    position = water.position.copy()
    position[2] += np.array([0.0, 14.0, 0.0])
    molecules = Molecules.of([water.moved(position)])
    near, pairs = neighbours(molecules, model.cutoff), all_pairs(molecules)
    assert len(near.source) < len(pairs.source)
    some, every = (model.evaluate(molecules, p.source, p.target) for p in (near, pairs))
    for name in ("energy", "force", "dipole"):
        assert (getattr(some, name) - getattr(every, name)).abs().max() < 1e-12


def test_a_kept_list_follows_the_molecules(model: DensNet, water: Molecule) -> None:
    """predict keeps neighbours from call to call; other positions and other molecules must not see old ones."""
    rng = np.random.default_rng(0)
    batches = [[water], [water, water], [water.moved(water.position * 3.0)]]
    batches += [[water.moved(water.position + rng.normal(scale=0.2 * k, size=(3, 3)))] for k in range(1, 4)]
    for batch in batches:
        molecules = Molecules.of(batch)
        found, fresh = model.predict(molecules), model(molecules)
        assert (found.force - fresh.force).abs().max() < 1e-14
        assert (found.energy - fresh.energy).abs().max() < 1e-12


def test_energy_without_density_or_without_geometry(basis: Basis, water: Molecule) -> None:
    """density=False ignores the density; layers=0 sees the geometry through the density alone; neither is refused."""
    settings = {"channels": 4, "hidden": 8, "radial": 4, "neighbours": 2.0, "invariants": 2}
    density = DensitySettings(4, (1, 2), hidden=8, radial=4)
    molecules = Molecules.of([water])
    for energy, uses in ((EnergySettings(**settings, density=False), 0), (EnergySettings(**settings, layers=0), 1)):
        model = build(Architecture(density, energy), basis).double()
        for parameter in model.density.readout.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        assert model.energy.density_inputs == uses
        found = model.predict(molecules).density
        other = Density(found.coefficient * 1.1, found.exponent)
        moved = molecules.at(molecules.position * 1.1)
        changes = [
            float((model.energy(m, d) - model.energy(molecules, found)).detach().abs())
            for m, d in ((molecules, other), (moved, found))
        ]
        assert (changes[0] > 1e-8) == bool(uses)
        assert (changes[1] > 1e-8) == (not uses)
        assert model.predict(molecules).force.abs().max() > 1e-6
    with pytest.raises(ConfigError, match="density=false and layers=0"):
        EnergySettings(**settings, density=False, layers=0)


def test_rank_of_the_radial_networks(basis: Basis, water: Molecule, tmp_path: Path) -> None:
    """Fewer weights, forces that are the gradient; it is saved and read; nonsense is refused."""
    settings = {"channels": 4, "hidden": 16, "radial": 4, "neighbours": 2.0}
    models = []
    for rank in (None, 3):
        density, energy = DensitySettings(lmax=(1, 2), rank=rank, **settings), EnergySettings(rank=rank, **settings)
        models.append(build(Architecture(density, energy), basis))
    full, limited = (sum(p.numel() for p in m.parameters()) for m in models)
    assert limited < full
    model = models[1]
    for parameter in model.density.readout.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_model(tmp_path, model, Architecture(density, energy), Provenance())
    read, molecules = load_model(tmp_path), Molecules.of([water])
    assert read.density.layers[0].radial[4].out_features == 3
    assert torch.equal(read.predict(molecules).force, model.predict(molecules).force)
    model = model.double()
    step = torch.zeros_like(molecules.position)
    step[1, 2] = 1e-4
    ahead, behind = (float(model.predict(molecules.at(molecules.position + s)).energy.detach()) for s in (step, -step))
    assert abs(float(model.predict(molecules).force[1, 2]) + (ahead - behind) / 2e-4) < 1e-7
    for kind in (DensitySettings, EnergySettings):
        with pytest.raises(ConfigError, match="rank is 0"):
            kind(**settings, rank=0, **({"lmax": (1,)} if kind is DensitySettings else {}))


def test_fewer_channels_for_the_l_that_only_the_last_layer_has(basis: Basis, water: Molecule, tmp_path: Path) -> None:
    settings = {"channels": 6, "hidden": 8, "radial": 4, "neighbours": 2.0}
    architecture = Architecture(DensitySettings(lmax=(1, 9), high_channels=2, **settings), EnergySettings(**settings))
    model = build(architecture, basis)
    assert model.density.high is not None
    assert [l for l, _ in model.density.high.irreps_out.irreps] == list(range(2, basis.lmax + 1))
    assert [w.shape[2] for w in model.density.readout.weight] == [6, 6] + [2] * (basis.lmax - 1)
    save_model(tmp_path, model, architecture, Provenance())
    read, molecules = load_model(tmp_path), Molecules.of([water])
    assert torch.equal(read.predict(molecules).force, model.predict(molecules).force)
    # Where the layer before the last has every l already, there is nothing to save.
    assert (
        build(replace(architecture, density=DensitySettings(lmax=(9, 9), high_channels=2, **settings)), basis).density.high
        is None
    )
    for wrong in (0, 7):
        with pytest.raises(ConfigError, match=f"high_channels is {wrong}; expected 1 to channels=6"):
            DensitySettings(lmax=(1,), high_channels=wrong, **settings)


def test_softened_norms_have_no_cusp(basis: Basis, water: Molecule) -> None:
    """Curvature of the energy while the s coefficients of the oxygen atom pass through zero: a sharp norm makes a spike."""
    torch.manual_seed(3)
    molecules, spikes = Molecules.of([water]), []
    weights = None
    for softening in (1e-3, 0.1):
        settings = EnergySettings(4, hidden=8, radial=4, neighbours=2.0, softening=softening)
        energy = build_energy(settings, basis, flexible=False).double()
        weights = weights or energy.state_dict()
        energy.load_state_dict(weights)
        row = energy.frame.row(molecules.number)
        blocks = [torch.zeros(3, n, 2 * l + 1, dtype=torch.float64) for l, n in enumerate(basis.multiplicity)]

        curvature = []
        for start in np.linspace(-1, 1, 101):
            t = torch.tensor(start, dtype=torch.float64, requires_grad=True)
            moved = [blocks[0].index_add(0, torch.tensor([0]), t.expand(1, *blocks[0].shape[1:])), *blocks[1:]]
            density = Density(energy.frame.decode(moved, row), energy.frame.exponent[row])
            (slope,) = torch.autograd.grad(energy(molecules, density).sum(), t, create_graph=True)
            curvature.append(float(torch.autograd.grad(slope, t)[0]))
        spikes.append(np.abs(curvature).max())
    assert spikes[0] > 30 * spikes[1] > 0
    with pytest.raises(ConfigError, match="softening is 0"):
        EnergySettings(4, softening=0.0)
