"""Every constant against scipy's CODATA, every conversion against a definition that does not use it."""

from __future__ import annotations

import pytest
from scipy import constants
from scipy.constants import physical_constants

from densnet import units


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (units.SPEED_OF_LIGHT, "speed of light in vacuum"),
        (units.BOLTZMANN_SI, "Boltzmann constant"),
        (units.PLANCK_SI, "Planck constant"),
        (units.AVOGADRO, "Avogadro constant"),
        (units.ELEMENTARY_CHARGE, "elementary charge"),
        (units.BOHR_SI, "Bohr radius"),
        (units.HARTREE_SI, "Hartree energy"),
        (units.ELECTRON_MASS_SI, "electron mass"),
        (units.DALTON_SI, "atomic mass constant"),
        (units.VACUUM_PERMITTIVITY, "vacuum electric permittivity"),
    ],
)
def test_constants_are_codata_2022(ours: float, name: str) -> None:
    assert ours == pytest.approx(physical_constants[name][0], rel=1e-14)


@pytest.mark.parametrize(
    ("ours", "independent"),
    [
        (units.EV_PER_HARTREE, physical_constants["Hartree energy in eV"][0]),
        (units.FS_PER_AU, physical_constants["atomic unit of time"][0] * 1e15),
        (units.ELECTRON_MASS_PER_DALTON, 1 / physical_constants["electron mass in u"][0]),
        (units.EV_PER_ANGSTROM_PER_AU, physical_constants["atomic unit of force"][0] / constants.e * 1e-10),
        (units.BOLTZMANN, physical_constants["kelvin-hartree relationship"][0]),
        # One hartree as an angular frequency is one inverse atomic time: its wavenumber is E/(hc).
        (units.CM1_PER_AU, physical_constants["hartree-inverse meter relationship"][0] / 100),
        (units.DEBYE_PER_AU, physical_constants["atomic unit of electric dipole mom."][0] / 3.33564095198152e-30),
        (units.ANGSTROM_PER_BOHR, 0.529177210544),
    ],
)
def test_conversions(ours: float, independent: float) -> None:
    assert ours == pytest.approx(independent, rel=1e-9)
