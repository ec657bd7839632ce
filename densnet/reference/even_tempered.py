"""Even-tempered shells: the start of every designed basis, and a basis for molecules that no designed one covers."""

from __future__ import annotations

import numpy as np

from densnet.basis.shells import Basis, Element, FreeAtom, Shell

# (smallest, largest) exponent per l in bohr^-2 for deformation densities, by row of the periodic table. The free atom
# carries the core, so what is left near a nucleus has the range of the valence orbitals squared; the high l serve bonds.
RANGES_HYDROGEN = ((0.08, 40.0), (0.15, 15.0), (0.22, 6.0), (0.35, 4.5), (0.5, 3.5), (0.7, 3.5))
RANGES_SECOND_ROW = ((0.08, 400.0), (0.08, 120.0), (0.1, 30.0), (0.2, 12.0), (0.3, 7.0), (0.45, 5.5))
RANGES_THIRD_ROW = ((0.06, 400.0), (0.06, 120.0), (0.08, 30.0), (0.15, 12.0), (0.2, 6.0), (0.3, 4.5))
LMAX = 5


def even_tempered(number: int, ratio: float, lmax: int) -> tuple[Shell, ...]:
    """Shells of one element with exponents falling by at most `ratio` over the ranges above, l = 0..lmax (at most 5)."""
    ranges = RANGES_HYDROGEN if number <= 2 else RANGES_SECOND_ROW if number <= 10 else RANGES_THIRD_ROW
    shells = []
    for l, (low, high) in enumerate(ranges[: lmax + 1]):
        n = int(np.ceil(np.log(high / low) / np.log(ratio))) + 1
        shells += [Shell(l, float(f"{a:.6g}")) for a in high * (low / high) ** (np.arange(n) / (n - 1))]
    return tuple(shells)


def make_basis(name: str, xc: str, ao_basis: str, shells: dict[int, tuple[Shell, ...]], atoms: dict[int, FreeAtom]) -> Basis:
    """Assemble a Basis from shells and free atoms per nuclear charge."""
    return Basis(name, xc, ao_basis, tuple(Element(z, shells[z], atoms[z]) for z in sorted(shells)))
