"""Folders of a small run as the programs write them, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from densnet.spectra.files import write_json
from densnet.spectra.harmonic import NormalModes, normal_modes
from densnet.spectra.infrared import Recipe, infrared_spectrum
from densnet.spectra.report import PeakSearch, write_report
from densnet.training.density_errors import SHELLS, DensityErrors, Shares
from densnet.training.evaluation import FrameErrors, summarise
from densnet.training.evaluation_report import write_frames
from densnet.training.parity import write_parity
from densnet.units import BOLTZMANN, CM1_PER_AU, ELECTRON_MASS_PER_DALTON, FS_PER_AU

HOSTILE = '<script>window.hostile = 1</script><img src=x onerror="window.hostile = 1">\'"&amp;'
STEP = 1.0 / FS_PER_AU


def water_modes(stiffness: float, charge: float) -> NormalModes:
    position = np.array([[0.0, 0.0, 0.22], [0.0, 1.43, -0.89], [0.0, -1.43, -0.89]])
    hessian = np.zeros((3, 3, 3, 3))
    for i, j, k in ((0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.15)):
        u = (position[i] - position[j]) / np.linalg.norm(position[i] - position[j])
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            hessian[a, :, b] += sign * k * stiffness * np.outer(u, u)
    mass = np.array([15.999, 1.008, 1.008]) * ELECTRON_MASS_PER_DALTON
    charges = charge * np.array([-2.0, 1.0, 1.0])
    return normal_modes(np.array([8, 1, 1]), mass, position, hessian.reshape(9, 9), np.kron(charges[:, None], np.eye(3)))


def write_spectrum(folder: Path, source: str = "run.h5", replicas: int = 6, frames: int = 3000) -> None:
    """Harmonic water by the real path: dipoles to ir.json, ir.csv."""
    modes, rng = water_modes(1.0, 0.33), np.random.default_rng(5)
    omega = modes.frequency_cm1 / CM1_PER_AU
    amplitude = np.sqrt(2.0 * rng.exponential(size=(replicas, 3)) * BOLTZMANN * 300.0) / omega
    angle = omega * STEP * np.arange(frames)[:, None, None] + rng.uniform(0.0, 2.0 * np.pi, (replicas, 3))
    dipole = (amplitude * np.cos(angle)) @ modes.dipole_derivative
    spectrum = infrared_spectrum(dipole, STEP, 300.0, Recipe.named("hann", 20.0))
    write_report(
        folder, spectrum, source, modes.number, (352.0, 5.0), reference=modes, model=water_modes(1.01, 0.34),
        search=PeakSearch(low_cm1=400.0),
    )  # fmt: skip


def evaluated(frames: int = 6) -> list[FrameErrors]:
    rng, out = np.random.default_rng(1), []
    for f in range(frames):
        density = None
        if f < 2:
            scf = 10.0 ** rng.uniform(-7.0, 2.0, 50)
            atoms = Shares(np.full(3, 1e-3), np.full(3, 5e-4), np.array([8.2, 0.9, 0.9]))
            shells = Shares(np.full(SHELLS, 1e-4), np.full(SHELLS, 5e-5), np.full(SHELLS, 10.0 / SHELLS))
            sample = np.stack([scf, scf * (1.0 + 0.01 * rng.normal(size=50))], 1)
            density = DensityErrors(10, 0.01 + f * 1e-3, 0.005, 0.008, 1.2, atoms, shells, sample)
        pair = rng.normal(size=3)
        force = rng.normal(size=(3, 3)) * 0.02
        out.append(
            FrameErrors(
                frame=f, source=f"{HOSTILE}:{f}", number=np.array([8, 1, 1]), electrons=1e-15,
                dipole=np.stack([pair, pair + 1e-3 * rng.normal(size=3)]), quadrupole=1e-3,
                energy=np.array([-76.3, -76.3]) + 1e-3 * rng.normal(size=2),
                force=np.stack([force, force + 1e-4 * rng.normal(size=(3, 3))]), rmsd=0.1 + 0.01 * f,
                quadrature="grid" if density else None, density=density,
            )
        )  # fmt: skip
    return out


def write_evaluation(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    errors = evaluated()
    write_json(folder / "evaluation.json", summarise(errors, 20))
    write_frames(folder / "frames.csv", errors)
    write_parity(folder / "parity.csv", errors)


def write_training(folder: Path) -> None:
    """Rows as Lightning's CSV logger leaves them: training and validation in rows of their own, empty cells between."""
    rows = ["epoch,step,train/force,train/loss,val/energy_mae_meV,val/loss"]
    for i in range(40):
        rows.append(f"{i // 10},{10 * i + 9},{3.0 / (i + 1):.6f},{5.0 / (i + 1):.6f},,")
        if i % 10 == 9:
            rows.append(f"{i // 10},{10 * i + 9},,,{20.0 / (i + 1):.6f},{7.0 / (i + 1):.6f}")
    (folder / "csv").mkdir(parents=True)
    (folder / "csv" / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "csv" / "hparams.yaml").write_text(f"stage:\n  learning_rate: 0.00237\n  note: '{HOSTILE.replace(chr(39), '')}'\n")


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    stage = json.dumps({"dataset": {"batch_size": 17}, "seed": 0})
    content = {
        "schema": "densnet/model", "version": 1, "hash": "0123456789abcdef", "units": "atomic",
        "architecture": {"density": {"channels": 48, "lmax": [2, 3, 5]}, "energy": None},
        "basis": {"name": "large", "hash": "fedcba9876543210", "xc": "pbe", "ao_basis": "aug-cc-pvdz"},
        "provenance": {"data_hash": "aa55", "level": json.dumps({"grid_level": 3}), "recipe": [stage]},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(content))


def write_attributes(path: Path) -> None:
    """The smallest file with the layout of a trajectory."""
    with h5py.File(path, "w") as file:
        file.attrs.update(
            schema="densnet/trajectory", version=2, units="atomic", time_step=41.341373, integration_step=20.67, seed=7,
            ensemble="nve", temperature=300.0, model="models/x", model_hash="0123456789abcdef", charge=0,
        )  # fmt: skip
        file["energy"], file["number"], file["frozen_from"] = np.zeros((11, 4)), np.array([8, 1, 1]), np.array([-1, -1, 3, -1])
