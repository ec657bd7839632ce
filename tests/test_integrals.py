"""Two-centre integrals against exact quadrature, PySCF and classical electrostatics; metrics of molecules in both layouts."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from e3nn import o3
from pyscf import gto
from scipy.linalg import block_diag
from torch import Tensor

from densnet.basis import moments, ordering
from densnet.basis.harmonics import gaunt, solid_harmonics
from densnet.basis.integrals import pair_blocks, two_centre
from densnet.basis.metrics import Gaussians, batch_metrics, cross_metrics, metric_matrix, metrics, molecule_metric
from densnet.basis.shells import LIBRARY, Basis, Shell
from densnet.errors import BasisError
from densnet.reference.fitting import pyscf_molecule
from densnet.structures import Molecule

LMAX = 6
ONE_OF_EACH = (1,) * (LMAX + 1)
DIRECTION = np.array([0.36, -0.48, 0.8])
DISTANCES = (0.0, 0.2, 1.0, 2.5, 6.0, 15.0)
OVERLAP, COULOMB = (0.0, 1.0), (1.0, 0.0)  # weights of J and S


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def all_degrees(
    a: float, b: float, vector: np.ndarray, kernel: tuple[float, float], dtype: torch.dtype = torch.float64
) -> Tensor:
    """(49, 49) integrals between one shell of every l on each of two centres."""
    exponents = (torch.full((1, LMAX + 1), e, dtype=dtype) for e in (a, b))
    left, right = exponents
    return pair_blocks(ONE_OF_EACH, left, ONE_OF_EACH, right, torch.as_tensor(vector[None], dtype=dtype), *kernel)[0]


def pyscf_shells(exponent: float, centre: np.ndarray) -> gto.Mole:
    shells = {"He": [[l, [exponent, 1.0]] for l in range(LMAX + 1)]}
    return gto.M(atom=[("He", tuple(centre))], unit="Bohr", basis=shells, verbose=0)


def from_pyscf(name: str, a: float, b: float, vector: np.ndarray) -> np.ndarray:
    turn = block_diag(*[ordering.rotation(l) for l in range(LMAX + 1)])
    return turn @ gto.intor_cross(name, pyscf_shells(a, np.zeros(3)), pyscf_shells(b, vector)) @ turn.T


def overlap_by_quadrature(a: float, b: float, vector: np.ndarray) -> np.ndarray:
    """Gauss-Hermite about the centre of the product, exact for these polynomials; harmonics by e3nn."""
    root, weight = np.polynomial.hermite.hermgauss(LMAX + 2)
    total = a + b
    point = np.array(list(itertools.product(root, repeat=3))) / np.sqrt(total) + b / total * vector
    weights = np.prod(list(itertools.product(weight, repeat=3)), axis=1) / total**1.5

    def functions(exponent: float, x: np.ndarray) -> np.ndarray:
        where = torch.as_tensor(x)
        return torch.cat(
            [
                moments.normalisation(l, number(exponent))
                * o3.spherical_harmonics(l, where, normalize=False, normalization="integral")
                for l in range(LMAX + 1)
            ],
            dim=1,
        ).numpy()

    height = np.exp(-a * b / total * vector @ vector)
    return height * functions(a, point).T @ (weights[:, None] * functions(b, point - vector))


@pytest.mark.parametrize("l", range(12))
def test_solid_harmonics_are_those_of_e3nn(l: int) -> None:
    x = torch.as_tensor(np.random.default_rng(l).normal(size=(40, 3)))
    theirs = o3.spherical_harmonics(l, x, normalize=False, normalization="integral")
    torch.testing.assert_close(solid_harmonics(l, x)[l], theirs, rtol=1e-12, atol=1e-13 * float(theirs.abs().max()))


@pytest.mark.parametrize(("l", "l2", "total"), [(0, 3, 3), (1, 2, 3), (2, 2, 4), (3, 4, 5), (4, 2, 2), (6, 6, 2)])
def test_gaunt_coefficients_are_couplings(l: int, l2: int, total: int) -> None:
    """Parallel to e3nn's 3j symbols, of the norm of the closed form, and reproduce a product of harmonics pointwise."""
    g = gaunt(l, l2, total)
    coupling = o3.wigner_3j(l, l2, total, dtype=torch.float64)
    cosine = float((g * coupling).sum() / g.norm() / coupling.norm())
    assert abs(cosine) == pytest.approx(1, abs=1e-12)
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(20, 3)))
    x = x / x.norm(dim=1, keepdim=True)
    y = solid_harmonics(l + l2, x)
    product = y[l][:, :, None] * y[l2][:, None, :]
    series = sum(torch.einsum("xM,abM->xab", y[k], gaunt(l, l2, k)) for k in range(abs(l - l2), l + l2 + 1))
    torch.testing.assert_close(series, product, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.05), (0.1, 5.0), (0.9, 0.3), (40.0, 0.4), (500.0, 0.05), (0.05, 500.0)])
def test_overlap_is_exact(a: float, b: float) -> None:
    """PySCF's own overlaps are off by up to 1e-7 where the function with the larger l is diffuse and the other hard."""
    for distance in DISTANCES:
        ours = all_degrees(a, b, distance * DIRECTION, OVERLAP).numpy()
        assert np.abs(ours - overlap_by_quadrature(a, b, distance * DIRECTION)).max() < 1e-13


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.05), (0.2, 1.0), (0.9, 0.3), (12.0, 1.4), (90.0, 10.0)])
def test_overlap_against_pyscf(a: float, b: float) -> None:
    for distance in DISTANCES:
        vector = distance * DIRECTION
        assert np.abs(all_degrees(a, b, vector, OVERLAP).numpy() - from_pyscf("int1e_ovlp", a, b, vector)).max() < 1e-10


@pytest.mark.parametrize(
    ("a", "b"), [(0.05, 0.05), (0.1, 5.0), (0.9, 0.3), (40.0, 0.4), (500.0, 0.05), (0.05, 500.0), (500.0, 300.0)]
)
def test_coulomb_against_pyscf(a: float, b: float) -> None:
    for distance in DISTANCES:
        vector = distance * DIRECTION
        assert np.abs(all_degrees(a, b, vector, COULOMB).numpy() - from_pyscf("int2c2e", a, b, vector)).max() < 1e-10


@pytest.mark.parametrize("l", range(LMAX + 1))
@pytest.mark.parametrize("l2", [0, 1, 4, 6])
def test_one_centre_limit(l: int, l2: int) -> None:
    a, b, here = number(3.1), number(0.8), torch.zeros(3, dtype=torch.float64)
    identity = torch.eye(2 * l + 1, 2 * l2 + 1, dtype=torch.float64) * (l == l2)
    overlap, coulomb = moments.one_centre_overlap(l, a, b), moments.one_centre_coulomb(l, a, b)
    torch.testing.assert_close(two_centre(l, a, l2, b, here, *OVERLAP), identity * overlap, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(two_centre(l, a, l2, b, here, *COULOMB), identity * coulomb, rtol=1e-13, atol=1e-15)
    both = two_centre(l, a, l2, b, here, coulomb=2.0, overlap=0.3)
    torch.testing.assert_close(both, identity * (2 * coulomb + 0.3 * overlap), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("l", "l2"), [(0, 0), (1, 0), (2, 3), (4, 2)])
def test_gradients_in_positions_and_exponents(l: int, l2: int) -> None:
    a = torch.tensor([0.7, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.4, 2.1, 8.0], dtype=torch.float64, requires_grad=True)
    vector = torch.tensor([[0.3, 1.1, -0.6], [0.0, 0.0, 0.0], [2.0, -1.5, 3.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.as_tensor(np.random.default_rng(1).normal(size=(2 * l + 1, 2 * l2 + 1)))

    def value(a: Tensor, b: Tensor, vector: Tensor) -> Tensor:
        return (two_centre(l, a, l2, b, vector, coulomb=1.0, overlap=0.5) * weight).sum((1, 2))

    torch.autograd.gradcheck(value, (a, b, vector))
    torch.autograd.gradgradcheck(value, (a, b, vector))


@pytest.mark.parametrize(("name", "kernel"), [("int1e_ovlp", OVERLAP), ("int2c2e", COULOMB)])
def test_gradients_against_differences_of_pyscf(name: str, kernel: tuple[float, float]) -> None:
    weight = np.random.default_rng(2).normal(size=(49, 49))
    a, b, vector = 0.9, 2.2, 1.7 * DIRECTION

    def energy(values: np.ndarray) -> float:
        return float((weight * from_pyscf(name, values[0], values[1], values[2:])).sum())

    start, step = np.array([a, b, *vector]), 2e-3
    expected = []
    for unit in np.eye(5):
        at = [energy(start + k * step * unit) for k in (-2, -1, 1, 2)]
        expected.append((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step))
    variables = torch.as_tensor(start).requires_grad_()
    exponents = variables[:2, None].expand(2, LMAX + 1)
    out = pair_blocks(ONE_OF_EACH, exponents[:1], ONE_OF_EACH, exponents[1:], variables[None, 2:], *kernel)
    (gradient,) = torch.autograd.grad((out[0] * torch.as_tensor(weight)).sum(), variables)
    assert np.abs(gradient.numpy() - expected).max() < 1e-8 * np.abs(expected).max()


def representation(turn: np.ndarray) -> np.ndarray:
    """D with Y(turn x) = D Y(x), from points (e3nn's own goes through single precision)."""
    x = np.random.default_rng(3).normal(size=(100, 3))

    def harmonics(x: np.ndarray) -> list[np.ndarray]:
        return [o3.spherical_harmonics(l, torch.as_tensor(x), normalize=True).numpy() for l in range(LMAX + 1)]

    pairs = zip(harmonics(x), harmonics(x @ turn.T))
    return np.asarray(block_diag(*[np.linalg.lstsq(here, there, rcond=None)[0].T for here, there in pairs]))


@pytest.mark.parametrize("kernel", [OVERLAP, COULOMB])
def test_rotation(kernel: tuple[float, float]) -> None:
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    d, vector = representation(turn), 1.3 * DIRECTION
    turned = all_degrees(0.9, 1.6, turn @ vector, kernel).numpy()
    still = all_degrees(0.9, 1.6, vector, kernel).numpy()
    assert np.abs(turned - d @ still @ d.T).max() < 1e-12
    assert np.abs(turned - d.T @ still @ d).max() > 0.05  # the inverse rotation does not pass


def test_swapped_functions_are_the_transpose() -> None:
    vector = 1.3 * DIRECTION
    for kernel in (OVERLAP, COULOMB):
        here, there = all_degrees(0.9, 4.0, vector, kernel), all_degrees(4.0, 0.9, -vector, kernel)
        torch.testing.assert_close(here, there.T, rtol=0, atol=1e-13)
        odd = here[1:4, 0]
        torch.testing.assert_close(all_degrees(0.9, 4.0, -vector, kernel)[1:4, 0], -odd, rtol=0, atol=1e-14)
        assert float(odd.abs().max()) > 0.02


def test_far_apart_coulomb_is_classical() -> None:
    """Charge, dipole and second moment of the functions (densnet.basis.moments) interact as point multipoles."""
    a, b, r = number(0.8), number(1.7), torch.as_tensor(30.0 * DIRECTION)
    distance, unit = r.norm(), r / r.norm()
    charge, charge2, dipole, dipole2 = moments.monopole(a), moments.monopole(b), moments.dipole(a), moments.dipole(b)
    second = moments.second_moment_d(a) * moments.quadrupole_tensors()
    expected = {
        (0, 0): (charge * charge2 / distance).view(1, 1),
        (1, 0): (dipole * charge2 * unit / distance**2).view(3, 1),
        (0, 1): (-charge * dipole2 * unit / distance**2).view(1, 3),
        (1, 1): dipole * dipole2 * (torch.eye(3) - 3 * torch.outer(unit, unit)) / distance**3,
        (2, 0): (1.5 * charge2 * torch.einsum("mij,i,j->m", second, unit, unit) / distance**3).view(5, 1),
    }
    for (l, l2), classical in expected.items():
        torch.testing.assert_close(two_centre(l, a, l2, b, r), classical, rtol=1e-11, atol=1e-18)


@pytest.mark.parametrize(("a", "b"), [(0.05, 0.05), (1.0, 3.0), (500.0, 0.05), (2000.0, 1000.0)])
def test_single_precision(a: float, b: float) -> None:
    """Good to 1e-5 of the largest integral of the pair, finite at any distance."""
    for distance in (*DISTANCES, 40.0):
        for kernel in (OVERLAP, COULOMB):
            exact = all_degrees(a, b, distance * DIRECTION, kernel)
            single = all_degrees(a, b, distance * DIRECTION, kernel, torch.float32)
            scale = np.sqrt(float(moments.one_centre_coulomb(0, number(a), number(a))) if kernel is COULOMB else 1.0)
            assert single.dtype == torch.float32
            assert float((single - exact).abs().max()) < 1e-5 * scale**2


def test_leading_shapes_broadcast() -> None:
    a, b = torch.rand(4, 1, dtype=torch.float64) + 0.5, torch.rand(3, dtype=torch.float64) + 0.5
    vector = torch.rand(2, 1, 1, 3, dtype=torch.float64)
    out = two_centre(2, a, 1, b, vector, overlap=0.1)
    assert out.shape == (2, 4, 3, 5, 3)
    single = two_centre(2, a[3, 0], 1, b[1], vector[1, 0, 0], overlap=0.1)
    torch.testing.assert_close(out[1, 3, 1], single, rtol=1e-13, atol=1e-15)


MU = 0.4


def pyscf_metric(basis: Basis, molecule: Molecule) -> np.ndarray:
    aux = pyscf_molecule(molecule, ordering.pyscf_basis(basis))
    return ordering.matrix_to_irreps(aux.intor("int2c2e") + MU * aux.intor("int1e_ovlp"), basis, molecule.number)


def shaken(molecule: Molecule, frames: int) -> Tensor:
    rng = np.random.default_rng(4)
    return torch.as_tensor(molecule.position + 0.2 * rng.normal(size=(frames, *molecule.position.shape)))


def varied(basis: Basis, molecule: Molecule, frames: int) -> Tensor:
    rng = np.random.default_rng(5)
    table = basis.slot_exponent[basis.rows(molecule.number)]
    return torch.as_tensor(table * np.exp(rng.uniform(-0.2, 0.2, size=(frames, *table.shape))))


def test_metric_of_a_molecule_against_pyscf(basis: Basis, water: Molecule) -> None:
    ours = molecule_metric(basis, water.number, torch.as_tensor(water.position), MU).numpy()
    assert ours.shape == (basis.size(water.number),) * 2
    assert np.abs(ours - pyscf_metric(basis, water)).max() < 1e-10


@pytest.mark.parametrize("name", sorted(path.stem for path in LIBRARY.glob("*.json")))
def test_every_element_of_the_library_against_pyscf(name: str) -> None:
    chosen = Basis.load(name)
    corners = np.array(list(itertools.product((-1.3, 1.2), repeat=3)))[: len(chosen.numbers)]
    molecule = Molecule(np.array(chosen.numbers), corners + 0.2 * np.random.default_rng(10).normal(size=corners.shape))
    ours = molecule_metric(chosen, molecule.number, torch.as_tensor(molecule.position), MU).numpy()
    assert np.abs(ours - pyscf_metric(chosen, molecule)).max() < 1e-10


def test_metric_with_exponents_of_every_atom_against_pyscf(basis: Basis, water: Molecule) -> None:
    exponent = varied(basis, water, 1)[0]
    rows = basis.rows(water.number)
    labels, shells = ["O1", "H2", "H3"], {}
    degrees = np.repeat(np.arange(basis.lmax + 1), basis.multiplicity)
    for label, row, table in zip(labels, rows, exponent.numpy()):
        exists = basis.slot_mask[row]
        shells[label] = [[int(l), [e, 1.0]] for l, e in zip(degrees[exists], table[exists])]
    mol = gto.M(atom=list(zip(labels, water.position.tolist())), unit="Bohr", basis=shells, verbose=0)
    expected = ordering.matrix_to_irreps(mol.intor("int2c2e") + MU * mol.intor("int1e_ovlp"), basis, water.number)
    ours = molecule_metric(basis, water.number, torch.as_tensor(water.position), MU, exponent)
    assert np.abs(ours.numpy() - expected).max() < 1e-10
    assert np.abs(pyscf_metric(basis, water) - expected).max() > 1e-2


def test_frames_in_portions_equal_single_molecules(basis: Basis, water: Molecule) -> None:
    position, exponent = shaken(water, 5), varied(basis, water, 5)
    for e in (None, exponent):
        together = metrics(basis, water.number, position, MU, exponent=e)
        in_portions = metrics(basis, water.number, position, MU, exponent=e, max_bytes=3e5)
        single = torch.stack(
            [molecule_metric(basis, water.number, position[k], MU, None if e is None else e[k]) for k in range(5)]
        )
        torch.testing.assert_close(together, single, rtol=0, atol=1e-13)
        torch.testing.assert_close(in_portions, single, rtol=0, atol=1e-13)
    single_precision = metrics(basis, water.number, position, MU, dtype=torch.float32)
    assert single_precision.dtype == torch.float32
    torch.testing.assert_close(single_precision, metrics(basis, water.number, position, MU).float(), rtol=0, atol=0)


def test_batch_of_different_molecules(basis: Basis, water: Molecule) -> None:
    rng = np.random.default_rng(6)
    kinds = [np.array([8, 1, 1]), np.array([1, 1]), np.array([1, 8, 1]), np.array([8, 1, 1])]
    positions = [torch.as_tensor(2 * rng.normal(size=(len(z), 3))) for z in kinds]
    atoms = torch.as_tensor(np.concatenate(kinds))
    batch = torch.repeat_interleave(torch.arange(4), torch.tensor([len(z) for z in kinds]))
    table = torch.as_tensor(basis.slot_exponent[basis.rows(atoms.numpy())]) * torch.linspace(0.9, 1.2, len(atoms))[:, None]
    for exponent in (None, table):
        out = batch_metrics(basis, atoms, torch.cat(positions), batch, MU, exponent)
        for k, (z, r) in enumerate(zip(kinds, positions)):
            own = None if exponent is None else exponent[batch == k]
            torch.testing.assert_close(out[k], molecule_metric(basis, z, r, MU, own), rtol=0, atol=1e-13)


def test_blocked_layout_holds_the_packed_one(basis: Basis, water: Molecule) -> None:
    position, exponent = torch.as_tensor(water.position), varied(basis, water, 1)[0]
    exists = torch.as_tensor(basis.mask[basis.rows(water.number)])
    # what stands in the slots that an element lacks must not matter
    exponent[~torch.as_tensor(basis.slot_mask[basis.rows(water.number)])] = float("nan")
    own = Gaussians.of(basis, water.number, position, exponent)
    block = metric_matrix(own, own, overlap=MU)
    assert block.shape == (3, basis.width, 3, basis.width)
    packed = molecule_metric(basis, water.number, position, MU, exponent)
    torch.testing.assert_close(block[exists][:, exists], packed, rtol=0, atol=1e-13)
    assert (block[~exists] == 0).all()
    assert (block[:, :, ~exists] == 0).all()


def test_cross_product_of_two_bases(basis: Basis, water: Molecule) -> None:
    """Both layouts agree, and with the metric of one basis where the other is the same."""
    wider = [replace(e, shells=(Shell(0, 50.0), *e.shells, Shell(4, 0.6))) for e in basis.elements]
    other = replace(basis, elements=tuple(wider))
    position, exponent = shaken(water, 2), varied(basis, water, 2)
    cross = cross_metrics(basis, exponent, other, None, water.number, position, MU)
    left = Gaussians.of(basis, water.number, position[1], exponent[1])
    right = Gaussians.of(other, water.number, position[1])
    exists, exists2 = (torch.as_tensor(b.mask[b.rows(water.number)]) for b in (basis, other))
    block = metric_matrix(left, right, overlap=MU)
    torch.testing.assert_close(block[exists][:, exists2], cross[1], rtol=0, atol=1e-13)
    same = cross_metrics(basis, exponent, basis, exponent, water.number, position, MU)
    torch.testing.assert_close(same, metrics(basis, water.number, position, MU, exponent=exponent), rtol=0, atol=1e-13)


def test_gradient_of_a_metric_in_atoms_and_exponents(basis: Basis, water: Molecule) -> None:
    position, exponent = shaken(water, 2).requires_grad_(), varied(basis, water, 2).requires_grad_()
    c = torch.as_tensor(np.random.default_rng(7).normal(size=(2, basis.size(water.number))))

    def square(position: Tensor, exponent: Tensor) -> Tensor:
        return torch.einsum("fi,fij,fj->f", c, metrics(basis, water.number, position, MU, exponent=exponent), c)

    gradients = torch.autograd.grad(square(position, exponent).sum(), (position, exponent))
    rng, step = np.random.default_rng(8), 1e-4
    for k, gradient in enumerate(gradients):
        direction = torch.as_tensor(rng.normal(size=gradient.shape))
        moved = [
            [v.detach() + (s * step * direction if i == k else 0) for i, v in enumerate((position, exponent))] for s in (1, -1)
        ]
        difference = float((square(*moved[0]) - square(*moved[1])).sum()) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-6)
    missing = ~torch.as_tensor(basis.slot_mask[basis.rows(water.number)])
    assert (gradients[1][:, missing] == 0).all()
    assert (gradients[1][:, ~missing] != 0).all()


@pytest.mark.parametrize("bad", [0.0, -1.5, float("nan"), float("inf")])
def test_bad_exponents_are_refused(bad: float, basis: Basis, water: Molecule) -> None:
    vector = torch.ones(3, dtype=torch.float64)
    message = rf"exponent of {bad} bohr\^-2.*expected finite and > 0"
    with pytest.raises(BasisError, match=message):
        two_centre(1, number(bad), 0, number(1.0), vector)
    with pytest.raises(BasisError, match=message):
        two_centre(1, number(1.0), 0, number(bad), vector)
    position, exponent = torch.as_tensor(water.position), varied(basis, water, 1)[0]
    exponent[2, 0] = bad
    with pytest.raises(BasisError, match=message) as caught:
        molecule_metric(basis, water.number, position, MU, exponent)
    assert "\n" not in str(caught.value)
    own = Gaussians.of(basis, water.number, position, exponent)
    with pytest.raises(BasisError, match=message):
        metric_matrix(own, own)
    with pytest.raises(BasisError, match=r"no functions for Z=\[6\]"):
        molecule_metric(basis, np.array([6, 1, 1]), position, MU)


def test_constants_made_while_validating_serve_training() -> None:
    shape = (1, 0, 0, 0, 0, 0, 0, 1)  # a degree that no other test uses
    exponent, vector = torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    with torch.inference_mode():
        pair_blocks(shape, exponent, shape, exponent, vector)
    exponent, vector = exponent.clone().requires_grad_(), vector.clone().requires_grad_()
    pair_blocks(shape, exponent, shape, exponent, vector).sum().backward()
    assert exponent.grad is not None
    assert vector.grad is not None
