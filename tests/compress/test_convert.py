"""A converted model answers as the one it was made from."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.compress import memory
from slmops.compress.convert import convert
from slmops.compress.export import CONTEXT_TOKENS, TESTED
from slmops.compress.memory import float32_bytes
from slmops.engines import Engine, Sampling, load_engine
from slmops.errors import BadInput, SlmopsError
from slmops.models.source import TOKENIZER_FILES, count_parameters, load_model, save_model
from slmops.models.tokenizer import Tokenizer
from slmops.models.weight_files import weights_bytes
from slmops.models.width import keep_channels, keep_heads
from slmops.recipe.compress import CompressSettings
from tests.families import make
from tests.tokenizer_kinds import tokenizer

WAYS = [
    CompressSettings(precision="fp32"),
    CompressSettings(precision="int8"),
    CompressSettings(precision="int4", algorithm="rtn", block_size=32),
    CompressSettings(precision="int4", algorithm="k_quant", block_size=32),
]
MOST_APART = {"fp32": 1e-3, "int8": 0.1, "int4": 1.5}
"""Largest difference of a log-probability that a precision may make, in nats."""

CONTEXT = 3000


def altered_copy(model: Path, to: Path, **changes: object) -> Path:
    """A copy of a model folder with other entries in its configuration."""
    shutil.copytree(model, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: f"{way.precision}-{way.algorithm}-{way.block_size}")
def way(request) -> CompressSettings:
    return request.param


@pytest.fixture(scope="module")
def original(tiny, tmp_path_factory) -> Path:
    """The tiny model with a context that is longer than what a cache is made for."""
    return altered_copy(tiny.folder, tmp_path_factory.mktemp("original") / "model", max_position_embeddings=CONTEXT)


@pytest.fixture(scope="module")
def converted(original, way, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert(original, folder / "model", way, scratch=folder / "scratch")
    return folder / "model"


@pytest.fixture(scope="module")
def reference(original) -> Engine:
    return load_engine("transformers", original, threads=1)


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


@pytest.fixture(scope="module")
def narrowed(tiny, tmp_path_factory) -> Path:
    """The tiny model with half of its heads and three quarters of its channels; hidden size over heads is no head."""
    folder = tmp_path_factory.mktemp("narrowed") / "model"
    model = load_model(tiny.folder)
    keep_heads(model, [[1], [0]])
    keep_channels(model, [list(range(96)), list(range(32, 128))])
    save_model(model, folder, tokenizer_from=tiny.folder)
    return folder


def test_a_narrowed_model_answers_as_before(narrowed, tiny, tmp_path):
    convert(narrowed, tmp_path / "model", CompressSettings(precision="fp32"), scratch=tmp_path / "scratch")
    decoder = json.loads((tmp_path / "model" / "genai_config.json").read_text())["model"]["decoder"]
    assert [decoder[name] for name in ("num_attention_heads", "num_key_value_heads", "head_size")] == [2, 1, 16]
    before = load_engine("transformers", narrowed, threads=1)
    after = load_engine("onnxruntime-genai", tmp_path / "model", threads=1)
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    answers = written(before, prompts)
    assert written(after, prompts) == answers
    scores = [np.concatenate(engine.score(prompts, answers)) for engine in (before, after)]
    assert np.abs(scores[0] - scores[1]).max() < MOST_APART["fp32"]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> tuple[Path, Tokenizer]:
    """A Gemma 3 whose sliding layers see four tokens, and whose kinds of layers have rotary bases of their own."""
    told, folder = tokenizer("gemma"), tmp_path_factory.mktemp("gemma") / "model"
    (end,) = told.end_ids
    model = make("gemma3", vocab_size=told.size, eos_token_id=end, pad_token_id=end, max_position_embeddings=128)
    save_model(model, folder)
    told.save(folder)
    return folder, told


def test_a_model_with_rotary_settings_by_kind_of_layer_answers_as_before(gemma, tmp_path):
    folder, told = gemma
    written_down = (folder / "config.json").read_bytes()
    rotary = json.loads(written_down)["rope_parameters"]
    assert rotary["full_attention"]["rope_theta"] != rotary["sliding_attention"]["rope_theta"]
    for _ in range(2):  # a second time over what the first left behind
        convert(folder, tmp_path / "model", CompressSettings(precision="fp32"), scratch=tmp_path / "scratch")
    assert (folder / "config.json").read_bytes() == written_down
    before, after = (
        load_engine(engine, path, threads=1)
        for engine, path in (("transformers", folder), ("onnxruntime-genai", tmp_path / "model"))
    )
    # Longer than a window, and of unlike length, so that one is padded.
    prompts = [told.encode("where is my order, it should have arrived"), told.encode("cancel the lamp, it is blue")]
    answers = written(before, prompts)
    assert written(after, prompts) == answers
    scores = [np.concatenate(engine.score(prompts, answers)) for engine in (before, after)]
    assert np.abs(scores[0] - scores[1]).max() < MOST_APART["fp32"]
    choices = [told.encode("refund"), told.encode("refund it"), told.encode("other")]
    assert np.abs(before.score_choices(prompts, choices) - after.score_choices(prompts, choices)).max() < 1e-2


def test_rotary_settings_that_scale_one_kind_of_layer_are_refused(gemma, tmp_path):
    folder, _ = gemma
    rotary = json.loads((folder / "config.json").read_text())["rope_parameters"]
    rotary["full_attention"] |= {"rope_type": "linear", "factor": 8.0}
    scaled = altered_copy(folder, tmp_path / "model", rope_parameters=rotary)
    with pytest.raises(BadInput, match=r"rotary positions .* \(linear\)") as error:
        convert(scaled, tmp_path / "out", CompressSettings(algorithm="rtn"), scratch=tmp_path / "scratch")
    assert "teach.engine" in (error.value.hint or "")


def test_fewer_bits_take_less_room(converted, way, tiny):
    # Cosine and sine of every position are stored as weights: half a head of 16 each, in float32.
    positions = CONTEXT * (8 + 8) * 4
    share = (weights_bytes(converted) - positions) / weights_bytes(tiny.folder)
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


def test_the_cache_is_made_for_less_than_a_long_context(converted):
    config = json.loads((converted / "genai_config.json").read_text())
    assert config["model"]["context_length"] == CONTEXT
    assert config["search"]["max_length"] == CONTEXT_TOKENS < CONTEXT


def test_an_unknown_architecture_is_bad_input_and_those_that_are_known_are_told(tiny, tmp_path):
    folder = altered_copy(tiny.folder, tmp_path / "model", architectures=["MadeUpForCausalLM"])
    with pytest.raises(BadInput, match="MadeUpForCausalLM") as error:
        convert(folder, tmp_path / "out", CompressSettings(algorithm="rtn"), scratch=tmp_path / "scratch")
    assert all(name in (error.value.hint or "") for name in TESTED)


def test_heads_that_the_runtime_would_refuse_are_refused_first(tiny, tmp_path):
    folder = altered_copy(tiny.folder, tmp_path / "model", head_dim=24)
    with pytest.raises(BadInput, match="heads of 24 features"):
        convert(folder, tmp_path / "out", CompressSettings(algorithm="rtn"), scratch=tmp_path / "scratch")


def test_a_model_that_does_not_fit_is_refused_before_any_work(tiny, tmp_path, monkeypatch):
    parameters = count_parameters(load_model(tiny.folder))
    assert float32_bytes(tiny.folder) == pytest.approx(4 * parameters, rel=0.05)
    half = tmp_path / "half"
    load_model(tiny.folder).to(torch.bfloat16).save_pretrained(half)
    assert float32_bytes(half) == pytest.approx(4 * parameters, rel=0.05)
    shutil.rmtree(half)
    monkeypatch.setattr(memory, "BASE_BYTES", 10**15)
    with pytest.raises(BadInput, match=r"float32 needs about 1000000\.0 GB of memory, and .* are available"):
        convert(tiny.folder, tmp_path / "out", CompressSettings(algorithm="rtn"), scratch=tmp_path / "scratch")
    assert not any(tmp_path.iterdir())


def test_what_the_builder_said_when_it_failed_is_in_the_log(tiny, tmp_path, caplog):
    folder = altered_copy(tiny.folder, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with caplog.at_level(logging.ERROR, logger="slmops"), pytest.raises(SlmopsError, match="export to ONNX failed"):
        convert(folder, tmp_path / "out", CompressSettings(algorithm="rtn"), scratch=tmp_path / "scratch")
    assert "Traceback" in caplog.text
