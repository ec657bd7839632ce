"""Masses of isotopes, so that a Hessian can be used again for a deuterated or otherwise labelled molecule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_masses_common, atomic_numbers, chemical_symbols

from densnet.data.harmonic import HarmonicData
from densnet.errors import ConfigError
from densnet.units import ELECTRON_MASS_PER_DALTON

# Dalton. Source: M. Wang et al., The AME 2020 atomic mass evaluation, Chin. Phys. C 45, 030003 (2021).
MASS_DALTON = {
    "H-1": 1.007825032, "H-2": 2.014101778, "H-3": 3.016049281, "He-3": 3.016029322, "He-4": 4.002603254,
    "Li-6": 6.015122887, "Li-7": 7.016003434, "B-10": 10.012936862, "B-11": 11.009305167,
    "C-12": 12.0, "C-13": 13.003354835, "C-14": 14.003241989, "N-14": 14.003074004, "N-15": 15.000108898,
    "O-16": 15.994914619, "O-17": 16.999131756, "O-18": 17.999159612, "F-19": 18.998403162, "Na-23": 22.989769282,
    "Si-28": 27.976926534, "Si-29": 28.976494664, "Si-30": 29.973770137, "P-31": 30.973761998,
    "S-32": 31.972071174, "S-33": 32.971458909, "S-34": 33.967867011, "S-36": 35.967080692,
    "Cl-35": 34.968852694, "Cl-37": 36.965902573, "Br-79": 78.918337579, "Br-81": 80.916288206, "I-127": 126.904472592,
}  # fmt: skip
NICKNAMES = {"D": "H-2", "T": "H-3"}


class Masses(Enum):
    """Masses of atoms of which no isotope is named: standard atomic weights, or those of the most common isotope."""

    AVERAGE = "average"
    MOST_COMMON = "most_common"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ConfigError(f"masses is {value!r}; expected one of {', '.join(k.value for k in cls)}; correct the setting")

    def of(self, number: np.ndarray) -> np.ndarray:
        """(N,) electron masses for (N,) nuclear charges."""
        table = atomic_masses if self is Masses.AVERAGE else atomic_masses_common
        return table[number] * ELECTRON_MASS_PER_DALTON


def with_masses(data: HarmonicData, masses: Masses | None = None, isotopes: Mapping[Any, Any] | None = None) -> HarmonicData:
    """The same Hessian with other masses.

    masses: None keeps those of the data. isotopes: whom to change, an atom counted from 0 or an element symbol for all of its
    atoms, and the isotope: H-2 or 2H (D and T for short), or a mass in dalton. What an index says goes before its element.
    Raises ConfigError for an atom or isotope that is not there.
    """
    changed = masses.of(data.number) if masses is not None else data.mass.copy()
    chosen = dict(isotopes or {})
    for whom in sorted(chosen, key=_is_atom):
        for i in _atoms(whom, data.number):
            changed[i] = isotope_mass(chosen[whom], int(data.number[i])) * ELECTRON_MASS_PER_DALTON
    if np.array_equal(changed, data.mass):
        return data
    words = [f"masses {masses.value}"] if masses is not None else []
    words += [f"{whom}: {isotope}" for whom, isotope in chosen.items()]
    return replace(data, mass=changed, provenance=f"{data.provenance}; masses changed ({', '.join(words)})")


def isotope_mass(isotope: str | float, number: int) -> float:
    """Dalton; number: the nuclear charge it must belong to. Raises ConfigError."""
    symbol = chemical_symbols[number]
    if isinstance(isotope, (int, float)) and not isinstance(isotope, bool):
        if not 0.3 < isotope / atomic_masses_common[number] < 4.0:
            raise ConfigError(f"the mass of {symbol} is {isotope:g} dalton; expected one near {atomic_masses_common[number]:.4g}")
        return float(isotope)
    name = NICKNAMES.get(str(isotope).upper(), str(isotope))
    if match := re.fullmatch(r"(\d+)([A-Za-z]+)", name):
        name = f"{match[2]}-{match[1]}"
    name = "-".join(part.capitalize() for part in name.split("-"))
    if name not in MASS_DALTON or name.split("-")[0] != symbol:
        known = [key for key in MASS_DALTON if key.split("-")[0] == symbol]
        raise ConfigError(
            f"isotope {isotope} of {symbol} is unknown; expected {', '.join(known) or 'a number'} or a mass in dalton"
        )
    return MASS_DALTON[name]


def _is_atom(whom: int | str) -> bool:
    return str(whom).isdigit()


def _atoms(whom: int | str, number: np.ndarray) -> list[int]:
    if _is_atom(whom):
        if int(whom) >= number.size:
            raise ConfigError(f"isotopes name atom {whom}; expected 0..{number.size - 1} for this molecule; atoms count from 0")
        return [int(whom)]
    found = np.flatnonzero(number == atomic_numbers.get(str(whom), -1)).tolist()
    if not found:
        raise ConfigError(
            f"isotopes name element {whom}, which the molecule has not; expected one of "
            f"{', '.join(sorted({chemical_symbols[z] for z in number}))}, or the index of an atom, counted from 0"
        )
    return found
