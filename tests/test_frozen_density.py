"""A stored density with its response gives what both networks give: energies, forces, and the gradients of training."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import untrained
from safetensors.torch import load_file, save_file

from densnet.basis.shells import Basis
from densnet.data.fits import Fits, read_fits
from densnet.errors import DataError
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, build
from densnet.model.densnet import DensNet
from densnet.structures import Molecule, Molecules
from densnet.training.frozen_density import DensityResponse, FrozenDensity, density_response, megabytes

CPU = torch.device("cpu")


@pytest.fixture
def fits(tiny_fits: Path) -> Fits:
    return read_fits(tiny_fits)


def model_for(basis: Basis, flexible: float, layers: int = 2, density: bool = True) -> DensNet:
    torch.manual_seed(5)
    architecture = Architecture(
        DensitySettings(channels=4, lmax=(2, 3), hidden=8, radial=4, neighbours=2.0, flexible=flexible),
        EnergySettings(channels=4, layers=layers, hidden=8, radial=4, neighbours=2.0, invariants=3, density=density),
    )
    model = build(architecture, basis)
    for name, parameter in model.named_parameters():
        if name.startswith(("density.readout", "density.exponents")) or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.density.requires_grad_(False)
    return model.double()


def batch_of(molecules: list[Molecule]):
    """What the data loader would give, as far as predictions go."""
    together = Molecules.of(molecules)

    class Batch:
        number, position, charge, batch = together.number, together.position, together.charge, together.molecule
        num_graphs, frame = together.n, torch.arange(together.n)

    return Batch()


def stored(model: DensNet, molecules: list[Molecule]) -> FrozenDensity:
    return FrozenDensity(np.arange(len(molecules)), [density_response(model.density, Molecules.of([m])) for m in molecules])


@pytest.mark.parametrize(
    ("flexible", "layers", "density"), [(1.0, 2, True), (1.3, 2, True), (1.3, 0, True), (1.3, 2, False)], ids=str
)
def test_forces_and_parameter_gradients_are_those_of_both_networks(basis, water, flexible, layers, density) -> None:
    """Molecules of different sizes in one batch; a loss on energies and forces, as in training."""
    from densnet.training.passes import Passes

    model = model_for(basis, flexible, layers, density)
    hydroxyl = Molecule(np.array([8, 1]), water.position[:2], charge=-1)
    batch = batch_of([water, hydroxyl])
    found, gradients = [], []
    for frozen in (None, stored(model, [water, hydroxyl])):
        prediction = Passes(model, frozen, False).predict(batch, create_graph=True)
        loss = prediction.energy.square().sum() * 1e-3 + prediction.force.square().sum()
        parameters = [p for p in model.energy.parameters()]
        gradients.append(torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True))
        found.append(prediction)
    both, cached = found
    assert (both.energy - cached.energy).abs().max() < 1e-10
    assert (both.force - cached.force).abs().max() < 1e-10
    assert (both.dipole - cached.dipole).abs().max() < 1e-10
    assert both.force.abs().max() > 1e-3
    for a, b in zip(*gradients):
        assert (a - b).abs().max() < 1e-9 * max(1.0, float(a.abs().max()))


def test_the_response_matters(basis, water) -> None:
    """Without the part that goes through the density the forces are wrong: it is not a formality."""
    from densnet.training.passes import Passes

    model = model_for(basis, 1.3)
    batch, whole = batch_of([water]), density_response(model.density, Molecules.of([water]))
    right = Passes(model, FrozenDensity(np.arange(1), [whole]), False).predict(batch, False).force
    for part in (0, 1):
        responses = [whole.coefficient_response, whole.exponent_response]
        responses[part] = torch.zeros_like(responses[part])
        without = DensityResponse(whole.density, *responses)
        wrong = Passes(model, FrozenDensity(np.arange(1), [without]), False).predict(batch, False).force
        assert (right - wrong).abs().max() > 1e-6 * right.abs().max()


def test_response_is_the_finite_difference(basis, water) -> None:
    model = model_for(basis, 1.3)
    response = density_response(model.density, Molecules.of([water]))
    step, k, axis = 1e-4, 1, 2
    densities = []
    for sign in (1, -1):
        position = water.position.copy()
        position[k, axis] += sign * step
        densities.append(model.density(Molecules.of([water.moved(position)])))
    dc = (densities[0].coefficient - densities[1].coefficient) / (2 * step)
    da = (densities[0].exponent - densities[1].exponent) / (2 * step)
    assert (response.coefficient_response[:, :, k, axis] - dc).abs().max() < 1e-6 * max(1.0, float(dc.abs().max()))
    assert (response.exponent_response[:, :, k, axis] - da).abs().max() < 1e-6 * max(1.0, float(da.abs().max()))
    assert da.abs().max() > 1e-5


def test_kept_on_disk_and_only_for_this_network(basis, fits, tmp_path, monkeypatch) -> None:
    model = untrained(basis)
    frames = fits.indices("train")
    first = FrozenDensity.cached(tmp_path, model.density, fits, frames, CPU)
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(FrozenDensity, "compute", lambda *_: pytest.fail("computed again"))
        again = FrozenDensity.cached(tmp_path, model.density, fits, frames, CPU)
    some = [int(f) for f in frames[[3, 1]]]
    for name in ("coefficient_response", "exponent_response"):
        assert torch.equal(getattr(first.of(some), name), getattr(again.of(some), name))
    assert torch.equal(first.of(some).density.coefficient, again.of(some).density.coefficient)
    other = deepcopy(model)
    with torch.no_grad():
        next(iter(other.density.parameters())).add_(1e-3)
    FrozenDensity.cached(tmp_path, other.density, fits, frames, CPU)
    FrozenDensity.cached(tmp_path, model.density, fits, frames[:4], CPU)
    scaled = deepcopy(model)
    for layer in scaled.density.layers:
        layer.scale *= 2.0  # type: ignore[operator]  # other neighbours, which no weight tells
    FrozenDensity.cached(tmp_path, scaled.density, fits, frames, CPU)
    assert len(list(tmp_path.iterdir())) == 4
    written = first.of([int(f) for f in frames])
    size = written.coefficient_response.nbytes + written.exponent_response.nbytes
    assert megabytes(model, fits, frames) == pytest.approx(size / 1e6)


def test_a_damaged_file_is_named(basis, fits, tmp_path) -> None:
    model, frames = untrained(basis), fits.indices("train")[:2]
    FrozenDensity.cached(tmp_path, model.density, fits, frames, CPU)
    (path,) = tmp_path.iterdir()
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="delete it"):
        FrozenDensity.cached(tmp_path, model.density, fits, frames, CPU)
    del tensors["exponent"]
    save_file(tensors, path)
    with pytest.raises(DataError, match="delete it"):
        FrozenDensity.cached(tmp_path, model.density, fits, frames, CPU)
