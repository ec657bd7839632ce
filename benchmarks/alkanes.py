"""Chains that grow: all-trans n-alkanes."""

from __future__ import annotations

import numpy as np

from densnet.structures import Molecule
from densnet.units import ANGSTROM_PER_BOHR

CARBON_CARBON, CARBON_HYDROGEN = 1.53, 1.09  # angstrom
CHAIN_ANGLE, METHYLENE_ANGLE = np.radians(113.0), np.radians(106.5)


def alkane(carbons: int, rattle: float = 0.0) -> Molecule:
    """C_n H_2n+2, the carbon zigzag in the xy plane along x; 3n + 2 atoms. rattle: every coordinate is off by so much, angstrom

    (standard deviation, always the same draw): the ideal chain has no dipole.
    """
    along, across = CARBON_CARBON * np.sin(CHAIN_ANGLE / 2), CARBON_CARBON * np.cos(CHAIN_ANGLE / 2)
    index = np.arange(carbons)
    up = (-1.0) ** index  # carbons of even index lie above; their hydrogens point up
    carbon = np.stack([along * index, across / 2 * up, np.zeros(carbons)], axis=1)
    out, aside = CARBON_HYDROGEN * np.cos(METHYLENE_ANGLE / 2), CARBON_HYDROGEN * np.sin(METHYLENE_ANGLE / 2)
    hydrogens = [carbon + np.stack([np.zeros(carbons), out * up, np.full(carbons, z)], axis=1) for z in (aside, -aside)]
    for end, direction in ((0, -1.0), (-1, 1.0)):  # where the next carbon would be
        bond = np.array([direction * along, -across * up[end], 0.0]) * CARBON_HYDROGEN / CARBON_CARBON
        hydrogens.append(carbon[[end]] + bond)
    position = np.concatenate([carbon, *hydrogens])
    position = position + rattle * np.random.default_rng(0).normal(size=position.shape)
    number = np.where(np.arange(3 * carbons + 2) < carbons, 6, 1)
    return Molecule(number, position / ANGSTROM_PER_BOHR)
