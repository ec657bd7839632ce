"""How a training stage gets its predictions: through both networks or from stored densities, eager or compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from densnet.data.datamodule import Frames, inputs
from densnet.data.neighbours import neighbours
from densnet.errors import ConfigError
from densnet.model.compiled import Evaluate, compile_whole
from densnet.model.densnet import DensNet
from densnet.observables.multipoles import atomic_charges, charges_and_dipole, dipole
from densnet.structures import Density, Molecules, Prediction
from densnet.training.frozen_density import (
    DensityResponse,
    FrozenDensity,
    energy_and_force,
    rank_in_molecule,
    with_gradient,
)

log = logging.getLogger(__name__)

GRADIENT_TOLERANCE = 1e-5  # of every parameter, relative to its largest element

Loss = Callable[[Prediction], Tensor]


class Passes:
    """Predictions of a model for batches of labelled frames.

    frozen: densities to use instead of the density network's. compiled: training predictions come from one compiled graph,
    once its gradients were compared with the eager ones (densnet.model.compiled). energies: whether energies and forces are
    wanted; without them the density network alone is evaluated, even if the model has another. kernel: whether to use that of the
    convolutions (densnet.nn.kernel); None where the model's device now allows it.
    """

    def __init__(
        self, model: DensNet, frozen: FrozenDensity | None, compiled: bool, energies: bool = True, kernel: bool | None = None
    ) -> None:
        self.model, self.frozen, self.energies = model, frozen, energies
        self._eager = self._alone if not energies else self._both if frozen is None else self._stored
        self._checked, self._compiled = False, None
        self._kernel = model.kernel_ready() if kernel is None else kernel
        if compiled:
            try:
                self._compiled = compile_whole(self._eager)
            except ConfigError as error:
                log.warning("%s; running eager", error)

    @property
    def active(self) -> bool:
        """Whether training predictions come from the compiled graph (False once it was found wrong, or not wanted)."""
        return self._compiled is not None

    def predict(self, batch: Frames, create_graph: bool) -> Prediction:
        """The prediction, forces included if wanted; create_graph keeps them differentiable in the parameters."""
        return self._run(batch, create_graph, self._eager)

    def predict_for(self, batch: Frames, loss: Loss) -> Prediction:
        """The same for a training step that will minimise `loss`: compiled if wanted, and if the gradients agree."""
        if self._compiled is None:
            return self.predict(batch, create_graph=True)
        if not self._checked:
            self._checked, problem = True, self._disagreement(batch, loss)
            if problem:
                log.warning("the compiled training step is not used (%s); running eager", problem)
                self._compiled = None
                return self.predict(batch, create_graph=True)
        return self._run(batch, True, self._compiled)

    def _run(self, batch: Frames, create_graph: bool, evaluate: Evaluate) -> Prediction:
        molecules = inputs(batch)
        self.model.density.check_elements(molecules)
        pairs = neighbours(molecules, self.model.cutoff)
        position = molecules.position.detach().requires_grad_(self.energies)
        tensors = (molecules.number, position, molecules.charge, molecules.molecule, pairs.source, pairs.target)
        options, multiplicity = () if evaluate is self._compiled else (create_graph,), self.model.basis.multiplicity
        if not self.energies:
            moment, *functions = evaluate(*tensors)
            density, nothing = Density(*functions), moment.new_full((molecules.n,), torch.nan)
            return Prediction(nothing, None, moment, density, atomic_charges(density, multiplicity))
        if self.frozen is None:
            energy, force, moment, *functions = evaluate(*tensors, *options)
            density = Density(*functions)
            return Prediction(energy, force, moment, density, atomic_charges(density, multiplicity))
        stored = with_gradient(self.frozen.of(batch.frame.tolist()))
        density = stored.density
        more = (density.coefficient, density.exponent, stored.coefficient_response, stored.exponent_response)
        energy, force = evaluate(*tensors, *more, rank_in_molecule(molecules), *options)
        density = Density(density.coefficient.detach(), density.exponent.detach())
        charge, moment = charges_and_dipole(molecules, density, multiplicity)
        return Prediction(energy, force, moment, density, charge)

    def dipoles(self, molecules: Molecules) -> Tensor:
        """(B, 3) of any molecules, differentiable to any order in positions and parameters: not compiled."""
        pairs = neighbours(molecules, self.model.cutoff)
        tensors = molecules.number, molecules.position, molecules.charge, molecules.molecule
        return self._alone(*tensors, pairs.source, pairs.target)[0]

    def _alone(
        self, number: Tensor, position: Tensor, charge: Tensor, molecule: Tensor, source: Tensor, target: Tensor
    ) -> tuple[Tensor, ...]:
        molecules = Molecules(number, position, charge, molecule, charge.shape[0])
        edges = self.model.density.edges(position, source, target, self.model.density.dtype)
        density = self.model.density(molecules, replace(edges, kernel=self._kernel))
        return dipole(molecules, density, self.model.basis.multiplicity), density.coefficient, density.exponent

    def _both(
        self,
        number: Tensor,
        position: Tensor,
        charge: Tensor,
        molecule: Tensor,
        source: Tensor,
        target: Tensor,
        create_graph: bool = True,
    ) -> tuple[Tensor, ...]:
        molecules = Molecules(number, position, charge, molecule, charge.shape[0])
        found = self.model.evaluate(molecules, source, target, True, create_graph, self._kernel)
        assert found.force is not None
        return found.energy, found.force, found.dipole, found.density.coefficient, found.density.exponent

    def _stored(
        self,
        number: Tensor,
        position: Tensor,
        charge: Tensor,
        molecule: Tensor,
        source: Tensor,
        target: Tensor,
        coefficient: Tensor,
        exponent: Tensor,
        coefficient_response: Tensor,
        exponent_response: Tensor,
        rank: Tensor,
        create_graph: bool = True,
    ) -> tuple[Tensor, ...]:
        assert self.model.energy is not None
        molecules = Molecules(number, position, charge, molecule, charge.shape[0])
        response = DensityResponse(Density(coefficient, exponent), coefficient_response, exponent_response)
        return energy_and_force(self.model.energy, molecules, source, target, response, rank, create_graph, self._kernel)

    def _disagreement(self, batch: Frames, loss: Loss) -> str:
        """What is wrong with the compiled gradients, empty if nothing is."""
        names, parameters = zip(*((n, p) for n, p in self.model.named_parameters() if p.requires_grad))
        log.warning("compiling the training step: some minutes")
        assert self._compiled is not None
        try:
            found = torch.autograd.grad(loss(self._run(batch, True, self._compiled)), parameters, materialize_grads=True)
        except Exception as error:  # whatever a compiler may raise; the eager step follows and raises what is wrong with the data
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        expected = torch.autograd.grad(loss(self.predict(batch, create_graph=True)), parameters, materialize_grads=True)
        # A parameter with next to no gradient is compared on the scale of the others.
        least = 1e-3 * max(float(e.abs().max()) for e in expected)
        for name, f, e in zip(names, found, expected):
            off = float((f - e).abs().max()) / max(float(e.abs().max()), least, 1e-30)
            if not off <= GRADIENT_TOLERANCE:
                return f"gradient of {name} differs by {off:.1e} of its size; expected {GRADIENT_TOLERANCE:.0e}"
        return ""
