"""A trajectory seen from its minima: every frame in the Eckart frame of the nearest one, velocities along its normal modes.

    dQ_k/dt = sum_A sqrt(m_A) L_Ak . dx_A/dt          x: coordinates in the Eckart frame, L: mode vectors

Frames belong to the nearest image of a reference (densnet.spectra.eckart), nearest by mass-weighted rmsd. Where an atom is
farther than max_displacement from its place there, the frame belongs to none: such frames are counted, and enter no mode. The
rmsd itself would not do for that, a light atom hardly counts in it: a hydroxyl group that turned over gives 0.24 angstrom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densnet.errors import SpectrumError
from densnet.spectra.eckart import Image, Reference, body_velocity, images, superpose
from densnet.units import ANGSTROM_PER_BOHR

MAX_DISPLACEMENT = 1.0 / ANGSTROM_PER_BOHR  # bohr; half way between two minima of a methyl or a hydroxyl group
FRAMES_AT_ONCE = 20000


@dataclass(frozen=True)
class Projection:
    """A trajectory seen by its references; S frames, R replicas, n modes of every reference.

    image: (S, R) index into `images`, -1 too far from all; rmsd, displacement: (S, R) mass-weighted rmsd from the nearest image
    and distance of the atom farthest from its place in it, bohr; velocity: (S, R, n) dQ/dt of the modes of the frame's own
    reference, 0 where there is none; rotation: (S, R, 3, 3) from the frame of the image to the laboratory.
    """

    references: tuple[Reference, ...]
    images: tuple[Image, ...]
    image: np.ndarray
    rmsd: np.ndarray
    displacement: np.ndarray
    velocity: np.ndarray
    rotation: np.ndarray

    @property
    def reference(self) -> np.ndarray:
        """(S, R) index of the reference of every frame, -1 where there is none."""
        return np.append([i.reference for i in self.images], -1)[self.image]

    @property
    def population(self) -> np.ndarray:
        """(C,) share of all frames that belongs to each reference; one minus their sum belongs to none."""
        return np.array([(self.reference == c).mean() for c in range(len(self.references))])

    @property
    def unassigned(self) -> float:
        return float((self.image < 0).mean())


def project(
    number: np.ndarray,
    mass: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    references: Sequence[Reference],
    *,
    max_displacement: float = MAX_DISPLACEMENT,
    permutations: Sequence[np.ndarray] | None = None,
    mirror: bool = True,
) -> Projection:
    """Assign every frame to its nearest reference and project its velocities on the normal modes there.

    number, mass: (N,); position, velocity: (S, R, N, 3) atomic units, any orientation; max_displacement: bohr; permutations:
    of equal atoms, (N,) each, by default all that keep the bonds; mirror: whether mirror images of a reference count as it.
    Raises SpectrumError: no reference, other atoms or masses than the references', wrong shapes, NaN, linear references.
    """
    position, velocity = np.asarray(position, dtype=np.float64), np.asarray(velocity, dtype=np.float64)
    _check(np.asarray(number), mass, position, velocity, references)
    n_frames, n_replicas, n_atoms, _ = position.shape
    flat, moving = position.reshape(-1, n_atoms, 3), velocity.reshape(-1, n_atoms, 3)
    found = images(references, flat, permutations, mirror)
    if not found:
        raise SpectrumError(
            "the neighbours of an atom lie the other way round in every frame than in every reference; expected the same "
            "molecule; allow mirror images or give references of the same handedness"
        )
    targets = np.stack([image.position(references[image.reference].modes) for image in found])
    n_modes = references[0].modes.vector.shape[1]
    index, rmsd, displacement = np.full(len(flat), -1), np.empty(len(flat)), np.empty(len(flat))
    projected, rotations = np.zeros((len(flat), n_modes)), np.empty((len(flat), 3, 3))
    share = mass / mass.sum()
    for start in range(0, len(flat), max(1, FRAMES_AT_ONCE // len(found))):
        block = slice(start, start + max(1, FRAMES_AT_ONCE // len(found)))
        x = flat[block] - np.einsum("a,fai->fi", share, flat[block])[:, None]
        v = moving[block] - np.einsum("a,fai->fi", share, moving[block])[:, None]
        rotation, distance = superpose(mass, x, targets)
        nearest = distance.argmin(axis=1)
        rmsd[block] = distance.min(axis=1)
        rotations[block] = rotation[np.arange(len(x)), nearest]
        displacement[block] = np.linalg.norm(x @ rotations[block] - targets[nearest], axis=2).max(axis=1)
        index[block] = np.where(displacement[block] <= max_displacement, nearest, -1)
        for i in np.unique(index[block][index[block] >= 0]):
            mine = np.flatnonzero(index[block] == i)
            inside = body_velocity(mass, x[mine], v[mine], rotations[block][mine], targets[i])
            weighted = (np.sqrt(mass)[:, None] * inside).reshape(len(mine), -1)
            projected[start + mine] = weighted @ found[i].vector(references[found[i].reference].modes)
    shape = (n_frames, n_replicas)
    return Projection(
        references=tuple(references),
        images=tuple(found),
        image=index.reshape(shape),
        rmsd=rmsd.reshape(shape),
        displacement=displacement.reshape(shape),
        velocity=projected.reshape(*shape, n_modes),
        rotation=rotations.reshape(*shape, 3, 3),
    )


def _check(
    number: np.ndarray, mass: np.ndarray, position: np.ndarray, velocity: np.ndarray, references: Sequence[Reference]
) -> None:
    if not references:
        raise SpectrumError("there is no reference; expected at least one minimum with its normal modes; give harmonic data")
    expected = (*position.shape[:2], number.size, 3)
    if position.ndim != 4 or position.shape != expected or velocity.shape != expected:
        raise SpectrumError(
            f"positions and velocities have shapes {position.shape} and {velocity.shape}; expected (frames, replicas, "
            f"{number.size}, 3); check the trajectory"
        )
    if not (np.isfinite(position).all() and np.isfinite(velocity).all()):
        raise SpectrumError("positions or velocities hold NaN or infinity; expected finite numbers; leave failed replicas out")
    for reference in references:
        modes = reference.modes
        if not np.array_equal(modes.number, number):
            raise SpectrumError(
                f"reference {reference.name} is of atoms {modes.number.tolist()}, the trajectory of {number.tolist()}; "
                "expected the same molecule in the same atom order; use the same geometry for both"
            )
        if modes.imaginary.any():
            raise SpectrumError(
                f"reference {reference.name} has {modes.imaginary.sum()} imaginary modes; expected a minimum; "
                "python -m densnet.harmonic with optimisation.follow=true finds one"
            )
        if not np.allclose(modes.mass, mass, rtol=1e-3):
            raise SpectrumError(f"masses of reference {reference.name} differ from the trajectory's; expected the same isotopes")
        if modes.n_rigid != 6:
            raise SpectrumError(
                f"reference {reference.name} is linear and has no Eckart frame of its own; expected a bent molecule; "
                "assign linear molecules by their harmonic lines"
            )
