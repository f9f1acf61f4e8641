"""Another bundle takes over while requests come."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from slmops.bundle import write_bundle
from slmops.bundle.manifest import MODEL
from slmops.bundle.write import place_bundle
from slmops.serve.journal import Journal
from slmops.serve.served import Served
from slmops.serve.swap import Swap
from slmops.tasks import Generation
from tests.serve.listening import Client, listen

INSTRUCTION = "Say it in words that nobody uses any more"


@pytest.fixture(scope="module")
def other(tiny_onnx, tmp_path_factory) -> Path:
    """A bundle of the same name, whose model is told something else and so answers otherwise."""
    return another(tmp_path_factory.mktemp("other") / "bundle", tiny_onnx)


def another(out: Path, model: Path, *, name: str = "tiny") -> Path:
    task = Generation(INSTRUCTION, 40).describe()
    told = {"task": task, "lineage": {}, "evidence": {}, "engine": "onnxruntime-genai"}
    write_bundle(out, name=name, version="2", model_folder=model, **told)
    return out


class Swapped:
    """A server whose bundle lies at `place`."""

    def __init__(self, client: Client, place: Path, swap: Swap, lines: io.StringIO) -> None:
        self.client, self.place, self.swap, self.lines = client, place, swap, lines

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.lines.getvalue().splitlines()]

    def now(self, count: int) -> list[dict]:
        """Ask for a swap; what the log says once it has said `count` things."""
        self.client.loop.call_soon_threadsafe(self.swap.wanted.set)
        return self.until(count)

    def until(self, count: int) -> list[dict]:
        waited = threading.Event()
        for _ in range(600):
            if len(self.events()) >= count:
                return self.events()
            waited.wait(0.1)
        raise AssertionError(self.events())


@contextmanager
def swapping(bundle: Path, folder: Path, *, watch: bool = False) -> Iterator[Swapped]:
    place, lines = folder / "served", io.StringIO()
    place_bundle(bundle, place)
    load = partial(Served, slots=4, threads=1, queue=64)
    for client in listen(place, served=load(place)):
        journal = Journal(lines)

        async def begin(client: Client = client, journal: Journal = journal) -> tuple[Swap, list[asyncio.Task]]:
            swap = Swap(client.server, place, lambda path, metrics: load(path, metrics=metrics), journal)
            beside = [swap.run(), *([swap.watch()] if watch else [])]
            return swap, [asyncio.create_task(one) for one in beside]

        swap, tasks = asyncio.run_coroutine_threadsafe(begin(), client.loop).result(60)
        yield Swapped(client, place, swap, lines)
        for task in tasks:
            client.loop.call_soon_threadsafe(task.cancel)
        journal.close()


def test_no_request_fails_and_each_is_answered_by_one_of_both(writer, other, tiny, tmp_path):
    text, known = next(iter(tiny.pairs.items()))
    over = threading.Event()
    with swapping(writer, tmp_path) as server, ThreadPoolExecutor(4) as pool:
        client = server.client
        models = []

        def ask(number: int) -> list[str]:
            said = []
            while not over.is_set():
                if number % 2:
                    reply = client.chat(text)
                    assert reply.status == 200, reply.body
                    (choice,) = reply.body["choices"]
                    said.append(choice["message"]["content"])
                    assert choice["finish_reason"] == "stop" or said[-1] != known
                else:
                    *events, done = client.stream(text)
                    assert done == "[DONE]"
                    said.append("".join(event["choices"][0]["delta"].get("content", "") for event in events))
            return said

        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            for count, bundle in enumerate((other, writer, other), 1):
                place_bundle(bundle, server.place)
                told = server.now(count)
                assert told[-1]["event"] == "bundle_changed", told
                models.append(weakref.ref(client.server.served))
        finally:
            over.set()
        said = {answer for one in asking for answer in one.result()}
        _, body, _ = client.chat(text)
        now = body["choices"][0]["message"]["content"]
        assert now != known
        assert said <= {known, now}
        assert known in said
        figures = client.send("/metrics").body.decode()
        assert 'error_type="failed"' not in figures
        # What is no more served is no more in memory.
        waited = threading.Event()
        for _ in range(100):
            if not any(model() for model in models[:-1]):
                break
            waited.wait(0.1)
        assert [model() is None for model in models] == [True, True, False]


def test_a_bundle_that_is_not_fit_changes_nothing(writer, other, tiny_onnx, tiny, tmp_path):
    text, known = next(iter(tiny.pairs.items()))
    with swapping(writer, tmp_path) as server:
        (same,) = server.now(1)
        assert same["event"] == "bundle_unchanged"
        place_bundle(another(tmp_path / "named", tiny_onnx, name="else"), server.place)
        assert "is else, and clients ask for tiny" in server.now(2)[-1]["why"]
        place_bundle(other, server.place)
        weights = server.place / MODEL / "model.onnx.data"
        content = bytearray(weights.read_bytes())
        content[0] ^= 1
        weights.unlink()
        weights.write_bytes(content)
        assert "was changed after it was written" in server.now(3)[-1]["why"]
        shutil.rmtree(server.place)
        assert "is not a bundle" in server.now(4)[-1]["why"]
        _, body, _ = server.client.chat(text)
        assert body["choices"][0]["message"]["content"] == known


def test_a_watched_link_is_followed(writer, other, tmp_path):
    with swapping(writer, tmp_path, watch=True) as server:
        link = tmp_path / "link"
        link.symlink_to(other)
        shutil.rmtree(server.place)
        link.rename(server.place)
        (told,) = server.until(1)
        assert (told["event"], told["old"], told["new"]) == ("bundle_changed", "1", "2")
        assert server.client.server.served.bundle.folder == other.resolve()
