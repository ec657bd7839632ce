"""The dense Clebsch-Gordan layer is e3nn's tensor product; the radial basis ends smoothly."""

from __future__ import annotations

import pytest
import torch
from conftest import random_rotation, wigner_d
from e3nn import o3

from densnet.nn.edges import EdgeFeatures, harmonics
from densnet.nn.interaction import Interaction, radial_network
from densnet.nn.irreps import Irreps, coupling_paths
from densnet.nn.radial import RadialBasis

CHANNELS, EDGES, NODES = 5, 40, 7


@pytest.mark.parametrize("make", [Irreps.natural, Irreps.both_parities], ids=["natural", "both"])
def test_message_equals_e3nn_tensor_product(make) -> None:
    """Every path against o3.TensorProduct('uvu') with external weights."""
    torch.manual_seed(0)
    irreps_in, irreps_out, lmax = make(2), make(3), 3
    layer = Interaction(irreps_in, irreps_out, lmax, CHANNELS, radial_size=4, hidden=8, neighbours=1.0)
    triples = coupling_paths(irreps_in, lmax, irreps_out).triple
    h = torch.randn(NODES, irreps_in.dim, CHANNELS)
    source = torch.randint(NODES, (EDGES,))
    weight = torch.randn(EDGES, len(triples), CHANNELS)
    y = o3.spherical_harmonics(list(range(lmax + 1)), torch.randn(EDGES, 3), normalize=True, normalization="component")
    ours = torch.cat([block.flatten(1, 2) for block in layer.message(h, y, weight, source)], dim=1)

    edge = o3.Irreps([(1, (l, (-1) ** l)) for l in range(lmax + 1)])
    reference = o3.TensorProduct(
        irreps_in.e3nn(CHANNELS),
        edge,
        [(CHANNELS, irreps_out.irreps[o]) for _, _, o in triples],
        [(i, l, k, "uvu", True) for k, (l, i, _) in enumerate(triples)],
        irrep_normalization="component",
        path_normalization="none",
        internal_weights=False,
        shared_weights=False,
    )
    flat = torch.cat([h[:, s].transpose(1, 2).flatten(1) for s in irreps_in.slices()], dim=1)  # channels first, as in e3nn
    expected = reference(flat[source], y, weight.flatten(1))
    start = column = 0
    for _, _, o in triples:
        n = 2 * irreps_out.irreps[o][0] + 1
        block = expected[:, start : start + CHANNELS * n].view(EDGES, CHANNELS, n).transpose(1, 2)
        assert (ours[:, column : column + n] - block).abs().max() < 1e-5 * max(1.0, float(block.abs().max()))
        start, column = start + CHANNELS * n, column + n
    assert column == ours.shape[1]


def test_radial_basis_ends_smoothly() -> None:
    cutoff = 5.0
    radial = RadialBasis(6, cutoff).double()
    inside = torch.tensor([cutoff - 1e-3], dtype=torch.float64, requires_grad=True)
    features, envelope = radial(inside)
    slope = torch.autograd.grad(envelope.sum() + features.sum(), inside, create_graph=True)[0]
    curvature = torch.autograd.grad(slope, inside)[0]
    assert envelope.abs().max() < 1e-8
    assert slope.abs().max() < 1e-5
    assert curvature.abs().max() < 1e-2
    assert all(x.abs().max() == 0 for x in radial(torch.tensor([cutoff, cutoff + 1], dtype=torch.float64)))
    assert radial(torch.tensor([1.0], dtype=torch.float64))[1] > 0.5


def test_radial_functions_are_spherical_bessel_functions() -> None:
    """Before the envelope: orthonormal in r^2 dr, zero at the cutoff, finite at the nucleus."""
    size, cutoff = 5, 4.0
    radial = RadialBasis(size, cutoff).double()

    def bare(r: torch.Tensor) -> torch.Tensor:
        features, envelope = radial(r)
        return features / envelope / cutoff**0.5

    n = 4000
    r = (torch.arange(n, dtype=torch.float64) + 0.5) * cutoff / n
    overlap = (bare(r).T * r**2) @ bare(r) * cutoff / n
    assert (overlap - torch.eye(size)).abs().max() < 1e-6
    assert bare(torch.tensor([cutoff * (1 - 1e-4)], dtype=torch.float64)).abs().max() < 1e-3
    assert bare(torch.tensor([1e-6], dtype=torch.float64)).abs().max() < size * 3.2 / cutoff**1.5 * 2**0.5


def test_typical_number_of_neighbours_scales_the_sum() -> None:
    """Two equal messages at neighbours=4 add up to one at neighbours=1, at the target alone."""
    outputs = []
    for neighbours, copies in ((1.0, 1), (4.0, 2)):
        torch.manual_seed(1)
        layer = Interaction(Irreps.natural(0), Irreps.natural(2), 2, CHANNELS, radial_size=4, hidden=8, neighbours=neighbours)
        h = torch.randn(1, 1, CHANNELS).expand(5, 1, CHANNELS)
        edge = torch.randn(1, 3)
        y = o3.spherical_harmonics([0, 1, 2], edge, normalize=True, normalization="component").expand(copies, 9)
        radial, envelope = torch.randn(1, 4).expand(copies, 4), torch.ones(copies, 1)
        target = torch.zeros(copies, dtype=torch.long)
        outputs.append(layer(h, EdgeFeatures(torch.arange(copies) + 1, target, y, radial, envelope)))
    assert (outputs[0][0] - outputs[1][0]).abs().max() < 1e-5  # two messages over sqrt(4) are one
    for out in outputs:
        assert (out[0] - out[4]).abs().max() > 1e-2  # atom 4 has no edge; the target received something, the sources nothing
        assert (out[1:4] - out[4]).abs().max() < 1e-6


@pytest.mark.parametrize("inversion", [False, True], ids=["rotation", "inversion"])
def test_a_layer_with_both_parities_is_equivariant(inversion: bool) -> None:
    """Every irrep of both parities in and out, random biases: turned input gives turned output, pseudoscalars change sign."""
    torch.manual_seed(2)
    irreps = Irreps.both_parities(2)
    layer = Interaction(irreps, irreps, 2, CHANNELS, radial_size=4, hidden=8, neighbours=3.0).double()
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    turn = random_rotation(1)
    blocks = [wigner_d(l, turn) * (p if inversion else 1) for l, p in irreps.irreps]  # of turn, or of turn * inversion
    whole = torch.block_diag(*blocks)
    h = torch.randn(NODES, irreps.dim, CHANNELS, dtype=torch.float64)
    source, target = torch.arange(NODES), torch.arange(NODES).roll(1)
    radial, envelope = torch.randn(NODES, 4, dtype=torch.float64), torch.rand(NODES, 1, dtype=torch.float64)
    vector = torch.randn(NODES, 3, dtype=torch.float64)

    def out(features: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        y = o3.spherical_harmonics([0, 1, 2], edge, normalize=True, normalization="component")
        return layer(features, EdgeFeatures(source, target, y, radial, envelope))

    matrix = torch.as_tensor(turn) * (-1 if inversion else 1)
    before, after = out(h, vector), out(torch.einsum("ij,njc->nic", whole, h), vector @ matrix.T)
    assert (torch.einsum("ij,njc->nic", whole, before) - after).abs().max() < 1e-10
    assert (torch.einsum("ji,njc->nic", whole, before) - after).abs().max() > 1e-2


def test_harmonics_are_those_of_e3nn() -> None:
    """The coupling coefficients come from e3nn: order, sign and normalisation of the harmonics must be its own."""
    x = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    expected = o3.spherical_harmonics(list(range(7)), x, normalize=True, normalization="component")
    assert (harmonics(x, 6) - expected).abs().max() < 1e-12
    assert (harmonics(x.flip(1), 6) - expected).abs().max() > 0.1


def test_rank_limits_the_functions_of_the_distance() -> None:
    """The weights of all paths over many distances are a matrix of that rank, of the same size as without a limit."""
    torch.manual_seed(7)
    distances = torch.linspace(1.0, 8.0, 400, dtype=torch.float64)
    radial, _ = RadialBasis(8, 9.0).double()(distances)
    full, limited = (radial_network(8, 32, rank, 60).double()(radial) for rank in (None, 5))
    assert int(torch.linalg.matrix_rank(limited, rtol=1e-10)) == 5
    assert int(torch.linalg.matrix_rank(full, rtol=1e-10)) > 20
    assert 0.5 < float((limited.std() / full.std()).detach()) < 2.0
