"""The harmonic reference against energies and dipoles along a bond, and against PySCF's analytic Hessian."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from pyscf import dft, gto

from densnet.data.geometry import load_geometry
from densnet.data.harmonic import HarmonicData, read_harmonic, write_harmonic
from densnet.data.labels import Level
from densnet.errors import DataError, StructureError
from densnet.reference.harmonic import HarmonicSettings, compute_harmonic, lowest_curvature, vibrations_projector
from densnet.reference.kohn_sham import ScfSettings
from densnet.reference.pipeline import Workers
from densnet.structures import Molecule

LEVEL = Level(ao_basis="sto-3g", grid_level=4)
HF = Molecule(np.array([9, 1]), np.array([[0.0, 0.0, 0.1], [0.0, 0.0, 2.0]]))


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def made(workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> tuple[HarmonicData, Path]:
    spool = tmp_path_factory.mktemp("harmonic")
    return compute_harmonic(HF, LEVEL, ScfSettings(), HarmonicSettings(), spool, workers), spool


def test_hydrogen_fluoride_against_a_scan_of_its_bond(made: tuple[HarmonicData, Path]) -> None:
    data, _ = made
    found = np.linalg.norm(data.position[1] - data.position[0])

    def scan(distance: float) -> tuple[float, float]:
        mol = gto.M(atom=[("F", (0, 0, 0)), ("H", (0, 0, distance))], unit="Bohr", basis="sto-3g", verbose=0)
        mf = dft.RKS(mol, xc="pbe").density_fit()
        mf.grids.level, mf.conv_tol = 4, 1e-12
        return mf.kernel(), mf.dip_moment(unit="AU", verbose=0)[2]

    offset = np.linspace(-0.06, 0.06, 7)
    values = np.array([scan(found + x) for x in offset])
    energy, dipole = (np.polynomial.Polynomial.fit(offset, column, 4).convert().coef for column in values.T)
    assert -energy[1] / (2 * energy[2]) == pytest.approx(0, abs=1e-4)  # found is the bottom of the scan
    hessian, derivative = data.hessian.reshape(2, 3, 2, 3), data.dipole_derivative.reshape(2, 3, 3)
    assert hessian[1, 2, 1, 2] == pytest.approx(2 * energy[2], rel=2e-3)
    assert derivative[1, 2, 2] == pytest.approx(dipole[1], abs=2e-4)
    np.testing.assert_allclose(hessian.sum(2), 0, atol=1e-4)
    np.testing.assert_allclose(derivative.sum(0), 0, atol=1e-4)
    np.testing.assert_array_equal(data.hessian, data.hessian.T)
    assert lowest_curvature(data) > -1e-9


def test_a_second_call_replays_and_the_file_round_trips(
    made: tuple[HarmonicData, Path], workers: Workers, tmp_path: Path
) -> None:
    data, spool = made
    times = {path: path.stat().st_mtime_ns for path in spool.rglob("*.npz")}
    again = compute_harmonic(HF, LEVEL, ScfSettings(), HarmonicSettings(), spool, workers)
    assert {path: path.stat().st_mtime_ns for path in spool.rglob("*.npz")} == times
    write_harmonic(tmp_path / "harmonic.h5", again)
    read = read_harmonic(tmp_path / "harmonic.h5")
    for name in ("number", "mass", "position", "dipole", "hessian", "dipole_derivative"):
        np.testing.assert_array_equal(getattr(read, name), getattr(data, name), err_msg=name)
    assert (read.energy, read.charge, read.provenance) == (data.energy, 0, data.provenance)
    assert "pbe/sto-3g" in read.provenance

    with h5py.File(tmp_path / "harmonic.h5", "r+") as file:
        file["hessian"][2, 2] = np.nan
    with pytest.raises(DataError, match="hessian is not finite"):
        read_harmonic(tmp_path / "harmonic.h5")
    (tmp_path / "harmonic.h5").write_bytes((tmp_path / "harmonic.h5").read_bytes()[:900])
    with pytest.raises(DataError, match="cannot be read"):
        read_harmonic(tmp_path / "harmonic.h5")


def test_a_saddle_point_is_refused(workers: Workers, tmp_path: Path) -> None:
    angle = 2 * np.pi * np.arange(3) / 3
    planar = Molecule(
        np.array([7, 1, 1, 1]), np.vstack([np.zeros(3), 1.9 * np.array([np.cos(angle), np.sin(angle), 0 * angle]).T])
    )
    with pytest.raises(StructureError, match=r"is a saddle \(frequency \d+i cm"):
        compute_harmonic(
            planar, Level(ao_basis="sto-3g", grid_level=1), ScfSettings(), HarmonicSettings(fmax=3e-4), tmp_path, workers
        )


def test_an_optimisation_that_runs_out_of_steps_says_so(workers: Workers, tmp_path: Path) -> None:
    settings = HarmonicSettings(max_steps=1)
    with pytest.raises(StructureError, match="after 1 steps"):
        compute_harmonic(HF, LEVEL, ScfSettings(), settings, tmp_path, workers)


def test_projector_removes_as_many_motions_as_the_molecule_has() -> None:
    rng = np.random.default_rng(0)
    for position, rigid in ((rng.normal(size=(4, 3)), 6), (np.outer([0.0, 1.4, 3.0], [1, 2, 2]), 5), (np.ones((1, 3)), 3)):
        projector = vibrations_projector(position, rng.uniform(1, 10, position.shape[0]))
        assert position.size - np.trace(projector) == pytest.approx(rigid)
        np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)


@pytest.mark.slow
def test_water_against_the_analytic_hessian(workers: Workers, tmp_path: Path) -> None:
    level = Level(ao_basis="6-31g", grid_level=5)
    data = compute_harmonic(load_geometry("water")[0], level, ScfSettings(), HarmonicSettings(), tmp_path, workers)
    atoms = list(zip(data.number.tolist(), data.position.tolist()))
    mf = dft.RKS(gto.M(atom=atoms, unit="Bohr", basis="6-31g", verbose=0), xc="pbe").density_fit()
    mf.grids.level, mf.conv_tol = 5, 1e-11
    mf.kernel()
    analytic = mf.Hessian().kernel().transpose(0, 2, 1, 3).reshape(9, 9)
    np.testing.assert_allclose(data.hessian, analytic, atol=2e-4)
