"""The whole chain R -> rho -> E -> F, with dipole and charges of the density in the same pass."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from densnet.basis.shells import Basis
from densnet.data.neighbours import Edges, SkinLists, neighbours
from densnet.errors import ModelError
from densnet.model.density import DensityNetwork
from densnet.model.energy import EnergyNetwork
from densnet.nn.interaction import Convolution
from densnet.nn.kernel import LARGEST_L, library
from densnet.observables.multipoles import charges_and_dipole
from densnet.structures import Density, Molecules, Prediction

SKIN = 1.0  # bohr; dynamics at 300 K makes new lists every ten steps or so


class DensNet(nn.Module):
    """A density network and, once trained, an energy network on the same basis.

    hash identifies a saved model (set by densnet.model.checkpoint).
    """

    def __init__(self, basis: Basis, density: DensityNetwork, energy: EnergyNetwork | None) -> None:
        super().__init__()
        self.basis, self.density, self.energy = basis, density, energy
        self.hash = "unsaved"
        self._kept = SkinLists(self.cutoff, SKIN)

    def forward(self, molecules: Molecules, forces: bool = True, create_graph: bool = False) -> Prediction:
        """One pass. Forces are minus the gradient of E(R, rho(R)) through both networks; create_graph keeps them

        differentiable for training. Without an energy network energy and force are NaN and None.
        Raises BasisError for an element the model was not made for.
        """
        self.density.check_elements(molecules)
        pairs = neighbours(molecules, self.cutoff)
        return self.evaluate(molecules, pairs.source, pairs.target, forces and self.energy is not None, create_graph)

    def kernel_ready(self) -> bool:
        """Whether the kernel (densnet.nn.kernel) serves this model: on a CPU, l up to 8; it is built now if it was not."""
        first = next(self.parameters())
        if first.device.type != "cpu":
            return False
        layers = [module for module in self.modules() if isinstance(module, Convolution)]
        if any(l > LARGEST_L for m in layers for l, _ in (*m.irreps_in.irreps, *m.irreps_out.irreps)):
            return False
        channels = {module.channels for module in layers}
        return all(library(c, first.dtype) is not None for c in sorted(channels))

    @property
    def cutoff(self) -> float:
        """Bohr, the larger one of the networks."""
        return max(n.edges.cutoff for n in (self.density, self.energy) if n is not None)

    def edges(self, molecules: Molecules) -> Edges:
        """The edges within the cutoff, from lists kept while the atoms move little. Raises BasisError as forward does."""
        self.density.check_elements(molecules)
        return self._kept.edges(molecules)

    def evaluate(
        self,
        molecules: Molecules,
        source: Tensor,
        target: Tensor,
        forces: bool = True,
        create_graph: bool = False,
        kernel: bool = False,
    ) -> Prediction:
        """forward on given edges, (E,) atom indices each: all pairs within the cutoff, longer ones do no harm.

        kernel: see EdgeFeatures.
        Tensor operations alone, no decision that depends on a value: this is what is compiled.
        """
        if forces and not molecules.position.requires_grad:
            molecules = molecules.at(molecules.position.detach().requires_grad_())
        with torch.set_grad_enabled(forces or torch.is_grad_enabled()):
            edges = replace(self.density.edges(molecules.position, source, target, self.density.dtype), kernel=kernel)
            density = self.density(molecules, edges)
            charge, moment = charges_and_dipole(molecules, density, self.basis.multiplicity)
            if self.energy is None:
                return Prediction(moment.new_full((molecules.n,), torch.nan), None, moment, density, charge)
            if not self.density.edges.covers(self.energy.edges):
                edges = replace(self.energy.edges(molecules.position, source, target, self.energy.dtype), kernel=kernel)
            energy = self.energy(molecules, density, edges)
            force = None
            if forces:
                force = -torch.autograd.grad(
                    energy.sum(), molecules.position, create_graph=create_graph, retain_graph=create_graph
                )[0]
        return Prediction(energy, force, moment, density, charge)

    def density_only(self, molecules: Molecules) -> Prediction:
        """Density, dipole and charges; energy NaN, force None."""
        density = self.density(molecules)
        charge, moment = charges_and_dipole(molecules, density, self.basis.multiplicity)
        return Prediction(moment.new_full((molecules.n,), torch.nan), None, moment, density, charge)

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        """Evaluation without a graph: everything detached. Raises ModelError if there is no energy network."""
        if self.energy is None:
            raise ModelError("this model has a density network only; energies and forces need stage=energy or joint first")
        edges = self.edges(molecules)
        with torch.enable_grad() if forces else torch.no_grad():
            result = self.evaluate(molecules, edges.source, edges.target, forces)
        density = Density(result.density.coefficient.detach(), result.density.exponent.detach())
        force, charge = (None if x is None else x.detach() for x in (result.force, result.charge))
        return Prediction(result.energy.detach(), force, result.dipole.detach(), density, charge)
