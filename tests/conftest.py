"""Small real systems shared by the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from e3nn import o3
from pyscf import dft

from densnet.basis.shells import Basis, Shell
from densnet.data.labels import Labels, Level, write_labels
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, build
from densnet.model.densnet import DensNet
from densnet.reference.atoms import free_atom
from densnet.reference.even_tempered import make_basis
from densnet.reference.fit_dataset import BasisSettings, FitSettings, fit_labels
from densnet.reference.fitting import pyscf_molecule
from densnet.reference.kohn_sham import NoLabel, compute_label
from densnet.structures import Molecule

AO_BASIS = "6-31g"


@pytest.fixture(scope="session")
def basis() -> Basis:
    """H and O with different shells per element and every l up to 4, free atoms at PBE/6-31G."""
    hydrogen = [(0, 4.0), (0, 1.2), (0, 0.4), (1, 1.5), (1, 0.5), (2, 1.0)]
    oxygen = [
        (0, 20.0),
        (0, 6.0),
        (0, 2.0),
        (0, 0.7),
        (0, 0.3),
        (1, 3.0),
        (1, 1.0),
        (1, 0.4),
        (2, 2.0),
        (2, 0.7),
        (3, 1.1),
        (4, 1.3),
    ]
    shells = {1: tuple(Shell(l, a) for l, a in hydrogen), 8: tuple(Shell(l, a) for l, a in oxygen)}
    return make_basis("test", "pbe", AO_BASIS, shells, {z: free_atom(z, "pbe", AO_BASIS) for z in shells})


@pytest.fixture(scope="session")
def water() -> Molecule:
    """A bent, unsymmetric water away from the origin."""
    position = np.array([[0.3, -0.1, 0.2], [0.5, 1.7, 0.6], [1.9, -0.7, -0.1]])
    return Molecule(np.array([8, 1, 1]), position)


@pytest.fixture(scope="session")
def water_scf(water: Molecule) -> dft.rks.RKS:
    """Converged PBE/6-31G of that water."""
    calculation = dft.RKS(pyscf_molecule(water, AO_BASIS), xc="pbe").density_fit()
    calculation.grids.level = 1
    calculation.kernel()
    assert calculation.converged
    return calculation


def untrained(basis: Basis, parity: str = "natural", high_channels: int | None = None) -> DensNet:
    """A float64 model with random weights everywhere, the zero-initialised readout and biases included."""
    torch.manual_seed(3)
    lmax = (2, 3) if parity == "natural" else (1, 1, 1, 2)  # a pseudoscalar first appears after three layers
    architecture = Architecture(
        DensitySettings(channels=6, lmax=lmax, hidden=8, radial=4, neighbours=2.0, parity=parity, high_channels=high_channels),
        EnergySettings(channels=6, layers=2, lmax=2, hidden=8, radial=4, neighbours=2.0, invariants=3),
    )
    model = build(architecture, basis)
    for name, parameter in model.named_parameters():
        if name.startswith("density.readout") or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.double().eval()


@pytest.fixture(scope="session")
def model(basis: Basis) -> DensNet:
    return untrained(basis)


def random_rotation(seed: int = 0) -> np.ndarray:
    """A proper rotation far from the identity and from any axis."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def wigner_d(l: int, matrix: np.ndarray) -> torch.Tensor:
    """D_l of a rotation or rotoinversion from its definition Y(R x) = D Y(x), to round-off (natural parity (-1)^l)."""
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(8 * l + 8, 3)))
    here, there = (
        o3.spherical_harmonics(l, y, normalize=True, normalization="component").numpy()
        for y in (x, x @ torch.as_tensor(matrix).T)
    )
    return torch.as_tensor(np.linalg.lstsq(here, there, rcond=None)[0].T)


@pytest.fixture(scope="session")
def tiny_fits(basis: Basis, water: Molecule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten real labels of water (PBE/6-31G), seven to train and three to test, fitted in the test basis."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(11)
    level = Level(ao_basis=AO_BASIS, grid_level=1)
    frames = [water.moved(water.position + rng.normal(scale=0.06, size=(3, 3))) for _ in range(10)]
    made = [compute_label(frame, level) for frame in frames]
    assert not any(isinstance(label, NoLabel) for label in made)
    split = ["train"] * 7 + ["test"] * 3
    write_labels(folder / "labels.h5", Labels.of(frames, made, split, [f"test/{i}" for i in range(10)], level, "PySCF"))
    basis.save(folder / "basis.json")
    source = BasisSettings(str(folder / "basis.json"))
    fit_labels(
        folder / "labels.h5",
        source,
        folder / "fits.h5",
        FitSettings(grid_level=0, points_train=300, points_test=200, grid_frames_train=2),
    )
    return folder / "fits.h5"
