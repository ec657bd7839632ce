"""Density, gradient and potential on points: against PySCF's evaluation of the same functions, and against their own physics."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from e3nn import o3
from pyscf import gto
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from densnet.basis.ordering import free_atom_coefficients, pyscf_free_atoms, to_pyscf
from densnet.basis.shells import Basis, Element, Shell
from densnet.errors import BasisError, ConfigError, DataError
from densnet.observables import real_space
from densnet.observables.multipoles import dipole, electrons, quadrupole
from densnet.observables.potential import _potential, electrostatic_potential_on_points
from densnet.observables.real_space import (
    BasisTables,
    Centres,
    Degree,
    centres,
    density_at_samples,
    density_gradient_on_points,
    density_on_points,
)
from densnet.observables.solid_harmonics import gradient_tensor, solid_harmonics
from densnet.reference.fitting import pyscf_molecule
from densnet.structures import Density, Molecule, Molecules

EVALUATIONS = (density_on_points, density_gradient_on_points, electrostatic_potential_on_points)


@pytest.fixture(scope="module")
def tall(basis: Basis) -> Basis:
    """The test basis with l = 5 and 6 on oxygen."""
    hydrogen, oxygen = basis.elements
    return dataclasses.replace(
        basis, elements=(hydrogen, Element(8, (*oxygen.shells, Shell(5, 1.2), Shell(6, 1.4)), oxygen.atom))
    )


@pytest.fixture(scope="module")
def moved(tall: Basis, water: Molecule) -> Density:
    """Random coefficients, and exponents that differ from the basis and from atom to atom."""
    return random_density(tall, water.number, 1)


def random_density(basis: Basis, number: np.ndarray, seed: int) -> Density:
    rng, rows = np.random.default_rng(seed), basis.rows(number)
    c = np.where(basis.mask[rows], rng.normal(scale=0.1, size=(len(number), basis.width)), 0.0)
    a = np.where(basis.slot_mask[rows], basis.slot_exponent[rows] * rng.uniform(0.7, 1.4, basis.slot_exponent[rows].shape), 1.0)
    return Density(torch.as_tensor(c), torch.as_tensor(a))


def pyscf_functions(molecule: Molecule, density: Density, basis: Basis) -> tuple[gto.Mole, np.ndarray]:
    """The shells with the exponents of `density`, atom by atom, as PySCF sees them, and their coefficients."""
    atoms, shells = [], {}
    for k, (z, r) in enumerate(zip(molecule.number, basis.rows(molecule.number))):
        label = f"{chemical_symbols[z]}{k}"
        atoms.append((label, molecule.position[k]))
        exponents = density.exponent[k].numpy()[basis.slot_mask[r]]
        shells[label] = [[s.l, [float(a), 1.0]] for s, a in zip(basis.elements[r].shells, exponents)]
    mol = gto.M(atom=atoms, unit="Bohr", basis=shells, spin=None, verbose=0)
    return mol, to_pyscf(density.coefficient.numpy(), basis, molecule.number)


def with_free_atoms(molecule: Molecule, density: Density, basis: Basis) -> list[tuple[gto.Mole, np.ndarray]]:
    atoms = pyscf_molecule(molecule, pyscf_free_atoms(basis)), free_atom_coefficients(basis, molecule.number)
    return [pyscf_functions(molecule, density, basis), atoms]


@pytest.fixture(scope="module")
def point() -> np.ndarray:
    return np.random.default_rng(6).normal(scale=2.0, size=(300, 3))


@pytest.fixture(scope="module")
def expected(water: Molecule, moved: Density, tall: Basis, point: np.ndarray) -> np.ndarray:
    """(4, G) density and gradient by PySCF."""
    both = with_free_atoms(water, moved, tall)
    return np.sum([mol.eval_gto("GTOval_sph_deriv1", point) @ c for mol, c in both], axis=0)


def close(ours: Tensor, reference: np.ndarray, relative: float) -> bool:
    return bool(np.abs(ours.numpy() - reference).max() < relative * np.abs(reference).max())


def test_solid_harmonics_against_e3nn() -> None:
    r = torch.as_tensor(np.random.default_rng(0).normal(size=(2, 3, 50)))
    for l, ours in enumerate(solid_harmonics(8, r)):
        theirs = o3.spherical_harmonics(l, r.transpose(1, 2), normalize=False, normalization="integral").transpose(1, 2)
        assert (ours - theirs).abs().max() < 1e-12 * theirs.abs().max()
        assert l == 0 or (ours.flip(1) - theirs).abs().max() > 0.1


def test_gradient_tensor_against_autograd() -> None:
    r = torch.as_tensor(np.random.default_rng(0).normal(size=(1, 3, 1))).requires_grad_()
    for l in range(1, 8):
        jacobian = torch.autograd.functional.jacobian(lambda r, l=l: solid_harmonics(l, r)[l][0, :, 0], r)[:, 0, :, 0]
        ours = torch.einsum("imk,k->mi", gradient_tensor(l), solid_harmonics(l, r.detach())[l - 1].reshape(-1))
        assert (ours - jacobian).abs().max() < 1e-11 * jacobian.abs().max()


def test_density_and_gradient_against_pyscf(
    water: Molecule, moved: Density, tall: Basis, point: np.ndarray, expected: np.ndarray
) -> None:
    """l up to 6, exponents of their own on every atom; what differs by a planted error is refused by the same tolerance."""
    x = torch.as_tensor(point)
    assert close(density_on_points(water, moved, tall, x), expected[0], 1e-12)
    rho, gradient = density_gradient_on_points(water, moved, tall, x)
    assert close(rho, expected[0], 1e-12)
    assert gradient.shape == (300, 3)
    assert close(gradient, expected[1:].T, 1e-12)
    assert not close(-gradient, expected[1:].T, 1e-3)
    assert not close(density_on_points(water, moved, tall, x, prior=False), expected[0], 1e-3)
    of_basis = Density(moved.coefficient, torch.as_tensor(tall.slot_exponent[tall.rows(water.number)]))
    assert not close(density_on_points(water, of_basis, tall, x), expected[0], 1e-3)
    mol, c = pyscf_functions(water, moved, tall)
    deformation = mol.eval_gto("GTOval_sph_deriv1", point) @ c
    assert close(density_on_points(water, moved, tall, x, prior=False), deformation[0], 1e-12)
    assert close(density_gradient_on_points(water, moved, tall, x, prior=False)[1], deformation[1:].T, 1e-12)


def test_at_the_nuclei(water: Molecule, moved: Density, tall: Basis) -> None:
    """Nothing divides by the distance: everything but the nuclear potential is finite and continuous there."""
    here, beside = torch.as_tensor(water.position), torch.as_tensor(water.position + 1e-9)
    expected = sum(mol.eval_gto("GTOval_sph_deriv1", water.position) @ c for mol, c in with_free_atoms(water, moved, tall))
    rho, gradient = density_gradient_on_points(water, moved, tall, here)
    assert close(rho, expected[0], 1e-12)
    assert close(gradient, expected[1:].T, 1e-12)
    assert torch.isposinf(electrostatic_potential_on_points(water, moved, tall, here)).all()
    potential = [electrostatic_potential_on_points(water, moved, tall, x, nuclei=False) for x in (here, beside)]
    assert torch.isfinite(potential[0]).all()
    assert (potential[0] - potential[1]).abs().max() < 1e-6


def test_potential_against_pyscf(water: Molecule, moved: Density, tall: Basis, point: np.ndarray) -> None:
    """Coulomb integrals with unit point charges (normalised Gaussians of exponent 1e16 at the points)."""
    x, charges = torch.as_tensor(point), gto.fakemol_for_charges(point)
    both = with_free_atoms(water, moved, tall)
    electronic = -sum(c @ gto.mole.intor_cross("int2c2e", mol, charges) for mol, c in both)
    distance = np.linalg.norm(point[:, None] - water.position, axis=-1)
    total = electronic + (water.number / distance).sum(1)
    assert close(electrostatic_potential_on_points(water, moved, tall, x, nuclei=False), electronic, 1e-11)
    assert close(electrostatic_potential_on_points(water, moved, tall, x), total, 1e-11)
    deformation = pyscf_functions(water, moved, tall)
    without = -(deformation[1] @ gto.mole.intor_cross("int2c2e", deformation[0], charges))
    assert not close(electrostatic_potential_on_points(water, moved, tall, x, nuclei=False), without, 1e-2)


def test_poisson(water: Molecule, moved: Density, tall: Basis) -> None:
    """Away from the nuclei the Laplacian of V is 4 pi rho: sixth-order differences."""
    centre = water.position.mean(0) + np.random.default_rng(2).normal(scale=1.5, size=(40, 3))
    centre = centre[np.linalg.norm(centre[:, None] - water.position, axis=-1).min(1) > 0.5]
    assert len(centre) > 20
    step, weights = 0.02, {0: -49 / 18, 1: 3 / 2, 2: -3 / 20, 3: 1 / 90}
    laplacian = np.zeros(len(centre))
    for axis in np.eye(3):
        for k, weight in weights.items():
            for sign in (1, -1) if k else (1,):
                x = torch.as_tensor(centre + sign * k * step * axis)
                laplacian += weight * electrostatic_potential_on_points(water, moved, tall, x).numpy() / step**2
    rho = density_on_points(water, moved, tall, torch.as_tensor(centre)).numpy()
    assert np.abs(laplacian - 4 * np.pi * rho).max() < 1e-6 * 4 * np.pi * np.abs(rho).max()


@pytest.mark.parametrize("charged", [False, True])
def test_far_field_is_that_of_the_multipoles(water: Molecule, moved: Density, tall: Basis, charged: bool) -> None:
    """Charge, dipole and quadrupole of observables.multipoles; what is left falls like the octupole, R^-4."""
    density = moved
    if not charged:  # take the charge away with one s function
        extra = electrons(Molecules.of([water]), moved, tall.multiplicity) - 10
        unit = Density(torch.zeros_like(moved.coefficient), moved.exponent)
        unit.coefficient[0, 0] = 1.0
        c = moved.coefficient.clone()
        c[0, 0] -= float(extra / (electrons(Molecules.of([water]), unit, tall.multiplicity) - 10))
        density = Density(c, moved.exponent)
    molecules = Molecules.of([water])
    q = 10 - float(electrons(molecules, density, tall.multiplicity))
    assert (abs(q) > 0.1) == charged
    second = quadrupole(molecules, density, tall)[0].numpy()
    mu = dipole(molecules, density, tall.multiplicity)[0].numpy()  # about the coordinate origin, as molecule.charge is zero
    direction = np.random.default_rng(3).normal(size=(20, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    left = []
    for radius in (40.0, 80.0):
        x = radius * direction
        series = q / radius + x @ mu / radius**3
        series = series + (3 * np.einsum("gi,ij,gj->g", x, second, x) - radius**2 * np.trace(second)) / (2 * radius**5)
        v = electrostatic_potential_on_points(water, density, tall, torch.as_tensor(x)).numpy()
        left.append(np.abs(v - series).max())
    assert left[0] < 1e-5
    assert 14 < left[0] / left[1] < 20


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_float32(water: Molecule, moved: Density, tall: Basis, point: np.ndarray, evaluate: Callable) -> None:
    double, single = (evaluate(water, moved, tall, torch.as_tensor(point), dtype=t) for t in (torch.float64, torch.float32))
    for a, b in zip(tree_leaves(double), tree_leaves(single)):
        assert (a.dtype, b.dtype) == (torch.float64, torch.float32)
        assert 0 < (a - b).abs().max() < 3e-6 * a.abs().max()


def test_float32_far_from_the_origin(water: Molecule, moved: Density, tall: Basis, point: np.ndarray) -> None:
    """Distances are taken in float64: where the molecule lies does not cost digits."""
    away, x = water.moved(water.position + 1000.0), torch.as_tensor(point + 1000.0)
    reference = density_on_points(away, moved, tall, x)
    samples = density_at_samples(Molecules.of([away]), moved, BasisTables.of(tall), x[None])[0]
    for rho in (density_on_points(away, moved, tall, x, dtype=torch.float32), samples):
        assert rho.dtype == torch.float32
        assert (rho - reference).abs().max() < 3e-6 * reference.abs().max()


class Peak(TorchDispatchMode):
    """Records the largest sum of the storages alive at once that were made while it was active."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, list[int]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                key = tensor.untyped_storage()._cdata
                if key in given and key not in self.alive:
                    continue  # a view of what was there before
                entry = self.alive.setdefault(key, [0, tensor.untyped_storage().nbytes()])
                self.now += entry[1] * (entry[0] == 0)
                entry[0] += 1
                weakref.finalize(tensor, self.release, key)
        self.peak = max(self.peak, self.now)
        return out

    def release(self, key: int) -> None:
        self.alive[key][0] -= 1
        if not self.alive[key][0]:
            self.now -= self.alive.pop(key)[1]


@pytest.mark.parametrize("case", ["many s", "many p", "high l"])
@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_memory_bound(tall: Basis, evaluate: Callable, case: str) -> None:
    """Temporary tensors stay below memory_mb (beside points, results and a fixed 0.1 MB), and use a good part of it."""
    shells = {"many s": [(0, 40)], "many p": [(0, 1), (1, 40)], "high l": [(l, 1) for l in range(7)]}[case]
    oxygen = Element(8, tuple(Shell(l, 5.0 - 0.1 * k) for l, n in shells for k in range(n)), tall.elements[1].atom)
    basis, molecule = dataclasses.replace(tall, elements=(oxygen,)), Molecule(np.array([8]), np.zeros((1, 3)))
    density = random_density(basis, molecule.number, 4)
    x = torch.as_tensor(np.random.default_rng(4).normal(scale=3.0, size=(10_000, 3)))
    evaluate(molecule, density, basis, x[:10])  # tables are made once
    found = []
    for memory_mb in (0.5, 2.0):
        with Peak() as peak:
            found.append(tree_leaves(evaluate(molecule, density, basis, x, memory_mb=memory_mb)))
        outside = 0.1 + sum(2 * t.numel() * 8 for t in found[-1]) / 1e6
        assert 0.3 * memory_mb < peak.peak / 1e6 < memory_mb + outside
    for a, b in zip(*found):
        assert (a - b).abs().max() <= 1e-15 * a.abs().max()


def test_one_point_must_fit(water: Molecule, moved: Density, tall: Basis, point: np.ndarray) -> None:
    for memory_mb in (1e-4, 0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="memory_mb"):
            density_on_points(water, moved, tall, torch.as_tensor(point), memory_mb=memory_mb)


def test_no_points(water: Molecule, moved: Density, tall: Basis) -> None:
    none = torch.empty(0, 3)
    assert density_on_points(water, moved, tall, none).shape == (0,)
    assert density_gradient_on_points(water, moved, tall, none)[1].shape == (0, 3)
    assert electrostatic_potential_on_points(water, moved, tall, none).shape == (0,)


@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_what_cannot_be_used_is_refused(water: Molecule, moved: Density, tall: Basis, evaluate: Callable) -> None:
    x, nan = torch.zeros(4, 3), torch.tensor(float("nan"))
    for bad in (torch.zeros(3), torch.zeros(4, 2), torch.zeros(1, 4, 3)):
        with pytest.raises(DataError, match=r"expected \(G, 3\)"):
            evaluate(water, moved, tall, bad)
    with pytest.raises(DataError, match="points hold NaN"):
        evaluate(water, moved, tall, x * nan)
    with pytest.raises(DataError, match="coefficients hold NaN"):
        evaluate(water, Density(moved.coefficient * nan, moved.exponent), tall, x)
    with pytest.raises(DataError, match="exponents hold NaN"):
        evaluate(water, Density(moved.coefficient, moved.exponent / 0), tall, x)
    with pytest.raises(BasisError, match="smallest exponent is -"):
        evaluate(water, Density(moved.coefficient, -moved.exponent), tall, x)
    with pytest.raises(BasisError, match="coefficients have shape"):
        evaluate(water, Density(moved.coefficient[:2], moved.exponent), tall, x)
    with pytest.raises(BasisError, match="exponents have shape"):
        evaluate(water, Density(moved.coefficient, moved.exponent[:, 1:]), tall, x)
    foreign = Molecule(np.array([6, 1, 1]), water.position)
    with pytest.raises(BasisError, match=r"no functions for Z=\[6\]") as error:
        evaluate(foreign, moved, tall, x)
    assert "\n" not in str(error.value)


def batch(tall: Basis, water: Molecule) -> tuple[list[Molecule], list[Density], Tensor]:
    """Three molecules of different size, the second without hydrogen, and seven points for each."""
    oxygen = Molecule(np.array([8]), np.array([[0.2, 0.1, -0.3]]))
    hydrogen = Molecule(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.9, 0.9, 0.4]]))
    molecules = [water, oxygen, hydrogen]
    densities = [random_density(tall, m.number, k) for k, m in enumerate(molecules)]
    return molecules, densities, torch.as_tensor(np.random.default_rng(9).normal(size=(3, 7, 3)))


def joined(densities: list[Density]) -> Density:
    return Density(torch.cat([d.coefficient for d in densities]), torch.cat([d.exponent for d in densities]))


def test_samples_of_a_batch(tall: Basis, water: Molecule) -> None:
    molecules, densities, x = batch(tall, water)
    for prior in (True, False):
        each = [density_on_points(m, d, tall, p, prior=prior) for m, d, p in zip(molecules, densities, x)]
        for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
            rho = density_at_samples(
                Molecules.of(molecules), joined(densities), BasisTables.of(tall), x, dtype=dtype, prior=prior
            )
            assert rho.dtype == dtype
            assert (rho - torch.stack(each)).abs().max() < tolerance * torch.stack(each).abs().max()
    with pytest.raises(DataError, match=r"expected \(3, P, 3\)"):
        density_at_samples(Molecules.of(molecules), joined(densities), BasisTables.of(tall), x[:2])
    foreign = dataclasses.replace(tall, elements=tall.elements[1:])
    with pytest.raises(BasisError, match=r"Z=\[1\]"):
        density_at_samples(Molecules.of(molecules), joined(densities), BasisTables.of(foreign), x)


def test_samples_are_differentiable(tall: Basis, water: Molecule) -> None:
    """Coefficients, exponents (by logarithm, as a network moves them) and positions against finite differences."""
    molecules, densities, x = batch(tall, water)
    together, tables, density = Molecules.of(molecules), BasisTables.of(tall), joined(densities)

    def rho(c: Tensor, log_a: Tensor, position: Tensor) -> Tensor:
        at = together.at(position)
        return density_at_samples(at, Density(c, log_a.exp()), tables, x[:, :2], dtype=torch.float64)

    inputs = [t.clone().requires_grad_() for t in (density.coefficient, density.exponent.log(), together.position)]
    assert torch.autograd.gradcheck(rho, inputs, eps=1e-6, atol=1e-8, rtol=1e-6, fast_mode=True)
    single = [t.detach().clone().requires_grad_() for t in inputs]
    at = together.at(single[2])
    value = density_at_samples(at, Density(single[0], single[1].exp()), tables, x[:, :2])
    double = torch.autograd.grad(rho(*inputs).sum(), inputs)
    for a, b in zip(torch.autograd.grad(value.sum(), single), double):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
    masked = ~torch.as_tensor(tall.mask)[tall.rows(together.number.numpy())]
    assert (double[0][masked] == 0).all()
    # The density moves with the atoms: the sum over atoms is minus its gradient in space.
    _, gradient = density_gradient_on_points(molecules[0], densities[0], tall, x[0, :2])
    assert (double[2][:3].sum(0) + gradient.sum(0)).abs().max() < 1e-11


def kernels() -> list[Callable[[Centres, Tensor], Tensor]]:
    return [real_space._values, real_space._values_and_gradient, lambda g, r: _potential(g, r, nuclei=True)]


def to(group: Centres, device: str) -> Centres:
    degrees = tuple(Degree(d.l, d.exponent.to(device), d.coefficient.to(device)) for d in group.degrees)
    return Centres(group.number, group.molecule.to(device), group.position.to(device), degrees)


def test_kernels_make_nothing_on_another_device(water: Molecule, moved: Density, tall: Basis) -> None:
    """On the meta device, which refuses to meet CPU tensors."""
    for group in centres(Molecules.of([water]), moved, BasisTables.of(tall), True, torch.float32):
        there = to(group, "meta")
        r = torch.empty(len(group.position), 3, 5, device="meta")
        for kernel in kernels():
            assert kernel(there, r).device.type == "meta"
    with pytest.raises(RuntimeError, match="device"):
        kernels()[0](group, r)


@pytest.mark.gpu
@pytest.mark.parametrize("evaluate", EVALUATIONS)
def test_gpu_agrees(water: Molecule, moved: Density, tall: Basis, point: np.ndarray, evaluate: Callable) -> None:
    there = Density(moved.coefficient.cuda(), moved.exponent.cuda())
    here = tree_leaves(evaluate(water, moved, tall, torch.as_tensor(point)))
    for a, b in zip(here, tree_leaves(evaluate(water, there, tall, torch.as_tensor(point)))):
        assert b.is_cuda
        assert (a - b.cpu()).abs().max() < 1e-12 * a.abs().max()


@pytest.mark.gpu
def test_gpu_samples_agree(tall: Basis, water: Molecule) -> None:
    molecules, densities, x = batch(tall, water)
    d = joined(densities)
    here = density_at_samples(Molecules.of(molecules), d, BasisTables.of(tall), x, dtype=torch.float64)
    there = Density(d.coefficient.cuda(), d.exponent.cuda())
    rho = density_at_samples(Molecules.of(molecules, "cuda"), there, BasisTables.of(tall, "cuda"), x.cuda(), dtype=torch.float64)
    assert (rho.cpu() - here).abs().max() < 1e-12 * here.abs().max()
