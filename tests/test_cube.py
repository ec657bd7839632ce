"""Cube files: other programs read them, damaged ones are refused, and their sums are the moments of the density."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io.cube import read_cube as ase_read
from ase.io.cube import write_cube as ase_write
from pyscf import gto
from pyscf.tools.cubegen import Cube
from torch import Tensor

from densnet.basis.shells import Basis
from densnet.data.fits import read_fits
from densnet.errors import ConfigError, DataError
from densnet.observables.cube import CubeGrid, density_cube, difference_cube, potential_cube, read_cube, write_cube
from densnet.observables.multipoles import dipole, electrons
from densnet.observables.potential import electrostatic_potential_on_points
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR, MILLIDEBYE_PER_AU

DATASET = Path(__file__).parents[1] / "datasets" / "ethanol.h5"
SKEW = CubeGrid(np.array([-1.0, 0.5, 2.25]), np.array([[0.3, 0.01, 0.0], [0.0, 0.2, 0.0], [0.02, 0.0, 0.25]]), (4, 3, 8))


@pytest.fixture(scope="module")
def density(basis: Basis, water: Molecule) -> Density:
    """Random coefficients on the functions wide enough for a grid of 0.25 bohr."""
    rows, rng = basis.rows(water.number), np.random.default_rng(3)
    repeats = np.concatenate([np.full(n, 2 * l + 1) for l, n in enumerate(basis.multiplicity)])
    wide = np.repeat(basis.slot_exponent[rows] < 7, repeats, axis=1)
    c = np.where(basis.mask[rows] & wide, rng.normal(scale=0.1, size=(3, basis.width)), 0.0)
    return Density(torch.as_tensor(c), torch.as_tensor(basis.slot_exponent[rows]))


def wave(point: Tensor) -> Tensor:
    return torch.sin(point @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)) * 1e-3


def all_points(grid: CubeGrid) -> np.ndarray:
    return np.concatenate(list(grid.points()))


@pytest.fixture
def written(tmp_path: Path, water: Molecule) -> Path:
    write_cube(tmp_path / "wave.cube", water, SKEW, wave, "a wave\nin space")
    return tmp_path / "wave.cube"


def test_points_are_those_of_the_vectors() -> None:
    """x slowest, z fastest, however many at a time; a slab is whole rows, at least one."""
    expected = [SKEW.origin + np.array(i) @ SKEW.spacing for i in np.ndindex(SKEW.shape)]
    assert all_points(SKEW) == pytest.approx(np.array(expected), abs=1e-14)
    for most in (1, 8, 20, 1000):
        slabs = list(SKEW.points(most))
        assert np.array_equal(np.concatenate(slabs), all_points(SKEW))
        assert max(map(len, slabs)) == max(8, min(most, 96) // 8 * 8)


def test_round_trip(written: Path, water: Molecule) -> None:
    molecule, grid, values = read_cube(written)
    assert np.array_equal(molecule.number, water.number)
    assert np.array_equal(molecule.position, water.position.round(6))
    assert np.array_equal(grid.origin, SKEW.origin)
    assert np.array_equal(grid.spacing, SKEW.spacing)
    assert grid.shape == SKEW.shape
    exact = wave(torch.as_tensor(all_points(SKEW))).numpy().reshape(SKEW.shape)
    assert np.abs(values - exact).max() < 6e-6 * np.abs(exact).max()
    assert written.read_text().splitlines()[0] == "a wave in space"
    third = CubeGrid(np.full(3, 1 / 7), np.eye(3) / 3, (2, 2, 50))  # as many decimals as the file has: the same points
    write_cube(written, water, third, np.zeros(third.shape), "")
    assert np.array_equal(all_points(read_cube(written)[1]), all_points(third))


def test_what_was_read_can_be_written_again(written: Path) -> None:
    molecule, grid, values = read_cube(written)
    again = written.with_name("again.cube")
    write_cube(again, molecule, grid, values, "a wave in space")
    assert again.read_bytes() == written.read_bytes()


def test_pyscf_reads_it(written: Path, water: Molecule) -> None:
    cube = Cube(gto.M(atom="H", spin=1, verbose=0))
    values = cube.read(str(written))
    assert np.array_equal(values, read_cube(written)[2])
    assert cube.boxorig == pytest.approx(SKEW.origin, abs=1e-12)
    assert cube.box / np.array(SKEW.shape)[:, None] == pytest.approx(SKEW.spacing, abs=1e-12)
    assert cube.mol.atom_coords() == pytest.approx(water.position, abs=1e-6)
    assert cube.mol.atom_charges().tolist() == water.number.tolist()


def test_ase_reads_it(written: Path, water: Molecule) -> None:
    with written.open() as file:
        read = ase_read(file)
    assert np.array_equal(read["data"], read_cube(written)[2])
    assert read["spacing"] == pytest.approx(SKEW.spacing * ANGSTROM_PER_BOHR, rel=1e-8, abs=1e-12)
    assert read["origin"] == pytest.approx(SKEW.origin * ANGSTROM_PER_BOHR, rel=1e-8)
    assert read["atoms"].positions == pytest.approx(water.position * ANGSTROM_PER_BOHR, abs=1e-6)
    assert read["atoms"].numbers.tolist() == water.number.tolist()


def test_columns_are_fixed(written: Path) -> None:
    """Gaussian's format: I5, 4F12.6 in the head, 6E13.5 in the body, every row of z on lines of its own."""
    lines = written.read_text().splitlines()
    assert [len(line) for line in lines[2:9]] == [41, 41, 41, 41, 53, 53, 53]
    assert lines[6].split()[:2] == ["8", "8.000000"]
    assert [len(line) for line in lines[9:]] == [78, 26] * 12


def test_it_reads_what_pyscf_and_ase_write(tmp_path: Path, water: Molecule) -> None:
    values = np.random.default_rng(0).normal(size=(4, 5, 6))
    mol = gto.M(atom=list(zip("OHH", water.position)), unit="Bohr", verbose=0)
    cube = Cube(mol, 4, 5, 6, margin=2.0)
    cube.write(values, str(tmp_path / "pyscf.cube"))
    molecule, grid, found = read_cube(tmp_path / "pyscf.cube")
    assert found == pytest.approx(values, rel=1e-5, abs=1e-5)
    assert all_points(grid) == pytest.approx(cube.get_coords(), abs=5e-6)
    assert molecule.position == pytest.approx(water.position, abs=1e-6)
    from ase import Atoms

    atoms = Atoms("OHH", water.position * ANGSTROM_PER_BOHR, cell=[2.0, 2.5, 3.0])
    with (tmp_path / "ase.cube").open("w") as file:
        ase_write(file, atoms, values)
    molecule, grid, found = read_cube(tmp_path / "ase.cube")
    assert found == pytest.approx(values, rel=1e-5)
    assert np.diag(grid.spacing) == pytest.approx(0.5 / ANGSTROM_PER_BOHR, abs=1e-6)
    assert molecule.position == pytest.approx(water.position, abs=1e-6)


def test_around(water: Molecule) -> None:
    grid = CubeGrid.around(water, spacing=0.3, margin=4.0)
    point = all_points(grid)
    assert np.array_equal(grid.spacing, 0.3 * np.eye(3))
    assert grid.volume == pytest.approx(0.027)
    assert len(point) == grid.size
    assert (point.min(0) <= water.position.min(0) - 4.0).all()
    assert (point.min(0) > water.position.min(0) - 4.0 - 0.61).all()
    assert (point.max(0) >= water.position.max(0) + 4.0).all()
    for spacing, margin in ((0.0, 4.0), (-0.1, 4.0), (0.2, -1.0), (float("nan"), 4.0), (0.2, float("inf"))):
        with pytest.raises(ConfigError, match="spacing"):
            CubeGrid.around(water, spacing, margin)
    with pytest.raises(ConfigError, match="no volume"):
        CubeGrid(np.zeros(3), np.ones((3, 3)), (2, 2, 2))
    with pytest.raises(ConfigError, match="expected"):
        CubeGrid(np.zeros(3), np.eye(3), (2, 0, 2))


@pytest.mark.parametrize("numbers", [(8,), (8, 1), (8, 1, 1)])
def test_no_point_of_a_symmetric_molecule_is_a_nucleus(basis: Basis, tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """Atoms on the axes and in planes of the box, at multiples of the spacing: the potential stays finite."""
    position = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])[: len(numbers)]
    molecule = Molecule(np.array(numbers), position)
    density = zero(basis, molecule)
    grid = CubeGrid.around(molecule, 0.5, 1.0)
    potential_cube(tmp_path / "v.cube", molecule, density, basis, grid)
    assert np.isfinite(read_cube(tmp_path / "v.cube")[2]).all()
    onto = CubeGrid(np.zeros(3), 0.5 * np.eye(3), (2, 2, 2))
    with pytest.raises(DataError, match=r"\(0.000000, 0.000000, 0.000000\) bohr is inf"):
        potential_cube(tmp_path / "v.cube", molecule, density, basis, onto)
    potential_cube(tmp_path / "v.cube", molecule, density, basis, onto, nuclei=False)


def zero(basis: Basis, molecule: Molecule) -> Density:
    rows = basis.rows(molecule.number)
    return Density(torch.zeros(len(rows), basis.width, dtype=torch.float64), torch.as_tensor(basis.slot_exponent[rows]))


def test_sums_are_the_moments(basis: Basis, water: Molecule, density: Density, tmp_path: Path) -> None:
    """Deformation: charge and dipole of the file against observables.multipoles; total: two electrons of H2."""
    grid = CubeGrid.around(water, 0.25, 6.5)
    difference_cube(tmp_path / "d.cube", water, density, basis, grid, progress=False)
    _, grid, values = read_cube(tmp_path / "d.cube")
    molecules = Molecules.of([water])
    charge = float(electrons(molecules, density, basis.multiplicity)) - 10
    assert abs(charge) > 0.1
    assert values.sum() * grid.volume == pytest.approx(charge, abs=1e-5)
    ours = -values.reshape(-1) @ all_points(grid) * grid.volume  # the free atoms have none
    expected = dipole(molecules, density, basis.multiplicity)[0].numpy()
    assert np.abs(ours - expected).max() * MILLIDEBYE_PER_AU < 1
    hydrogen = Molecule(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.1, 0.2, 1.4]]))
    density_cube(tmp_path / "h2.cube", hydrogen, zero(basis, hydrogen), basis, CubeGrid.around(hydrogen, 0.2, 6.0))
    _, grid, values = read_cube(tmp_path / "h2.cube")
    assert values.sum() * grid.volume == pytest.approx(2, abs=2e-3)


@pytest.mark.slow
def test_dipole_of_ethanol_from_its_cube(tmp_path: Path) -> None:
    """A fitted density with its functions near the nuclei and its tails: 0.1 bohr and a margin of 9 reach 1 mD, 0.2 and 6 do not.

    Tight s functions need the fine grid (at 0.12 bohr they leave 1 mD), diffuse ones the margin (7 bohr cut 3 mD off).
    """
    fits = read_fits(DATASET)
    f, basis = int(fits.indices("test")[0]), fits.basis
    molecule = fits.frame(f)
    exponent = torch.as_tensor(basis.slot_exponent[basis.rows(molecule.number)])
    ethanol = Density(torch.as_tensor(fits.coefficient[fits.atoms(f)]).double(), exponent)
    expected = dipole(Molecules.of([molecule]), ethanol, basis.multiplicity)[0].numpy()
    for spacing, margin, good in ((0.2, 6.0, False), (0.1, 9.0, True)):
        difference_cube(tmp_path / "d.cube", molecule, ethanol, basis, CubeGrid.around(molecule, spacing, margin), progress=False)
        _, grid, values = read_cube(tmp_path / "d.cube")
        flat, start, found = values.reshape(-1), 0, np.zeros(3)
        for point in grid.points():
            found -= flat[start : start + len(point)] @ point * grid.volume
            start += len(point)
        assert (np.abs(found - expected).max() * MILLIDEBYE_PER_AU < 1) == good


def test_what_each_cube_holds(basis: Basis, water: Molecule, density: Density, tmp_path: Path) -> None:
    path, point = tmp_path / "x.cube", torch.as_tensor(all_points(SKEW))
    other = Density(density.coefficient * 0.5, density.exponent * 1.1)

    def found() -> np.ndarray:
        return read_cube(path)[2].reshape(-1)

    def close(values: Tensor) -> bool:
        return bool(np.abs(found() - values.numpy()).max() < 6e-6 * values.abs().max())

    rho, less = (density_on_points(water, d, basis, point) for d in (density, other))
    free = density_on_points(water, zero(basis, water), basis, point)
    density_cube(path, water, density, basis, SKEW)
    assert close(rho)
    assert not close(free)
    difference_cube(path, water, density, basis, SKEW)
    assert close(rho - free)
    difference_cube(path, water, density, basis, SKEW, other)
    assert close(rho - less)
    for nuclei in (True, False):
        potential_cube(path, water, density, basis, SKEW, nuclei=nuclei)
        assert close(electrostatic_potential_on_points(water, density, basis, point, nuclei=nuclei))
        assert ("of the electrons" in path.read_text()) != nuclei


def test_slabs_keep_to_the_memory(water: Molecule, tmp_path: Path) -> None:
    seen: list[int] = []

    def values(point: Tensor) -> Tensor:
        seen.append(len(point))
        return wave(point)

    texts = []
    for memory_mb, largest in ((64.0, 96), (0.004, 32), (0.0, 8)):
        seen.clear()
        write_cube(tmp_path / "x.cube", water, SKEW, values, "", memory_mb=memory_mb)
        assert (sum(seen), max(seen)) == (96, largest)
        texts.append((tmp_path / "x.cube").read_bytes())
    assert texts[0] == texts[1] == texts[2]


def test_a_failed_write_leaves_the_old_file(written: Path, water: Molecule) -> None:
    before = written.read_bytes()

    def fails(point: Tensor) -> Tensor:
        if point[0, 0] > SKEW.origin[0] + 0.1:
            raise RuntimeError("half way")
        return wave(point)

    with pytest.raises(RuntimeError, match="half way"):
        write_cube(written, water, SKEW, fails, "", memory_mb=0)
    for bad in (np.zeros((4, 3, 7)), np.full(SKEW.shape, np.nan), lambda point: point):
        with pytest.raises(DataError, match="expected"):
            write_cube(written, water, SKEW, bad, "")
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_tiny_values_stay_apart(written: Path, water: Molecule) -> None:
    values = np.full(SKEW.shape, -1e-120)
    values[0, 0, 0] = -1e-98
    write_cube(written, water, SKEW, values, "")
    found = read_cube(written)[2]
    assert found[0, 0, 0] == -1e-98
    assert np.count_nonzero(found) == 1


@pytest.mark.parametrize(
    ("line", "text", "complaint"),
    [
        (2, "", "third line has 0 numbers"),
        (2, "    x   -1.0    0.5    2.25", "could not convert"),
        (2, "   -3   -1.0    0.5    2.25", "orbitals"),
        (2, "    3   -1.0    0.5    2.25   2", "several values"),
        (2, "    3   -1.0    nan    2.25", "not finite"),
        (2, "    9   -1.0    0.5    2.25", "has 6 numbers"),
        (3, "   -4   0.3 0.01 0.0", "angstrom"),
        (3, "99999   0.3 0.01 0.0", "too short"),
        (3, "    5   0.3 0.01 0.0", "holds 96 values"),
        (3, "    3   0.3 0.01 0.0", "more than the 72 values"),
        (3, "  inf   0.3 0.01 0.0", "infinity"),
        (3, "    4   0.0 0.00 0.0", "no volume"),
        (6, "    0   0.0 0.3 -0.1 0.2", "ghost"),
        (9, "  nan 1 2 3 4 5", "NaN"),
        (9, "  words", "could not convert"),
        (-1, "", "holds 94 values"),
    ],
)
def test_damaged_files_are_refused(written: Path, line: int, text: str, complaint: str) -> None:
    lines = written.read_text().splitlines()
    lines[line] = text
    written.write_text("\n".join(lines))
    with pytest.raises(DataError, match=complaint) as error:
        read_cube(written)
    assert "\n" not in str(error.value)
    assert str(written) in str(error.value)


def test_files_that_are_none(tmp_path: Path, written: Path) -> None:
    for content in (b"", bytes(range(256)), written.read_bytes()[:200]):
        (tmp_path / "bad.cube").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.cube"):
            read_cube(tmp_path / "bad.cube")
    with pytest.raises(DataError, match="no cube file at"):
        read_cube(tmp_path / "missing.cube")


def test_a_bar_for_long_work_only(water: Molecule, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = CubeGrid(np.zeros(3), np.eye(3), (100, 100, 51))
    write_cube(tmp_path / "x.cube", water, SKEW, wave, "")
    write_cube(tmp_path / "x.cube", water, large, lambda p: p[:, 0], "", progress=False)
    assert capsys.readouterr().err == ""
    write_cube(tmp_path / "x.cube", water, large, lambda p: p[:, 0], "")
    assert "x.cube" in capsys.readouterr().err
