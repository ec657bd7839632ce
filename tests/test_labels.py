"""The label file: what is written is read, nothing broken is read or half-written, every fault is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from densnet.data.labels import PYSCF_AUXBASIS, Failure, Label, Labels, Level, pack, read_labels, unpack, write_labels
from densnet.errors import DataError
from densnet.structures import Molecule

WATER = Molecule(np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 1.4, 1.1], [0.0, -1.4, 1.1]]))
HYDRIDE = Molecule(np.array([1]), np.array([[0.5, 0.0, 0.0]]), -1)


def random_labels() -> Labels:
    rng = np.random.default_rng(1)
    molecules = [WATER, HYDRIDE, WATER.moved(WATER.position + 0.1)]
    labels = []
    for molecule, nao in zip(molecules, (5, 2, 5)):
        matrix = rng.normal(size=(nao, nao))
        label = Label(
            float(rng.normal()),
            rng.normal(size=molecule.position.shape),
            rng.normal(size=3),
            rng.normal(size=(3, 3)),
            pack(matrix + matrix.T),
        )
        labels.append(label)
    failure = Failure(WATER.moved(WATER.position - 0.2), "train", "a:7", "SCF not converged")
    return Labels.of(
        molecules, labels, ["train", "test", "train"], ["a:0", "b:1", "a:2"], Level(grid_level=4), "pyscf 1", [failure]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_labels(tmp_path / "labels.h5", random_labels())
    return tmp_path / "labels.h5"


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_round_trip(path: Path) -> None:
    wanted, found = random_labels(), read_labels(path, density_matrices=True)
    names = ("frame_ptr", "number", "position", "force", "energy", "charge", "dipole", "quadrupole", "dm_ptr", "split", "source")
    for name in (*names, "packed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert (found.level, found.program, len(found)) == (wanted.level, "pyscf 1", 3)
    assert found.frame(1).charge == -1
    np.testing.assert_array_equal(found.frame(2).position, WATER.position + 0.1)
    np.testing.assert_array_equal(found.force[found.frame_ptr[1] : found.frame_ptr[2]], wanted.force[3:4])
    assert found.indices("train").tolist() == [0, 2]
    assert [f.reason for f in found.failures] == ["SCF not converged"]
    np.testing.assert_array_equal(found.failures[0].molecule.position, WATER.position - 0.2)


def test_lazy_matrix_equals_loaded(path: Path) -> None:
    lazy, loaded = read_labels(path), read_labels(path, density_matrices=True)
    assert lazy.packed is None
    for f in range(3):
        np.testing.assert_array_equal(lazy.density_matrix(f), loaded.density_matrix(f))
    assert lazy.density_matrix(1).shape == (2, 2)


def test_packing_is_rows_of_the_lower_triangle() -> None:
    matrix = np.array([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0], [4.0, 5.0, 6.0]])
    assert pack(matrix).tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(unpack(pack(matrix)), matrix)


def test_reads_a_file_made_from_the_format_table_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        attributes = {"schema": "densnet/labels", "version": 1, "xc": "pbe", "ao_basis": "sto-3g", "auxbasis": PYSCF_AUXBASIS}
        attributes |= {
            "grid_level": 3,
            "conv_tol": 1e-9,
            "density_fit": True,
            "dispersion": "none",
            "program": "x",
            "units": "atomic",
        }
        file.attrs.update(attributes)
        file["frame_ptr"], file["dm_ptr"] = [0, 1, 3], [0, 1, 4]
        file.create_dataset("number", data=np.array([2, 1, 1], np.int32), compression="gzip")
        file["position"] = np.array([[0.0, 0, 0], [0, 0, 0], [0, 0, 1.4]])
        file["force"], file["energy"], file["charge"] = np.zeros((3, 3)), np.array([-2.8, -1.1]), np.zeros(2)
        file["dipole"], file["quadrupole"] = np.zeros((2, 3)), np.zeros((2, 3, 3))
        file["density_matrix"] = np.array([2, 0.5, 0.25, 0.75], np.float32)
        file["split"], file["source"] = np.array([b"train", b"test"], "S24"), np.array(["a", "b"], dtype=h5py.string_dtype())
    labels = read_labels(tmp_path / "other.h5")
    assert labels.level == Level(ao_basis="sto-3g")
    np.testing.assert_array_equal(labels.density_matrix(1), [[0.5, 0.25], [0.25, 0.75]])
    assert (labels.frame(0).number.tolist(), labels.split.tolist(), labels.failures) == ([2], ["train", "test"], ())


def test_equal_labels_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "again.h5", read_labels(path, density_matrices=True))
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "row", "frame"), [("energy", 1, 1), ("force", 3, 1), ("dipole", 2, 2), ("quadrupole", 0, 0), ("position", 4, 2)]
)
def test_nan_names_quantity_and_frame(path: Path, name: str, row: int, frame: int) -> None:
    with h5py.File(path, "r+") as file:
        value = file[name][:]
        value[row] = np.nan
        file[name][...] = value
    with pytest.raises(DataError, match=f"{name} of frame {frame} is not finite") as error:
        read_labels(path)
    one_line(error)


def test_nan_in_a_density_matrix_is_found_loaded_and_lazy(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["density_matrix"][16] = np.nan
    with pytest.raises(DataError, match="density_matrix of frame 1 is not finite") as error:
        read_labels(path, density_matrices=True)
    one_line(error)
    lazy = read_labels(path)
    assert np.isfinite(lazy.density_matrix(2)).all()
    with pytest.raises(DataError, match="density_matrix of frame 1 is not finite"):
        lazy.density_matrix(1)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_truncated_file(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(DataError, match="cannot be read") as error:
        read_labels(path)
    one_line(error)


def test_foreign_and_missing_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_labels(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(DataError, match="cannot be read") as error:
        read_labels(tmp_path / "text.h5")
    one_line(error)
    with h5py.File(path, "r+") as file:
        del file["dipole"]
    with pytest.raises(DataError, match="dipole") as error:
        read_labels(path)
    one_line(error)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(DataError, match="version 2; expected densnet/labels version 1"):
        read_labels(path)


@pytest.mark.parametrize("pointer", [[0, 3, 4, 8], [0, 4, 3, 7], [1, 3, 4, 7], [0, 3, 3, 7]])
def test_inconsistent_frame_ptr(path: Path, pointer: list[int]) -> None:
    with h5py.File(path, "r+") as file:
        file["frame_ptr"][...] = pointer
    with pytest.raises(DataError, match="frame_ptr"):
        read_labels(path)


def test_a_refused_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    labels = random_labels()
    with pytest.raises(DataError, match="energy of frame 0"):
        write_labels(path, replace(labels, energy=np.array([np.inf, 0.0, 0.0])))
    with pytest.raises(DataError, match="no density matrices in memory"):
        write_labels(path, read_labels(path))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_crash_while_writing_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(OSError, match="no space"):
        write_labels(path, random_labels())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
