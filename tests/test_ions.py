"""An ion has a dipole only about a stated origin; its intensities are those of a fixed one, or of the centre of mass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densnet.errors import ModelError
from densnet.model.densnet import DensNet
from densnet.model.derivatives import hessian_and_dipole_derivative, model_harmonic
from densnet.simulation.stored import StoredTrajectory
from densnet.structures import Molecule, Molecules


@pytest.mark.parametrize("charge", [-1, 0, 1])
def test_dipole_derivatives_sum_to_the_charge(model: DensNet, water: Molecule, charge: int) -> None:
    """A molecule moved as a whole moves its charge; the differences of the model's own dipole tell the rest."""
    start = Molecule(water.number, water.position, charge)
    derivative = hessian_and_dipole_derivative(model, start)[1].reshape(3, 3, 3)
    assert derivative.sum(axis=0) == pytest.approx(charge * np.eye(3), abs=1e-9)
    step, ends = 1e-4, []
    for sign in (1, -1):
        moved = start.position.copy()
        moved[1, 0] += sign * step
        centre = start.number @ moved / start.number.sum()
        dipole = model.density_only(Molecules.of([start.moved(moved)])).dipole[0].detach().numpy()
        ends.append(dipole + charge * centre)  # about the origin of coordinates
    assert derivative[1, 0] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("charge", [0, 2])
def test_dipoles_of_a_trajectory_are_about_the_centre_of_mass(charge: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two point charges: what the file has, about the centre of nuclear charge, becomes what they give about that of mass."""
    rng = np.random.default_rng(3)
    number, mass, share = np.array([8, 1]), np.array([16.0, 1.0]), np.array([charge - 0.3, 0.3])
    position = rng.normal(size=(5, 4, 2, 3))
    about = {name: np.einsum("a,srai->sri", weight / weight.sum(), position) for name, weight in (("z", number), ("m", mass))}
    dipole = {name: np.einsum("a,srai->sri", share, position - centre[:, :, None]) for name, centre in about.items()}
    header = dict.fromkeys(("time_step", "integration_step", "temperature"), 1.0)
    stored = StoredTrajectory(
        number=number, mass=mass, charge=charge, ensemble="nve", seed=0, model_hash="", model="", **header,
        path=Path("none.h5"), frames=5, replicas=np.arange(4), dipole=dipole["z"], losses="",
    )  # fmt: skip
    halves = [(position[:, :2], None), (position[:, 2:], None)]
    monkeypatch.setattr(StoredTrajectory, "motion", lambda self, memory_mb: iter(halves))
    assert stored.body_dipole() == pytest.approx(dipole["m"], abs=1e-12)


def test_an_atom_has_no_vibrations(model: DensNet) -> None:
    with pytest.raises(ModelError, match="1 atom has no vibrations"):
        model_harmonic(model, Molecule(np.array([8]), np.zeros((1, 3))))
