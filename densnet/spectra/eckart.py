"""Frames of a trajectory laid on reference geometries: Eckart frames, permutations of equal atoms, mirror images.

| formula | variable |
|---|---|
| a_A, a reference geometry about its centre of mass | Image.position |
| r_A = C x_A, sum_A m_A a_A x x_A = 0 (Eckart) | C: rotation, x_A: body |
| J w = sum_A m_A a_A x C^T v_A, J = sum_A m_A ((a_A . x_A) 1 - x_A a_A^T) | w, the angular velocity of the frame |
| dx_A/dt = C^T v_A - w x x_A | body velocity: without rotation to round-off, at any amplitude and any speed of rotation |
| d^2 = sum_A m_A abs(x_A - a_A)^2 / sum_A m_A | rmsd, squared |

The rotation that makes d smallest fulfils the Eckart conditions, and the body velocities fulfil their time derivative, so they
lie in the space of the vibrations of the reference: nothing of them is rotation, nothing of the vibration is lost.

An image of a reference is what it becomes when equal atoms change places (automorphisms of its bond graph) and when it is
reflected. Which images can be reached is read off the trajectory: where the arrangement of the neighbours of an atom never
changes its handedness, images of the other handedness are left out. A methyl group so keeps its three rotations.

Source: C. Eckart, Phys. Rev. 47, 552 (1935); K. N. Kudin, A. Y. Dymarsky, J. Chem. Phys. 122, 224105 (2005) (Eckart frame and
least squares); G. Mathias, S. D. Ivanov, A. Witt, M. D. Baer, D. Marx, J. Chem. Theory Comput. 8, 224 (2012) (several
references and permutations for molecules that rearrange).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from ase.data import covalent_radii

from densnet.errors import SpectrumError
from densnet.spectra.harmonic import NormalModes
from densnet.units import ANGSTROM_PER_BOHR

BOND = 1.25  # of the sum of covalent radii
MOST_PERMUTATIONS = 20000
SAME = 0.02  # bohr; images closer than this are one, related by a symmetry of the reference


@dataclass(frozen=True)
class Reference:
    """A minimum with its normal modes; atoms in the order of the trajectory, equal atoms in any."""

    name: str
    modes: NormalModes


@dataclass(frozen=True)
class Image:
    """A reference with equal atoms exchanged and perhaps inverted: atom A of the trajectory is its atom role[A].

    reference: index in the list of references; role: (N,); mirrored: whether inverted through the centre of mass.
    """

    reference: int
    role: np.ndarray
    mirrored: bool

    @property
    def sign(self) -> float:
        return -1.0 if self.mirrored else 1.0

    def position(self, modes: NormalModes) -> np.ndarray:
        """(N, 3) bohr about the centre of mass, in the atom order of the trajectory."""
        centred = modes.position - modes.mass @ modes.position / modes.mass.sum()
        return self.sign * centred[self.role]

    def vector(self, modes: NormalModes) -> np.ndarray:
        """(3N, n_vib) the mode vectors of the image."""
        n_modes = modes.vector.shape[1]
        return self.sign * modes.vector.reshape(-1, 3, n_modes)[self.role].reshape(-1, n_modes)

    def dipole_derivative(self, modes: NormalModes) -> np.ndarray:
        """(n_vib, 3)"""
        return self.sign * modes.dipole_derivative


def bonded(number: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(N, N) True between atoms closer than 1.25 times the sum of their covalent radii; position: bohr."""
    radius = covalent_radii[number] / ANGSTROM_PER_BOHR
    distance = np.linalg.norm(position[:, None] - position, axis=-1)
    return (distance < BOND * (radius[:, None] + radius)) & ~np.eye(number.size, dtype=bool)


def automorphisms(number: np.ndarray, bonds: np.ndarray, limit: int = MOST_PERMUTATIONS) -> list[np.ndarray]:
    """All permutations (N,) of equal atoms that keep every bond of (N, N), the identity first.

    Raises SpectrumError if there are more than `limit`.
    """
    n = number.size
    colour = [int(z) for z in number]
    for _ in range(n):  # atoms whose surroundings differ are never exchanged
        signs = [(colour[i], tuple(sorted(colour[j] for j in np.flatnonzero(bonds[i])))) for i in range(n)]
        names = {sign: k for k, sign in enumerate(sorted(set(signs)))}
        refined = [names[sign] for sign in signs]
        if len(set(refined)) == len(set(colour)):
            break
        colour = refined
    order: list[int] = []
    for start in range(n):  # along bonds, so that a wrong choice is noticed at once
        queue = [] if start in order else [start]
        while queue:
            atom = queue.pop(0)
            if atom not in order:
                order.append(atom)
                queue += [int(j) for j in np.flatnonzero(bonds[atom])]
    found: list[np.ndarray] = []
    role = np.full(n, -1)
    taken = [False] * n

    def place(depth: int) -> None:
        if depth == n:
            if len(found) == limit:
                raise SpectrumError(
                    f"the molecule has more than {limit} permutations of equal atoms; expected fewer; "
                    "give the permutations that occur, or only the identity"
                )
            found.append(role.copy())
            return
        atom, before = order[depth], order[:depth]
        for other in range(n):
            equal = not taken[other] and colour[other] == colour[atom]
            if equal and np.array_equal(bonds[other, role[before]], bonds[atom, before]):
                role[atom], taken[other] = other, True
                place(depth + 1)
                taken[other] = False

    place(0)
    return found


def images(
    references: Sequence[Reference], position: np.ndarray, permutations: Sequence[np.ndarray] | None, mirror: bool
) -> list[Image]:
    """The distinct images of all references that a trajectory (F, N, 3) can reach; permutations: None finds them."""
    found: list[Image] = []
    for index, reference in enumerate(references):
        modes = reference.modes
        bonds = bonded(modes.number, modes.position)
        roles = automorphisms(modes.number, bonds) if permutations is None else list(permutations)
        kept: list[np.ndarray] = []
        for mirrored in (False, True) if mirror else (False,):
            for role in roles:
                image = Image(index, np.asarray(role), mirrored)
                place = image.position(modes)
                if not _reachable(bonds[np.ix_(role, role)], place, position):
                    continue
                if not kept or superpose(modes.mass, place[None], np.stack(kept))[1].min() > SAME:
                    kept.append(place)
                    found.append(image)
    return found


def superpose(mass: np.ndarray, position: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Proper rotations C (F, I, 3, 3) and mass-weighted rmsd (F, I), bohr, for position = C target as well as possible.

    position: (F, N, 3), target: (I, N, 3), both about their centres of mass (Kabsch, Acta Cryst. A32, 922 (1976)).
    """
    correlation = np.einsum("fai,caj->fcij", position, mass[:, None] * target, optimize=True)
    u, s, vt = np.linalg.svd(correlation)
    proper = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    overlap = s[..., 0] + s[..., 1] + proper * s[..., 2]
    norms = ((mass[:, None] * position**2).sum(axis=(1, 2))[:, None], (mass[:, None] * target**2).sum(axis=(1, 2)))
    u[..., 2] *= proper[..., None]
    return u @ vt, np.sqrt(np.maximum(norms[0] + norms[1] - 2.0 * overlap, 0.0) / mass.sum())


def body_velocity(
    mass: np.ndarray, position: np.ndarray, velocity: np.ndarray, rotation: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """dx/dt in the Eckart frame of the target: (F, N, 3).

    position, velocity: (F, N, 3) about the centre of mass; rotation: (F, 3, 3) of `superpose`; target: (N, 3).
    """
    body, turned = position @ rotation, velocity @ rotation
    weighted = mass[:, None] * target
    moment = np.cross(weighted, turned).sum(axis=1)
    inertia = np.einsum("ai,fai->f", weighted, body)[:, None, None] * np.eye(3) - np.einsum("fai,aj->fij", body, weighted)
    angular = np.linalg.solve(inertia, moment[..., None])[..., 0]
    return turned - np.cross(angular[:, None], body)


def _reachable(bonds: np.ndarray, place: np.ndarray, position: np.ndarray) -> bool:
    """Whether the handedness of the neighbours of every atom of an image (N, 3) occurs in frames (F, N, 3)."""
    for atom in range(len(place)):
        for three in combinations(np.flatnonzero(bonds[atom]), 3):
            here = np.linalg.det(place[list(three)] - place[atom])
            seen = np.linalg.det(position[:, list(three)] - position[:, atom, None])
            if (seen * here < 0.0).all():
                return False
    return True
