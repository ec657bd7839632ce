"""Figures, files and the command: what lands on disk is whole, readable and says how it was made."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from PIL import Image
from scipy.spatial.transform import Rotation

from densnet.data.harmonic import HarmonicData, write_harmonic
from densnet.errors import SpectrumError
from densnet.spectra.convergence import convergence
from densnet.spectra.convergence_figure import convergence_figure
from densnet.spectra.files import write_csv, write_figure
from densnet.spectra.harmonic import KM_MOL_PER_AU, NormalModes, normal_modes
from densnet.spectra.infrared import Recipe, infrared_spectrum
from densnet.spectra.plot import figure_image, harmonic_comparison_figure, infrared_figure, model_sticks, reference_sticks
from densnet.spectra.power_figure import power_figure
from densnet.spectra.report import PeakSearch, write_report
from densnet.spectra.temperature import vibrational_temperature
from densnet.spectra.uncertainty import ErrorMethod, Uncertainty
from densnet.spectra.vibrational_density import vibrational_density
from densnet.units import BOLTZMANN, CM1_PER_AU, ELECTRON_MASS_PER_DALTON, FS_PER_AU

STEP = 1.0 / FS_PER_AU
RECIPE = Recipe.named("hann", 20.0)
ROOT = Path(__file__).parents[1]


def water(stiffness: float = 1.0, charge: float = 0.33) -> NormalModes:
    position = np.array([[0.0, 0.0, 0.22], [0.0, 1.43, -0.89], [0.0, -1.43, -0.89]])
    hessian = np.zeros((3, 3, 3, 3))
    for i, j, k in ((0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.15)):
        u = (position[i] - position[j]) / np.linalg.norm(position[i] - position[j])
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            hessian[a, :, b] += sign * k * stiffness * np.outer(u, u)
    mass = np.array([15.999, 1.008, 1.008]) * ELECTRON_MASS_PER_DALTON
    charges = charge * np.array([-2.0, 1.0, 1.0])
    return normal_modes(np.array([8, 1, 1]), mass, position, hessian.reshape(9, 9), np.kron(charges[:, None], np.eye(3)))


def harmonic_motion(modes: NormalModes, n_frames: int = 4000, n_replicas: int = 6, kelvin: float = 300.0):
    """Exact motion in the modes, canonical energies: positions and velocities (S, R, N, 3), dipoles (S, R, 3)."""
    rng = np.random.default_rng(5)
    omega = modes.frequency_cm1 / CM1_PER_AU
    shape = (n_replicas, omega.size)
    amplitude = np.sqrt(2.0 * rng.exponential(size=shape) * BOLTZMANN * kelvin) / omega
    angle = omega * STEP * np.arange(n_frames)[:, None, None] + rng.uniform(0.0, 2.0 * np.pi, shape)
    q, p = amplitude * np.cos(angle), -amplitude * omega * np.sin(angle)
    root = np.sqrt(modes.mass)[:, None]
    n = modes.number.size
    position = modes.position + (q @ modes.vector.T).reshape(n_frames, n_replicas, n, 3) / root
    velocity = (p @ modes.vector.T).reshape(n_frames, n_replicas, n, 3) / root
    return position, velocity, q @ modes.dipole_derivative + [0.0, 0.0, 0.7]


@pytest.fixture(scope="module")
def spectrum():
    return infrared_spectrum(harmonic_motion(water())[2], STEP, 300.0, RECIPE)


def test_report_files(tmp_path, spectrum):
    modes = water()
    summary = write_report(
        tmp_path / "new" / "folder",
        spectrum,
        "run.h5",
        modes.number,
        reference=modes,
        model=water(1.01, 0.34),
        search=PeakSearch(low_cm1=400.0),
        band_limits=[(1400.0, 1600.0), (3700.0, 3820.0)],
        title="water",
    )
    folder = tmp_path / "new" / "folder"
    names = {"ir.csv", "ir.json", "ir.png", "ir.svg", "harmonic.png", "harmonic.svg"}  # no dipoles, no velocities given
    assert {p.name for p in folder.iterdir()} == names
    for name in ("ir", "harmonic"):
        with Image.open(folder / f"{name}.png") as image:
            image.load()
            assert min(image.size) > 500
            assert len(np.unique(np.asarray(image.convert("L")))) > 50
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")

    record = json.loads((folder / "ir.json").read_text())
    assert record["peaks_cm1"] == summary.peaks_cm1 == pytest.approx(modes.frequency_cm1, abs=0.5)
    assert record["dft_harmonic"]["intensity_km_mol"] == pytest.approx(modes.intensity_km_mol)
    assert record["model_harmonic"]["frequency_cm1"] == pytest.approx(modes.frequency_cm1 * np.sqrt(1.01))
    assert record["settings"]["window"] == "hann"
    assert record["settings"]["quantum_correction"] == "harmonic"
    assert record["settings"]["time_step_fs"] == pytest.approx(1.0)
    for band, truth in zip(record["bands"], modes.intensity_km_mol):
        assert abs(band["km_mol"] - truth) < 4.0 * band["error_km_mol"]

    text = (folder / "ir.csv").read_text().splitlines()
    header = [line for line in text if line.startswith("#")]
    for words in ("window: hann", "resolution_cm1: 20.0", "quantum_correction: harmonic", "L/mol/cm", "replicas: 6", "run.h5"):
        assert any(words in line for line in header), words
    table = np.genfromtxt(text[len(header) :], delimiter=",", names=True)
    assert table["epsilon_L_mol_cm"] == pytest.approx(spectrum.epsilon, rel=1e-6, abs=1e-9)
    assert table["density_km_mol_cm"] == pytest.approx(spectrum.epsilon * np.log(10.0) / 100.0, rel=1e-6, abs=1e-9)


def test_convergence_and_power_in_the_report(tmp_path, caplog):
    """Named bands at four lengths, the same resolution for all; the last row is the whole."""
    modes = water()
    position, velocity, dipole = harmonic_motion(modes, 6000, 8)
    recipe = Recipe.named("hann", 20.0, error="bootstrap", bootstrap_seed=11, bootstrap_resamples=400)
    spectrum = infrared_spectrum(dipole, STEP, 300.0, recipe)
    density = vibrational_density(modes.number, modes.mass, [(position, velocity)], 8, STEP, recipe)
    limits = {"bend": [1300.0, 1700.0], "stretch, both": [3600.0, 3900.0]}
    with caplog.at_level(logging.INFO):
        write_report(tmp_path, spectrum, "run.h5", modes.number, band_limits=limits, dipole=dipole, density=density)
    pictures = {f"{name}.{kind}" for name in ("ir", "convergence", "power") for kind in ("csv", "png", "svg")}
    assert {p.name for p in tmp_path.iterdir()} == pictures | {"ir.json"}
    record = json.loads((tmp_path / "ir.json").read_text())
    settings = record["settings"]
    assert (settings["error_method"], settings["bootstrap_seed"], settings["bootstrap_resamples"]) == ("bootstrap", 11, 400)
    assert settings["quantum_correction_formula"] == "I = x/(1 - exp(-x)) I_cl"
    assert settings["estimator"] == "fourier"
    assert [band["name"] for band in record["bands"]] == ["bend", "stretch, both"]
    for band in record["bands"]:
        assert band["lower_km_mol"] < band["km_mol"] < band["upper_km_mol"]
    rows = record["convergence"]
    assert [row["part"] for row in rows] == [0.125, 0.25, 0.5, 1.0]
    assert [row["length_ps"] for row in rows] == pytest.approx([0.749, 1.499, 2.999, 5.999], abs=2e-3)
    # 0.75 ps are too short for 40 cm^-1, so the second is the shortest, at the 23 cm^-1 that it allows.
    assert "trajectory lasts 0.749 ps" in rows[0]["reason"]
    assert rows[0]["km_mol"] == []
    for row in rows[1:]:
        assert row["reason"] == ""
        assert row["km_mol"] == pytest.approx([band["km_mol"] for band in record["bands"]], rel=0.05)
    assert (rows[-1]["pearson"], rows[-1]["difference"]) == (pytest.approx(1.0), 0.0)
    assert 0.9 < rows[1]["pearson"] <= 1.0
    text = (tmp_path / "convergence.csv").read_text()
    assert "resolution_cm1: 23" in text
    assert "part,length_ps,pearson,difference,bend_km_mol,bend_error,stretch; both_km_mol,stretch; both_error" in text
    assert record["power"]["degrees_of_freedom"] == 3
    assert record["power"]["integral"] == pytest.approx(3.0, rel=0.01)
    assert sum(record["power"]["elements"].values()) == pytest.approx(record["power"]["integral"])
    assert record["vibrational_temperature_kelvin"] == pytest.approx(density.temperature)
    header = (tmp_path / "ir.csv").read_text()
    for words in ("bootstrap_seed: 11", "error_method: bootstrap", "confidence: 0.95", "epsilon_lower", "estimator: fourier"):
        assert words in header
    assert "first 0.749 ps: no spectrum" in caplog.text


def test_convergence_is_told_from_noise():
    """A line that appears in the second half: the first parts differ, and the table says so."""
    time = STEP * np.arange(8000)[:, None]
    dipole = np.zeros((8000, 3, 3))
    dipole[:, :, 0] = 0.01 * np.cos(1500.0 / CM1_PER_AU * time + [0.0, 1.0, 2.0])
    dipole[4000:, :, 1] = 0.01 * np.cos(2500.0 / CM1_PER_AU * time[4000:] + [0.0, 1.0, 2.0])
    stages = convergence(dipole, STEP, 300.0, RECIPE, [(1300.0, 1700.0), (2300.0, 2700.0)])
    half, whole = stages[-2:]
    assert half.areas[0].value == pytest.approx(whole.areas[0].value, rel=0.02)
    assert half.areas[1].value < 0.02 * whole.areas[1].value
    assert half.pearson < 0.8
    # The line of half the time has w^2/2 of the other's area, 25/18, so the half lacks 25/43 of the whole.
    assert half.difference == pytest.approx(25.0 / 43.0, rel=0.05)
    assert (whole.pearson, whole.difference) == (pytest.approx(1.0), 0.0)


def test_spectrum_without_error_band_is_valid_json(tmp_path):
    one = infrared_spectrum(harmonic_motion(water(), n_frames=2500, n_replicas=1)[2], STEP, 300.0, RECIPE)
    write_report(tmp_path, one, "run.h5", np.array([8, 1, 1]))
    record = json.loads((tmp_path / "ir.json").read_text())
    assert record["settings"]["error"] == "none"
    assert record["bands"]
    assert {band["error_km_mol"] for band in record["bands"]} == {None}
    assert record["dft_harmonic"] is None
    assert not (tmp_path / "harmonic.png").exists()


def test_wrong_molecule_or_limits_write_nothing(tmp_path, spectrum):
    methane = np.array([6, 1, 1, 1, 1])
    for arguments, words in (
        ({"number": methane, "reference": water()}, "harmonic reference is of atoms"),
        ({"number": methane, "model": water()}, "model is of atoms"),
        ({"number": methane, "band_limits": [(100.0, 99.0)]}, "band limits"),
        ({"number": methane, "band_limits": [(1.0, 2.0, 3.0)]}, "two wavenumbers"),
        ({"number": methane, "band_limits": {"CO": "wide"}}, "band limits are wide; expected two wavenumbers"),
        ({"number": methane, "band_limits": {"CO": [1000.0, 1200.0], "OH": [3800.0, 3600.0]}}, "band limits are 3800 and 3600"),
    ):
        with pytest.raises(SpectrumError, match=words):
            write_report(tmp_path / "out", spectrum, "run.h5", **arguments)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, spectrum):
    path = tmp_path / "ir.csv"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_csv(path, spectrum, "run.h5")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["ir.csv"]


def test_figures_draw_no_text_over_text(spectrum):
    """Bounding boxes of all visible words, of a crowded spectrum too, are disjoint."""
    modes = water()
    crowded = np.sort(np.random.default_rng(2).uniform(0.0, 4500.0, 60))
    bad = replace(modes, frequency_cm1=np.array([-900.0, 2000.0, 9000.0]), intensity_km_mol=np.array([5.0, 3000.0, 70.0]))
    sticks = [reference_sticks(modes), model_sticks(bad)]
    *motion, dipole = harmonic_motion(modes)
    short = infrared_spectrum(dipole, STEP, 300.0, Recipe.named("hann", 20.0, error="bootstrap", memory_fs=500.0))
    boot = replace(RECIPE, uncertainty=Uncertainty(ErrorMethod.BOOTSTRAP, resamples=200))
    for figure in (
        infrared_figure(spectrum, sticks, crowded, title="Water"),
        infrared_figure(spectrum, [], crowded),
        infrared_figure(spectrum, sticks[:1], crowded, range_cm1=(1000.0, 2000.0)),
        infrared_figure(short, sticks[:1], crowded),
        convergence_figure(convergence(dipole, STEP, 300.0, RECIPE, [(1300.0, 1700.0), (3600.0, 3900.0)]), ["bend", "stretch"]),
        convergence_figure(convergence(dipole, STEP, 300.0, RECIPE)),
        power_figure(vibrational_density(modes.number, modes.mass, [motion], 6, STEP, boot), "Water"),
        harmonic_comparison_figure(water(1.02), modes),
        harmonic_comparison_figure(bad, modes),
    ):
        image = figure_image(figure)
        assert image.shape[2] == 4
        assert image.dtype == np.uint8
        boxes = []
        for axes in figure.axes:
            words = [
                *axes.texts,
                *(axes.get_legend().get_texts() if axes.get_legend() else []),
                axes.title,
                axes._left_title,
                axes.xaxis.label,
                axes.yaxis.label,
            ]
            ticks = []
            for axis, (first, last) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
                ticks += [t.label1 for t in axis.get_major_ticks() if first <= t.get_loc() <= last and t.label1.get_visible()]
            boxes += [t.get_window_extent() for t in words + ticks if t.get_visible() and t.get_text()]
        boxes += [t.get_window_extent() for legend in figure.legends for t in legend.get_texts()]
        assert len(boxes) > 8
        width, height = figure.bbox.size
        for i, box in enumerate(boxes):
            assert min(box.x0, box.y0) >= 0.0
            assert box.x1 <= width
            assert box.y1 <= height
            for other in boxes[:i]:
                across = min(box.x1, other.x1) - max(box.x0, other.x0)
                upright = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert min(across, upright) < 0.5


def test_same_figure_same_svg(tmp_path, spectrum):
    write_figure(tmp_path / "a", infrared_figure(spectrum))
    buffer = io.BytesIO((tmp_path / "a.png").read_bytes())
    assert Image.open(buffer).format == "PNG"
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()


def test_vibrational_temperature_ignores_translation_and_rotation():
    """Canonical velocities give T; a tumbling, flying molecule the same; kinetic energy of the vibrations alone counts."""
    rng = np.random.default_rng(0)
    modes = water()
    mass, shape = modes.mass, (400, 40)
    position = modes.position + 0.05 * rng.normal(size=(*shape, 3, 3))
    velocity = rng.normal(size=(*shape, 3, 3)) * np.sqrt(BOLTZMANN * 350.0 / mass)[:, None]
    found, error = vibrational_temperature(mass, position, velocity)
    assert found == pytest.approx(350.0, rel=0.015)
    assert error == pytest.approx(350.0 * np.sqrt(2.0 / (3 * 400 * 40)), rel=0.4)
    spin, drift = rng.normal(size=(40, 3)) * 1e-4, rng.normal(size=(40, 3)) * 1e-3
    centre = np.einsum("a,srai->sri", mass / mass.sum(), position)[:, :, None]
    moving = velocity + drift[:, None] + np.cross(spin[:, None], position - centre)
    assert vibrational_temperature(mass, position, moving)[0] == pytest.approx(found, rel=1e-8)
    turned = Rotation.from_rotvec([0.4, 2.0, -0.3]).as_matrix().T
    assert vibrational_temperature(mass, position @ turned + 5.0, moving @ turned)[0] == pytest.approx(found, rel=1e-8)
    # Two atoms: one vibration, two rotations.
    pair = vibrational_temperature(mass[:2], position[:, :, :2], velocity[:, :, :2])[0]
    assert pair == pytest.approx(350.0, rel=0.05)
    with pytest.raises(SpectrumError, match="no vibrations"):
        vibrational_temperature(mass[:1], position[:, :, :1], velocity[:, :, :1])


def test_cold_trajectory_is_reported(tmp_path, caplog, spectrum):
    with caplog.at_level(logging.WARNING):
        write_report(tmp_path, spectrum, "run.h5", np.array([8, 1, 1]), vibrational_temperature=(290.0, 5.0))
        assert "equilibrate" not in caplog.text
        write_report(tmp_path, spectrum, "run.h5", np.array([8, 1, 1]), vibrational_temperature=(150.0, 5.0))
    assert "vibrations are at 150 K, the spectrum assumes 300 K: intensities are off by a factor of 0.50" in caplog.text


def write_trajectory(path: Path, with_dipole: bool = True, n_frames: int = 4000) -> NormalModes:
    """A trajectory file, version 1, of harmonic water."""
    modes = water()
    position, velocity, dipole = harmonic_motion(modes, n_frames)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            schema="densnet/trajectory", version=1, units="atomic", time_step=STEP, integration_step=STEP, ensemble="nve",
            temperature=300.0, seed=1, model_hash="0123456789abcdef", model="none", creator="densnet test", charge=0,
        )  # fmt: skip
        file["number"], file["mass"] = modes.number, modes.mass
        for name, value in (("position", position), ("velocity", velocity), ("energy", np.zeros(position.shape[:2]))):
            file.create_dataset(name, data=value, maxshape=(None, *value.shape[1:]), chunks=True)
        if with_dipole:
            file.create_dataset("dipole", data=dipole, maxshape=(None, *dipole.shape[1:]), chunks=True)
    return modes


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "spectra" / "spectrum").glob("*.yaml")))
def test_every_shipped_setting_makes_a_recipe(name):
    """Named after its window, or maximum_entropy."""
    with initialize_config_dir(str(ROOT / "conf" / "spectra"), version_base="1.3"):
        cfg = compose("spectra", [f"spectrum={name}", "trajectory=run.h5", "out=result"])
    recipe = instantiate(cfg.spectrum)
    assert isinstance(recipe, Recipe)
    assert recipe.window.kind.value == ("gaussian" if name == "maximum_entropy" else name)
    assert (recipe.maximum_entropy is not None) == (name == "maximum_entropy")
    assert recipe.uncertainty == Uncertainty()
    assert instantiate(cfg.peaks) == PeakSearch()
    with initialize_config_dir(str(ROOT / "conf" / "spectra"), version_base="1.3"), pytest.raises(ConfigCompositionException):
        compose("spectra", [f"spectrum={name}", "spectrum.resolutoin_cm1=5"])


def spectra(*overrides: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "spectra.py"), *overrides, f"hydra.run.dir={folder / 'run'}"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_command_from_trajectory_to_spectrum(tmp_path):
    modes = write_trajectory(tmp_path / "run.h5")
    root = np.repeat(np.sqrt(modes.mass), 3)
    curvature = (modes.frequency_cm1 / CM1_PER_AU) ** 2
    weighted = root[:, None] * modes.vector
    derivative = weighted @ modes.dipole_derivative
    data = HarmonicData(
        modes.number, modes.mass, modes.position, 0, 0.0, np.zeros(3), (weighted * curvature) @ weighted.T, derivative, "test"
    )
    write_harmonic(tmp_path / "dft.h5", data)
    bands = "bands={bend:[1300,1700],O-H:[3600,3900]}"
    done = spectra("trajectory=run.h5", "harmonic=dft.h5", "out=result", "spectrum=hann", "memory_mb=1", bands, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    pictures = {f"{part}.{kind}" for part in ("ir", "convergence", "power") for kind in ("csv", "png", "svg")}
    assert {p.name for p in (tmp_path / "result").iterdir()} == pictures | {"ir.json"}
    record = json.loads((tmp_path / "result" / "ir.json").read_text())
    assert record["peaks_cm1"] == pytest.approx(modes.frequency_cm1, abs=0.5)
    assert record["dft_harmonic"]["frequency_cm1"] == pytest.approx(modes.frequency_cm1, rel=1e-6)
    slopes = (modes.dipole_derivative**2).sum(axis=1) * KM_MOL_PER_AU
    assert record["dft_harmonic"]["intensity_km_mol"] == pytest.approx(slopes, rel=1e-6)
    assert "0123456789abcdef" in record["source"]
    assert [(band["name"], band["low_cm1"]) for band in record["bands"]] == [("bend", 1300.0), ("O-H", 3600.0)]
    assert record["power"]["integral"] == pytest.approx(3.0, rel=0.01)
    # Straight from the arrays that were written, all at once.
    position, velocity, _ = harmonic_motion(modes)
    expected = vibrational_temperature(modes.mass, position, velocity)[0]
    assert record["vibrational_temperature_kelvin"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trajectory=dark.h5"], "no dipoles"),
        (["trajectory=run.h5", "spectrum.quantum_correction=wigner"], "quantum correction is 'wigner'"),
        (["trajectory=run.h5", "harmonc=dft.h5"], "harmonc"),
        (["trajectory=run.h5", "bands={CO:[1100]}", "spectrum.resolution_cm1=60"], "expected two wavenumbers"),
        (["trajectory=timeless.h5"], "does not say its time_step"),
        (["trajectory=run.h5", "spectrum.resolution_cm1=60", "harmonic=turned.h5"], "expected the same order and charge"),
        (["trajectory=run.h5", "spectrum.resolution_cm1=60", "minima={bent: turned.h5}"], "expected the same order and charge"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, overrides, words):
    write_trajectory(tmp_path / "run.h5", n_frames=1000)
    write_trajectory(tmp_path / "dark.h5", with_dipole=False, n_frames=1000)
    if "turned" in overrides[-1]:
        modes, none = water(), np.zeros((9, 9))
        turned = HarmonicData(
            modes.number[::-1], modes.mass[::-1], modes.position[::-1], 0, 0.0, np.zeros(3), none, none[:, :3], "test"
        )
        write_harmonic(tmp_path / "turned.h5", turned)
    if "timeless" in overrides[0]:
        write_trajectory(tmp_path / "timeless.h5", n_frames=20)
        with h5py.File(tmp_path / "timeless.h5", "a") as file:
            del file.attrs["time_step"]
    done = spectra("out=result", *overrides, folder=tmp_path)
    assert done.returncode == 2
    *preface, message = done.stderr.strip().splitlines()
    assert message.startswith("error: ")
    assert words in message
    assert all(line.startswith("Error executing job with overrides") for line in preface)  # Hydra's own
    assert not (tmp_path / "result").exists()
