"""Thermochemistry of the ideal gas from harmonic frequencies: rigid rotor and harmonic oscillators, by ASE."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms
from ase.thermochemistry import IdealGasThermo

from densnet.errors import ConfigError
from densnet.spectra.harmonic import NormalModes
from densnet.spectra.symmetry import symmetry_number
from densnet.units import (
    ANGSTROM_PER_BOHR,
    AVOGADRO,
    CM1_PER_AU,
    ELECTRON_MASS_PER_DALTON,
    EV_PER_HARTREE,
    HARTREE_SI,
)

KJ_MOL_PER_HARTREE = HARTREE_SI * AVOGADRO * 1e-3
HBAR_OMEGA_EV_PER_CM1 = EV_PER_HARTREE / CM1_PER_AU


@dataclass(frozen=True)
class GasSettings:
    """temperature: kelvin; pressure: pascal; symmetry_number: None counts the rotations of the geometry; spin: total electronic

    spin (0 for closed shells, 0.5 for a doublet); softest_cm1: vibrations below this are left out, as imaginary ones are.
    Raises ConfigError for values without meaning.
    """

    temperature: float = 298.15
    pressure: float = 101325.0
    symmetry_number: int | None = None
    spin: float = 0.0
    softest_cm1: float = 10.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.pressure > 0 and self.softest_cm1 >= 0):
            raise ConfigError(
                f"thermochemistry at {self.temperature:g} K, {self.pressure:g} Pa, softest_cm1={self.softest_cm1:g}; "
                "expected a positive temperature and pressure and a limit of at least 0; correct the settings"
            )
        if self.symmetry_number is not None and self.symmetry_number < 1:
            raise ConfigError(f"symmetry_number is {self.symmetry_number}; expected at least 1, or null to count it")
        if self.spin < 0 or self.spin * 2 != round(self.spin * 2):
            raise ConfigError(f"spin is {self.spin:g}; expected 0, 0.5, 1, ...: half the number of unpaired electrons")


@dataclass(frozen=True)
class Thermochemistry:
    """Of one molecule as an ideal gas. energy_hartree: electronic, at the stationary point; zero_point_kJ_mol;

    thermal_enthalpy_kJ_mol: H(T) minus the electronic energy, zero-point energy included; entropy_J_mol_K: at the pressure;
    thermal_gibbs_kJ_mol: G minus the electronic energy; enthalpy_hartree, gibbs_hartree: with it. left_out_cm1: modes that do not
    count, imaginary ones negative.
    """

    temperature_kelvin: float
    pressure_pascal: float
    geometry: str
    symmetry_number: int
    symmetry_number_from: str
    spin: float
    left_out_cm1: list[float]
    energy_hartree: float
    zero_point_kJ_mol: float
    thermal_enthalpy_kJ_mol: float
    entropy_J_mol_K: float
    thermal_gibbs_kJ_mol: float
    enthalpy_hartree: float
    gibbs_hartree: float


def ideal_gas(modes: NormalModes, energy: float, settings: GasSettings) -> Thermochemistry:
    """energy: electronic energy at the stationary point, hartree. Rotations are classical, as always in such tables.

    Source: C. J. Cramer, Essentials of Computational Chemistry, 2nd ed., Wiley 2004, chapter 10; ASE computes it.
    """
    real = modes.frequency_cm1 >= max(settings.softest_cm1, 1e-6)
    number = settings.symmetry_number or symmetry_number(modes.number, modes.mass, modes.position)
    geometry = "linear" if modes.linear else "nonlinear"
    kept = modes.frequency_cm1[real]
    atoms = Atoms(modes.number, modes.position * ANGSTROM_PER_BOHR, masses=modes.mass / ELECTRON_MASS_PER_DALTON)
    thermo = IdealGasThermo(
        vib_energies=(kept * HBAR_OMEGA_EV_PER_CM1).tolist(),
        geometry=geometry,  # pyright: ignore[reportArgumentType]
        potentialenergy=0.0,
        atoms=atoms,
        symmetrynumber=number,
        spin=settings.spin,
        vib_selection="all",
    )
    temperature = settings.temperature
    enthalpy = thermo.get_enthalpy(temperature, verbose=False) / EV_PER_HARTREE
    entropy = thermo.get_entropy(temperature, settings.pressure, verbose=False) / EV_PER_HARTREE
    gibbs = enthalpy - temperature * entropy
    return Thermochemistry(
        temperature_kelvin=temperature,
        pressure_pascal=settings.pressure,
        geometry=geometry,
        symmetry_number=number,
        symmetry_number_from="rotations of the geometry" if settings.symmetry_number is None else "settings",
        spin=settings.spin,
        left_out_cm1=modes.frequency_cm1[~real].tolist(),
        energy_hartree=energy,
        zero_point_kJ_mol=float(kept.sum()) / 2 / CM1_PER_AU * KJ_MOL_PER_HARTREE,
        thermal_enthalpy_kJ_mol=float(enthalpy) * KJ_MOL_PER_HARTREE,
        entropy_J_mol_K=float(entropy) * KJ_MOL_PER_HARTREE * 1e3,
        thermal_gibbs_kJ_mol=float(gibbs) * KJ_MOL_PER_HARTREE,
        enthalpy_hartree=energy + float(enthalpy),
        gibbs_hartree=energy + float(gibbs),
    )
