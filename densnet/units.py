"""The only physical constants of the project (CODATA 2022) and the conversions between atomic units and the edges.

Inside densnet everything is in Hartree atomic units: bohr, hartree, e, electron masses, hbar/hartree for time.
Angstrom, eV, fs, e*angstrom, debye, cm^-1 and km/mol appear only in files that are an edge (ASE, xyz, plots, logs).
`X_PER_Y` is the number of X in one Y: multiply a value in Y by it to get X.

Source: E. Tiesinga, P. Mohr, D. Newell, B. Taylor, CODATA 2022 (https://physics.nist.gov/constants);
tests/test_units.py compares every number with scipy.constants.
"""

from __future__ import annotations

from math import pi

CODATA_YEAR = 2022

# SI values; the first six are exact by definition or the CODATA 2022 recommended value.
SPEED_OF_LIGHT = 299792458.0  # m/s, exact
BOLTZMANN_SI = 1.380649e-23  # J/K, exact
PLANCK_SI = 6.62607015e-34  # J s, exact
AVOGADRO = 6.02214076e23  # 1/mol, exact
ELEMENTARY_CHARGE = 1.602176634e-19  # C, exact
BOHR_SI = 5.29177210544e-11  # m
HARTREE_SI = 4.3597447222060e-18  # J
ELECTRON_MASS_SI = 9.1093837139e-31  # kg
DALTON_SI = 1.66053906892e-27  # kg
VACUUM_PERMITTIVITY = 8.8541878188e-12  # F/m
HBAR_SI = PLANCK_SI / (2.0 * pi)
ATOMIC_TIME_SI = HBAR_SI / HARTREE_SI  # s

# Length, energy, time, mass.
ANGSTROM_PER_BOHR = BOHR_SI * 1e10
EV_PER_HARTREE = HARTREE_SI / ELEMENTARY_CHARGE
MEV_PER_HARTREE = 1e3 * EV_PER_HARTREE
FS_PER_AU = ATOMIC_TIME_SI * 1e15
PS_PER_AU = ATOMIC_TIME_SI * 1e12
ELECTRON_MASS_PER_DALTON = DALTON_SI / ELECTRON_MASS_SI
EV_PER_ANGSTROM_PER_AU = EV_PER_HARTREE / ANGSTROM_PER_BOHR  # force
MEV_PER_ANGSTROM_PER_AU = 1e3 * EV_PER_ANGSTROM_PER_AU

# Temperature: k_B in hartree/kelvin.
BOLTZMANN = BOLTZMANN_SI / HARTREE_SI

# Dipole moment: e*bohr to debye and e*angstrom (1 D = 1e-21 C m^2/s / c).
DEBYE_SI = 1e-21 / SPEED_OF_LIGHT
DEBYE_PER_AU = ELEMENTARY_CHARGE * BOHR_SI / DEBYE_SI
MILLIDEBYE_PER_AU = 1e3 * DEBYE_PER_AU
E_ANGSTROM_PER_AU = ANGSTROM_PER_BOHR

# Angular frequency in atomic units (1 / atomic time) to wavenumber: nu~ = omega / (2 pi c).
CM1_PER_AU = 1.0 / (ATOMIC_TIME_SI * 2.0 * pi * SPEED_OF_LIGHT * 100.0)
