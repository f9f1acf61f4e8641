"""A converted model answers as the one it was made from."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from slmops.compress.convert import CONTEXT_TOKENS, convert
from slmops.compress.stage import Convert
from slmops.engines import Engine, Sampling, load_engine
from slmops.errors import BadInput, SlmopsError
from slmops.models.source import TOKENIZER_FILES, weights_bytes
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.stage import Context
from slmops.recipe.models import CompressSettings

WAYS = [
    CompressSettings(precision="fp32"),
    CompressSettings(precision="int8"),
    CompressSettings(precision="int4", algorithm="rtn", block_size=32),
    CompressSettings(precision="int4", algorithm="rtn", block_size=64),
    CompressSettings(precision="int4", algorithm="k_quant", block_size=32),
]
MOST_APART = {"fp32": 1e-3, "int8": 0.1, "int4": 1.5}
"""Largest difference of a log-probability that a precision may make, in nats."""


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: f"{way.precision}-{way.algorithm}-{way.block_size}")
def way(request) -> CompressSettings:
    return request.param


@pytest.fixture(scope="module")
def converted(tiny, way, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert(tiny.folder, folder / "model", way, scratch=folder / "scratch")
    return folder / "model"


@pytest.fixture(scope="module")
def reference(tiny) -> Engine:
    return load_engine("transformers", tiny.folder, threads=1)


def written(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in prompts]
    for token in engine.generate(prompts, Sampling(max_tokens=40)):
        answers[token.request].append(token.id)
    return answers


def test_it_answers_as_before(converted, reference, way, tiny):
    engine = load_engine("onnxruntime-genai", converted, threads=1)
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    answers = written(reference, prompts)
    assert written(engine, prompts) == answers
    before, after = (np.concatenate(one.score(prompts, answers)) for one in (reference, engine))
    assert np.abs(before - after).max() < MOST_APART[way.precision]
    assert way.precision == "fp32" or not np.array_equal(before, after)


def test_fewer_bits_take_less_room(converted, way, tiny):
    share = weights_bytes(converted) / weights_bytes(tiny.folder)
    # The model is so small that the graph itself, without weights, counts.
    assert share < {"fp32": 1.5, "int8": 0.9, "int4": 0.6}[way.precision]


def test_the_tokenizer_comes_along_byte_by_byte(converted, tiny):
    for name in TOKENIZER_FILES:
        assert (converted / name).exists() == (tiny.folder / name).exists(), name
        if (tiny.folder / name).exists():
            assert (converted / name).read_bytes() == (tiny.folder / name).read_bytes(), name
    tokenizer = Tokenizer.load(converted)
    assert tokenizer.end_ids == tiny.tokenizer.end_ids
    assert tokenizer.render([{"role": "user", "content": "hi"}]) == tiny.tokenizer.render(
        [{"role": "user", "content": "hi"}]
    )


def test_the_cache_is_no_larger_than_the_context_and_the_limit(converted, tiny):
    config = json.loads((converted / "genai_config.json").read_text())
    assert config["search"]["max_length"] == config["model"]["context_length"] == 128


@pytest.fixture
def altered(tiny, tmp_path):
    """The tiny model with other entries in its configuration."""

    def write(**changes: object) -> Path:
        folder = shutil.copytree(tiny.folder, tmp_path / "altered")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return write


def test_a_long_context_does_not_allocate_a_large_cache(altered, tmp_path):
    folder = altered(max_position_embeddings=100_000)
    convert(folder, tmp_path / "out", CompressSettings(precision="fp32"), scratch=tmp_path / "scratch")
    config = json.loads((tmp_path / "out" / "genai_config.json").read_text())
    assert config["search"]["max_length"] == CONTEXT_TOKENS
    assert config["model"]["context_length"] == 100_000


def test_an_unknown_architecture_is_bad_input(altered, tmp_path):
    folder = altered(architectures=["MadeUpForCausalLM"])
    with pytest.raises(BadInput, match="MadeUpForCausalLM"):
        convert(folder, tmp_path / "out", CompressSettings(), scratch=tmp_path / "scratch")


def test_what_the_builder_said_when_it_failed_is_in_the_log(altered, tmp_path, caplog):
    folder = altered()
    (folder / "model.safetensors").write_bytes(b"no weights")
    with caplog.at_level(logging.ERROR, logger="slmops"), pytest.raises(SlmopsError, match="export to ONNX failed"):
        convert(folder, tmp_path / "out", CompressSettings(), scratch=tmp_path / "scratch")
    assert "Traceback" in caplog.text


def test_as_a_stage_it_reports_the_size(tiny, tmp_path):
    shutil.copytree(tiny.folder, tmp_path / "in" / "model")
    context = Context(out=tmp_path / "out", work=tmp_path / "work", seed=7)
    figures = Convert().run({"model": tmp_path / "in"}, CompressSettings(precision="int8"), context)
    assert figures == {"precision": "int8", "weights_bytes": weights_bytes(tmp_path / "out" / "model")}
    load_engine("onnxruntime-genai", tmp_path / "out" / "model", threads=1)
