"""The CPU kernel of the convolution against the matrix products it replaces, its derivatives against finite differences."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from conftest import untrained
from torch import Tensor

from densnet.basis.shells import Basis
from densnet.model.compiled import CompiledModel
from densnet.model.densnet import DensNet
from densnet.nn import kernel
from densnet.nn.edges import EdgeFeatures
from densnet.nn.interaction import Interaction
from densnet.nn.irreps import Irreps
from densnet.nn.kernel import convolve, convolve_gradient
from densnet.structures import Molecule, Molecules

SOURCE = torch.tensor([1, 2, 0, 3, 0, 1, 1, 4, 0])
TARGET = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4])  # atom 5 has no neighbour


def layer(l_in: int, l_edge: int, l_out: int, channels: int, dtype: torch.dtype = torch.float64) -> Interaction:
    torch.manual_seed(0)
    made = Interaction(Irreps.natural(l_in), Irreps.natural(l_out), l_edge, channels, 4, 8, 3.0)
    return made.to(dtype)


def arguments(made: Interaction, l_edge: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Features, harmonics (not of any direction: the kernel is linear in them), weights."""
    torch.manual_seed(1)
    shapes = (6, made.irreps_in.dim, made.channels), (9, (l_edge + 1) ** 2), (9, made.n_paths, made.channels)
    h, y, w = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return h, y, w


def features(y: Tensor, use_kernel: bool) -> EdgeFeatures:
    nothing = torch.empty(0)
    return EdgeFeatures(SOURCE, TARGET, y, nothing, nothing, use_kernel)


def sums(made: Interaction, h: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """By matrix products and by the kernel, all irreps side by side."""
    one = torch.cat([x.flatten(1) for x in made.summed(h, features(y, False), w)], 1)
    other = torch.cat([x.flatten(1) for x in made.summed_by_kernel(h, features(y, True), w)], 1)
    return one, other


def operands(made: Interaction) -> tuple[Tensor, ...]:
    return SOURCE, TARGET, made.kernel_path, made.kernel_term, made.kernel_value


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("ls", [(0, 2, 2), (2, 2, 2), (2, 5, 5), (1, 2, 0), (3, 3, 1)])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_values_and_gradients_are_those_of_the_matrix_products(
    ls: tuple[int, int, int], dtype: torch.dtype, limit: float, threads: int
) -> None:
    made = layer(*ls, channels=5, dtype=dtype)
    inputs = arguments(made, ls[1], dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one, other = sums(made, *inputs)
        torch.manual_seed(2)
        weight = torch.randn_like(one)
        expected, found = (torch.autograd.grad((x * weight).sum(), inputs) for x in (one, other))
    finally:
        torch.set_num_threads(before)
    assert (one - other).abs().max() < limit * one.abs().max()
    for a, b in zip(expected, found):
        assert (a - b).abs().max() < limit * a.abs().max()
    assert bool((other[5] == 0).all())


def test_derivatives_of_first_and_second_order_against_finite_differences() -> None:
    made = layer(1, 2, 1, channels=2)
    h, y, w = arguments(made, 2)
    width = sum(n * (2 * l + 1) for n, (l, _) in zip(made.paths_per_output, made.irreps_out.irreps))

    def value(*x: Tensor) -> Tensor:
        return convolve(*x, *operands(made), width)

    assert torch.autograd.gradcheck(value, (h, y, w))
    assert torch.autograd.gradgradcheck(value, (h, y, w))


def test_the_third_derivative_is_that_of_the_matrix_products() -> None:
    """Training on dipole derivatives and on forces takes two; a Hessian in a loss would take three."""
    made = layer(1, 2, 1, channels=2)
    inputs = arguments(made, 2)
    results = []
    for x in sums(made, *inputs):
        first = torch.autograd.grad((x**3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum((g**2).sum() for g in first), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum((g**2).sum() for g in second), inputs))
    for a, b in zip(*results):
        assert (a - b).abs().max() < 1e-10 * a.abs().max()


def test_the_operators_keep_the_rules_of_torch() -> None:
    """Shapes without data, nothing changed in place, registration of the derivatives: what torch.compile relies on."""
    made = layer(1, 1, 1, channels=3, dtype=torch.float32)
    h, y, w = arguments(made, 1, torch.float32)
    width = sum(n * (2 * l + 1) for n, (l, _) in zip(made.paths_per_output, made.irreps_out.irreps))
    tables = *operands(made)[:4], made.kernel_value.float()
    torch.library.opcheck(convolve, (h, y, w, *tables, width))
    torch.library.opcheck(convolve_gradient, (torch.randn(6, width, 3), h, y, w, *tables))


def test_strided_inputs_are_read_as_they_are_meant() -> None:
    made = layer(1, 2, 1, channels=4)
    h, y, w = arguments(made, 2)
    wide = torch.cat([y, torch.full_like(y, 7.0)], 1)[:, : y.shape[1]]
    expected, _ = sums(made, h, y, w)
    _, found = sums(made, h.transpose(0, 2).contiguous().transpose(0, 2), wide, w)
    assert (expected - found).abs().max() < 1e-12


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(kernel.shutil, "which", lambda _: None)
    with caplog.at_level(logging.WARNING):
        assert kernel.library.__wrapped__(3) is None
    assert "no C++ compiler" in caplog.text


def test_a_compiler_that_fails_is_quoted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel, "FLAGS", ("-O3", "--no-such-option"))
    with caplog.at_level(logging.WARNING):
        assert kernel.library.__wrapped__(3) is None
    assert "no-such-option" in caplog.text


def test_a_whole_model_gives_the_same_by_the_kernel(basis: Basis, water: Molecule) -> None:
    """Energy, forces, dipole, and the gradients of the weights of a loss on forces: what training and dynamics take from it."""
    model = untrained(basis, high_channels=3)
    assert model.kernel_ready()
    molecules = Molecules.of([water, water.moved(1.1 * water.position)])
    edges, results = model.edges(molecules), []
    for use in (False, True):
        found = model.evaluate(molecules, edges.source, edges.target, create_graph=True, kernel=use)
        assert found.force is not None
        loss = found.force.square().sum() + found.dipole.square().sum() + found.energy.square().sum() * 1e-6
        gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        results.append((found.energy, found.force, found.dipole, found.density.coefficient, *gradients))
    for a, b in zip(*results):
        assert float((a - b).detach().abs().max()) <= 1e-10 * max(1.0, float(a.detach().abs().max()))


def test_two_models_of_one_process_do_not_share_a_graph(basis: Basis) -> None:
    """Guards on modules are off for speed; what is compiled for one model must not be found by another."""

    def code(model: DensNet) -> object:
        seen = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", lambda f, **_: seen.append(f.__code__) or f)
            CompiledModel(model)
        return seen[0]

    one, other = code(untrained(basis)), code(untrained(basis))
    assert one is not other


def test_a_kernel_that_is_wrong_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Planted in the source: a gradient that lacks a factor, and a sum over the wrong component."""
    source = kernel.SOURCE.read_text()
    for right, wrong in (
        ("weight[c] += from[c] * sum;", "weight[c] += 1.01f * from[c] * sum;"),
        ("h[k * C + c];\n      to", "h[c];\n      to"),
    ):
        assert right in source
        bad = tmp_path / "convolution.cpp"
        bad.write_text(source.replace(right, wrong))
        monkeypatch.setattr(kernel, "SOURCE", bad)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert kernel.library.__wrapped__(4) is None
        assert "the kernel of the convolution is wrong by" in caplog.text


def test_what_the_kernel_cannot_do_it_does_not_try(basis: Basis) -> None:
    model = untrained(basis)
    model.density.layers[0].irreps_out = Irreps.natural(9)
    assert not model.kernel_ready()
    assert kernel.library(4, torch.bfloat16) is None
    made = layer(1, 2, 1, channels=2)
    h, y, w = arguments(made, 2)
    width = sum(n * (2 * l + 1) for n, (l, _) in zip(made.paths_per_output, made.irreps_out.irreps))
    for wrong in ((h, y.float(), w), (h, y[:-1], w), (h, y, w[..., :1])):
        with pytest.raises(TypeError, match="the kernel got"):
            convolve(*wrong, *operands(made), width)


def test_no_edges_no_messages() -> None:
    made = layer(1, 1, 1, channels=2)
    none = torch.empty(0, dtype=torch.int64)
    h = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    y, w = torch.empty(0, 4, dtype=torch.float64), torch.empty(0, made.n_paths, 2, dtype=torch.float64)
    out = convolve(h, y, w, none, none, *operands(made)[2:], 10)
    assert bool((out == 0).all())
    assert bool((torch.autograd.grad(out.sum(), h)[0] == 0).all())
