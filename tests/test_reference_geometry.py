"""Geometries by name and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from densnet.data.geometry import TRIVIAL_NAMES, load_geometry
from densnet.errors import StructureError


def test_names() -> None:
    for name in TRIVIAL_NAMES:
        assert len(load_geometry(name)) == 1
    water = load_geometry("water")[0]
    assert water.number.tolist() == [8, 1, 1]
    # 0.9576 angstrom (experiment, r_e) written in bohr; the collection's geometry is MP2
    assert np.linalg.norm(water.position[1] - water.position[0]) == pytest.approx(0.9576 / 0.529177, abs=0.03)
    np.testing.assert_array_equal(load_geometry("Water")[0].position, load_geometry("h2o")[0].position)
    assert load_geometry("formic_acid")[0].number.size == 5
    assert load_geometry("CO")[0].number.tolist() == [8, 6]
    assert load_geometry("water", charge=2)[0].charge == 2


def test_every_frame_of_a_file(tmp_path: Path) -> None:
    atoms = molecule("CH3OH")
    other = atoms.copy()
    other.positions[0, 0] += 0.1
    write(tmp_path / "two.xyz", [atoms, other])
    frames = load_geometry(str(tmp_path / "two.xyz"))
    assert [f.number.size for f in frames] == [6, 6]
    assert (frames[1].position - frames[0].position)[0, 0] == pytest.approx(0.1 / 0.529177210544, rel=1e-6)


def test_faults_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.xyz").write_text("three\nnothing\n")
    write(tmp_path / "cell.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], cell=[5, 5, 5], pbc=True), format="extxyz")
    write(tmp_path / "close.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.2]]))
    faults = {
        "etanol": "did you mean ethanol",
        "zzzzzzzzzzz": "neither a file",
        str(tmp_path / "bad.xyz"): "cannot be read",
        str(tmp_path / "cell.xyz"): "periodic",
        str(tmp_path / "close.xyz"): "0.200 angstrom apart",
        str(tmp_path / "absent.xyz"): "neither a file",
    }
    for name, message in faults.items():
        with pytest.raises(StructureError, match=message) as error:
            load_geometry(name)
        assert "\n" not in str(error.value)
