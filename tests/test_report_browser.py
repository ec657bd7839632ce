"""The HTML report in a real browser. Skipped where there is none: install Debian's chromium (or Chrome) and playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from report_run import HOSTILE, write_evaluation, write_spectrum, write_training

from densnet.report.accuracy import accuracy_part
from densnet.report.page import render
from densnet.report.spectrum import spectrum_part
from densnet.report.training import training_part

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE = 180_000  # ms; a browser on a busy machine
PROGRAM = next((path for name in NAMES if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as running:
        # A browser in a container cannot make its own sandbox; the page is ours.
        own = running.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"], timeout=PATIENCE)
        yield own
        own.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_spectrum(folder / "ir", source=HOSTILE)
    write_evaluation(folder / "evaluation")
    write_training(folder / "training")
    parts = [spectrum_part(folder / "ir"), accuracy_part(folder / "evaluation"), training_part(folder / "training")]
    (folder / "report.html").write_text(render(parts, [], HOSTILE, "python", datetime(2030, 1, 2, tzinfo=UTC)))
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str]]]:
    """The page, drawn, and all the browser complained of or asked for besides the file itself. Parameters: of the context."""
    context = browser.new_context(**getattr(request, "param", {"viewport": {"width": 1280, "height": 900}}))
    page, seen = context.new_page(), []
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("request", lambda asked: seen.append(f"request: {asked.url[:100]}") if asked.url != report.as_uri() else None)
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-drawn=yes]")
    yield page, seen
    context.close()


def shown_range(page: Page) -> list[float]:
    return page.evaluate("[...document.getElementById('plot-ir').layout.xaxis.range]")


def test_the_spectrum_is_drawn_and_zooms(opened: tuple[Page, list[str]], report: Path) -> None:
    page, seen = opened
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))")
    curves = "document.querySelectorAll('#plot-ir .scatterlayer path.js-line')"
    path = page.evaluate(f"[...{curves}].map((p) => p.getAttribute('d').length)")
    assert max(path) > 300  # a curve; a straight line has some 30 characters
    points = page.evaluate("document.getElementById('plot-ir').data.find((t) => t.name.startsWith('MD')).y.length")
    assert points == sum(
        not line.startswith(("#", "wave")) for line in (report.parent / "ir" / "ir.csv").read_text().splitlines()
    )

    low, high = shown_range(page)
    assert (low, high) == (0.0, pytest.approx(high))
    area = page.locator("#plot-ir .nsewdrag.drag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_function("document.getElementById('plot-ir').layout.xaxis.range[0] > 1")
    assert shown_range(page) == pytest.approx([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high], abs=0.01 * high)

    page.get_by_role("button", name="Whole range").click()
    page.wait_for_function("document.getElementById('plot-ir').layout.xaxis.range[0] === 0")
    assert shown_range(page) == [low, high]
    page.get_by_role("button", name="Reverse axis").click()
    page.wait_for_function("document.getElementById('plot-ir').layout.xaxis.range[0] > 1")
    assert shown_range(page) == [high, low]
    assert seen == []


def test_the_pointer_shows_values(opened: tuple[Page, list[str]]) -> None:
    page, seen = opened
    page.evaluate("Plotly.Fx.hover('plot-ir', [{ curveNumber: 2, pointNumber: 500 }])")
    said = page.locator("#plot-ir .hoverlayer").text_content() or ""
    assert "cm⁻¹" in said
    assert "±" in said
    assert seen == []


@pytest.mark.parametrize(
    "opened",
    [
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
        {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
        {"viewport": {"width": 375, "height": 812}, "is_mobile": True, "has_touch": True},
    ],
    ids=["light", "dark", "phone"],
    indirect=True,
)
def test_it_looks_whole(opened: tuple[Page, list[str]], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Nothing hostile ran, nothing sticks out sideways, and the screenshot has ink on its ground where the chart is."""
    page, seen = opened
    assert page.viewport_size is not None  # innerWidth of a phone grows with what sticks out
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert page.evaluate("window.hostile") is None
    assert HOSTILE in page.locator("h1").inner_text()
    picture = page.locator("#plot-ir").screenshot(path=tmp_path / "spectrum.png")
    grey = np.asarray(Image.open(BytesIO(picture)).convert("L")).astype(int)
    ground = int(np.bincount(grey.ravel()).argmax())
    assert (ground < 60) == ("dark" in request.node.name)
    assert 0.01 < float((np.abs(grey - ground) > 60).mean()) < 0.3
    assert seen == []


def test_a_script_from_a_file_would_not_run(browser: Browser, report: Path, tmp_path: Path) -> None:
    """Were the escaping broken, the policy of the page would still stop it."""
    text = report.read_text().replace(
        "</h1>", "</h1><script>window.hostile = 1</script><img src=x onerror='window.hostile = 1'>", 1
    )
    (tmp_path / "broken.html").write_text(text)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((tmp_path / "broken.html").as_uri())
    page.wait_for_selector("html[data-drawn=yes]")
    assert page.evaluate("window.hostile") is None
    assert any("Content Security Policy" in text for text in complaints)
    page.close()
