"""A trained model with fewer tokens, for every runtime."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmops.bundle import open_bundle, write_bundle
from slmops.compress.adapters import convert_adapters
from slmops.compress.convert import convert
from slmops.compress.vocabulary import cut_vocabulary
from slmops.data.read import write_jsonl
from slmops.engines import engine_of, load_engine
from slmops.errors import BadInput
from slmops.evaluate.parity import compared, parity
from slmops.evaluate.parity_gates import parity_verdicts
from slmops.evaluate.parity_sides import Side, shipped_side, source_side
from slmops.evaluate.parity_weights import compare_weights
from slmops.evaluate.probe import Subject
from slmops.models.source import load_model
from slmops.models.spelling import spelling
from slmops.models.tokenizer import Tokenizer
from slmops.recipe.compress import CompressSettings
from slmops.recipe.evaluate import ParitySettings
from tests.tiny_task import TASK

TRIM: dict[str, Any] = {"vocabulary": "trim", "extra_tokens": 0}


def rows_of(pairs: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "input": text, "output": json.loads(answer)} for i, (text, answer) in enumerate(pairs.items())
    ]


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory) -> Path:
    """All but the last of what the model knows."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "task.json").write_text(json.dumps(TASK.describe()))
    write_jsonl(folder / "train.jsonl", rows_of(tiny.pairs)[:3])
    write_jsonl(folder / "pool.jsonl", [])
    return folder


@pytest.fixture(scope="module")
def small(tiny, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("small") / "hf"
    figures = cut_vocabulary(tiny.folder, data, out, extra_tokens=0)
    assert figures["tokens"] < figures["tokens_before"]
    return out


def test_what_its_rows_are_made_of_is_read_and_computed_as_before(tiny, small):
    tokenizer = Tokenizer.load(small)
    told = spelling(tiny.tokenizer, tokenizer)
    texts = [*tiny.pairs.items()][:3]
    before, after = (load_engine("transformers", folder, threads=1) for folder in (tiny.folder, small))
    for text, answer in texts:
        prompt, wanted = tiny.prompt(text), tiny.tokenizer.encode(answer)
        own = tokenizer.prompt([{"role": "user", "content": text}]), tokenizer.encode(answer)
        assert own == (told.of(prompt), told.of(wanted))
        theirs, ours = before.score([prompt], [wanted])[0], after.score([own[0]], [own[1]])[0]
        # The same logits among fewer tokens: nothing has less.
        assert np.all(ours > theirs - 1e-5)
        assert np.abs(ours - theirs).max() < 0.05


def test_configurations_name_the_same_tokens(tiny, small):
    model, tokenizer = load_model(small), Tokenizer.load(small)
    named = {role: tokenizer.backend.token_to_id(text) for role, text in tokenizer.special_tokens.items()}
    assert model.config.vocab_size == tokenizer.size == len(model.get_input_embeddings().weight)
    for config in (model.config, model.generation_config):
        ends = config.eos_token_id
        assert {*(ends if isinstance(ends, list) else [ends])} <= {*tokenizer.end_ids, None}
    assert model.config.eos_token_id is not None
    assert named["eos_token"] in tokenizer.end_ids
    assert tokenizer.end_ids == {*spelling(tiny.tokenizer, tokenizer).of(tiny.tokenizer.end_ids)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_text_can_be_written(small, text):
    tokenizer = _loaded(small)
    assert tokenizer.decode(tokenizer.encode_plain(text)[0]) == text


_LOADED: dict[Path, Tokenizer] = {}


def _loaded(folder: Path) -> Tokenizer:
    return _LOADED.setdefault(folder, Tokenizer.load(folder))


def test_what_is_cut_twice_is_cut_once(small, data, tmp_path):
    figures = cut_vocabulary(small, data, tmp_path / "again", extra_tokens=0)
    assert figures["tokens"] == figures["tokens_before"]


def test_a_teachers_answers_keep_their_tokens(tiny, data, small, tmp_path):
    (text, answer) = [*tiny.pairs.items()][3]
    write_jsonl(tmp_path / "answers.jsonl", [{"input": text, "text": answer}])
    cut_vocabulary(tiny.folder, data, tmp_path / "more", extra_tokens=0, answers=tmp_path)
    told = spelling(tiny.tokenizer, Tokenizer.load(tmp_path / "more"))
    assert not told.cuts([*tiny.prompt(text), *tiny.tokenizer.encode(answer)])
    assert spelling(tiny.tokenizer, Tokenizer.load(small)).cuts(tiny.tokenizer.encode(answer))


@pytest.mark.parametrize("runtime", ["onnxruntime-genai", "openvino", "llama.cpp"])
def test_every_runtime_ships_it_and_parity_tells_what_is_spelled_otherwise(tiny, data, tmp_path, runtime):
    pytest.importorskip({"openvino": "openvino", "llama.cpp": "llama_cpp"}.get(runtime, "onnxruntime_genai"))
    convert(
        tiny.folder,
        tmp_path / "model",
        CompressSettings(runtime=runtime, precision="int8", **TRIM),
        data=data,
        scratch=tmp_path / "scratch",
    )
    parts = {"name": "a", "version": "1", "engine": engine_of(tmp_path / "model"), "lineage": {}, "evidence": {}}
    write_bundle(tmp_path / "bundle", model_folder=tmp_path / "model", task=TASK.describe(), **parts)
    bundle = open_bundle(tmp_path / "bundle", threads=1)
    source = Subject(load_engine("transformers", tiny.folder, threads=1), tiny.tokenizer, TASK)
    rows = rows_of(tiny.pairs)
    weights = compare_weights(tiny.folder, bundle.folder / "model", runtime)
    assert (weights.misplaced, weights.missing) == (0, ())
    known = parity(source, bundle, rows[:3], weights=weights)
    assert {verdict["state"] for verdict in parity_verdicts(known, ParitySettings())} == {"pass"}
    assert (known.cut.prompts, known.cut.answers) == (0, 0)
    assert known.measured.agreement == known.measured.same_answers == 1
    every = parity(source, bundle, rows, weights=None)
    assert (every.faults, every.cut.prompts, every.cut.answers) == ((), 1, 1)
    assert every.cut.lost > 0
    assert every.measured.worst_kl_nats > known.measured.worst_kl_nats
    told = {verdict["figure"]: verdict["message"] for verdict in parity_verdicts(every, ParitySettings())}
    assert "the same text on all 4 rows; 1 in smaller pieces, as are 1 answers" in told["parity_prompts"]


def test_the_part_of_a_cut_model_comes_back_from_its_process(tiny, small):
    source, cut = (
        Subject(load_engine("transformers", folder, threads=1), Tokenizer.load(folder), TASK)
        for folder in (tiny.folder, small)
    )
    rows = rows_of(tiny.pairs)
    theirs = source_side(source, rows)
    ours = shipped_side(cut, rows, theirs, spelling(source.tokenizer, cut.tokenizer))
    again = [Side.read(json.loads(json.dumps(asdict(side)))) for side in (theirs, ours)]
    found = compared(TASK, rows, *again, None, seed=0)
    assert found == compared(TASK, rows, theirs, ours, None, seed=0)
    assert found.measured.token_kl_nats > 0


def test_another_prompt_is_a_fault_though_the_vocabulary_was_cut(tiny, small, tmp_path):
    other = Path(shutil.copytree(small, tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{{ messages[0].content }}")
    source, cut = (
        Subject(load_engine("transformers", folder, threads=1), Tokenizer.load(folder), TASK)
        for folder in (tiny.folder, other)
    )
    found = parity(source, cut, rows_of(tiny.pairs), weights=None)
    assert [fault.what for fault in found.faults] == ["parity_prompts"]
    assert found.faults[0].message.startswith("4 of 4 prompts")


def test_without_rows_or_with_adapters_it_is_refused(tiny, tmp_path):
    trim = CompressSettings(precision="fp32", **TRIM)
    with pytest.raises(BadInput, match="trimmed to the tokens of rows, and none are given"):
        convert(tiny.folder, tmp_path / "out", trim, scratch=tmp_path / "scratch")
    with pytest.raises(BadInput, match="keeps its vocabulary"):
        convert_adapters(tiny.folder, {"a": tmp_path}, tmp_path / "out", trim, scratch=tmp_path / "scratch")
