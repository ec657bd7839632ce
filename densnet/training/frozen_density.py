"""The density of a frozen network and its response to every displacement, computed once for all frames of a data set.

While only the energy network trains, coefficients c(R) and exponents a(R) of a frame never change, and neither do their
derivatives. With them stored, the total gradient is

    dE/dR = @E/@R + (@E/@c) . dc/dR + (@E/@a) . da/dR

and a training step costs the energy network alone, with the same result (tests/test_frozen_density.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from densnet.data.fits import Fits
from densnet.data.neighbours import neighbours
from densnet.errors import DataError
from densnet.files import replacing
from densnet.model.density import DensityNetwork
from densnet.model.densnet import DensNet
from densnet.model.energy import EnergyNetwork
from densnet.structures import Density, Molecules

log = logging.getLogger(__name__)
FRAMES_AT_ONCE = 16


@dataclass(frozen=True)
class DensityResponse:
    """A density and how it follows the nuclei, for one batch of molecules with at most K atoms each.

    coefficient_response: (N, width, K, 3), exponent_response: (N, shells, K, 3): derivative of the coefficients and exponents
    of an atom in the position, bohr, of the k-th atom of its molecule; zero where there is none. In the network's precision.
    """

    density: Density
    coefficient_response: Tensor
    exponent_response: Tensor


@torch.no_grad()
def density_response(network: DensityNetwork, molecules: Molecules) -> DensityResponse:
    """By forward-mode differentiation: one pass per Cartesian coordinate of the largest molecule, all molecules together."""
    network.check_elements(molecules)
    pairs = neighbours(molecules, network.edges.cutoff)
    rank = rank_in_molecule(molecules)
    most = int(rank.max()) + 1

    def evaluate(position: Tensor) -> tuple[Tensor, Tensor]:
        edges = network.edges(position, pairs.source, pairs.target, network.dtype)
        density = network(molecules.at(position), edges)
        return density.coefficient, density.exponent

    coefficient, exponent = evaluate(molecules.position)
    size = (len(molecules.number), most, 3)
    first = coefficient.new_empty((*size, coefficient.shape[1]), dtype=network.dtype)
    second = coefficient.new_zeros((*size, exponent.shape[1]), dtype=network.dtype)
    for k in range(most):
        for axis in range(3):
            direction = torch.zeros_like(molecules.position)
            direction[rank == k, axis] = 1.0
            _, (dc, da) = torch.func.jvp(evaluate, (molecules.position,), (direction,))  # pyright: ignore[reportAssignmentType]
            first[:, k, axis] = dc.to(network.dtype)
            second[:, k, axis] = da.to(network.dtype)
    return DensityResponse(Density(coefficient, exponent), *(x.permute(0, 3, 1, 2).contiguous() for x in (first, second)))


def rank_in_molecule(molecules: Molecules) -> Tensor:
    """(N,) position of every atom in its molecule."""
    first = torch.searchsorted(molecules.molecule, torch.arange(molecules.n, device=molecules.molecule.device))
    return torch.arange(len(molecules.number), device=first.device) - first[molecules.molecule]


def energy_and_force(
    energy: EnergyNetwork, molecules: Molecules, source: Tensor, target: Tensor, response: DensityResponse, rank: Tensor,
    create_graph: bool, kernel: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(B,) hartree and (N, 3) hartree/bohr through a stored density. Positions, coefficients and exponents require gradients;

    source, target: edges; rank: (N,) place of every atom in its molecule; kernel: see EdgeFeatures. Tensor operations alone, so
    that it compiles.
    """
    edges = replace(energy.edges(molecules.position, source, target, energy.dtype), kernel=kernel)
    found = energy(molecules, response.density, edges)
    by_density = (response.density.coefficient, response.density.exponent)[: energy.density_inputs]
    by_geometry = (molecules.position,) if energy.layers else ()
    slopes = list(torch.autograd.grad(found.sum(), (*by_geometry, *by_density), create_graph=create_graph))
    force = -slopes.pop(0) if by_geometry else torch.zeros_like(molecules.position)
    for slope, derivative in zip(slopes, (response.coefficient_response, response.exponent_response)):
        per_atom = torch.einsum("nw,nwkx->nkx", slope.to(derivative.dtype), derivative)
        force = force - molecules.sum(per_atom)[molecules.molecule, rank].to(force.dtype)
    return found, force


def with_gradient(response: DensityResponse) -> DensityResponse:
    """The same response with coefficients and exponents as leaves."""
    leaves = Density(*(x.detach().requires_grad_() for x in (response.density.coefficient, response.density.exponent)))
    return DensityResponse(leaves, response.coefficient_response, response.exponent_response)


class FrozenDensity:
    """Density and response of some frames of a data set, found by their index in the file."""

    def __init__(self, frames: np.ndarray, responses: list[DensityResponse]) -> None:
        self.place = {int(f): k for k, f in enumerate(frames)}
        self.responses = responses

    @staticmethod
    def compute(network: DensityNetwork, fits: Fits, frames: np.ndarray, device: torch.device) -> FrozenDensity:
        """With a progress bar: about a second per frame of ten atoms on one core."""
        responses: list[DensityResponse] = []
        with tqdm(total=len(frames), desc="frozen density", unit="frame") as bar:
            for start in range(0, len(frames), FRAMES_AT_ONCE):
                some = [fits.frame(int(f)) for f in frames[start : start + FRAMES_AT_ONCE]]
                responses += _split(density_response(network, Molecules.of(some, device)), [m.number.size for m in some])
                bar.update(len(some))
        return FrozenDensity(frames, responses)

    @staticmethod
    def cached(folder: Path, network: DensityNetwork, fits: Fits, frames: np.ndarray, device: torch.device) -> FrozenDensity:
        """From the file in `folder` that belongs to this network and these frames, or computed and written there."""
        path = Path(folder) / f"{_key(network, fits, frames)}.safetensors"
        sizes = np.diff(fits.frame_ptr)[frames].tolist()
        if path.is_file():
            try:
                stored = load_file(path, device=str(device))
                density = Density(stored["coefficient"], stored["exponent"])
                whole = DensityResponse(density, stored["coefficient_response"], stored["exponent_response"])
            except (SafetensorError, KeyError, OSError) as error:
                raise DataError(f"{path} cannot be read ({error}); expected a density computed before; delete it") from error
            log.info("frozen density from %s", path)
            return FrozenDensity(frames, _split(whole, sizes))
        found = FrozenDensity.compute(network, fits, frames, device)
        whole = found.of(frames.tolist())
        tensors = {
            "coefficient": whole.density.coefficient,
            "exponent": whole.density.exponent,
            "coefficient_response": whole.coefficient_response,
            "exponent_response": whole.exponent_response,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        return found

    def of(self, frames: Sequence[int]) -> DensityResponse:
        """Those frames as one batch. Raises KeyError for a frame that was not computed."""
        found = [self.responses[self.place[f]] for f in frames]
        most = max(r.coefficient_response.shape[2] for r in found)

        def padded(parts: list[Tensor]) -> Tensor:
            return torch.cat([torch.nn.functional.pad(p, (0, 0, 0, most - p.shape[2])) for p in parts])

        density = Density(torch.cat([r.density.coefficient for r in found]), torch.cat([r.density.exponent for r in found]))
        return DensityResponse(
            density, padded([r.coefficient_response for r in found]), padded([r.exponent_response for r in found])
        )


def megabytes(model: DensNet, fits: Fits, frames: np.ndarray) -> float:
    """Memory that the responses of these frames take."""
    atoms = np.diff(fits.frame_ptr)[frames].astype(float)
    numbers_of_an_atom = model.basis.width + sum(model.basis.multiplicity)
    return float((atoms**2).sum() * 3 * numbers_of_an_atom * model.density.dtype.itemsize / 1e6)


def _split(whole: DensityResponse, sizes: list[int]) -> list[DensityResponse]:
    """One per molecule. Copies: a view would keep the padding of all of them alive."""
    fields = whole.density.coefficient, whole.density.exponent, whole.coefficient_response, whole.exponent_response
    return [
        DensityResponse(Density(c.clone(), a.clone()), dc[:, :, :n].clone(), da[:, :, :n].clone())
        for n, c, a, dc, da in zip(sizes, *(x.split(sizes) for x in fields))
    ]


def _key(network: DensityNetwork, fits: Fits, frames: np.ndarray) -> str:
    """Changes with anything the densities depend on: weights, scales, exponents, geometries."""
    digest = hashlib.sha256(frames.astype(np.int64).tobytes())
    for f in frames.tolist():
        frame = fits.frame(f)
        digest.update(frame.number.tobytes() + frame.position.tobytes() + str(frame.charge).encode())
    sums = [layer.scale for layer in network.layers]
    digest.update(str((network.edges.cutoff, network.edges.size, network.bound, network.lmax, sums)).encode())
    for name, tensor in sorted({**network.state_dict(), "exponent": network.frame.exponent}.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
