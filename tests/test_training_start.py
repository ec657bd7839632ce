"""What a run starts from: warm starts, checkpoints, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from training_runs import TINY

from densnet.basis.shells import Basis
from densnet.data.datamodule import FitsDataModule
from densnet.data.fits import read_fits
from densnet.errors import BasisError, ConfigError, DataError, ModelError
from densnet.model.checkpoint import Architecture, Provenance, build, load_model, save_model
from densnet.training.run import export, find_checkpoint, mark_run, refuse_sweep_with_ddp, start_model


@pytest.fixture(scope="module")
def data(tiny_fits: Path) -> FitsDataModule:
    return FitsDataModule(str(tiny_fits), batch_size=3, validation=2)


def test_wrong_basis_is_refused(data: FitsDataModule, basis: Basis) -> None:
    with pytest.raises(BasisError, match=r"was fitted in basis test .* but model x has basis 0123"):
        data.check_basis("0123", "model x")


def test_bad_data_is_refused(tiny_fits: Path, tmp_path: Path) -> None:
    whole = tiny_fits.read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "nan.h5").write_bytes(whole)
    with h5py.File(tmp_path / "nan.h5", "r+") as file:
        file["force"][3, 1] = np.nan
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    for name, message in (
        ("cut", "cannot be read"),
        ("text", "cannot be read"),
        ("foreign", "has schema"),
        ("nan", "not finite"),
    ):
        with pytest.raises(DataError, match=message):
            read_fits(tmp_path / f"{name}.h5")
    with pytest.raises(DataError, match="does not exist"):
        read_fits(tmp_path / "absent.h5")
    with pytest.raises(ConfigError, match="7 training frames, validation=7"):
        FitsDataModule(str(tiny_fits), batch_size=3, validation=7)


def test_bad_models_are_refused(data: FitsDataModule, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model in"):
        load_model(tmp_path)
    export(tmp_path / "m", start_model(TINY, data, None, energy=True), "{}")
    model = load_model(tmp_path / "m")
    raw = json.loads((tmp_path / "m/model.json").read_text())
    for change, message in (
        ({"version": 99}, "version 99"),
        ({"hash": "0" * 16}, "not of one model"),
        ({"architecture": {**raw["architecture"], "energy": None}}, "unknown"),
        ({"architecture": {**raw["architecture"], "density": {**raw["architecture"]["density"], "channels": 5}}}, "sizes"),
    ):
        (tmp_path / "m/model.json").write_text(json.dumps({**raw, **change}))
        with pytest.raises(ModelError, match=message) as found:
            load_model(tmp_path / "m")
        assert "\n" not in str(found.value)
    (tmp_path / "m/model.json").write_text(json.dumps(raw))
    weights = (tmp_path / "m/model.safetensors").read_bytes()
    (tmp_path / "m/model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "m")
    assert model.energy is not None


def test_checkpoints_are_found_or_refused(tmp_path: Path, caplog) -> None:
    assert find_checkpoint(None, tmp_path, "x") is None
    assert find_checkpoint("auto", tmp_path, "x") is None
    last = tmp_path / "run/checkpoints/last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    now, then, soap = (json.dumps({"seed": k, "stage": {"optimizer": o}}) for k, o in enumerate(({}, {}, {"method": "soap"})))
    for identity, warned in ((now, False), (then, True)):
        caplog.clear()
        mark_run(tmp_path / "run", identity)
        assert find_checkpoint(str(last), tmp_path, now) == str(last)
        assert ("a run with other settings" in caplog.text) == warned
    with pytest.raises(ConfigError, match=r"run with adam and stage.optimizer.method is soap.*stage.optimizer.method=adam, or"):
        find_checkpoint(str(last), tmp_path, soap)
    with pytest.raises(ModelError, match="no checkpoint at"):
        find_checkpoint(str(tmp_path / "absent.ckpt"), tmp_path, "x")


def test_sweep_with_ddp_is_refused() -> None:
    refuse_sweep_with_ddp(False, "ddp", 2, "basic")
    refuse_sweep_with_ddp(True, "auto", 1, "basic")
    refuse_sweep_with_ddp(True, "ddp", 2, "hydra_plugins.hydra_submitit_launcher.SlurmLauncher")
    with pytest.raises(ConfigError, match="once per device"):
        refuse_sweep_with_ddp(True, "ddp", 2, "hydra._internal.core_plugins.basic_launcher.BasicLauncher")


def test_training_the_density_drops_an_energy_made_for_another(data: FitsDataModule, tmp_path: Path) -> None:
    export(tmp_path / "full", start_model(TINY, data, None, energy=True), "{}")
    assert start_model(TINY, data, str(tmp_path / "full"), energy=False).model.energy is None
    assert start_model(TINY, data, str(tmp_path / "full"), energy=True).model.energy is not None


def test_a_warm_start_softens_a_sharp_norm(data: FitsDataModule, tmp_path: Path, caplog) -> None:
    """A model from before the setting takes the smoothness that is configured; a smooth one stays so."""
    assert TINY.energy is not None
    sharp = start_model(replace(TINY, energy=replace(TINY.energy, softening=1e-3)), data, None, energy=True)
    assert sharp.architecture.energy is not None
    save_model(tmp_path, sharp.model, sharp.architecture, sharp.provenance)
    for configured, expected in ((0.1, 0.1), (1e-4, 1e-3)):
        energy = replace(sharp.architecture.energy, softening=configured)
        found = start_model(replace(TINY, energy=energy), data, str(tmp_path), energy=True)
        assert found.model.energy is not None
        assert found.architecture.energy == replace(energy, softening=expected)
        assert found.model.energy.softening == expected
        assert torch.equal(found.model.energy.embedding.weight, sharp.model.energy.embedding.weight)
        assert ("with softening 0.1 instead of 0.001" in caplog.text) == (expected == 0.1)
        caplog.clear()


def test_an_energy_network_goes_on_with_another_density(data: FitsDataModule, tmp_path: Path, caplog) -> None:
    assert TINY.energy is not None
    one, two, bare = (str(tmp_path / name) for name in ("one", "two", "bare"))
    larger = replace(TINY, energy=replace(TINY.energy, layers=TINY.energy.layers + 1))
    made = []
    for path, architecture in ((one, TINY), (two, larger)):
        torch.manual_seed(len(made))
        made.append(start_model(architecture, data, None, energy=True))
        recipe = ("both", "of the first" if path == one else "of the second")
        save_model(path, made[-1].model, made[-1].architecture, Provenance(recipe=recipe))
    found = start_model(TINY, data, one, True, two)
    for network, source in (("density", made[0]), ("energy", made[1])):
        for name, weight in getattr(found.model, network).state_dict().items():
            assert torch.equal(weight, getattr(source.model, network).state_dict()[name]), (network, name)
    assert found.architecture == Architecture(made[0].architecture.density, made[1].architecture.energy)
    assert found.provenance.recipe == ("both", "of the first", "of the second")
    assert f"the energy network of {two} keeps its settings" in caplog.text
    assert "the density network" not in caplog.text
    with pytest.raises(ConfigError, match="two and the stage trains no energy network"):
        start_model(TINY, data, one, False, two)
    save_model(bare, build(replace(TINY, energy=None), data.fits.basis), replace(TINY, energy=None), Provenance())
    with pytest.raises(ConfigError, match="bare and that model has no energy network"):
        start_model(TINY, data, one, True, bare)
