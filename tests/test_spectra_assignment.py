"""Modes of a trajectory against trajectories made of known modes, turning, hopping and with their atoms exchanged."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from ase.data import atomic_masses
from scipy.spatial.transform import Rotation

from densnet.errors import SpectrumError
from densnet.spectra.assignment import mode_infrared, mode_spectra
from densnet.spectra.assignment_figure import leading
from densnet.spectra.assignment_report import write_assignment
from densnet.spectra.band_table import Share, area_between, band_limits
from densnet.spectra.correlation import Window, WindowKind
from densnet.spectra.eckart import Reference, automorphisms, bonded
from densnet.spectra.harmonic import NormalModes, normal_modes
from densnet.spectra.infrared import Recipe, infrared_spectrum
from densnet.spectra.internal_coordinates import energy_shares, internal_coordinates
from densnet.spectra.projection import project
from densnet.units import ANGSTROM_PER_BOHR, BOLTZMANN, CM1_PER_AU, ELECTRON_MASS_PER_DALTON, FS_PER_AU

STEP = 1.0 / FS_PER_AU
KELVIN = 300.0
WINDOW = Window(WindowKind.GAUSSIAN, 15.0)


def field(number, position, stretch=0.5, bend=0.1, torsion=0.01, charges=None) -> NormalModes:
    """Modes of a force field diagonal in the internal coordinates, whose minimum is the position; point charges."""
    number, position = np.asarray(number), np.asarray(position, dtype=float)
    internals = internal_coordinates(number, position)
    constant = {"stretch": stretch, "bend": bend, "torsion": torsion, "out of plane": bend}
    k = np.array([constant[c.kind.value] for c in internals.coordinates])
    hessian = internals.b_matrix.T @ (k[:, None] * internals.b_matrix)
    charges = np.linspace(-0.4, 0.4, number.size) if charges is None else np.asarray(charges)
    mass = atomic_masses[number] * ELECTRON_MASS_PER_DALTON
    return normal_modes(number, mass, position, hessian, np.kron(charges[:, None], np.eye(3)))


WATER = field([8, 1, 1], [[0.0, 0.0, 0.22], [0.0, 1.43, -0.89], [0.0, -1.43, -0.89]], charges=[-0.66, 0.33, 0.33])


def methanol(torsion: float = 0.0, stiffness: float = 0.01) -> NormalModes:
    """Staggered at 0 degrees, C1 symmetry elsewhere; the force field has its minimum at any torsion."""
    height, radius = 0.4 / ANGSTROM_PER_BOHR, 1.03 / ANGSTROM_PER_BOHR
    angle = np.radians([60.0, 180.0, 300.0])
    hydrogens = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(3, -height)], axis=1)
    oxygen = [0.0, 0.0, 1.42 / ANGSTROM_PER_BOHR]
    t = np.radians(torsion)
    hydroxyl = np.array([0.93 * np.cos(t), 0.93 * np.sin(t), 1.72]) / ANGSTROM_PER_BOHR
    charges = [0.15, -0.6, 0.4, 0.02, 0.01, 0.02]
    return field([6, 8, 1, 1, 1, 1], [[0.0, 0.0, 0.0], oxygen, hydroxyl, *hydrogens], torsion=stiffness, charges=charges)


def motion(modes: NormalModes, n_frames=6000, n_replicas=4, seed=5, scale=1.0, energy=None, step=STEP):
    """Exact motion in the modes: Q, dQ/dt (S, R, n) and positions, velocities (S, R, N, 3) about the minimum, not turning."""
    rng = np.random.default_rng(seed)
    omega = modes.frequency_cm1 / CM1_PER_AU
    shape = (n_replicas, omega.size)
    energy = rng.exponential(size=shape) if energy is None else np.broadcast_to(energy, shape)
    amplitude = scale * np.sqrt(2.0 * energy * BOLTZMANN * KELVIN) / omega
    angle = omega * step * np.arange(n_frames)[:, None, None] + rng.uniform(0.0, 2.0 * np.pi, shape)
    q, p = amplitude * np.cos(angle), -amplitude * omega * np.sin(angle)
    root, n = np.sqrt(modes.mass)[:, None], modes.mass.size
    centred = modes.position - modes.mass @ modes.position / modes.mass.sum()
    position = centred + (q @ modes.vector.T).reshape(n_frames, n_replicas, n, 3) / root
    return q, p, position, (p @ modes.vector.T).reshape(position.shape) / root


def turned(position: np.ndarray, velocity: np.ndarray, per_ps=(3.0, -5.0, 4.0), drift=(1e-4, 2e-4, -1e-4)):
    """The same in a laboratory in which the molecule drifts and rotates (rad/ps); also the rotations (S, R, 3, 3)."""
    omega = np.array(per_ps) / 1000.0 * FS_PER_AU
    time = np.arange(len(position)) * STEP
    start = Rotation.random(position.shape[1], random_state=2)
    spin = Rotation.from_rotvec(time[:, None] * omega)
    matrix = np.stack([(spin * s).as_matrix() for s in start], axis=1)
    turned_position = np.einsum("srij,sraj->srai", matrix, position)
    turned_velocity = np.einsum("srij,sraj->srai", matrix, velocity) + np.cross(omega, turned_position)
    shift = time[:, None, None, None] * np.array(drift)
    return turned_position + shift, turned_velocity + np.array(drift), matrix


@pytest.mark.parametrize("modes", [WATER, methanol(), methanol(25.0)], ids=["water", "methanol", "methanol25"])
def test_rotation_does_not_leak_into_the_modes(modes):
    """Fast rotation (40 cm^-1 and more), large amplitudes: the mode velocities come back to round-off."""
    _, p, position, velocity = motion(modes, n_frames=300, scale=0.7)
    position, velocity, matrix = turned(position, velocity, per_ps=(9.0, -6.0, 4.0))
    kept = {"max_displacement": 9.0, "permutations": [np.arange(modes.number.size)], "mirror": False}
    found = project(modes.number, modes.mass, position, velocity, [Reference("a", modes)], **kept)
    assert np.abs(found.velocity - p).max() < 1e-10 * np.abs(p).max()
    assert np.abs(found.rotation - matrix).max() < 1e-7  # the frame itself
    assert found.unassigned == 0.0


def test_without_the_velocity_of_the_frame_rotation_would_leak():
    """The planted error of the test above: velocities turned into the frame, its angular velocity forgotten."""
    _, p, position, velocity = motion(WATER, n_frames=300, scale=0.7)
    position, velocity, matrix = turned(position, velocity)
    centred = velocity - np.einsum("a,srai->sri", WATER.mass / WATER.mass.sum(), velocity)[:, :, None]
    body = np.einsum("srji,sraj->srai", matrix, centred) * np.sqrt(WATER.mass)[:, None]
    assert np.abs(body.reshape(*p.shape[:2], -1) @ WATER.vector - p).max() > 1e-2 * np.abs(p).max()


def test_body_velocity_is_the_time_derivative_of_the_body_coordinates():
    """Far from small displacements, for a motion that is no normal mode at all: against finite differences."""
    modes, rng = methanol(10.0), np.random.default_rng(3)
    n, time = modes.number.size, np.arange(-1, 2) * 1e-2
    spread, speed = rng.normal(scale=0.25, size=(n, 3)), rng.normal(scale=0.02, size=(n, 3))
    position = (modes.position + spread + time[:, None, None] * speed)[:, None]
    velocity = np.broadcast_to(speed, position.shape)
    kept = {"max_displacement": 9.0, "permutations": [np.arange(n)], "mirror": False}
    found = project(modes.number, modes.mass, position, velocity, [Reference("a", modes)], **kept)
    centred = position[:, 0] - np.einsum("a,sai->si", modes.mass / modes.mass.sum(), position[:, 0])[:, None]
    weighted = (centred @ found.rotation[:, 0] * np.sqrt(modes.mass)[:, None]).reshape(3, -1) @ modes.vector
    assert found.velocity[1, 0] == pytest.approx((weighted[2] - weighted[0]) / 0.02, rel=1e-6, abs=1e-9)


def test_frequencies_and_equipartition_of_known_modes():
    modes = methanol()
    _, _, position, velocity = motion(modes, energy=1.0)
    position, velocity, _ = turned(position, velocity)
    found = project(modes.number, modes.mass, position, velocity, [Reference("a", modes)], max_displacement=2.0)
    spectra = mode_spectra(found, STEP, KELVIN, WINDOW)
    assert found.unassigned == 0.0
    for k, frequency in enumerate(modes.frequency_cm1):
        line = spectra.density[0, k]
        assert spectra.wavenumber_cm1[line.argmax()] == pytest.approx(frequency, abs=1.0)
        assert spectra.freedom[0, k] == pytest.approx(1.0, abs=0.02)
        near = area_between(spectra.wavenumber_cm1, line, frequency - 50.0, frequency + 50.0)
        assert near == pytest.approx(1.0, abs=0.03)  # everything of a mode lies in its line
    total = area_between(spectra.wavenumber_cm1, spectra.weighted.sum(axis=(0, 1)), 0.0, 4500.0)
    assert total == pytest.approx(3 * 6 - 6, rel=0.01)


def test_error_of_a_mode_spectrum_covers_the_canonical_spread():
    """Energies of variance (kT)^2: the integral of a line has a standard error of 1/sqrt(replicas)."""
    _, _, position, velocity = motion(WATER, n_frames=2500, n_replicas=64)
    found = project(WATER.number, WATER.mass, position, velocity, [Reference("a", WATER)])
    wide = Window(WindowKind.HANN, 30.0)
    spectra = mode_spectra(found, STEP, KELVIN, wide)
    top = spectra.density[0].argmax(axis=1)
    relative = spectra.error[0, np.arange(3), top] / spectra.density[0, np.arange(3), top]
    assert relative == pytest.approx(np.full(3, 1.0 / 8.0), rel=0.5)
    alone = mode_spectra(replace_replicas(found, 1), STEP, KELVIN, wide)
    assert np.isnan(alone.error).all()


def replace_replicas(found, n):
    return replace(found, **{k: getattr(found, k)[:, :n] for k in ("image", "rmsd", "displacement", "velocity", "rotation")})


def linear_dipole(modes, q, matrix):
    """Permanent dipole and dmu/dQ Q of the model, in the laboratory."""
    return np.einsum("srij,srj->sri", matrix, np.array([0.3, -0.2, 0.6]) + q @ modes.dipole_derivative)


def test_shares_of_the_infrared_spectrum_are_the_harmonic_intensities():
    """Each mode gets its own km/mol, with the permanent dipole turning; nothing is left but the rotation at low wavenumbers."""
    modes = methanol()
    q, _, position, velocity = motion(modes, energy=1.0, n_frames=8000)
    position, velocity, matrix = turned(position, velocity, per_ps=(0.5, -0.3, 0.6))
    dipole = linear_dipole(modes, q, matrix)
    found = project(modes.number, modes.mass, position, velocity, [Reference("a", modes)], max_displacement=2.0)
    parts = mode_infrared(found, dipole, STEP, KELVIN, WINDOW)
    spectrum = infrared_spectrum(dipole, STEP, KELVIN, Recipe(WINDOW))
    assert parts.total == pytest.approx(spectrum.density_km_mol, rel=1e-9, abs=1e-12)
    grid = parts.wavenumber_cm1
    for k, (frequency, intensity) in enumerate(zip(modes.frequency_cm1, modes.intensity_km_mol)):
        got = area_between(grid, parts.density[0, k], 0.0, 4500.0)
        assert got == pytest.approx(intensity, rel=0.02, abs=0.02 * modes.intensity_km_mol.max()), frequency
        assert grid[parts.density[0, k].argmax()] == pytest.approx(frequency, abs=2.0) or intensity < 1.0
    assert np.abs(parts.rest[grid > 150.0]).max() < 0.01 * parts.total.max()


def test_velocities_of_verlet_are_corrected():
    """Central differences over 2h, as velocity Verlet records them: without the correction 3700 cm^-1 would lose 5 %."""
    bent = WATER
    q, p, position, _ = motion(bent, energy=1.0)
    h = 0.8 / FS_PER_AU
    omega = bent.frequency_cm1 / CM1_PER_AU
    vector = bent.vector.T.reshape(-1, 3, 3) / np.sqrt(bent.mass)[:, None]
    recorded = np.einsum("srm,mai->srai", p * np.sinc(omega * h / np.pi), vector)
    dipole = linear_dipole(bent, q, np.broadcast_to(np.eye(3), (*q.shape[:2], 3, 3)))
    found = project(bent.number, bent.mass, position, recorded, [Reference("a", bent)])
    stretch = int(bent.intensity_km_mol[1:].argmax()) + 1
    got = [
        float(area_between(part.wavenumber_cm1, part.density[0, stretch], 0.0, 4500.0)) / bent.intensity_km_mol[stretch]
        for part in (mode_infrared(found, dipole, STEP, KELVIN, WINDOW, integration_step=s) for s in (h, None))
    ]
    assert got[0] == pytest.approx(1.0, abs=0.01)
    assert got[1] < 0.97


def hopping(kept: NormalModes, n_frames: int):
    """Methanol whose methyl hydrogens change places by rotation at a third and two thirds of the run."""
    q, _, position, velocity = motion(kept, n_frames=n_frames, energy=1.0)
    orders = [[0, 1, 2, 3, 4, 5], [0, 1, 2, 4, 5, 3], [0, 1, 2, 5, 3, 4]]
    third = n_frames // 3
    for n, order in enumerate(orders):
        block = slice(n * third, n_frames if n == 2 else (n + 1) * third)
        position[block], velocity[block] = position[block][:, :, order], velocity[block][:, :, order]
    return q, position, velocity


def test_methyl_hydrogens_that_change_places_keep_their_modes():
    modes = methanol()
    q, position, velocity = hopping(modes, 6000)
    position, velocity, matrix = turned(position, velocity)
    found = project(modes.number, modes.mass, position, velocity, [Reference("a", modes)])
    assert len(found.images) == 3  # of 6 permutations and 2 mirror images, the three rotations of the methyl group
    used = [np.unique(found.image[a : a + 2000]) for a in (0, 2000, 4000)]
    assert all(u.size == 1 for u in used)
    assert len({int(u[0]) for u in used}) == 3
    spectra = mode_spectra(found, STEP, KELVIN, WINDOW)
    assert spectra.freedom[0] == pytest.approx(np.ones(12), abs=0.05)
    # Only pairs of frames of one image are counted, so hops do not widen the lines.
    _, _, *still = motion(modes, n_frames=6000, energy=1.0)
    alike = mode_spectra(project(modes.number, modes.mass, *still, [Reference("a", modes)]), STEP, KELVIN, WINDOW)
    assert spectra.density[0].max(axis=1) == pytest.approx(alike.density[0].max(axis=1), rel=0.08)
    parts = mode_infrared(found, linear_dipole(modes, q, matrix), STEP, KELVIN, WINDOW)
    # The reference has a mirror plane: through it an image may take each mode with either sign, its intensity is the same.
    got = area_between(parts.wavenumber_cm1, parts.density[0], 0.0, 4500.0)
    assert got == pytest.approx(modes.intensity_km_mol, rel=0.05, abs=0.02 * modes.intensity_km_mol.max())
    fixed = project(modes.number, modes.mass, position, velocity, [Reference("a", modes)], permutations=[np.arange(6)])
    assert fixed.unassigned == pytest.approx(2 / 3, abs=0.01)  # with the identity alone, two thirds are noticed


def test_conformers_are_told_apart_and_mirror_images_are_one():
    """A staggered minimum and a chiral one with its mirror image; without the chiral reference its frames are counted out."""
    here, there, mirror = (methanol(angle, stiffness=0.2) for angle in (0.0, 30.0, -30.0))
    frames = [motion(m, n_frames=1200, energy=0.5, seed=7) for m in (here, there, mirror)]
    pieces = [(m, *(x[:length] for x in f)) for m, f, length in zip((here, there, mirror), frames, (800, 1200, 1200))]
    position, velocity, matrix = turned(*(np.concatenate([piece[n] for piece in pieces]) for n in (3, 4)))
    dipole = np.concatenate([linear_dipole(m, q, np.broadcast_to(np.eye(3), (*q.shape[:2], 3, 3))) for m, q, *_ in pieces])
    dipole = np.einsum("srij,srj->sri", matrix, dipole)
    references = [Reference("staggered", here), Reference("chiral", there)]
    found = project(here.number, here.mass, position, velocity, references)
    assert sorted((i.reference, i.mirrored) for i in found.images) == [(0, False)] * 3 + [(1, False)] * 3 + [(1, True)] * 3
    assert (found.reference == np.repeat([0, 1, 1], [800, 1200, 1200])[:, None]).all()
    hand = np.array([i.mirrored for i in found.images])[found.image]
    assert not hand[800:2000].any()
    assert hand[2000:].all()
    spectra = mode_spectra(found, STEP, KELVIN, Window(WindowKind.HANN, 60.0))
    assert spectra.population == pytest.approx([0.25, 0.75])
    assert spectra.freedom[:, 1:] == pytest.approx(np.full((2, 11), 0.5), abs=0.03)
    # Every third of the chiral frames' dipoles is the mirror image of another; only with their sign do they add up.
    parts = mode_infrared(found, dipole, STEP, KELVIN, Window(WindowKind.HANN, 60.0))
    got = area_between(parts.wavenumber_cm1, parts.density[1], 0.0, 4500.0)
    strong = there.intensity_km_mol > 0.2 * there.intensity_km_mol.max()
    assert got[strong] == pytest.approx(0.75 * 0.5 * there.intensity_km_mol[strong], rel=0.15)
    calm = [np.concatenate([motion(m, n_frames=50, scale=0.2, energy=0.5)[n] for m in (here, there, mirror)]) for n in (2, 3)]
    tight = project(here.number, here.mass, *calm, references[:1], max_displacement=0.2 / ANGSTROM_PER_BOHR)
    assert ((tight.image < 0) == (np.arange(150) >= 50)[:, None]).all()
    assert not tight.velocity[tight.image < 0].any()


def test_a_reference_that_no_frame_belongs_to_is_not_a_number():
    here, there = methanol(), methanol(60.0)
    _, _, position, velocity = motion(here, n_frames=1500, scale=0.3)
    found = project(here.number, here.mass, position, velocity, [Reference("a", here), Reference("b", there)])
    spectra = mode_spectra(found, STEP, KELVIN, Window(WindowKind.HANN, 30.0))
    assert found.population.tolist() == [1.0, 0.0]
    assert np.isnan(spectra.density[1]).all()
    assert np.isnan(spectra.freedom[1]).all()
    assert np.isfinite(spectra.density[0]).all()


@pytest.mark.parametrize(
    ("number", "edges", "count"),
    [
        ([6, 6, *[1] * 6], [(0, 1), *((0, i) for i in (2, 3, 4)), *((1, i) for i in (5, 6, 7))], 72),  # ethane: 3! 3! 2
        ([6] * 6 + [1] * 6, [*((i, (i + 1) % 6) for i in range(6)), *((i, i + 6) for i in range(6))], 12),  # benzene
        ([8, 1, 1, 8, 1, 1], [(0, 1), (0, 2), (3, 4), (3, 5)], 8),  # two waters
        ([7, 1, 1, 1], [(0, 1), (0, 2), (0, 3)], 6),
    ],
)
def test_automorphisms(number, edges, count):
    n = len(number)
    bonds = np.zeros((n, n), dtype=bool)
    for i, j in edges:
        bonds[i, j] = bonds[j, i] = True
    found = automorphisms(np.array(number), bonds)
    assert len(found) == count
    assert found[0].tolist() == list(range(n))
    if n <= 6:  # all permutations, tried one by one
        all_ways = [p for p in permutations(range(n)) if np.array_equal(np.array(number)[list(p)], number)]
        assert count == sum(np.array_equal(bonds[np.ix_(p, p)], bonds) for p in all_ways)
    with pytest.raises(SpectrumError, match="permutations"):
        automorphisms(np.array(number), bonds, limit=count - 1)


def test_shares_of_internal_coordinates_are_potential_energies():
    """For a force field diagonal in coordinates that are not redundant, S_ik is k_i D_ik^2 / w_k^2 and nothing else."""
    modes = methanol(20.0)
    internals = internal_coordinates(modes.number, modes.position)
    assert len(internals.coordinates) == np.linalg.matrix_rank(internals.b_matrix, tol=1e-6) == 12
    shares = energy_shares(modes, internals)
    constant = {"stretch": 0.5, "bend": 0.1, "torsion": 0.01}
    k = np.array([constant[c.kind.value] for c in internals.coordinates])
    change = internals.b_matrix @ (modes.vector / np.sqrt(np.repeat(modes.mass, 3))[:, None])
    assert shares == pytest.approx(k[:, None] * change**2 / (modes.frequency_cm1 / CM1_PER_AU) ** 2, abs=1e-6)
    assert shares.sum(axis=0) == pytest.approx(np.ones(12), abs=1e-9)
    names = [c.group for c in internals.coordinates]
    assert sorted(set(names)) == [
        "C-O stretch", "C-O torsion", "C-O-H bend", "CH3 antisymmetric stretch", "CH3 deformation", "CH3 rock",
        "CH3 symmetric stretch", "CH3 umbrella", "O-H stretch",
    ]  # fmt: skip
    assert names[int(shares[:, -1].argmax())] in ("O-H stretch", "CH3 antisymmetric stretch")
    assert names[int(shares[:, 0].argmax())] == "C-O torsion"


@pytest.mark.parametrize("name", ["H2CO", "C2H2", "C6H6", "C3H4_C3v", "CH4", "NH3", "butadiene", "H2O"])
def test_internal_coordinates_describe_every_vibration(name):
    """Linear, planar, cyclic: shares sum to one, so the coordinates miss nothing (torsion across C#C in propyne excepted)."""
    from ase.build import molecule

    atoms = molecule(name)
    position = atoms.positions / ANGSTROM_PER_BOHR
    modes = field(atoms.numbers, position + np.random.default_rng(0).normal(scale=1e-3, size=position.shape))
    internals = internal_coordinates(modes.number, position)
    shares = energy_shares(modes, internals)
    linear = name == "C2H2"
    assert shares.sum(axis=0)[(0 if not linear else 1) :] == pytest.approx(1.0, abs=1e-6)
    assert np.isfinite(shares).all()


def test_two_molecules_have_vibrations_between_them():
    from ase.build import molecule

    one = molecule("H2O")
    number = np.concatenate([one.numbers] * 2)
    position = np.concatenate([one.positions, one.positions + np.array([0.0, 0.0, 3.0])]) / ANGSTROM_PER_BOHR
    modes = field(number, position)
    shares = energy_shares(modes, internal_coordinates(number, position)).sum(axis=0)
    assert sorted(np.round(shares, 6).tolist()) == [0.0] * 6 + [1.0] * 6
    assert not bonded(number, position)[:3, 3:].any()


def report(tmp_path, **more):
    modes = methanol()
    q, _, position, velocity = motion(modes, n_frames=4000, n_replicas=6)
    position, velocity, matrix = turned(position, velocity, per_ps=(0.5, -0.3, 0.6))
    dipole = linear_dipole(modes, q, matrix)
    spectrum = infrared_spectrum(dipole, STEP, KELVIN, Recipe(WINDOW))
    arguments = {"source": "made", "max_displacement": 2.0, **more}
    atoms = (modes.number, modes.mass, position, velocity, dipole)
    return modes, write_assignment(tmp_path, spectrum, [Reference("a", modes)], *atoms, **arguments)


class Parts:
    """A dipole change of which a quarter moves, three quarters flow, and something at right angles deforms to no effect."""

    def __init__(self, modes):
        self.moving, self.flowing = 0.25 * modes.dipole_derivative, 0.75 * modes.dipole_derivative
        self.deforming = np.zeros_like(self.moving)


def test_report_on_disk(tmp_path, caplog):
    modes = methanol()
    with caplog.at_level(logging.INFO):
        _, found = report(tmp_path / "new" / "folder", flows=[Parts(modes)], title="made")
    folder = tmp_path / "new" / "folder"
    assert {f.name for f in folder.iterdir()} == {f"assignment{s}" for s in (".csv", "_modes.csv", ".json", ".png", ".svg")}
    stored = json.loads((folder / "assignment.json").read_text())
    assert stored["unassigned"] == found.unassigned == 0.0
    rows = list(csv.DictReader(x for x in (folder / "assignment.csv").read_text().splitlines() if not x.startswith("#")))
    assert len(rows) == len(found.bands) > 2
    top = found.bands[-1]
    assert top.label.startswith("O-H stretch")
    assert float(rows[-1]["moving_H"]) > 0.9
    assert float(rows[-1]["moving_charge"]) == pytest.approx(0.25, abs=1e-3)
    for band in found.bands:
        assert sum(p.share for p in band.parts) + band.rest == pytest.approx(1.0, abs=1e-9)
        assert sum(s.share for s in band.atoms) == pytest.approx(1.0, abs=1e-9)
        assert band.low_cm1 <= band.peak_cm1 <= band.high_cm1
        assert (band.error_km_mol or 0.0) > 0.0
    strong = [b for b in found.bands if b.low_cm1 > 150.0]
    assert all(abs(b.rest) < 0.03 for b in strong)
    by_line = {p.number: 0.0 for p in top.parts}
    for band in strong:
        for part in band.parts:
            by_line[part.number] += part.km_mol
    mode = int(modes.intensity_km_mol.argmax())
    assert by_line[mode + 1] == pytest.approx(modes.intensity_km_mol[mode], rel=0.9)  # canonical energies of 6 replicas
    assert found.modes[0][mode].origin is not None
    assert "O-H stretch" in caplog.text
    assert "every reference" not in caplog.text


def test_report_says_how_many_frames_it_left_out(tmp_path, caplog):
    _, found = report(tmp_path, max_displacement=0.25 / ANGSTROM_PER_BOHR)
    assert 0.05 < found.unassigned < 0.95
    assert f"{100.0 * found.unassigned:.1f} %" in caplog.text
    assert f"none {100.0 * found.unassigned:.1f} %" in (tmp_path / "assignment.csv").read_text()
    assert found.bands[0].origin is None


def test_bands_are_cut_where_maxima_stand_apart():
    """Two lines 60 cm^-1 apart at 15 cm^-1 resolution are two bands, 12 apart one; without a maximum there is none."""
    time = np.arange(6000) * STEP
    for gap, count in ((60.0, 2), (12.0, 1)):
        lines = [np.cos(w / CM1_PER_AU * time[:, None] + np.arange(4)) for w in (1500.0, 1500.0 + gap)]
        dipole = np.stack([*lines, np.zeros_like(lines[0])], axis=2)
        spectrum = infrared_spectrum(dipole, STEP, KELVIN, Recipe(WINDOW))
        limits = band_limits(spectrum, np.array([1500.0, 1500.0 + gap]))
        assert len(limits) == count
        assert limits[0][0] < 1500.0 < limits[-1][1]
        if count == 2:
            assert limits[0][1] == limits[1][0] == pytest.approx(1530.0, abs=2.0)
    assert band_limits(spectrum, np.empty(0)) == []


def fails(match, **change):
    _, _, position, velocity = motion(WATER, n_frames=60)
    arguments = {"number": WATER.number, "mass": WATER.mass, "position": position, "velocity": velocity}
    arguments |= {"references": [Reference("a", WATER)], **change}
    with pytest.raises(SpectrumError, match=match) as caught:
        project(**arguments)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_assigned_is_said_in_one_line():
    saddle = replace(WATER, frequency_cm1=WATER.frequency_cm1 * np.array([-1.0, 1.0, 1.0]))
    fails("has 1 imaginary modes; expected a minimum", references=[Reference("a", saddle)])
    _, _, position, velocity = motion(WATER, n_frames=60)
    fails("no reference", references=[])
    fails("shapes", velocity=velocity[:, :, :2])
    fails("atoms", number=np.array([1, 8, 1]))
    fails("masses", mass=2.0 * WATER.mass)
    broken = position.copy()
    broken[3, 0, 0, 0] = np.nan
    fails("NaN", position=broken)
    straight = field([8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.83], [0.0, 0.0, -1.83]])
    fails("linear", references=[Reference("a", straight)])
    found = project(WATER.number, WATER.mass, position, velocity, [Reference("a", WATER)])
    with pytest.raises(SpectrumError, match="window"):
        mode_spectra(found, STEP, KELVIN, WINDOW)
    with pytest.raises(SpectrumError, match="dipoles"):
        mode_infrared(found, position[:, :, 0, :2], STEP, KELVIN, WINDOW)
    with pytest.raises(SpectrumError, match="dipoles"):
        mode_infrared(found, None, STEP, KELVIN, WINDOW)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"C-O stretch": 0.300, "C-C stretch": 0.291, "CH3 rock": 0.16}, "C-O/C-C stretch"),
        ({"C-O stretch": 0.33, "CH3 rock": 0.32, "C-C stretch": 0.31}, "C-O stretch, CH3 rock"),
        ({"C-C-O bend": 0.56, "C-O torsion": 0.20}, "C-C-O bend"),
        ({"CH3 antisymmetric stretch": 0.87}, "CH3 antisymmetric stretch"),
    ],
)
def test_a_band_is_named_after_those_that_lead_it(shares: dict[str, float], expected: str) -> None:
    """One percent more or less must not change the name that a figure gives to a band."""
    assert leading([Share(name, share) for name, share in shares.items()]) == expected
