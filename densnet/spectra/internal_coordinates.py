"""What a normal mode is in words: the shares of stretching, bending and twisting in it.

| formula | variable |
|---|---|
| ds = B dx, internal coordinates | Internals.b_matrix |
| D = B M^(-1/2) L, what they change in the modes | modes in internal coordinates |
| S_ik = D_ik (D^+)_ki, sum_i S_ik = 1 | energy_shares(...)[i, k] |

S_ik is the share of coordinate i in the potential energy of mode k, half of every interaction constant counted with either of
its coordinates. Written with the inverse it needs neither force constants nor frequencies (Keresztury, Jalsovszky). It may be
slightly negative. The sum is below 1 where the internal coordinates do not describe the whole mode, as between two molecules.

The coordinates follow from the bonds: their lengths; one mean torsion per bond with neighbours on either side; the angles at
every atom, those of XH3 and XH2 groups in their natural combinations, of which none is redundant; the height of a planar centre
above its neighbours; two components for an angle near 180 degrees. The hydrogens of XH2 and XH3 stretch symmetrically and
antisymmetrically. What stays redundant (rings) is shared evenly by the pseudo-inverse.

Source: E. B. Wilson, J. C. Decius, P. C. Cross, Molecular Vibrations, McGraw-Hill 1955, chapter 4 (B); G. Keresztury,
G. Jalsovszky, J. Mol. Struct. 10, 304 (1971) (S); P. Pulay, G. Fogarasi, F. Pang, J. E. Boggs, J. Am. Chem. Soc. 101, 2550
(1979) (natural coordinates).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

import numpy as np
from ase.data import chemical_symbols

from densnet.spectra.eckart import bonded
from densnet.spectra.harmonic import NormalModes

STEP = 1e-4  # bohr; of the central differences of B, whose error is of order 1e-8
STRAIGHT = np.radians(170.0)
FLAT = 0.25  # |triple product| of the unit vectors to three neighbours of a planar centre; 0.77 in ammonia's place at 109 degrees


class Kind(Enum):
    """What an internal coordinate changes."""

    STRETCH = "stretch"
    BEND = "bend"
    TORSION = "torsion"
    OUT_OF_PLANE = "out of plane"


@dataclass(frozen=True)
class Coordinate:
    """kind; group: its name, which equal coordinates share, such as `C-O stretch`; atoms: those it is made of."""

    kind: Kind
    group: str
    atoms: tuple[int, ...]


@dataclass(frozen=True)
class Internals:
    """coordinates: I of them; b_matrix: (I, 3N) their derivatives, bohr or radian per bohr."""

    coordinates: tuple[Coordinate, ...]
    b_matrix: np.ndarray


def energy_shares(modes: NormalModes, internals: Internals) -> np.ndarray:
    """(I, n_vib) shares S of the coordinates in the modes."""
    change = internals.b_matrix @ (modes.vector / np.sqrt(np.repeat(modes.mass, 3))[:, None])
    return change * np.linalg.pinv(change, rcond=1e-8).T


def internal_coordinates(number: np.ndarray, position: np.ndarray) -> Internals:
    """Those of a molecule, its bonds from covalent radii; number: (N,), position: (N, 3) bohr."""
    symbol = [chemical_symbols[z] for z in number]
    bonds = bonded(number, position)
    near = [[int(j) for j in np.flatnonzero(row)] for row in bonds]
    coordinates: list[Coordinate] = []
    rows: list[np.ndarray] = []

    def add(kind: Kind, group: str, atoms: tuple[int, ...], row: np.ndarray) -> None:
        coordinates.append(Coordinate(kind, group, atoms))
        rows.append(row / np.linalg.norm(row) if kind is not Kind.STRETCH else row)

    def angle(i: int, j: int, k: int) -> np.ndarray:
        return _gradient(lambda x: _angle(x[i] - x[j], x[k] - x[j]), position)

    def named(*atoms: int) -> str:
        names = [symbol[a] for a in atoms]
        return "-".join(min(names, names[::-1], key=lambda n: (n[0] == "H", n)))

    for i in range(number.size):
        hydrogens = [j for j in near[i] if number[j] == 1]
        others = [j for j in near[i] if number[j] != 1]
        group = f"{symbol[i]}H{len(hydrogens)}"
        for row in _stretches([_gradient(lambda x, i=i, j=j: _length(x[i] - x[j]), position) for j in hydrogens]):
            if number[i] == 1 and hydrogens[0] < i:
                continue
            name = f"{symbol[i]}-H stretch"
            if len(hydrogens) in (2, 3):
                name = f"{group} {'symmetric' if row[0] else 'antisymmetric'} stretch"
            add(Kind.STRETCH, name, (i, *hydrogens), row[1])
        for j in others:
            if number[i] != 1 and i < j:
                row = _gradient(lambda x, i=i, j=j: _length(x[i] - x[j]), position)
                add(Kind.STRETCH, f"{named(i, j)} stretch", (i, j), row)
        if len(near[i]) == 4 and len(hydrogens) in (2, 3):
            natural = _methyl if len(hydrogens) == 3 else _methylene
            for name, row in natural(i, hydrogens, others, angle):
                full = f"{named(others[0], i, others[1])} bend" if name == "bend" else f"{group} {name}"
                add(Kind.BEND, full, (i, *near[i]), row)
            continue
        for j, k in combinations(near[i], 2):
            if _angle(position[j] - position[i], position[k] - position[i]) < STRAIGHT:
                add(Kind.BEND, f"{named(j, i, k)} bend", (j, i, k), angle(j, i, k))
                continue
            for across in _across(position[j] - position[k]):
                row = _gradient(lambda x, i=i, j=j, k=k, u=across: (_unit(x[j] - x[i]) + _unit(x[k] - x[i])) @ u, position)
                add(Kind.BEND, f"{named(j, i, k)} bend", (j, i, k), row)
        if len(near[i]) == 3:
            j, k, l = near[i]

            def height(x: np.ndarray, i: int = i, j: int = j, k: int = k, l: int = l) -> float:
                return float(np.linalg.det(np.stack([_unit(x[m] - x[i]) for m in (j, k, l)])))

            if abs(height(position)) < FLAT:
                add(Kind.OUT_OF_PLANE, f"{symbol[i]} out of plane", (i, j, k, l), _gradient(height, position))
    for j, k in zip(*np.nonzero(np.triu(bonds))):
        row = _mean_torsion(int(j), int(k), near, position)
        if row is not None:
            add(Kind.TORSION, f"{named(j, k)} torsion", (int(j), int(k)), row)
    return Internals(tuple(coordinates), np.array(rows).reshape(-1, 3 * number.size))


def _stretches(rows: list[np.ndarray]) -> list[tuple[bool, np.ndarray]]:
    """Orthonormal combinations of the stretches of XH2 and XH3, whether symmetric first; single ones as they are."""
    if len(rows) not in (2, 3):
        return [(True, row) for row in rows]
    table = {2: [[1, 1], [1, -1]], 3: [[1, 1, 1], [2, -1, -1], [0, 1, -1]]}[len(rows)]
    return [(n == 0, np.array(c) / np.linalg.norm(c) @ np.array(rows)) for n, c in enumerate(table)]


def _methyl(
    i: int, hydrogens: list[int], others: list[int], angle: Callable[[int, int, int], np.ndarray]
) -> list[tuple[str, np.ndarray]]:
    a, b, c = hydrogens
    inner = np.array([angle(b, i, c), angle(a, i, c), angle(a, i, b)])
    outer = np.array([angle(h, i, others[0]) for h in hydrogens])
    pair = np.array([[2.0, -1.0, -1.0], [0.0, 1.0, -1.0]])
    return [
        ("umbrella", inner.sum(axis=0) - outer.sum(axis=0)),
        *(("deformation", row) for row in pair @ inner),
        *(("rock", row) for row in pair @ outer),
    ]


def _methylene(
    i: int, hydrogens: list[int], others: list[int], angle: Callable[[int, int, int], np.ndarray]
) -> list[tuple[str, np.ndarray]]:
    (a, b), (p, q) = hydrogens, others
    inner, outer = angle(a, i, b), angle(p, i, q)
    ap, aq, bp, bq = (angle(h, i, o) for h in (a, b) for o in (p, q))
    return [
        ("scissor", 5.0 * inner + outer),
        ("bend", inner + 5.0 * outer),
        ("rock", ap + aq - bp - bq),
        ("wag", ap - aq + bp - bq),
        ("twist", ap - aq - bp + bq),
    ]


def _mean_torsion(j: int, k: int, near: list[list[int]], position: np.ndarray) -> np.ndarray | None:
    """Gradient of the mean of all torsion angles about a bond; None if an end has no other neighbour or is straight."""
    rows = [
        _gradient(lambda x, i=i, l=l: _torsion(x[[i, j, k, l]]), position, periodic=True)
        for i in near[j]
        for l in near[k]
        if len({i, j, k, l}) == 4
        and _angle(position[i] - position[j], position[k] - position[j]) < STRAIGHT
        and _angle(position[j] - position[k], position[l] - position[k]) < STRAIGHT
    ]
    return np.mean(rows, axis=0) if rows else None


def _gradient(value: Callable[[np.ndarray], float], position: np.ndarray, periodic: bool = False) -> np.ndarray:
    """(3N,) by central differences; periodic: an angle that may jump by 2 pi."""
    out = np.empty(position.size)
    for n in range(position.size):
        shift = np.zeros(position.size)
        shift[n] = STEP
        shift = shift.reshape(-1, 3)
        difference = value(position + shift) - value(position - shift)
        out[n] = (np.angle(np.exp(1j * difference)) if periodic else difference) / (2.0 * STEP)
    return out


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))


def _angle(u: np.ndarray, v: np.ndarray) -> float:
    return float(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))


def _torsion(x: np.ndarray) -> float:
    first, axis, last = np.diff(x, axis=0)
    left, right = np.cross(first, axis), np.cross(axis, last)
    return float(np.arctan2(np.linalg.norm(axis) * (first @ right), left @ right))


def _across(axis: np.ndarray) -> np.ndarray:
    """Two unit vectors at right angles to an axis and to each other."""
    return np.linalg.svd(axis[None])[2][1:]
