"""python -m densnet.harmonic: what it writes, and the mistakes it names in one line."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from analytic_models import Analytic, as_model, double_well, valence_water, water_geometry
from ase import Atoms
from ase.io import read, write
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from densnet.data.harmonic import read_harmonic, write_harmonic
from densnet.model import checkpoint
from densnet.model.derivatives import model_harmonic
from densnet.model.optimisation import OptimisationSettings
from densnet.spectra.harmonic import normal_modes_of
from densnet.spectra.harmonic_summary import ReportSettings
from densnet.units import ANGSTROM_PER_BOHR

CHARGES = [-0.7, 0.35, 0.35]


def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str, energy=valence_water) -> None:
    """The program as the command line runs it, in this process, on a formula instead of a model."""
    monkeypatch.setattr(checkpoint, "load_model", lambda folder, device: as_model(Analytic(energy, CHARGES)))
    monkeypatch.setattr(sys, "argv", ["densnet.harmonic", *arguments, f"hydra.run.dir={tmp_path}/logs", "hydra/job_logging=none"])
    sys.modules.pop("densnet.harmonic", None)
    runpy.run_module("densnet.harmonic", run_name="__main__", alter_sys=True)


@pytest.fixture
def dft(tmp_path: Path) -> Path:
    """A reference that is 5 % stiffer."""
    data = model_harmonic(as_model(Analytic(lambda x: 1.05 * valence_water(x), CHARGES)), water_geometry())
    path = tmp_path / "dft" / "harmonic.h5"
    write_harmonic(path, type(data)(**{**vars(data), "provenance": "PySCF"}))
    return path


def test_settings_are_the_defaults_of_the_code() -> None:
    conf = Path(__file__).parents[1] / "conf" / "harmonic"
    with initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose("harmonic")
    assert instantiate(cfg.optimisation) == OptimisationSettings()
    assert instantiate(cfg.report) == ReportSettings()


def test_model_beside_its_reference(dft: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "out"
    call(monkeypatch, tmp_path, "model=m", f"harmonic={dft}", f"out={out}", f"record={tmp_path}/record.json")
    written = read_harmonic(out / "harmonic.h5")
    content = json.loads((out / "modes.json").read_text())
    model, reference = content["analyses"]
    assert (model["label"], reference["label"]) == ("Model", "DFT")
    ratio = [a["frequency_cm1"] / b["frequency_cm1"] for a, b in zip(model["modes"], reference["modes"])]
    assert ratio == pytest.approx(np.full(3, 1.05**-0.5), rel=1e-6)
    assert [m["frequency_cm1"] for m in model["modes"]] == pytest.approx(normal_modes_of(written).frequency_cm1)
    assert json.loads((tmp_path / "record.json").read_text())["report"]["analyses"][0] == model
    said = capsys.readouterr().out
    assert "Model: minimum: all frequencies are real" in said
    assert "paired by overlap of modes" in said
    frames = read(out / "mode_03.xyz", ":")
    assert len(frames) == 24

    # The Hessian of that run again, with other masses; no model needed.
    call(monkeypatch, tmp_path, f"harmonic={out}/harmonic.h5", "isotopes={H: D}", f"out={tmp_path}/heavy")
    heavy = json.loads((tmp_path / "heavy" / "modes.json").read_text())["analyses"][0]
    assert heavy["mass_dalton"][1:] == pytest.approx([2.0141018, 2.0141018])
    assert "isotopes" not in heavy["label"]
    assert all(0.68 < h["frequency_cm1"] / m["frequency_cm1"] < 0.76 for h, m in zip(heavy["modes"], model["modes"]))
    call(monkeypatch, tmp_path, f"harmonic={out}/harmonic.h5", "isotopes={1: 2H}", "masses=most_common", f"out={tmp_path}/hod")
    hod = json.loads((tmp_path / "hod" / "modes.json").read_text())["analyses"][0]
    assert hod["mass_dalton"] == pytest.approx([15.9949146, 2.0141018, 1.0078250])
    assert hod["thermochemistry"]["symmetry_number"] == 1


def test_saddle_points_and_frames(tmp_path: Path, monkeypatch, capsys) -> None:
    start = [Atoms([8, 1, 1], water_geometry(theta, 1.75).position * ANGSTROM_PER_BOHR) for theta in (1.5, np.pi)]
    write(tmp_path / "two.xyz", start)
    arguments = ["model=m", f"molecule={tmp_path}/two.xyz", f"out={tmp_path}/out"]
    call(monkeypatch, tmp_path, *arguments, energy=double_well)
    assert "Model: minimum" in capsys.readouterr().out
    call(monkeypatch, tmp_path, *arguments, "frame=1", energy=double_well)
    said = capsys.readouterr().out
    assert "saddle point of order 2, not a minimum: mode 1 at" in said
    assert "optimisation.follow=true goes on from there to a minimum" in said
    call(monkeypatch, tmp_path, *arguments, "frame=1", "optimisation.follow=true", energy=double_well)
    assert "Model: minimum" in capsys.readouterr().out
    assert not (tmp_path / "out" / "mode_04.xyz").exists()  # the straight molecule had four modes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "neither model nor harmonic is given; expected at least one"),
        (["molecule=water", "harmonic={dft}"], "molecule=water without a model"),
        (["model=m"], "no value for molecule"),
        (["model=m", "molecule=watr"], "watr is neither a file nor a known molecule"),
        (["model=m", "molecule=water", "frame=1"], "frame is 1; expected 0..0"),
        (["model=m", "molecule=SH2", "harmonic={dft}"], "SH2 is SHH of charge 0, {dft} OHH of charge 0; expected the same atoms"),
        (["model=m", "molecule=water", "charge=1", "harmonic={dft}"], "water is OHH of charge 1"),
        (["harmonic={dft}", "out={dft_folder}"], "would replace"),
        (["harmonic={dft}", "out={dft}"], "a file; expected a folder"),
        (["harmonic=no.h5"], "no.h5 does not exist"),
        (["harmonic={dft}", "isotopes={{7: D}}"], "isotopes name atom 7; expected 0..2"),
        (["harmonic={dft}", "isotopes=D"], "isotopes is D; expected atoms and isotopes"),
        (["harmonic={dft}", "masses=heavy"], "masses is 'heavy'; expected one of average, most_common"),
        (["harmonic={dft}", "report.thermochemistry.temperature=-3"], "thermochemistry at -3 K"),
        (["model=m", "molecule=water", "optimisation.max_steps=1"], "still has a force of"),
    ],
)
def test_mistakes_end_in_one_line(arguments: list[str], words: str, dft: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    given = [a.format(dft=dft, dft_folder=dft.parent) for a in arguments]
    out = [] if any(a.startswith("out=") for a in given) else [f"out={tmp_path}/out"]
    before = dft.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, tmp_path, *given, *out)
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert words.format(dft=dft) in said[0]
    assert not (tmp_path / "out").exists()
    assert dft.read_bytes() == before
    assert [p.name for p in dft.parent.iterdir()] == ["harmonic.h5"]
