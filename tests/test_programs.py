"""simulate.py and spectra.py on a real model, one after the other, with every shipped setting of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from conftest import untrained

from densnet.basis.shells import Basis
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, Provenance, load_model, save_model
from densnet.model.derivatives import model_harmonic
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR

ROOT = Path(__file__).parents[1]
WINDOWS = ("gaussian", "blackman", "hann")


def program(*command: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("ensemble", "windows"), [("nve", WINDOWS[:2]), ("langevin", WINDOWS[2:])])
def test_dynamics_then_spectrum(ensemble: str, windows: tuple[str, ...], basis: Basis, water: Molecule, tmp_path: Path) -> None:
    """A model with random weights is a potential like any other: its trajectory holds its own dipoles and energies."""
    model = untrained(basis).float()
    assert model.energy is not None
    model.energy.scale.fill_(1e-3)  # hartree; random weights on their own make forces that no dynamics survives
    architecture = Architecture(
        DensitySettings(channels=6, lmax=(2, 3), hidden=8, radial=4, neighbours=2.0),
        EnergySettings(channels=6, layers=2, lmax=2, hidden=8, radial=4, neighbours=2.0, invariants=3),
    )
    save_model(tmp_path / "model", model, architecture, Provenance())
    write(tmp_path / "water.xyz", Atoms(water.number, water.position * ANGSTROM_PER_BOHR))
    program(
        "simulate.py", f"model={tmp_path}/model", f"molecule={tmp_path}/water.xyz", f"out={tmp_path}/run.h5",
        f"simulation={ensemble}",
        "simulation.replicas=3", "simulation.steps=400", "simulation.equilibration_steps=20", "simulation.temperature=20",
        f"hydra.run.dir={tmp_path}/s", "progress=false",
    )  # fmt: skip
    trajectory = read_trajectory(tmp_path / "run.h5")
    loaded = load_model(tmp_path / "model")
    assert trajectory.model_hash == loaded.hash
    frame = trajectory.position[-1, 2]
    again = loaded.predict(Molecules.of([Molecule(water.number, frame)]))
    assert trajectory.dipole is not None
    assert trajectory.dipole[-1, 2] == pytest.approx(again.dipole[0].numpy(), abs=1e-5)
    assert trajectory.energy[-1, 2] == pytest.approx(float(again.energy), abs=1e-5)
    for window in windows:
        program(
            "spectra.py", f"trajectory={tmp_path}/run.h5", f"out={tmp_path}/{window}", f"spectrum={window}",
            "spectrum.resolution_cm1=400", f"hydra.run.dir={tmp_path}/s",
        )  # fmt: skip
        record = json.loads((tmp_path / window / "ir.json").read_text())
        assert record["settings"]["window"] == window
        assert {p.suffix for p in (tmp_path / window).glob("ir.*")} == {".csv", ".json", ".png", ".svg"}


def test_harmonic_analysis_of_the_shipped_model_is_that_of_finite_differences() -> None:
    """Hessian and dipole derivatives of the ethanol preview at its own minimum against differences of forces and dipoles."""
    from ase.build import molecule

    atoms = molecule("CH3CH2OH")
    model = load_model(ROOT / "models/ethanol-preview").double()
    data = model_harmonic(model, Molecule(atoms.numbers, atoms.positions / ANGSTROM_PER_BOHR))
    step = 1e-3
    for i in (0, 13, 26):
        moved = []
        for sign in (1, -1):
            position = data.position.copy().reshape(-1)
            position[i] += sign * step
            moved.append(model.predict(Molecules.of([Molecule(data.number, position.reshape(-1, 3))])))
        assert moved[0].force is not None
        assert moved[1].force is not None
        row = -(moved[0].force - moved[1].force).numpy().reshape(-1) / (2 * step)
        assert row == pytest.approx(data.hessian[i], abs=1e-4 * np.abs(data.hessian).max())
        slope = (moved[0].dipole - moved[1].dipole)[0].numpy() / (2 * step)
        assert slope == pytest.approx(data.dipole_derivative[i], abs=1e-4)
