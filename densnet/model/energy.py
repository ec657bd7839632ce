"""Energy network: density and nuclei -> total energy. Message passing on the coefficients as equivariant features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densnet.basis.shells import Basis
from densnet.model.scaling import CoefficientFrame
from densnet.nn.edges import EdgeEmbedding, EdgeFeatures
from densnet.nn.interaction import SILU_GAIN, Interaction, unit_linear
from densnet.nn.irreps import Irreps
from densnet.nn.readout import FromExponents, FromShells
from densnet.structures import Density, Molecules


class EnergyNetwork(nn.Module):
    """E[c(R), R] = sum over atoms of (free-atom energy + shift + scale * network).

    Every atom starts from its element, its shells up to l = lmax mixed into channels, and the invariants (softened norms of
    mixed shells) of every l of the basis. Free-atom energies come with the basis; shift per element and scale are fitted
    to the training energies and forces (densnet.training.run.fit_references) and live in the checkpoint.

    channels, layers, lmax, cutoff (bohr), radial, hidden, neighbours, overlap_weight, rank: as for the density network;
    invariants: norms per l, sqrt(mean x^2 + softening^2); flexible: the exponents of the density move, so they are an input
    too; density: False leaves the density out, a potential of the geometry alone to compare with; layers=0 leaves the geometry
    out.
    """

    shift: Tensor
    scale: Tensor
    free_atom: Tensor

    def __init__(
        self,
        basis: Basis,
        channels: int,
        layers: int,
        lmax: int,
        cutoff: float,
        radial: int,
        hidden: int,
        neighbours: float,
        invariants: int,
        overlap_weight: float,
        flexible: bool = False,
        density: bool = True,
        rank: int | None = None,
        softening: float = 0.1,
    ) -> None:
        super().__init__()
        self.lmax = min(lmax, basis.lmax)
        self.softening = softening
        self.edges = EdgeEmbedding(cutoff, radial, self.lmax)
        self.frame = CoefficientFrame(basis, overlap_weight)
        n_elements = len(basis.numbers)
        self.embedding = nn.Embedding(n_elements, channels)
        self.from_shells = self.to_invariants = self.from_exponents = self.mix = None
        if density:
            self.from_shells = FromShells(n_elements, basis.multiplicity[: self.lmax + 1], channels)
            self.to_invariants = FromShells(n_elements, basis.multiplicity, invariants)
            self.from_exponents = FromExponents(n_elements, sum(basis.multiplicity), channels) if flexible else None
            self.mix = nn.Sequential(
                unit_linear(2 * channels + invariants * (basis.lmax + 1), hidden, bias=True),
                nn.SiLU(),
                unit_linear(hidden, channels, bias=True, gain=SILU_GAIN),
            )
        features = Irreps.natural(self.lmax)
        self.layers = nn.ModuleList(
            Interaction(
                features,
                Irreps.natural(0) if i == layers - 1 else features,
                self.lmax,
                channels,
                radial,
                hidden,
                neighbours,
                rank,
            )
            for i in range(layers)
        )
        self.readout = nn.Sequential(
            unit_linear(2 * channels, hidden, bias=True), nn.SiLU(), unit_linear(hidden, 1, bias=True, gain=SILU_GAIN)
        )
        self.register_buffer(
            "free_atom", torch.tensor([e.atom.energy for e in basis.elements], dtype=torch.float64), persistent=False
        )
        self.register_buffer("shift", torch.zeros(n_elements, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def forward(self, molecules: Molecules, density: Density, edges: EdgeFeatures | None = None) -> Tensor:
        """(B,) total energies, hartree, float64. edges: of self.edges or an embedding that covers it; None to make them."""
        if edges is None:
            edges = self.edges.of(molecules, self.dtype)
        row = self.frame.row(molecules.number)
        h = self._start(density, row)
        start = h[:, 0]
        edges = edges.up_to(self.lmax)
        for layer in self.layers:
            h = layer(h, edges)
        atomic = self.readout(torch.cat([start, h[:, 0]], dim=-1))[:, 0]
        # References are added in float64: total energies of hundreds of hartree must not eat the float32 digits.
        return molecules.sum(self.free_atom[row] + self.shift[row] + self.scale * atomic.to(torch.float64))

    @property
    def density_inputs(self) -> int:
        """How much of a density the energy depends on: 0 nothing, 1 the coefficients, 2 the exponents too."""
        return 0 if self.from_shells is None else 1 if self.from_exponents is None else 2

    def _start(self, density: Density, row: Tensor) -> Tensor:
        """(N, (lmax+1)^2, channels) features of every atom before it hears of any other."""
        element = self.embedding(row)
        if self.from_shells is None or self.to_invariants is None or self.mix is None:
            return torch.nn.functional.pad(element[:, None, :], (0, 0, 0, (self.lmax + 1) ** 2 - 1))
        blocks = [b.to(self.dtype) for b in self.frame.encode(density.coefficient, row)]
        features = self.from_shells(blocks[: self.lmax + 1], row)
        # A norm has a cusp at zero, which a scalar crosses all the time: too little softening, and the Hessian there is wrong.
        norms = [(x.square().mean(1) + self.softening**2).sqrt() for x in self.to_invariants(blocks, row)]
        start = self.mix(torch.cat([element, features[0][:, 0], *norms], dim=-1))
        if self.from_exponents is not None:
            start = start + self.from_exponents(torch.log(density.exponent / self.frame.exponent[row]).to(self.dtype), row)
        return torch.cat([start[:, None, :], *features[1:]], dim=1)
