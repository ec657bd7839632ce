"""Second derivatives of a model by autograd: Hessian and dipole derivatives at a stationary point, in float64."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from ase.data import atomic_masses
from scipy.optimize import minimize
from torch import Tensor

from densnet.data.harmonic import HarmonicData
from densnet.errors import ModelError
from densnet.model.densnet import DensNet
from densnet.structures import Molecule, Molecules
from densnet.units import ELECTRON_MASS_PER_DALTON

MAX_STEP = 0.3  # bohr; a model's minimum lies this close to the geometry it is started from, or the start is wrong


def _rows(output: Tensor, position: Tensor) -> Tensor:
    """d output_i / d position for a flat output: (len(output), N, 3)."""
    return torch.stack([torch.autograd.grad(x, position, retain_graph=True)[0] for x in output])


def hessian_and_dipole_derivative(model: DensNet, molecule: Molecule) -> tuple[np.ndarray, np.ndarray]:
    """(3N, 3N) hartree/bohr^2, not symmetrised (its asymmetry is round-off), and (3N, 3) e: [i, k] = d mu_k / d R_i."""
    device = next(model.parameters()).device
    molecules = Molecules.of([molecule], device)
    molecules = molecules.at(molecules.position.requires_grad_())
    result = model(molecules, forces=True, create_graph=True)
    if result.force is None:
        raise ModelError("this model has a density network only; harmonic analysis needs its energy; train stage=energy first")
    n = 3 * molecule.number.size
    hessian = -_rows(result.force.reshape(-1), molecules.position).reshape(n, n)
    derivative = _rows(result.dipole[0], molecules.position).reshape(3, n).T
    return hessian.detach().cpu().numpy(), derivative.detach().cpu().numpy()


def optimise(model: DensNet, molecule: Molecule, fmax: float = 1e-6) -> Molecule:
    """The nearest minimum of the model's energy, by a trust-region Newton method with the autograd Hessian.

    fmax: largest force component, hartree/bohr; meant for float64 models. Raises ModelError if it is not reached.
    """

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        device = next(model.parameters()).device
        result = model.predict(Molecules.of([molecule.moved(x.reshape(-1, 3))], device))
        assert result.force is not None
        return float(result.energy), -result.force.cpu().numpy().reshape(-1).astype(np.float64)

    def curvature(x: np.ndarray) -> np.ndarray:
        hessian, _ = hessian_and_dipole_derivative(model, molecule.moved(x.reshape(-1, 3)))
        return (hessian + hessian.T) / 2

    found = minimize(
        value, molecule.position.reshape(-1), jac=True, hess=curvature, method="trust-exact",
        options={"gtol": fmax, "maxiter": 60, "initial_trust_radius": 0.05, "max_trust_radius": MAX_STEP},
    )  # fmt: skip
    largest = float(np.abs(found.jac).max())
    if largest > 10 * fmax:
        raise ModelError(
            f"geometry optimisation on the model ended with a force of {largest:.1e} hartree/bohr; expected {fmax:.0e}; "
            "start from a geometry the model was trained around"
        )
    return molecule.moved(found.x.reshape(-1, 3))


def model_harmonic(model: DensNet, molecule: Molecule) -> HarmonicData:
    """Optimise on the model from `molecule`, then Hessian and dipole derivatives there, all in float64."""
    exact = deepcopy(model).double().eval()
    minimum = optimise(exact, molecule)
    hessian, derivative = hessian_and_dipole_derivative(exact, minimum)
    result = exact.predict(Molecules.of([minimum], next(exact.parameters()).device), forces=False)
    return HarmonicData(
        number=molecule.number,
        mass=atomic_masses[molecule.number] * ELECTRON_MASS_PER_DALTON,
        position=minimum.position,
        charge=molecule.charge,
        energy=float(result.energy),
        dipole=result.dipole[0].cpu().numpy(),
        hessian=(hessian + hessian.T) / 2,
        dipole_derivative=derivative,
        provenance=f"densnet model {model.hash}, autograd, float64",
    )
