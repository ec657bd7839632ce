"""The models that are timed: trained ones, or architectures of conf/model with random weights."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from e3nn_product import with_e3nn_products
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from densnet.basis.shells import Basis
from densnet.errors import ConfigError, ModelError
from densnet.model.checkpoint import build, load_model
from densnet.model.compiled import CompiledModel
from densnet.model.densnet import DensNet
from densnet.simulation.engine import Potential
from densnet.structures import Molecules

ROOT = Path(__file__).parents[1]


def random_model(name: str, basis: str, flexible: float) -> DensNet:
    """conf/model/NAME with random weights on a basis of the library; flexible: bound of the exponents, 1 for fixed ones.

    NAME may be the folder of a trained model instead, which has a basis and exponents of its own.
    """
    if (ROOT / name / "model.json").exists():
        return load_model(ROOT / name)
    with initialize_config_dir(str(ROOT / "conf" / "model"), version_base=None):
        architecture = instantiate(compose(name, overrides=[f"density.flexible={flexible}"]))
    torch.manual_seed(0)
    model = build(architecture, Basis.load(ROOT / "densnet" / "basis" / "library" / f"{basis}.json"))
    for parameter in model.density.readout.parameters():  # zero at the start: the energy network would see no density
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def variant(model: DensNet, name: str) -> Potential:
    """The same model, evaluated in another way: "eager", "compiled", or "e3nn"."""
    ways = {"eager": lambda m: m, "compiled": CompiledModel, "e3nn": with_e3nn_products}
    if name not in ways:
        raise ConfigError(f"variant {name!r} is unknown; expected some of {', '.join(ways)}")
    return ways[name](model)


def check_agreement(model: DensNet, other: Potential, name: str, molecules: Molecules) -> float:
    """Error of the other in forces and dipoles, norm over norm, against the model in float64.

    Raises ModelError if it is above 1e-5 and above three times that of the model itself in float32 (round-off of a long
    chain), or if a compiled model has fallen back to eager: its times would be those of another row.
    """
    exact = deepcopy(model).double().predict(molecules)

    def error(potential: Potential) -> float:
        found = potential.predict(molecules)
        assert exact.force is not None
        assert found.force is not None
        return max(float((b - a).norm() / a.norm()) for a, b in ((exact.force, found.force), (exact.dipole, found.dipole)))

    eager, others = error(model), error(other)
    if isinstance(other, CompiledModel) and not other.active:
        raise ModelError(f"variant {name} fell back to eager; expected a compiled graph; see the warning above")
    if not others <= max(1e-5, 3 * eager):
        raise ModelError(f"variant {name} is off by {others:.1e}, eager by {eager:.1e}; expected the same; mend it first")
    return others
