"""The HTML report: every number of the inputs is on the page, nothing from a file becomes markup, nothing is loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as graph
import pytest
from report_run import (
    HOSTILE,
    evaluated,
    write_attributes,
    write_evaluation,
    write_model,
    write_spectrum,
    write_training,
)

from densnet.errors import DataError, DensnetError
from densnet.report import charts
from densnet.report.accuracy import accuracy_part
from densnet.report.blocks import cell, columns, heading, number
from densnet.report.extras import extra_parts
from densnet.report.origin import model_part, settings_part, trajectory_part
from densnet.report.page import Missing, render, script_json
from densnet.report.spectrum import spectrum_part
from densnet.report.training import training_part
from densnet.units import DEBYE_PER_AU, EV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE

ROOT = Path(__file__).parents[1]
COMPARISON = {"title": HOSTILE, "pearson": 0.87654321, "pairs": [{"deviation_cm1": -12.5}]}
TITLE = 'title="Water, hot"'
CURVES = f"# {HOSTILE}\nwavenumber_cm1,experiment,md,md_error\n100,1,2,0.5\n200,3,4,0.25\n"
MADE = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


class Page(HTMLParser):
    """numbers: exact values of <data>; text: visible words; scripts: contents by type; attributes: of every element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.numbers: list[float] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.text, self._raw = "", None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        self._raw = tag if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append((found.get("type"), ""))
        if tag == "data":
            self.numbers += [float(v) for v in str(found["value"]).split(", ")]

    def handle_endtag(self, tag: str) -> None:
        self._raw = None

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)
        elif self._raw is None:
            self.text += data

    @property
    def figures(self) -> dict[str, Any]:
        (text,) = [text for kind, text in self.scripts if kind == "application/json"]
        return json.loads(text)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_spectrum(folder / "ir", source=HOSTILE)
    (folder / "ir" / "comparison.json").write_text(json.dumps(COMPARISON))
    (folder / "ir" / "comparison.csv").write_text(CURVES)
    write_evaluation(folder / "evaluation")
    write_training(folder / "training")
    write_model(folder / "model")
    write_attributes(folder / "run.h5")
    return folder


@pytest.fixture(scope="module")
def html(runs: Path) -> str:
    settings = settings_part([runs / "training" / "csv" / "hparams.yaml"])
    assert settings is not None
    parts = [
        spectrum_part(runs / "ir"), *extra_parts(runs / "ir"), accuracy_part(runs / "evaluation"),
        training_part(runs / "training"), model_part(runs / "model"), trajectory_part(runs / "run.h5"), settings,
    ]  # fmt: skip
    return render(parts, [Missing("Something", "more=FOLDER")], HOSTILE, f"python x {HOSTILE}", MADE)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def numbers_in(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        for value in content.values():
            yield from numbers_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from numbers_in(value)
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield float(content)


def test_every_number_of_the_json_files_is_on_the_page_with_all_its_digits(page: Page, runs: Path) -> None:
    shown = set(page.numbers)
    for name in ("ir/ir.json", "ir/comparison.json", "evaluation/evaluation.json"):
        wanted = set(numbers_in(json.loads((runs / name).read_text())))
        assert wanted - shown == set(), name
        assert len(wanted) > 1


def test_charts_hold_the_arrays_of_the_csv_files(page: Page, runs: Path) -> None:
    table = np.genfromtxt(runs / "ir" / "ir.csv", delimiter=",", names=True, skip_header=_notes(runs / "ir" / "ir.csv"))
    traces = {trace["name"]: trace for trace in page.figures["ir"]["data"]}
    (curve,) = [t for name, t in traces.items() if name == "MD, 300 K"]
    assert np.array_equal(curve["x"], table["wavenumber_cm1"])
    assert np.array_equal(curve["y"], table["epsilon_L_mol_cm"])
    assert np.array_equal(curve["customdata"], table["epsilon_error"])
    (lower,), (upper,) = ([t for n, t in traces.items() if re.search(end, n)] for end in (", lower edge$", "interval$|error$"))
    known = "epsilon_lower" in (table.dtype.names or ())
    low = table["epsilon_lower"] if known else table["epsilon_L_mol_cm"] - table["epsilon_error"]
    high = table["epsilon_upper"] if known else table["epsilon_L_mol_cm"] + table["epsilon_error"]
    assert np.array(lower["y"]) == pytest.approx(low, rel=1e-7)
    assert np.array(upper["y"]) == pytest.approx(high, rel=1e-7)
    harmonic = json.loads((runs / "ir" / "ir.json").read_text())
    for name, key, sign in (("Model, harmonic", "model_harmonic", 1), ("DFT, harmonic", "dft_harmonic", -1)):
        assert traces[name]["x"] == harmonic[key]["frequency_cm1"]
        assert traces[name]["y"] == [sign * v for v in harmonic[key]["intensity_km_mol"]]


def test_a_file_of_curves_is_drawn_with_its_error(page: Page) -> None:
    band = "molecular dynamics, ±1 standard error"
    names = (f"{band}, lower edge", band, "experiment", "molecular dynamics")
    drawn = {trace["name"]: trace["y"] for trace in page.figures["ir-comparison"]["data"]}
    assert [drawn[name] for name in names] == [[1.5, 3.75], [2.5, 4.25], [1.0, 3.0], [2.0, 4.0]]


def test_parity_holds_the_pairs_of_the_evaluation(page: Page) -> None:
    errors = evaluated()
    energy = np.array([e.energy for e in errors])
    force = np.concatenate([e.force for e in errors if e.force is not None], axis=1).reshape(2, -1)
    wanted = {
        "dipole_D": DEBYE_PER_AU * np.concatenate([e.dipole for e in errors], axis=1),
        "energy_meV": MEV_PER_HARTREE * (energy.T - energy[:, 0].mean()),
        "force_eV_A": EV_PER_ANGSTROM_PER_AU * force,
    }
    for name, (reference, model) in wanted.items():
        _, dots, error = page.figures[f"parity-{name}"]["data"]
        assert np.array(dots["x"]) == pytest.approx(reference, rel=1e-6)
        assert np.array(dots["y"]) == pytest.approx(model, rel=1e-6)
        assert np.array(error["y"]) == pytest.approx(model - reference, rel=1e-2, abs=1e-6 * np.abs(reference).max())
        assert any(n == pytest.approx(np.abs(model - reference).mean(), rel=1e-3) for n in page.numbers)
    density = np.concatenate([e.density.sample for e in errors if e.density is not None])
    shown = density[(density > 1e-5).all(axis=1)]
    assert np.array(page.figures["parity-density_e_bohr3"]["data"][1]["x"]) == pytest.approx(shown[:, 0], rel=1e-6)
    assert len(shown) < len(density)  # the logarithmic plot leaves points out, and says so
    assert f"{len(density)} pairs ({len(shown)} of them drawn, those above 10⁻⁵)" in page.text


def test_training_curves_are_those_of_the_log(page: Page) -> None:
    loss, terms, energy = (page.figures[f"training-{i}"]["data"] for i in range(3))
    assert [t["name"] for t in loss] == ["train/loss", "val/loss"]
    assert loss[0]["x"][:2] == [9.0, 19.0]
    assert loss[0]["y"][:2] == [5.0, 2.5]
    assert (loss[1]["x"], loss[1]["y"][0]) == ([99.0, 199.0, 299.0, 399.0], 0.7)
    assert [t["name"] for t in terms] == ["train/force"]
    assert energy[0]["y"] == [2.0, 1.0, 0.666667, 0.5]


def test_settings_are_there_by_the_names_one_types(page: Page) -> None:
    for words in (
        "stage.learning_rate",
        "dataset.batch_size",
        "density.channels",
        "level.grid_level",
        "models/x",
        "0123456789abcdef",
    ):
        assert words in page.text
    assert {0.00237, 17.0, 48.0, 41.341373} <= set(page.numbers)
    assert "Replicas that failed" in page.text
    assert "Something: not given; add more=FOLDER" in page.text


def test_text_from_files_is_text(html: str, page: Page) -> None:
    """The title, the source, a comparison, frames and a setting hold markup: none of it is in the page as such."""
    assert page.text.count(HOSTILE) >= 6
    assert "<script>window" not in html
    assert "<img src=x" not in html
    assert not [tag for tag, found in page.elements if any(name.startswith("on") for name in found)]
    (title,) = [i for i, (tag, _) in enumerate(page.elements) if tag == "title"]
    assert page.elements[title + 1][0] == "style"
    hover = {text for trace in page.figures["frames"]["data"] for text in trace["text"]}
    assert not [text for text in hover if "<" in text]  # Plotly reads its labels as HTML


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(html: str, page: Page) -> None:
    for tag, found in page.elements:
        for name in ("src", "href", "action", "srcset", "poster", "data", "formaction", "background"):
            address = found.get(name)
            assert address is None or address.startswith(("data:", "#")), f"{tag} {name}={address:.60}"
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert not re.search(r"@import|url\(", style[1])
    (policy,) = [found["content"] for tag, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    programs = [text for kind, text in page.scripts if kind != "application/json"]
    hashes = [b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in programs]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert len(hashes) == 2


def test_every_figure_is_one_that_plotly_knows(page: Page) -> None:
    for figure in page.figures.values():
        text = re.sub(r"var\(--[a-z]+\)", "#123456", json.dumps(figure)).replace("#12345640", "rgba(1, 2, 3, 0.25)")
        graph.Figure(json.loads(text))  # refuses unknown names and values


def test_what_is_drawn_has_words_and_tables_have_headings(page: Page, html: str) -> None:
    for tag, found in page.elements:
        if tag == "img":
            assert found["alt"]
        if found.get("role") == "img":
            assert len(str(found["aria-label"])) > 20
    assert html.count("<table") == html.count("<caption") == html.count("<thead")
    assert all(found.get("scope") for tag, found in page.elements if tag == "th")
    anchors = {found["id"] for _, found in page.elements if "id" in found}
    assert {
        str(found["href"])[1:] for tag, found in page.elements if tag == "a" and str(found["href"]).startswith("#")
    } <= anchors
    identities = [found["id"] for _, found in page.elements if "id" in found]
    assert len(identities) == len(set(identities))


def test_colours_of_figures_are_in_both_styles(page: Page, html: str) -> None:
    used = set(re.findall(r"var\((--[a-z]+)\)", json.dumps([page.figures, charts.LINES])))
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)[:2]
    for name in used:
        assert f"{name}:" in light
        assert f"{name}:" in dark


def test_a_warm_trajectory_and_blocks_are_said(runs: Path, tmp_path: Path) -> None:
    assert "352 K, the spectrum assumes 300 K" in _words(spectrum_part(runs / "ir"))
    write_spectrum(tmp_path, replicas=1)
    assert "there is no error band" in _words(spectrum_part(tmp_path))
    write_spectrum(tmp_path, replicas=1, frames=12000)
    assert "error band is from blocks" in _words(spectrum_part(tmp_path))


def test_an_older_evaluation_shows_its_picture(runs: Path, tmp_path: Path) -> None:
    write_evaluation(tmp_path)
    (tmp_path / "parity.csv").unlink()
    assert "neither parity.csv nor parity.png" in _words(accuracy_part(tmp_path))
    (tmp_path / "parity.png").write_bytes(b"\x89PNG picture")
    part = accuracy_part(tmp_path)
    assert "evaluate again" in _words(part)
    carried = b64encode(b"\x89PNG picture").decode()
    assert f"data:image/png;base64,{carried}" in render([part], [], "t", "c", MADE)


@pytest.mark.parametrize("carry", [True, False])
def test_inputs_are_carried_only_if_wanted(runs: Path, carry: bool) -> None:
    made = render([spectrum_part(runs / "ir")], [], "t", "c", MADE, carry)
    assert (b64encode((runs / "ir" / "ir.csv").read_bytes()).decode() in made) == carry
    assert hashlib.sha256((runs / "ir" / "ir.csv").read_bytes()).hexdigest() in made


def _notes(path: Path) -> int:
    return sum(line.startswith("#") for line in path.read_text().splitlines())


def _words(part: Any) -> str:
    return " ".join(block.text for block in part.section.blocks if block.kind == "words")


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("ir.json", None, None, "has no ir.json"),
        ("ir.csv", None, None, "has no ir.csv"),
        ("ir.json", '"source"', '"sou', "no JSON document"),
        ("ir.json", "300.0", "NaN", "NaN is no number of JSON"),
        ("ir.json", '"settings"', '"other"', "has no settings"),
        ("ir.json", '"frequency_cm1"', '"frequency"', "no list of numbers"),
        ("ir.json", '"low_cm1"', '"low"', "low_cm1 and high_cm1"),
        ("ir.csv", "epsilon_L_mol_cm", "epsilon", "no whole column epsilon_L_mol_cm"),
        ("ir.csv", "\n0,", "\nzero,", "'zero' in row 1; expected a number"),
        ("ir.csv", "\n0,", "\n0,1,", "row 1 has"),
    ],
)
def test_a_damaged_spectrum_is_refused_in_one_line(
    name: str, old: str | None, new: str, complaint: str, runs: Path, tmp_path: Path
) -> None:
    for own in ("ir.json", "ir.csv"):
        (tmp_path / own).write_bytes((runs / "ir" / own).read_bytes())
    target = tmp_path / name
    if old is None:
        target.unlink()
    else:
        assert old in target.read_text()
        target.write_text(target.read_text().replace(old, new, 1))
    with pytest.raises(DensnetError, match=re.escape(complaint)) as caught:
        spectrum_part(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_inputs_that_are_wrong_are_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "parity.csv").write_text("a,b\n1,2\n")
    (tmp_path / "evaluation.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "metrics.csv").write_text("epoch,step\n1,2\n")
    for make, complaint in (
        (lambda: accuracy_part(tmp_path), "expected quantity, frame, reference, model"),
        (lambda: accuracy_part(runs / "ir"), "has no evaluation.json"),
        (lambda: settings_part([tmp_path / "config.yaml"]), "no plain YAML"),
        (lambda: settings_part([runs / "ir"]), r"has no .hydra/config.yaml"),
        (lambda: model_part(tmp_path), "is no densnet/model"),
        (lambda: model_part(runs / "ir"), "no model in"),
        (lambda: training_part(tmp_path), "no column step with a metric"),
        (lambda: training_part(runs / "ir"), "logger=csv"),
        (lambda: trajectory_part(runs / "ir" / "ir.csv"), "cannot be read"),
        (lambda: extra_parts(tmp_path / "none"), "is no folder"),
        (lambda: render([], [], "t", "c", MADE), "nothing to report"),
    ):
        with pytest.raises(DensnetError, match=complaint):
            make()


def test_script_json_ends_no_script() -> None:
    text = script_json({"a": "</script><!-- & <script>"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & <script>"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json([float("nan")])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1575.7666, "1575.8"),
        (-0.00012345678, "−0.00012346"),
        (12, "12"),
        (True, "yes"),
        (None, "–"),
        ([1, 2], "1, 2"),
        (123456.7, "123457"),
    ],
)
def test_numbers_are_rounded_for_the_eye_only(value: object, text: str) -> None:
    assert cell(value).text == text
    if isinstance(value, float):
        assert float(number(value).exact or "nan") == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("energy_mae_meV", "Energy MAE / meV"),
        ("km_mol", "Area / km mol⁻¹"),
        ("rmsd_A", "RMSD / Å"),
        ("length_ps", "Length / ps"),
        ("seed", "Seed"),
    ],
)
def test_names_become_headings_with_units(name: str, text: str) -> None:
    assert heading(name) == text


def test_a_column_has_one_number_of_decimals_unless_small_ones_would_vanish() -> None:
    table = columns("", ("a", "b"), [(100.04, 2.0), (3.5, 1e-9)])
    assert [[c.text for c in row] for row in table.rows] == [["100.04", "2"], ["3.50", "1e−09"]]
    assert table.numeric == (True, True)


def test_the_program(runs: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def report(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "densnet.report", *words, f"hydra.run.dir={tmp_path}/log"]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)

    done = report(
        f"spectrum={runs}/ir", f"training=[{runs}/training,{runs}/training]", f"out={tmp_path}/a.html", 'title="Water, hot"'
    )
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "a.html").read_text()
    assert "Water, hot" in made
    assert "Training, run 2 of 2" in made
    assert "evaluation=FOLDER" in made
    done = report(f"spectrum=[{runs}/ir,{runs}/ir]", f"out={tmp_path}/b.html")
    assert done.returncode == 2
    assert done.stderr == "error: spectrum is a list of 2; expected one; make a report for each, or use more=[...]\n"
    assert not (tmp_path / "b.html").exists()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        settings_part([tmp_path / "none.yaml"])
