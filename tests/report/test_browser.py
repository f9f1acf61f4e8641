"""The page in a real browser: on a phone and on a screen, light and dark. Screenshots stay in build/screenshots."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slmops.report.page import page

_HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("chromium", _HERE / "chromium.py")
assert _spec
assert _spec.loader
chromium = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(chromium)

pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="no Chromium on PATH (apt-get install chromium)")

SCREENSHOTS = _HERE.parents[1] / "build" / "screenshots"
WIDTHS, SCHEMES, STORIES = (390, 1200), ("light", "dark"), ("story", "small_story", "held_story")

CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  const over = (colour, below) => {
    pen.clearRect(0, 0, 1, 1);
    if (below) { pen.fillStyle = `rgb(${below})`; pen.fillRect(0, 0, 1, 1); }
    pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = rgb => rgb.map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    const chain = [];
    for (let e = element; e; e = e.parentElement) chain.unshift(getComputedStyle(e).backgroundColor);
    return chain.reduce((below, colour) => over(colour, below), [255, 255, 255]);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, style = getComputedStyle(element);
    if (!walk.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (element.closest(".unseen, .none, .skip, style")) continue;
    const colour = element.closest("svg") ? style.fill : style.color;
    const ground = behind(element), ink = over(colour, ground);
    const [a, b] = [light(ground), light(ink)].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), walk.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    opened = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(params=STORIES)
def file(request, tmp_path) -> Path:
    path: Path = tmp_path / f"{request.param}.html"
    path.write_text(page(request.getfixturevalue(request.param)), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_fits_the_width_and_is_silent_and_asks_for_nothing(browser, file, width, scheme):
    browser.open(file, width=width, scheme=scheme)
    browser.screenshot(SCREENSHOTS / f"{file.stem}-{width}-{scheme}.png")
    assert browser.value("document.documentElement.scrollWidth") <= width
    kinds = {event["method"] for event in browser.events}
    assert not kinds & {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked == [file.as_uri()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_text_stands_out_from_its_ground(browser, file, scheme):
    browser.open(file, width=1200, scheme=scheme)
    found = browser.value(CONTRASTS)
    assert len(found) > 40
    assert [text for text in found if text[0] < 4.5] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_figure_stays_within_the_page_and_its_letters_can_be_read(browser, file, width):
    browser.open(file, width=width, scheme="light")
    script = """[...document.querySelectorAll("svg text")].filter(t => t.getClientRects().length).map(t => {
        const box = t.getBoundingClientRect(), scale = t.ownerSVGElement.getScreenCTM().a;
        return [box.left, box.right, parseFloat(getComputedStyle(t).fontSize) * scale, t.textContent]; })"""
    for left, right, size_px, text in browser.value(script):
        assert left >= 0, text
        assert right <= width, text
        assert size_px > 10, text


def test_both_schemes_really_differ(browser, file):
    grounds = []
    for scheme in SCHEMES:
        browser.open(file, width=390, scheme=scheme)
        grounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_on_paper_nothing_is_cut_off(browser, file):
    browser.open(file, width=794, scheme="light", media="print")
    assert browser.value("document.documentElement.scrollWidth") <= 794
    cut = browser.value(
        '[...document.querySelectorAll(".box")].filter(b => getComputedStyle(b).overflowX != "visible").length'
    )
    assert cut == 0
    assert browser.value('getComputedStyle(document.querySelector("nav")).display') == "none"
