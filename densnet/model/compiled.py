"""Compiled evaluation of a model: the whole pass R -> rho -> E, F, dipole, charges as one graph, dynamic atom and edge counts.

A compiled graph is trusted only after it gave what the model itself gives: once per kind of call its forces (inference) or
the gradients of every parameter (training, densnet.training.compiled_step) are compared. If they differ, or nothing can be
compiled on this machine, that is said once and the model runs as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch import Tensor

from densnet.errors import ConfigError
from densnet.model import checkpoint
from densnet.model.densnet import DensNet
from densnet.model.in_passes import ATOMS_ON_CPU, InPasses
from densnet.structures import Density, Molecules, Prediction

log = logging.getLogger(__name__)

MODES = ("off", "inference", "training")
FORCE_TOLERANCE = 1e-6  # hartree/bohr, times the largest force where that is above one

Evaluate = Callable[..., tuple[Tensor, ...]]


def check_mode(mode: str, allowed: tuple[str, ...] = MODES) -> None:
    """Raise ConfigError unless the switch has one of its values."""
    if mode not in allowed:
        raise ConfigError(f"compile is {mode!r}; expected one of {', '.join(allowed)}")


def compile_whole(function: Evaluate, frozen: bool = False) -> Evaluate:
    """torch.compile of a function that calls torch.autograd.grad inside.

    One graph or an error: a graph break would hide a part that silently runs eagerly. frozen: promise that the modules it uses
    keep their structure (weights are inputs of the graph and may change), which saves looking at each of them in every call.
    Raises ConfigError before torch 2.13, which cannot trace the gradient.
    """
    settings = torch._dynamo.config
    if not hasattr(settings, "trace_autograd_ops"):
        raise ConfigError(f"compile needs torch 2.13 or newer; found {torch.__version__}; use compile=off or a newer torch")

    options: Any = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe} if frozen else None
    if frozen:
        # Compiled graphs belong to a code object: without guards on the modules a second model would be given those of the first.
        method = cast(MethodType, function)
        inner = method.__func__
        own = FunctionType(inner.__code__.replace(), inner.__globals__, inner.__name__, inner.__defaults__, inner.__closure__)
        function = MethodType(own, method.__self__)
    compiled = torch.compile(function, dynamic=True, fullgraph=True, options=options)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        # Strided inputs are a source of silently wrong results in compiled graphs.
        with settings.patch(trace_autograd_ops=True):  # pyright: ignore[reportAttributeAccessIssue]
            return compiled(*(t.contiguous() for t in tensors))

    return run


def load_potential(folder: Path | str, device: str = "cpu", compile: str = "off", atoms_per_pass: int | None = None) -> InPasses:
    """A saved model to simulate with. compile: "inference" or "off"; atoms_per_pass: larger batches go in several passes
    (densnet.model.in_passes), 0 for all at once, None for the usual number on a CPU and all at once on other devices. A last
    pass of one molecule costs a compiled model a second graph.

    Raises ModelError and ConfigError as load_model does, ConfigError too if atoms_per_pass is no whole number.
    """
    check_mode(compile, ("off", "inference"))
    model = checkpoint.load_model(folder, device)
    potential = CompiledModel(model) if compile == "inference" else model
    if atoms_per_pass is None:
        atoms_per_pass = ATOMS_ON_CPU if torch.device(device).type == "cpu" else 0
    return InPasses(potential, atoms_per_pass)


class CompiledModel:
    """A DensNet to predict with, compiled. Anything that takes a Potential takes it.

    The first call compiles (minutes for a network like models/ethanol; one, when torch's cache on disk has it) and compares.
    Molecules of other sizes need no second compilation, except that one molecule and several are different graphs to torch.
    """

    def __init__(self, model: DensNet) -> None:
        self.model, self.hash = model, model.hash
        self._compiled: Evaluate | None = None
        self._checked: set[bool] = set()
        self._kernel = model.kernel_ready()
        try:
            self._compiled = compile_whole(self._evaluate, frozen=True)
        except ConfigError as error:
            log.warning("%s; running eager", error)

    @property
    def active(self) -> bool:
        """Whether predictions come from the compiled graph (False once it was found wrong, or could not be made)."""
        return self._compiled is not None

    def _evaluate(
        self, number: Tensor, position: Tensor, charge: Tensor, molecule: Tensor, source: Tensor, target: Tensor
    ) -> tuple[Tensor, ...]:
        molecules = Molecules(number, position, charge, molecule, charge.shape[0])
        found = self.model.evaluate(molecules, source, target, forces=True, kernel=self._kernel)
        assert found.force is not None
        assert found.charge is not None
        outputs = found.energy, found.force, found.dipole, found.density.coefficient, found.density.exponent, found.charge
        return tuple(x.detach() for x in outputs)

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        """As DensNet.predict. Without forces, or without an energy network, the model itself is asked."""
        if self._compiled is None or not forces or self.model.energy is None:
            return self.model.predict(molecules, forces)
        pairs = self.model.edges(molecules)
        try:
            found = self._compiled(
                molecules.number, molecules.position.detach(), molecules.charge, molecules.molecule, pairs.source, pairs.target
            )
        except Exception as error:  # whatever a compiler may raise; the eager pass tells what is wrong with the input
            return self._give_up(molecules, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        energy, force, dipole, coefficient, exponent, charge = (t.detach() for t in found)
        prediction = Prediction(energy, force, dipole, Density(coefficient, exponent), charge)
        if (molecules.n == 1) not in self._checked:
            eager = self.model.predict(molecules)
            problem = disagreement(prediction, eager)
            if problem:
                return self._give_up(molecules, problem)
            self._checked.add(molecules.n == 1)
        return prediction

    def _give_up(self, molecules: Molecules, reason: str) -> Prediction:
        log.warning("the compiled model is not used (%s); running eager", reason)
        self._compiled = None
        return self.model.predict(molecules)


def disagreement(found: Prediction, expected: Prediction) -> str:
    """What is wrong with the compiled prediction, empty if nothing is."""
    assert found.force is not None
    assert expected.force is not None
    assert found.charge is not None
    assert expected.charge is not None
    unit = max(1.0, float(expected.force.abs().max()))
    of_forces, of_dipole = (found.force, expected.force), (found.dipole, expected.dipole)
    for name, (a, b) in (("forces", of_forces), ("dipole", of_dipole), ("charges", (found.charge, expected.charge))):
        worst = float((a - b).abs().max())
        if not worst <= FORCE_TOLERANCE * unit:
            return f"its {name} differ from the eager ones by {worst:.1e}; expected at most {FORCE_TOLERANCE * unit:.0e}"
    worst = float((found.energy - expected.energy).abs().max())
    # The energy of a molecule is a sum over atoms in the network's precision.
    limit = 1e-5 * unit
    return (
        "" if worst <= limit else f"its energies differ from the eager ones by {worst:.1e} hartree; expected at most {limit:.0e}"
    )
