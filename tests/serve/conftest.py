"""A real model of two layers, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from slmops.bundle import write_bundle
from slmops.compress.convert import convert
from slmops.engines import Running, load_running
from slmops.engines.base import Logits
from slmops.engines.running import NO_GUESSES, Steps
from slmops.recipe.compress import CompressSettings
from slmops.tasks import Classification, Generation
from tests.tagger import save_tagger
from tests.tiny_task import TASK


class Watched:
    """A running batch that remembers what it was told to run."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.slots, self.room, self.vocabulary = running.slots, running.room, running.vocabulary
        self.guessing, self.guess_tokens = running.guessing, running.guess_tokens
        self.steps: list[dict[int, int]] = []
        self.fails = False

    def begin(self, slot, prompt, adapter=None) -> int:
        return self._running.begin(slot, prompt, adapter)

    def rewind(self, slot, length) -> None:
        self._running.rewind(slot, length)

    def run(self, steps: Steps, guesses=NO_GUESSES) -> dict[int, Logits]:
        self.steps.append({slot: len(ids) for slot, ids in steps.items()})
        if self.fails:
            raise RuntimeError("out of memory at 'a secret text'")
        return self._running.run(steps, guesses)


@pytest.fixture
def running(tiny_onnx) -> Watched:
    return Watched(load_running("onnxruntime-genai", tiny_onnx, slots=2, threads=1))


@pytest.fixture(scope="session")
def writer(tiny_onnx, tmp_path_factory) -> Path:
    """A bundle that writes."""
    return bundle_of(tmp_path_factory.mktemp("writer"), tiny_onnx, Generation(None, 40))


@pytest.fixture(scope="session")
def classifier(tiny_onnx, tmp_path_factory) -> Path:
    """A bundle that chooses among the answers that the model knows."""
    labels = ("refund", "refunds", "invoice", "other")
    return bundle_of(tmp_path_factory.mktemp("classifier"), tiny_onnx, Classification(labels, None, 8))


@pytest.fixture(scope="session")
def marker(tiny, tmp_path_factory) -> Path:
    """A bundle that marks."""
    folder = tmp_path_factory.mktemp("marker")
    save_tagger(tiny.folder, folder / "hf")
    convert(folder / "hf", folder / "onnx", CompressSettings(precision="fp32"), scratch=folder / "scratch")
    return bundle_of(folder, folder / "onnx", TASK)


@pytest.fixture(scope="session")
def labeller(tiny, tmp_path_factory) -> Path:
    """A bundle that gives one of three labels by a head."""
    folder, task = tmp_path_factory.mktemp("labeller"), Classification(("late", "other", "refund"), None, 8)
    save_tagger(tiny.folder, folder / "hf", task)
    convert(folder / "hf", folder / "onnx", CompressSettings(precision="fp32"), scratch=folder / "scratch")
    return bundle_of(folder, folder / "onnx", task)


def bundle_of(folder: Path, model: Path, task, **more) -> Path:
    """A bundle of a model."""
    out = folder / "bundle"
    described = task.describe()
    write_bundle(
        out,
        name="tiny",
        version="1",
        engine="onnxruntime-genai",
        model_folder=model,
        task=described,
        lineage={},
        evidence={},
        **more,
    )
    return out


@pytest.fixture
def ends() -> Iterator[list]:
    """Things to be closed at the end of a test."""
    found: list = []
    yield found
    for one in reversed(found):
        one()
