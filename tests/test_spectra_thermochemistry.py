"""Thermochemistry against PySCF's, by hand, and the number of rotations of known molecules."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule as build_molecule
from conftest import random_rotation
from pyscf import gto
from pyscf.hessian import thermo

from densnet.data.isotopes import isotope_mass
from densnet.errors import ConfigError
from densnet.spectra.harmonic import NormalModes
from densnet.spectra.symmetry import symmetry_number
from densnet.spectra.thermochemistry import KJ_MOL_PER_HARTREE, GasSettings, ideal_gas
from densnet.units import (
    ANGSTROM_PER_BOHR,
    AVOGADRO,
    BOLTZMANN,
    BOLTZMANN_SI,
    CM1_PER_AU,
    ELECTRON_MASS_PER_DALTON,
)


def modes_of(name: str, frequency_cm1: list[float]) -> NormalModes:
    """A molecule of ASE's collection with these frequencies; what thermochemistry does not look at is zero."""
    atoms = build_molecule(name)
    n, vibrations = len(atoms), len(frequency_cm1)
    return NormalModes(
        number=np.array(atoms.numbers),
        mass=atoms.get_masses() * ELECTRON_MASS_PER_DALTON,
        position=atoms.positions / ANGSTROM_PER_BOHR,
        frequency_cm1=np.array(frequency_cm1),
        intensity_km_mol=np.zeros(vibrations),
        vector=np.zeros((3 * n, vibrations)),
        dipole_derivative=np.zeros((vibrations, 3)),
        n_rigid=3 * n - vibrations,
    )


@pytest.mark.parametrize(
    ("name", "frequency"),
    [
        ("H2O", [1595.0, 3657.0, 3756.0]),
        ("NH3", [950.0, 1627.0, 1627.0, 3337.0, 3444.0, 3444.0]),
        ("CO2", [667.0, 667.0, 1333.0, 2349.0]),
        ("HCN", [712.0, 712.0, 2089.0, 3312.0]),
        ("CH3OH", [295.0, 1033.0, 1060.0, 1165.0, 1345.0, 1455.0, 1477.0, 1477.0, 2844.0, 2960.0, 3000.0, 3681.0]),
    ],
)
@pytest.mark.parametrize(("temperature", "pressure"), [(298.15, 101325.0), (500.0, 1e4)])
def test_against_pyscf(name: str, frequency: list[float], temperature: float, pressure: float) -> None:
    modes = modes_of(name, frequency)
    atoms = [(int(z), tuple(r)) for z, r in zip(modes.number, modes.position)]
    mol = gto.M(atom=atoms, unit="bohr", basis="sto-3g")
    au = np.array(frequency) / CM1_PER_AU * np.sqrt(ELECTRON_MASS_PER_DALTON)  # PySCF's unit: hartree, bohr and dalton
    theirs = thermo.thermo(SimpleNamespace(mol=mol, e_tot=-76.4), au, temperature, pressure)
    # PySCF finds rotations within 1e-5 bohr only, which NH3 of the collection misses; symmetry numbers have a test of their own.
    ours = ideal_gas(modes, -76.4, GasSettings(temperature, pressure, int(theirs["sym_number"][0])))
    assert ours.zero_point_kJ_mol == pytest.approx(theirs["ZPE"][0] * KJ_MOL_PER_HARTREE, rel=1e-6)
    assert ours.enthalpy_hartree == pytest.approx(theirs["H_tot"][0], abs=1e-7)
    assert ours.gibbs_hartree == pytest.approx(theirs["G_tot"][0], abs=1e-6)  # 1e-5 in the mass of O moves it by 1e-7
    assert ours.entropy_J_mol_K == pytest.approx(theirs["S_tot"][0] * KJ_MOL_PER_HARTREE * 1e3, rel=1e-5)
    assert ours.thermal_gibbs_kJ_mol == pytest.approx((ours.gibbs_hartree + 76.4) * KJ_MOL_PER_HARTREE, abs=1e-6)


def test_imaginary_and_very_soft_modes_are_left_out_and_named() -> None:
    all_real = ideal_gas(modes_of("H2O", [1595.0, 3657.0, 3756.0]), 0.0, GasSettings())
    saddle = ideal_gas(modes_of("H2O", [-400.0, 4.0, 3756.0]), 0.0, GasSettings())
    assert all_real.left_out_cm1 == []
    assert saddle.left_out_cm1 == [-400.0, 4.0]
    assert saddle.zero_point_kJ_mol == pytest.approx(3756.0 / 2 / CM1_PER_AU * KJ_MOL_PER_HARTREE)
    kept = ideal_gas(modes_of("H2O", [-400.0, 4.0, 3756.0]), 0.0, GasSettings(softest_cm1=0.0))
    assert kept.left_out_cm1 == [-400.0]
    x = 4.0 / CM1_PER_AU / (BOLTZMANN * 298.15)
    soft = BOLTZMANN_SI * AVOGADRO * (x / np.expm1(x) - np.log(-np.expm1(-x)))
    assert kept.entropy_J_mol_K - saddle.entropy_J_mol_K == pytest.approx(soft, rel=1e-5)


def test_spin_and_symmetry_number_by_hand() -> None:
    modes = modes_of("H2O", [1595.0, 3657.0, 3756.0])
    plain = ideal_gas(modes, 0.0, GasSettings())
    gas = BOLTZMANN_SI * AVOGADRO
    doublet = ideal_gas(modes, 0.0, GasSettings(spin=0.5))
    assert doublet.entropy_J_mol_K - plain.entropy_J_mol_K == pytest.approx(gas * np.log(2.0), rel=1e-6)
    single = ideal_gas(modes, 0.0, GasSettings(symmetry_number=1))
    assert single.entropy_J_mol_K - plain.entropy_J_mol_K == pytest.approx(gas * np.log(2.0), rel=1e-6)
    assert (plain.symmetry_number_from, single.symmetry_number_from) == ("rotations of the geometry", "settings")


KNOWN = {
    "H2O": 2, "NH3": 3, "CH4": 12, "C2H6": 6, "C2H4": 4, "C6H6": 12, "CO2": 2, "HCN": 1, "N2": 2, "CO": 1, "C2H2": 2,
    "CH3CH2OH": 1, "CH3OH": 1, "CH3Cl": 3, "BF3": 6, "SiF4": 12, "H2O2": 2, "cyclobutane": 4, "C3H4_D2d": 4, "bicyclobutane": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_symmetry_numbers(name: str) -> None:
    atoms = build_molecule(name)
    turned = atoms.positions / ANGSTROM_PER_BOHR @ random_rotation(2).T + [1.0, 5.0, -3.0]
    mass = atoms.get_masses() * ELECTRON_MASS_PER_DALTON
    noise = np.random.default_rng(0).normal(scale=0.002, size=turned.shape)
    for position in (turned, turned + noise * (KNOWN[name] > 1 and len(atoms) > 3)):
        assert symmetry_number(atoms.numbers, mass, position) == KNOWN[name]


def test_isotopes_break_symmetry() -> None:
    atoms = build_molecule("CH4")
    mass = atoms.get_masses()
    for deuterated, expected in ((1, 3), (2, 2), (3, 3), (4, 12)):
        mass[1 : 1 + deuterated] = isotope_mass("D", 1)
        assert symmetry_number(atoms.numbers, mass * ELECTRON_MASS_PER_DALTON, atoms.positions / ANGSTROM_PER_BOHR) == expected
    # trans-CHD=CHD: the centre of mass stays where it was, the atoms alone tell.
    atoms = build_molecule("C2H4")
    mass, first = atoms.get_masses(), int(np.flatnonzero(atoms.numbers == 1)[0])
    opposite = int(np.argmin(np.linalg.norm(atoms.positions + atoms.positions[first] - 2 * atoms.positions.mean(axis=0), axis=1)))
    mass[[first, opposite]] = isotope_mass("D", 1)
    position = atoms.positions / ANGSTROM_PER_BOHR
    assert symmetry_number(atoms.numbers, atoms.get_masses() * ELECTRON_MASS_PER_DALTON, position) == 4
    assert symmetry_number(atoms.numbers, mass * ELECTRON_MASS_PER_DALTON, position) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "0 K"),
        ({"pressure": -1.0}, "-1 Pa"),
        ({"symmetry_number": 0}, "at least 1"),
        ({"spin": 0.3}, "0, 0.5"),
    ],
)
def test_settings_without_meaning(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        GasSettings(**settings)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(error.value)
