"""Geometry optimisation and harmonic analysis of models whose answer is known: GF matrices, saddle points, poor starts."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from analytic_models import (
    F_A,
    F_R,
    F_RA,
    F_RR,
    R0,
    THETA0,
    Analytic,
    as_model,
    double_well,
    valence_water,
    water_geometry,
)
from conftest import random_rotation

from densnet.data.harmonic import HarmonicData
from densnet.errors import BasisError, ConfigError, ModelError
from densnet.model.densnet import DensNet
from densnet.model.derivatives import model_harmonic, optimise
from densnet.model.optimisation import OptimisationSettings, changed_bonds, internal_directions
from densnet.spectra.harmonic import KM_MOL_PER_AU, normal_modes_of
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import ANGSTROM_PER_BOHR, CM1_PER_AU, ELECTRON_MASS_PER_DALTON

CHARGES = [-0.7, 0.35, 0.35]


def water(start: Molecule | None = None, settings: OptimisationSettings | None = None) -> HarmonicData:
    return model_harmonic(as_model(Analytic(valence_water, CHARGES)), start or water_geometry(), settings)


def wilson() -> np.ndarray:
    """Frequencies of bent XY2 from Wilson's G and F matrices in symmetry coordinates (Wilson, Decius, Cross, chapter 4)."""
    x, y = 1 / (15.999 * ELECTRON_MASS_PER_DALTON), 1 / (1.008 * ELECTRON_MASS_PER_DALTON)
    cos, sin = np.cos(THETA0), np.sin(THETA0)
    g = np.array([[y + x * (1 + cos), -np.sqrt(2) * x * sin / R0], [-np.sqrt(2) * x * sin / R0, 2 * (y + x * (1 - cos)) / R0**2]])
    f = np.array([[F_R + F_RR, np.sqrt(2) * F_RA], [np.sqrt(2) * F_RA, F_A]])
    symmetric = np.linalg.eigvals(g @ f)
    antisymmetric = (F_R - F_RR) * (y + x * (1 - cos))
    return np.sqrt(np.sort([*symmetric, antisymmetric])) * CM1_PER_AU


def test_bent_triatomic_has_the_frequencies_of_the_gf_method() -> None:
    modes = normal_modes_of(water())
    assert modes.frequency_cm1 == pytest.approx(wilson(), rel=1e-7)
    assert modes.n_rigid == 6
    # The three intensities share sum over atoms q^2/m less what rigid motion carries; the antisymmetric one in closed form:
    # motion of Y along the bonds with opposite signs, of X against them.
    x, y = 15.999 * ELECTRON_MASS_PER_DALTON, 1.008 * ELECTRON_MASS_PER_DALTON
    u = np.array([np.sin(THETA0 / 2), np.cos(THETA0 / 2)])
    lever = u[0] * 2 * y / x  # of X for each unit along the bonds; no angular momentum by symmetry of the G matrix element
    gradient = np.array([[-2 * u[0], 0.0], u, -u * [-1.0, 1.0]]) / np.sqrt(2)  # dS/dx of S = (r1 - r2)/sqrt 2: X, Y, Y'
    g = (gradient[0] ** 2).sum() / x + (gradient[1:] ** 2).sum() / y
    move = gradient / np.array([x, y, y])[:, None] / np.sqrt(g)  # dx/dQ, the only motion of its symmetry
    assert g == pytest.approx(1 / y + (1 - np.cos(THETA0)) / x)
    assert move[0, 0] == pytest.approx(-lever * np.sqrt(y * y / g) / y / np.sqrt(2) / y)
    slope = (np.array(CHARGES)[:, None] * move).sum(axis=0)
    assert modes.intensity_km_mol[2] == pytest.approx((slope**2).sum() * KM_MOL_PER_AU, rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_poor_starts_end_in_the_same_minimum(seed: int) -> None:
    """Displaced by half a bohr and turned, where the Hessian has negative curvature."""
    rng = np.random.default_rng(seed)
    start = water_geometry()
    start = start.moved((start.position + rng.normal(scale=0.5, size=(3, 3))) @ random_rotation(seed).T + rng.normal(size=3))
    found = water(start)
    assert found.energy == pytest.approx(0.0, abs=1e-10)
    assert normal_modes_of(found).frequency_cm1 == pytest.approx(wilson(), rel=1e-5)
    assert np.abs(found.dipole_derivative.sum()) < 1e-9


def test_frame_of_reference_changes_nothing() -> None:
    turn = random_rotation(5)
    start = water_geometry(1.6, 1.9)
    here, there = (normal_modes_of(water(m)) for m in (start, start.moved(start.position @ turn.T + [3.0, -1.0, 8.0])))
    assert there.frequency_cm1 == pytest.approx(here.frequency_cm1, rel=1e-8)
    assert there.intensity_km_mol == pytest.approx(here.intensity_km_mol, rel=1e-7)


def test_a_saddle_point_is_kept_and_seen_or_followed(caplog: pytest.LogCaptureFixture) -> None:
    model = Analytic(double_well, CHARGES)
    straight = water_geometry(np.pi, 1.7)
    kept = model_harmonic(as_model(model), straight)
    modes = normal_modes_of(kept)
    assert modes.linear
    assert modes.imaginary.tolist() == [True, True, False, False]
    # d2V/dtheta2 = -2 k (1 - 0.5) at theta = pi, G = 2 (1/m_H + 2/m_O)/r^2
    x, y = 1 / (15.999 * ELECTRON_MASS_PER_DALTON), 1 / (1.008 * ELECTRON_MASS_PER_DALTON)
    expected = np.sqrt(0.08 * 2 * (y + 2 * x)) / R0 * CM1_PER_AU
    assert modes.frequency_cm1[:2] == pytest.approx([-expected, -expected], rel=1e-6)
    with caplog.at_level(logging.INFO):
        followed = model_harmonic(as_model(model), straight, OptimisationSettings(follow=True))
    assert f"saddle point with a mode of {expected:.0f}i cm^-1; following it downhill" in caplog.text
    assert not normal_modes_of(followed).imaginary.any()
    assert normal_modes_of(followed).n_rigid == 6
    assert followed.energy == pytest.approx(0.0, abs=1e-10)
    a, b = followed.position[1:] - followed.position[0]
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(-0.5, abs=1e-5)


def test_following_gives_up_in_one_line() -> None:
    """A kick too small to leave the saddle point."""
    settings = OptimisationSettings(follow=True, max_follow=2, kick=1e-9)
    with pytest.raises(ModelError, match="after following 2 imaginary modes the geometry is still a saddle point") as error:
        model_harmonic(as_model(Analytic(double_well, CHARGES)), water_geometry(np.pi, 1.7), settings)
    assert "\n" not in str(error.value)


def test_optimisation_that_cannot_converge_ends_in_one_line() -> None:
    def slide(position: torch.Tensor) -> torch.Tensor:
        return -0.01 * (position[1] - position[0]).norm() + 0.0 * position.sum()

    start = Molecule(np.array([8, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    with pytest.raises(ModelError, match=r"still has a force of 1\.0e-02 hartree/bohr after 20 steps; expected 1e-06") as error:
        model_harmonic(as_model(Analytic(slide, [-0.3, 0.3])), start, OptimisationSettings(max_steps=20))
    assert "\n" not in str(error.value)

    class Uphill(Analytic):
        def forward(self, molecules: Molecules, forces: bool = True, create_graph: bool = False) -> Prediction:
            right = super().forward(molecules, forces, create_graph)
            assert right.force is not None
            return replace(right, force=-right.force)

    with pytest.raises(ModelError, match="still has a force"):
        optimise(as_model(Uphill(valence_water, CHARGES)), water_geometry(1.5))


def test_steps_that_bring_atoms_together_are_shortened() -> None:
    """Far out the Newton step of this well would throw one atom through the other."""

    def well(position: torch.Tensor) -> torch.Tensor:
        x = (position[1] - position[0]).norm()
        return 0.2 * (1 - torch.exp(-1.2 * (x - 1.8))) ** 2

    start = Molecule(np.array([8, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.75]]))
    found = optimise(as_model(Analytic(well, [-0.3, 0.3])), start)
    assert np.linalg.norm(found.position[1] - found.position[0]) == pytest.approx(1.8, abs=1e-5)


def test_steps_to_where_the_energy_is_not_a_number_are_taken_back() -> None:
    def wall(position: torch.Tensor) -> torch.Tensor:
        x = (position[1] - position[0]).norm() - 1.2
        return 5.0 * x - 0.05 * torch.log(x)

    start = Molecule(np.array([8, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    found = optimise(as_model(Analytic(wall, [-0.3, 0.3])), start)
    assert np.linalg.norm(found.position[1] - found.position[0]) == pytest.approx(1.21, abs=1e-6)


def test_a_molecule_that_falls_apart_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    def apart(position: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((position[1] - position[0]).norm() - 6.0) ** 2

    start = Molecule(np.array([8, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.8]]))
    with caplog.at_level(logging.WARNING):
        found = model_harmonic(as_model(Analytic(apart, [-0.3, 0.3])), start)
    assert changed_bonds(start, start.moved(found.position)) == [(0, 1)]
    assert "changed the bonds O0-H1" in caplog.text
    caplog.clear()
    water()
    assert caplog.text == ""


def test_internal_directions() -> None:
    bent, straight = water_geometry().position, water_geometry(np.pi).position
    assert internal_directions(bent).shape == (9, 3)
    assert internal_directions(straight).shape == (9, 4)
    assert internal_directions(bent[:1]).shape == (3, 0)
    for position in (bent, straight):
        inside = internal_directions(position)
        spin = np.stack([np.cross(axis, position).ravel() for axis in np.eye(3)], axis=1)
        assert np.abs(inside.T @ spin).max() < 1e-12
        assert np.abs(inside.reshape(3, 3, -1).sum(axis=0)).max() < 1e-12


def test_models_and_elements_that_do_not_fit(model: DensNet, water: Molecule) -> None:
    density_only = DensNet(model.basis, model.density, None)
    with pytest.raises(ModelError, match="density network only"):
        model_harmonic(density_only, water)
    sulfur = Molecule(np.array([16, 1, 1]), water.position / ANGSTROM_PER_BOHR)
    with pytest.raises(BasisError):
        model_harmonic(model, sulfur)
    with pytest.raises(ConfigError, match="fmax=-1"):
        OptimisationSettings(fmax=-1.0)
