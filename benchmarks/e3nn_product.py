"""The same network with e3nn's own tensor product in every layer, to compare with the dense Clebsch-Gordan form."""

from __future__ import annotations

from copy import deepcopy
from math import isqrt

import torch
from e3nn import o3
from torch import Tensor, nn

from densnet.model.densnet import DensNet
from densnet.nn.interaction import Interaction
from densnet.nn.irreps import coupling_paths


class E3nnMessage(nn.Module):
    """Interaction.message of a layer by o3.TensorProduct: 'uvu', the same paths, order and scale, float32."""

    def __init__(self, layer: Interaction) -> None:
        super().__init__()
        lmax = isqrt(layer.get_buffer("coupling_0").shape[0]) - 1
        self.irreps_in, self.irreps_out, self.channels = layer.irreps_in, layer.irreps_out, layer.channels
        self.paths = layer.paths_per_output
        triples = coupling_paths(self.irreps_in, lmax, self.irreps_out).triple
        self.product = o3.TensorProduct(
            self.irreps_in.e3nn(self.channels),
            o3.Irreps([(1, (l, (-1) ** l)) for l in range(lmax + 1)]),  # pyright: ignore[reportArgumentType]
            [(self.channels, self.irreps_out.irreps[o]) for _, _, o in triples],
            [(i, l, k, "uvu", True) for k, (l, i, _) in enumerate(triples)],
            irrep_normalization="component",
            path_normalization="none",
            internal_weights=False,
            shared_weights=False,
        )

    def forward(self, h: Tensor, harmonics: Tensor, weight: Tensor, source: Tensor) -> list[Tensor]:
        flat = torch.cat([h[:, s].transpose(1, 2).flatten(1) for s in self.irreps_in.slices()], dim=1)
        product = self.product(flat[source], harmonics, weight.flatten(1))
        sizes = [n * (2 * l + 1) * self.channels for n, (l, _) in zip(self.paths, self.irreps_out.irreps)]
        return [
            block.view(len(source), n, self.channels, 2 * l + 1).transpose(2, 3)
            for block, n, (l, _) in zip(product.split(sizes, 1), self.paths, self.irreps_out.irreps)
        ]


def with_e3nn_products(model: DensNet) -> DensNet:
    """A copy of a float32 model that computes the same by e3nn's tensor products."""
    copied = deepcopy(model)
    for layer in [m for m in copied.modules() if isinstance(m, Interaction)]:
        vars(layer)["message"] = E3nnMessage(layer)  # before the method of the class; no submodule: the weights stay the same
    return copied
