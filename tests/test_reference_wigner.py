"""Frames around a minimum: the quantum distribution of harmonic vibrations, for the right molecule, reproducible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_masses

from densnet.data.geometry import load_geometry
from densnet.data.harmonic import HarmonicData, write_harmonic
from densnet.errors import ConfigError, DataError, StructureError
from densnet.reference.wigner import WignerSettings, displaced, sample_wigner, standard_deviation, wigner_hash
from densnet.spectra.harmonic import normal_modes_of
from densnet.structures import Molecule
from densnet.units import BOLTZMANN, ELECTRON_MASS_PER_DALTON

WATER = load_geometry("water")[0]
STIFFNESS = {(0, 1): 0.5, (0, 2): 0.45, (1, 2): 0.1}  # hartree/bohr^2, of springs between the atoms


def springs(sign: float = 1.0) -> HarmonicData:
    """Water held by three springs, whose energy is exactly half of dx H dx."""
    hessian = np.zeros((9, 9))
    for (i, j), stiffness in STIFFNESS.items():
        away = WATER.position[i] - WATER.position[j]
        row = np.zeros((3, 3))
        row[i], row[j] = away / np.linalg.norm(away), -away / np.linalg.norm(away)
        hessian += sign * stiffness * np.outer(row, row)
    mass = atomic_masses[WATER.number] * ELECTRON_MASS_PER_DALTON
    return HarmonicData(WATER.number, mass, WATER.position, 0, -76.0, np.zeros(3), hessian, np.zeros((9, 3)), "three springs")


def elongation(positions: np.ndarray) -> np.ndarray:
    """(F, 3) stretch of every spring, from the positions alone."""
    pairs = list(STIFFNESS)
    length = np.array([np.linalg.norm(positions[:, i] - positions[:, j], axis=-1) for i, j in pairs]).T
    return length - [np.linalg.norm(WATER.position[i] - WATER.position[j]) for i, j in pairs]


@pytest.mark.parametrize("temperature", [0.0, 3000.0])
def test_potential_energy_is_half_of_the_quantum_energy(temperature: float) -> None:
    """Virial theorem: <V> is half of <H> = sum omega (1/2 + n), n the Bose occupation; so small that springs are linear."""
    data = springs()
    root = np.repeat(np.sqrt(data.mass), 3)
    omega = np.sqrt(np.linalg.eigvalsh(data.hessian / np.outer(root, root))[-3:])
    occupation = 1.0 / np.expm1(omega / (BOLTZMANN * temperature)) if temperature else 0.0
    expected = 0.5 * (omega * (0.5 + occupation)).sum()
    settings = WignerSettings(temperature=temperature, amplitudes=(0.01,))
    positions = displaced(data, 40000, settings, np.random.default_rng(1))
    energy = 0.5 * (elongation(positions) ** 2 * list(STIFFNESS.values())).sum(1).mean() / 0.01**2
    assert energy == pytest.approx(expected, rel=0.02)  # three standard errors of 40000 frames


def test_amplitudes_are_taken_in_turn_and_frames_are_centred() -> None:
    positions = displaced(springs(), 4000, WignerSettings(amplitudes=(0.002, 0.01)), np.random.default_rng(0))
    np.testing.assert_allclose(elongation(positions[1::2]).std(0) / elongation(positions[0::2]).std(0), 5.0, rtol=0.1)
    np.testing.assert_allclose(WATER.number @ positions, 0.0, atol=1e-12)


def test_frames_are_reproducible_and_shared_out(tmp_path: Path) -> None:
    files = tuple(str(tmp_path / name) for name in ("a.h5", "b.h5"))
    write_harmonic(files[0], springs())
    write_harmonic(files[1], springs())
    settings = WignerSettings(files, train=5, test=2)
    first, again = sample_wigner(WATER, settings), sample_wigner(WATER, settings)
    for a, b in zip(first, again):
        assert (a.split, a.source) == (b.split, b.source)
        np.testing.assert_array_equal(a.molecule.position, b.molecule.position)
    sources = sorted(frame.source for frame in first)
    assert sources == [
        "test_wigner0_0:0", "test_wigner0_1:0", "train_wigner0_0:0", "train_wigner0_0:1",
        "train_wigner0_1:0", "train_wigner0_1:1", "train_wigner0_1:2",
    ]  # fmt: skip
    # Every minimum and split has random numbers of its own: no two frames have the same springs.
    stretches = elongation(np.array([frame.molecule.position for frame in first]))
    assert len(np.unique(stretches.round(9), axis=0)) == len(first)
    in_turn = [*sources[2:4], sources[0], *sources[4:], sources[1]]
    assert sorted(in_turn) == sources
    assert [frame.source for frame in first] != in_turn  # shuffled
    identity = wigner_hash(WATER, settings)
    assert wigner_hash(replace(WATER, charge=2), settings) != identity
    assert wigner_hash(Molecule(np.array([8, 1, 2]), WATER.position), settings) != identity
    assert wigner_hash(WATER, replace(settings, seed=1)) != identity
    (tmp_path / "a.h5").rename(tmp_path / "c.h5")
    assert wigner_hash(WATER, replace(settings, harmonic=(str(tmp_path / "c.h5"), files[1]))) == identity
    write_harmonic(files[1], replace(springs(), energy=-75.0))
    assert wigner_hash(WATER, replace(settings, harmonic=(str(tmp_path / "c.h5"), files[1]))) != identity


def test_other_molecules_and_saddle_points_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "harmonic.h5"
    settings = WignerSettings((str(path),), train=2)
    with pytest.raises(DataError, match=r"harmonic\.h5"):
        sample_wigner(WATER, settings)
    with pytest.raises(DataError, match=r"harmonic\.h5"):
        wigner_hash(WATER, settings)
    write_harmonic(path, springs())
    with pytest.raises(StructureError, match="other atoms, order of atoms or charge"):
        sample_wigner(Molecule(WATER.number[::-1].copy(), WATER.position[::-1].copy()), settings)
    with pytest.raises(StructureError, match="other atoms, order of atoms or charge"):
        sample_wigner(replace(WATER, charge=2), settings)
    write_harmonic(path, springs(-1.0))
    with pytest.raises(StructureError, match=r"harmonic\.h5: a mode has -\d+\.\d cm\^-1; expected a minimum"):
        sample_wigner(WATER, settings)
    write_harmonic(path, springs())
    with pytest.raises(StructureError, match=r"around .*harmonic\.h5 falls apart .*; lower sampling\.temperature"):
        sample_wigner(WATER, replace(settings, train=40, amplitudes=(20.0,)))
    ion = replace(WATER, charge=2)
    write_harmonic(path, replace(springs(), charge=2))
    assert [frame.molecule.charge for frame in sample_wigner(ion, settings)] == [2, 2]


def test_soft_modes_stay_where_they_are() -> None:
    """A mode of 60 cm^-1 and less, of either sign: no amplitude, whatever the temperature; the others keep theirs."""
    modes = normal_modes_of(springs())
    soft = replace(modes, frequency_cm1=np.array([-60.0, 20.0, 3000.0]))
    found = standard_deviation(soft, 300.0, 61.0)
    assert found[:2].tolist() == [0.0, 0.0]
    assert found[2] == pytest.approx((2 * 3000.0 / 219474.631) ** -0.5, rel=1e-5)  # hardly any occupation: 1/(2 omega)
    assert standard_deviation(replace(soft, frequency_cm1=np.array([0.0, 0.5, 3000.0])), 300.0, 0.0)[:2].tolist() == [0.0, 0.0]
    with pytest.raises(StructureError, match=r"a mode has -60\.0 cm"):
        standard_deviation(soft, 300.0, 50.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"harmonic": ()}, "names no file"),
        ({"train": 0}, "wants 0 train"),
        ({"temperature": -1.0}, "sampling.temperature is -1; expected 0 or more"),
        ({"temperature": float("nan")}, "sampling.temperature is nan"),
        ({"softest_cm1": -1.0}, "sampling.softest_cm1 is -1"),
        ({"seed": -1}, "sampling.seed is -1"),
        ({"amplitudes": (float("inf"),)}, "expected positive factors"),
        ({"amplitudes": (1.0, 0.0)}, "expected positive factors"),
        ({"amplitudes": ()}, "expected positive factors"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WignerSettings(**wrong)  # type: ignore[arg-type]
