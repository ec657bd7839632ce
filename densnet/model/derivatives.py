"""Stationary points of a model, and Hessian and dipole derivatives there by autograd, in float64."""

from __future__ import annotations

import logging
from copy import deepcopy

import numpy as np
import torch
from ase.data import atomic_masses, chemical_symbols
from scipy.linalg import eigh
from torch import Tensor

from densnet.data.harmonic import HarmonicData
from densnet.errors import ModelError
from densnet.model.densnet import DensNet
from densnet.model.optimisation import NOISE, OptimisationSettings, changed_bonds, descend, internal_directions
from densnet.structures import Molecule, Molecules
from densnet.units import CM1_PER_AU, ELECTRON_MASS_PER_DALTON

log = logging.getLogger(__name__)
SADDLE_CM1 = 10.0  # imaginary modes softer than this are not followed: nothing lies below that the model could resolve


def _rows(output: Tensor, position: Tensor) -> Tensor:
    """d output_i / d position for a flat output: (len(output), N, 3)."""
    return torch.stack([torch.autograd.grad(x, position, retain_graph=True)[0] for x in output])


def hessian_and_dipole_derivative(model: DensNet, molecule: Molecule) -> tuple[np.ndarray, np.ndarray]:
    """(3N, 3N) hartree/bohr^2, not symmetrised (its asymmetry is round-off), and (3N, 3) e: [i, k] = d mu_k / d R_i.

    The dipole is that about a fixed origin, as DFT has it, also for ions: the derivatives sum to the charge over the atoms.
    """
    device = next(model.parameters()).device
    molecules = Molecules.of([molecule], device)
    molecules = molecules.at(molecules.position.requires_grad_())
    result = model(molecules, forces=True, create_graph=True)
    if result.force is None:
        raise ModelError("this model has a density network only; harmonic analysis needs its energy; train stage=energy first")
    n = 3 * molecule.number.size
    hessian = -_rows(result.force.reshape(-1), molecules.position).reshape(n, n)
    derivative = _rows(result.dipole[0], molecules.position).reshape(3, n).T.detach().cpu().numpy()
    # The model's dipole of an ion is about the centre of nuclear charge, which moves with the atoms.
    share = molecule.number / molecule.number.sum()
    return hessian.detach().cpu().numpy(), derivative + molecule.charge * np.kron(share[:, None], np.eye(3))


def optimise(model: DensNet, molecule: Molecule, fmax: float = 1e-6, max_steps: int = 300) -> Molecule:
    """The stationary point of the model's energy below `molecule`: a minimum, or by symmetry a saddle point.

    fmax: largest force component, hartree/bohr; meant for float64 models. Raises ModelError if it is not reached, BasisError
    for an element the model was not made for.
    """
    return _descend(model, molecule, OptimisationSettings(fmax=fmax, max_steps=max_steps))


def model_harmonic(model: DensNet, molecule: Molecule, settings: OptimisationSettings | None = None) -> HarmonicData:
    """Optimise on the model from `molecule`, then Hessian and dipole derivatives there, all in float64.

    Standard atomic weights as masses. With settings.follow a saddle point is left along its softest (most imaginary) mode,
    to the side of lower energy, and the optimisation starts again; without it the saddle point is the result.
    Raises ModelError if an optimisation does not converge, or saddle points remain after settings.max_follow of them.
    """
    settings = settings or OptimisationSettings()
    if molecule.number.size < 2:
        raise ModelError("1 atom has no vibrations; expected a molecule of at least two; choose another")
    exact = deepcopy(model).double().eval()
    mass = atomic_masses[molecule.number] * ELECTRON_MASS_PER_DALTON
    followed, here = 0, molecule
    while True:
        here = _descend(exact, here, settings)
        hessian, derivative = hessian_and_dipole_derivative(exact, here)
        curvature, direction = _softest(hessian, here, mass)
        if not settings.follow or curvature > -((SADDLE_CM1 / CM1_PER_AU) ** 2):
            break
        words = f"saddle point with a mode of {np.sqrt(-curvature) * CM1_PER_AU:.0f}i cm^-1"
        if followed == settings.max_follow:
            raise ModelError(
                f"after following {followed} imaginary modes the geometry is still a {words}; expected a minimum; "
                "raise max_follow or start from a less symmetric geometry"
            )
        followed += 1
        sides = [here.moved(here.position + sign * settings.kick * direction) for sign in (1, -1)]
        energies = [_energy_and_gradient(exact, side)[0] for side in sides]
        # Mirror images differ by round-off; the first is taken then, so that a run can be repeated.
        here = sides[1] if energies[1] < energies[0] - NOISE else sides[0]
        log.info("%s; following it downhill", words)
    if bonds := changed_bonds(molecule, here):
        names = [f"{chemical_symbols[z]}{i}" for i, z in enumerate(molecule.number)]
        pairs = ", ".join(f"{names[i]}-{names[j]}" for i, j in bonds)
        log.warning("the optimisation changed the bonds %s (atoms counted from 0): not the molecule it started from", pairs)
    result = exact.predict(Molecules.of([here], next(exact.parameters()).device), forces=False)
    return HarmonicData(
        number=molecule.number,
        mass=mass,
        position=here.position,
        charge=molecule.charge,
        energy=float(result.energy),
        dipole=result.dipole[0].cpu().numpy(),
        hessian=(hessian + hessian.T) / 2,
        dipole_derivative=derivative,
        provenance=f"densnet model {model.hash}, autograd, float64",
    )


def _energy_and_gradient(model: DensNet, molecule: Molecule) -> tuple[float, np.ndarray]:
    result = model.predict(Molecules.of([molecule], next(model.parameters()).device))
    assert result.force is not None
    return float(result.energy), -result.force.cpu().numpy().reshape(-1).astype(np.float64)


def _descend(model: DensNet, molecule: Molecule, settings: OptimisationSettings) -> Molecule:
    there, steps = descend(
        lambda m: _energy_and_gradient(model, m), lambda m: hessian_and_dipole_derivative(model, m)[0], molecule, settings
    )
    log.debug("geometry optimisation: %d steps", steps)
    return there


def _softest(hessian: np.ndarray, molecule: Molecule, mass: np.ndarray) -> tuple[float, np.ndarray]:
    """Least eigenvalue among the vibrations (atomic units), and its Cartesian direction (N, 3), largest displacement 1."""
    inside = internal_directions(molecule.position)
    # Wilson's GF method with z = inside^T x as coordinates: F z = lambda G^-1 z, x = M^-1 inside G^-1 z.
    lifted = inside / np.repeat(mass, 3)[:, None]
    inverse = np.linalg.inv(inside.T @ lifted)
    value, vector = eigh(inside.T @ (hessian + hessian.T) @ inside / 2, inverse)
    direction = (lifted @ inverse @ vector[:, 0]).reshape(-1, 3)
    return float(value[0]), direction / np.linalg.norm(direction, axis=1).max()
