"""The page of a server, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from slmops.serve.access import Keys
from tests.report import chromium
from tests.serve.listening import Client, listen

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[chromium.Chromium]:
    if chromium.PATH is None:
        pytest.skip("there is no browser here")
    browser = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def show(browser: chromium.Chromium, client: Client, *, width: int = 1000, scheme: str = "light") -> None:
    browser.open(f"http://127.0.0.1:{client.port}/", width=width, scheme=scheme)


def until(browser: chromium.Chromium, script: str) -> object:
    """The value of an expression, once it is a true one."""
    end = time.monotonic() + 30
    while not (found := browser.value(script)):
        assert time.monotonic() < end, f"{script} stayed {found!r}: {browser.value('document.body.innerText')}"
        time.sleep(0.05)
    return found


def ask(browser: chromium.Chromium, text: str) -> None:
    until(browser, "!document.getElementById('ask').hidden && !document.getElementById('send').disabled")
    browser.value(f"document.getElementById('text').value = {text!r}; document.getElementById('send').click()")


def complaints(browser: chromium.Chromium) -> list:
    """What the page reported as wrong: scripts that fail, and what its own rules forbid."""
    events = [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    return [event for event in events if event["params"].get("entry", {}).get("level") != "info"]


@pytest.mark.parametrize(("width", "scheme"), [(1000, "light"), (375, "dark")])
def test_a_question_is_answered_as_it_is_written(browser, writer, tiny, width, scheme):
    for client in listen(writer):
        show(browser, client, width=width, scheme=scheme)
        text, expected = next(iter(tiny.pairs.items()))
        ask(browser, text)
        said = "document.querySelector('#said li:last-child span:last-child').textContent"
        until(browser, f"{said} === {expected!r}")
        assert until(browser, "document.querySelector('[data-figure=answers]').textContent === '1'")
        assert browser.value("document.title") == "tiny"
        assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), "it needs no sideways scroll"
        assert not complaints(browser)


def test_a_text_is_classified(browser, classifier):
    for client in listen(classifier):
        show(browser, client)
        ask(browser, "I want my money back")
        assert until(browser, "document.querySelectorAll('#said meter').length") == 4
        assert browser.value("document.getElementById('send').textContent") == "Classify"
        assert not complaints(browser)


def test_a_key_is_asked_for(browser, writer, tiny):
    for client in listen(writer, keys=Keys([KEY])):
        show(browser, client)
        until(browser, "!document.getElementById('key').hidden")
        assert browser.value("document.getElementById('ask').hidden")
        use = "document.getElementById('key-text').value = {!r}; document.querySelector('#key button').click()"
        browser.value(use.format("wrong-key-of-some-length"))
        until(browser, "document.getElementById('problem').textContent.includes('no such API key')")
        browser.value(use.format(KEY))
        text, expected = next(iter(tiny.pairs.items()))
        ask(browser, text)
        until(browser, f"document.getElementById('said').textContent.includes({expected!r})")


def test_what_goes_wrong_is_said_and_not_kept(browser, writer, tiny):
    for client in listen(writer):
        show(browser, client)
        ask(browser, "long " * 400)
        until(browser, "document.getElementById('problem').textContent.includes('tokens')")
        text, expected = next(iter(tiny.pairs.items()))
        ask(browser, text)
        until(browser, f"document.getElementById('said').textContent.includes({expected!r})")


def test_nothing_comes_from_elsewhere(writer):
    for client in listen(writer):
        for path in ("/", "/page.css", "/page.js"):
            reply = client.send(path)
            assert reply.status == 200
            assert b"//" not in reply.body.replace(b"// ", b"")
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
