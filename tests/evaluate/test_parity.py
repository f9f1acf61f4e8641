"""A sound export passes; one that is broken in a single way does not, and the verdict says in which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmops.bundle import open_bundle, write_bundle
from slmops.compress.convert import convert
from slmops.engines import Sampling, load_engine
from slmops.evaluate.parity import Parity, divergence_nats, parity, spread
from slmops.evaluate.parity_gates import parity_verdicts
from slmops.evaluate.probe import Subject
from slmops.models.chat_template import PLAIN
from slmops.models.tokenizer import Tokenizer
from slmops.recipe.compress import CompressSettings
from slmops.recipe.evaluate import ParitySettings
from slmops.tasks import Row
from tests.conftest import CONTEXT
from tests.tiny_task import TASK

Harm = Callable[[Path], None]
"""Breaks the model in a folder in one way."""


@pytest.fixture(scope="module")
def rows(tiny) -> list[Row]:
    return [
        {"id": f"r{i}", "input": text, "output": json.loads(answer)} for i, (text, answer) in enumerate(tiny.pairs.items())
    ]


@pytest.fixture(scope="module")
def source(tiny) -> Subject:
    return Subject(load_engine("transformers", tiny.folder, threads=1), Tokenizer.load(tiny.folder), TASK)


@pytest.fixture
def shipped(source, rows, tiny_onnx, tmp_path) -> Callable[..., Parity]:
    """Bundles the exported model, harmed or not, and holds the bundle against its source."""

    def ship(harm: Harm | None = None, model: Path = tiny_onnx) -> Parity:
        folder = Path(shutil.copytree(model, tmp_path / "model"))
        if harm:
            harm(folder)
        parts: dict[str, Any] = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}}
        write_bundle(tmp_path / "bundle", model_folder=folder, task=TASK.describe(), evidence={}, **parts)
        return parity(source, open_bundle(tmp_path / "bundle", threads=1), rows)

    return ship


def failed(found: Parity) -> list[str]:
    return [v["figure"] for v in parity_verdicts(found, ParitySettings()) if v["state"] == "fail"]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reweigh(folder: Path, named: Sequence[str], change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
    """Replaces the ONNX weights whose names hold one of `named`."""
    import onnx

    model = onnx.load(folder / "model.onnx")
    harmed = 0
    for tensor in model.graph.initializer:
        if any(part in tensor.name for part in named):
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(tensor)), tensor.name))
            harmed += 1
    assert harmed
    for path in (folder / "model.onnx", folder / "model.onnx.data"):
        path.unlink(missing_ok=True)
    onnx.save(model, folder / "model.onnx")


def other_template(folder: Path) -> None:
    """The template of another family of models."""
    (folder / "chat_template.jinja").write_text(PLAIN)


def other_end_token(folder: Path) -> None:
    """Answers end at the token that begins them."""
    brace = Tokenizer.load(folder).encode("{")[0]
    edit(folder / "genai_config.json", lambda config: config["model"].update(eos_token_id=brace))


def no_end_token(folder: Path) -> None:
    """The runtime does not end an answer where the tokenizer does."""
    edit(folder / "genai_config.json", lambda config: config["model"].pop("eos_token_id"))
    edit(folder / "tokenizer_config.json", lambda config: config.pop("end_ids"))


def permuted_block(folder: Path) -> None:
    """The first columns of one matrix of one layer stand in another order."""

    def turn(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        weight = weight.copy()
        weight[:, :32] = weight[:, 31::-1]
        return weight

    reweigh(folder, ["layers.1.attn.o_proj"], turn)


def transposed(folder: Path) -> None:
    """One square matrix is the other way round."""
    reweigh(folder, ["layers.0.attn.o_proj"], lambda weight: weight.T.copy())


def short_context(folder: Path) -> None:
    edit(folder / "genai_config.json", lambda config: config["model"].update(context_length=96))


def other_rope_base(folder: Path) -> None:
    """Positions turn as slowly as in a model for long texts."""
    angles = np.arange(CONTEXT)[:, None] * 500_000.0 ** (-np.arange(8) / 8)
    for name, of in (("cos_cache", np.cos), ("sin_cache", np.sin)):
        reweigh(folder, [name], lambda _, of=of: of(angles).astype(np.float32))


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_sound_export_passes(shipped, tiny, tmp_path, precision):
    convert(tiny.folder, tmp_path / "onnx", CompressSettings(precision=precision), scratch=tmp_path / "scratch")
    found = shipped(model=tmp_path / "onnx")
    print(precision, found)
    assert failed(found) == []


@pytest.mark.parametrize("harm", [other_template, other_end_token, no_end_token, permuted_block, transposed, short_context, other_rope_base])
def test_x(shipped, harm):
    found = shipped(harm)
    print(harm, found, *(v["message"] for v in parity_verdicts(found, ParitySettings())), sep="\n")
