"""A compiled model predicts what the model predicts, is compared before it is trusted, and gives way when it is wrong."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import untrained
from simulation_potentials import settings

from densnet.basis.shells import Basis
from densnet.errors import BasisError, ConfigError
from densnet.model import compiled
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, Provenance, build, save_model
from densnet.model.compiled import CompiledModel, check_mode, load_potential
from densnet.model.in_passes import InPasses
from densnet.simulation.engine import simulate
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecule, Molecules
from densnet.training import passes
from densnet.training.passes import Passes


def several(water: Molecule, n: int) -> Molecules:
    rng = np.random.default_rng(n)
    return Molecules.of([water.moved(water.position + rng.normal(scale=0.05, size=(3, 3))) for _ in range(n)])


def batch_of(molecules: Molecules):
    class Batch:
        number, position, charge, batch = molecules.number, molecules.position, molecules.charge, molecules.molecule
        num_graphs = molecules.n

    return Batch()


def altered(output: int, factor: float):
    """A compiler that makes a mistake in one output."""

    def compile_whole(function, frozen=False):
        def run(*tensors):
            found = list(function(*tensors))
            found[output] = found[output] * factor
            return tuple(found)

        return run

    return compile_whole


def refuses(function, frozen=False):
    def run(*tensors):
        raise RuntimeError("no C++ compiler\nfound")

    return run


@pytest.mark.parametrize("output", [0, 1, 2, 5], ids=["energy", "force", "dipole", "charges"])
@pytest.mark.parametrize("factor", [1 + 1e-3, float("nan")], ids=str)
def test_a_wrong_graph_is_not_used(model, water, monkeypatch, caplog, output, factor) -> None:
    monkeypatch.setattr(compiled, "compile_whole", altered(output, factor))
    potential = CompiledModel(model)
    molecules = several(water, 2)
    with caplog.at_level(logging.WARNING):
        found = [potential.predict(molecules) for _ in range(2)]
    for prediction in found:
        assert torch.equal(prediction.energy, model.predict(molecules).energy)
        assert torch.equal(prediction.force, model.predict(molecules).force)
        assert torch.equal(prediction.dipole, model.predict(molecules).dipole)
        assert torch.equal(prediction.charge, model.predict(molecules).charge)
    assert [r.message.count("running eager") for r in caplog.records] == [1], "said once"


def test_a_right_graph_is_used_after_one_comparison_per_kind(model, water, monkeypatch, caplog) -> None:
    monkeypatch.setattr(compiled, "compile_whole", altered(0, 1.0))
    potential, eager = CompiledModel(model), []
    original = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda self, *a, **k: eager.append(1) or original(self, *a, **k))
    for n in (2, 3, 2, 1, 1):
        potential.predict(several(water, n))
    assert len(eager) == 2, "once for one molecule, once for several"
    # By the kernel of the convolutions, which rounds differently.
    torch.testing.assert_close(potential.predict(several(water, 3)).charge, model.predict(several(water, 3)).charge)
    assert not caplog.text
    assert potential.hash == model.hash


def test_without_a_compiler_it_runs_eager(model, water, monkeypatch, caplog) -> None:
    monkeypatch.setattr(compiled, "compile_whole", refuses)
    potential = CompiledModel(model)
    assert torch.equal(potential.predict(several(water, 2)).force, model.predict(several(water, 2)).force)
    assert "no C++ compiler found" in caplog.text


def test_bad_input_is_named_as_without_compilation(model, water) -> None:
    with pytest.raises(BasisError, match=r"Z=\[16\]"):
        CompiledModel(model).predict(Molecules.of([Molecule(np.array([16, 1, 1]), water.position)]))


def test_the_switch_has_three_values() -> None:
    for mode in compiled.MODES:
        check_mode(mode)
    with pytest.raises(ConfigError, match="'yes'; expected one of off, inference"):
        check_mode("yes", ("off", "inference"))


def test_load_potential(basis, tmp_path) -> None:
    architecture = Architecture(DensitySettings(4, (1, 2)), EnergySettings(4))
    save_model(tmp_path / "m", build(architecture, basis), architecture, Provenance())
    passes = [
        load_potential(tmp_path / "m", compile=mode, atoms_per_pass=atoms)
        for mode in ("off", "inference")
        for atoms in (7, None, 0)
    ]
    assert all(isinstance(potential, InPasses) for potential in passes)
    assert [p.atoms for p in passes] == [7, 160, 0, 7, 160, 0]  # a CPU has a usual number
    assert [isinstance(p.potential, CompiledModel) for p in passes] == [False] * 3 + [True] * 3
    with pytest.raises(ConfigError, match="compile is 'on'"):
        load_potential(tmp_path / "m", compile="on")


def total(prediction) -> torch.Tensor:
    return prediction.energy.square().mean() * 1e-3 + prediction.force.square().mean()


@pytest.mark.parametrize("output", [0, 1], ids=["energy", "force"])
def test_a_wrong_training_step_is_not_used(basis, water, monkeypatch, caplog, output) -> None:
    model = untrained(basis)
    monkeypatch.setattr(passes, "compile_whole", altered(output, 1 + 1e-3))
    source, batch = Passes(model, None, compiled=True), batch_of(several(water, 2))
    found = [source.predict_for(batch, total) for _ in range(2)]
    assert all(torch.equal(p.force, source.predict(batch, True).force) for p in found)
    assert caplog.text.count("running eager") == 1


def test_gradients_are_compared_not_values(basis, water, monkeypatch, caplog) -> None:
    """A graph that gives the right forces but has lost part of their gradient would train the wrong thing."""

    def compile_whole(function, frozen=False):
        def run(*tensors):
            energy, force, *rest = function(*tensors)
            return energy, force.detach() + 0 * force, *rest

        return run

    monkeypatch.setattr(passes, "compile_whole", compile_whole)
    source, batch = Passes(untrained(basis), None, compiled=True), batch_of(several(water, 2))
    source.predict_for(batch, total)
    assert "running eager" in caplog.text


def of_the_density(prediction) -> torch.Tensor:
    return prediction.density.coefficient.square().sum() + prediction.dipole.square().sum()


@pytest.mark.parametrize("output", [0, 1], ids=["dipole", "coefficients"])
def test_a_wrong_step_of_the_density_alone_is_not_used(basis, water, monkeypatch, caplog, output) -> None:
    model = untrained(basis)
    monkeypatch.setattr(passes, "compile_whole", altered(output, 1 + 1e-3))
    source, batch = Passes(model, None, compiled=True, energies=False), batch_of(several(water, 2))
    found = source.predict_for(batch, of_the_density)
    assert not source.active
    assert "running eager" in caplog.text
    torch.testing.assert_close(found.density.coefficient, model.density_only(several(water, 2)).density.coefficient)
    assert found.force is None


def tiny(basis: Basis):
    """A network as small as they get, in float32: compiling takes the time that its number of operations takes."""
    torch.manual_seed(0)
    elements = tuple(replace(e, shells=tuple(s for s in e.shells if s.l < 2)) for e in basis.elements)
    basis = replace(basis, elements=elements)
    settings = {"channels": 2, "hidden": 4, "radial": 3, "neighbours": 2.0}
    model = build(
        Architecture(DensitySettings(lmax=(1,), **settings), EnergySettings(layers=1, lmax=1, invariants=1, **settings)), basis
    )
    for name, parameter in model.named_parameters():
        if name.startswith("density.readout"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def molecules_sum(charge: torch.Tensor, n: int) -> torch.Tensor:
    return charge.view(n, -1).sum(1)


@pytest.mark.slow
def test_compiled_inference_for_any_number_of_molecules(basis, water, caplog) -> None:
    """The real compiler: forces to 1e-6, no second compilation for another number of molecules or edges."""
    model = tiny(basis)
    potential = CompiledModel(model)
    for n in (3, 5, 2):
        found, expected = potential.predict(several(water, n)), model.predict(several(water, n))
        assert (found.force - expected.force).abs().max() < 1e-6
        assert (found.energy - expected.energy).abs().max() < 1e-5
        assert (found.dipole - expected.dipole).abs().max() < 1e-6
        assert (found.charge - expected.charge).abs().max() < 1e-6
        assert molecules_sum(found.charge, n).abs().max() < 1e-10
        assert not found.force.requires_grad
    far = several(water, 4)
    stretched = far.at(far.position.clone().index_add_(0, torch.tensor([1]), torch.tensor([[30.0, 0, 0]], dtype=torch.float64)))
    assert (potential.predict(stretched).force - model.predict(stretched).force).abs().max() < 1e-6
    assert "running eager" not in caplog.text


@pytest.mark.slow
def test_compiled_dynamics_continues_bit_for_bit(basis, water, tmp_path, caplog) -> None:
    """The real compiler, in passes of two molecules and one: a run in pieces is the run in one piece."""
    found = {}
    for name, pieces in (("whole", [12]), ("pieces", [5, 12])):
        for steps in pieces:
            asked = settings(replicas=3, steps=steps, temperature=50.0, time_step_fs=0.02, max_temperature=1e6)
            potential = InPasses(CompiledModel(tiny(basis)), 6)
            simulate(potential, water, asked, tmp_path / f"{name}.h5", progress=False, resume=steps > pieces[0])
        found[name] = read_trajectory(tmp_path / f"{name}.h5")
    for name in ("position", "velocity", "dipole", "energy"):
        np.testing.assert_array_equal(getattr(found["pieces"], name), getattr(found["whole"], name))
    assert found["whole"].position.shape[0] > 2
    assert "running eager" not in caplog.text


@pytest.mark.slow
def test_compiled_training_step(basis, water, caplog) -> None:
    """The real compiler on the double backward: parameter gradients to 1e-5 of their size."""
    model = tiny(basis)
    source = Passes(model, None, compiled=True)
    for n in (3, 4):
        batch = batch_of(several(water, n))
        gradients = [
            torch.autograd.grad(total(p), list(model.parameters()), allow_unused=True, materialize_grads=True)
            for p in (source.predict_for(batch, total), source.predict(batch, True))
        ]
        for a, b in zip(*gradients):
            assert (a - b).abs().max() <= 1e-5 * max(float(b.abs().max()), 1e-3)
    assert "running eager" not in caplog.text


@pytest.mark.slow
def test_compiled_step_of_the_density_alone(basis, water, caplog) -> None:
    """The real compiler on the network of a stage without energies: parameter gradients to 1e-5 of their size."""
    model = tiny(basis)
    model.energy.requires_grad_(False)
    source = Passes(model, None, compiled=True, energies=False)
    parameters = list(model.density.parameters())
    for n in (3, 4):
        batch = batch_of(several(water, n))
        gradients = [
            torch.autograd.grad(of_the_density(p), parameters, allow_unused=True, materialize_grads=True)
            for p in (source.predict_for(batch, of_the_density), source.predict(batch, True))
        ]
        for a, b in zip(*gradients):
            assert (a - b).abs().max() <= 1e-5 * max(float(b.abs().max()), 1e-3)
    assert source.active
    assert "running eager" not in caplog.text
