"""A sound export passes; one that is broken in a single way does not, and the verdict says in which."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as arrays

from slmops.bundle import open_bundle, write_bundle
from slmops.compress.convert import convert
from slmops.engines import Engine, load_engine
from slmops.engines.reading import marking_of
from slmops.errors import BadInput
from slmops.evaluate.parity import Parity, compared, divergence_nats, parity, spread
from slmops.evaluate.parity_gates import parity_verdicts
from slmops.evaluate.parity_sides import Chances, source_side
from slmops.evaluate.parity_weights import compare_weights
from slmops.evaluate.probe import Subject
from slmops.models.chat_template import PLAIN
from slmops.models.source import load_model, save_model
from slmops.models.tag_head import TagHead, attach
from slmops.models.tokenizer import Tokenizer
from slmops.recipe.compress import CompressSettings
from slmops.recipe.evaluate import PARITY_BOUNDS, ParitySettings
from slmops.tasks import Row
from tests.tiny_task import TASK

CONTEXT = 128

Harm = Callable[[Path], None]
"""Breaks the model in a folder in one way."""


@pytest.fixture(scope="module")
def rows(tiny) -> list[Row]:
    pairs = enumerate(tiny.pairs.items())
    return [{"id": f"r{i}", "input": text, "output": json.loads(answer)} for i, (text, answer) in pairs]


@pytest.fixture(scope="module")
def source(tiny) -> Subject:
    return Subject(load_engine("transformers", tiny.folder, threads=1), Tokenizer.load(tiny.folder), TASK)


@pytest.fixture
def shipped(source, rows, tiny, tiny_onnx, tmp_path) -> Callable[..., Parity]:
    """Bundles the exported model, harmed or not, and holds the bundle against its source."""

    def ship(
        harm: Harm | None = None,
        *,
        model: Path = tiny_onnx,
        source: Subject = source,
        original: Path = tiny.folder,
    ) -> Parity:
        place = Path(tempfile.mkdtemp(dir=tmp_path))
        folder = Path(shutil.copytree(model, place / "model"))
        if harm:
            harm(folder)
        parts: dict[str, Any] = {"name": "a", "version": "1", "engine": "onnxruntime-genai", "lineage": {}}
        write_bundle(place / "bundle", model_folder=folder, task=TASK.describe(), evidence={}, **parts)
        bundle = open_bundle(place / "bundle", threads=1)
        return parity(source, bundle, rows, weights=compare_weights(original, bundle.folder / "model"))

    return ship


def failed(found: Parity) -> set[str]:
    return {v["figure"] for v in parity_verdicts(found, ParitySettings()) if v["state"] == "fail"}


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
    angles = np.arange(CONTEXT)[:, None] * 1e6 ** (-np.arange(8) / 8)
    for name, of in (("cos_cache", np.cos), ("sin_cache", np.sin)):
        reweigh(folder, [name], lambda _, of=of: of(angles).astype(np.float32))


BROKEN = {
    other_template: {"parity_prompts"},
    other_end_token: {"parity_end_tokens"},
    no_end_token: {"parity_end_tokens"},
    permuted_block: {"parity_token_kl", "parity_weights"},
    transposed: {"parity_token_kl", "parity_agreement", "parity_drop", "parity_weights"},
    short_context: {"parity_context"},
    other_rope_base: {"parity_token_kl", "parity_positions"},
}
"""What is wrong with an export, and what must say so at least."""


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_a_sound_export_passes(shipped, tiny, tmp_path, precision):
    convert(
        tiny.folder,
        tmp_path / "onnx",
        CompressSettings(precision=precision, algorithm="rtn"),
        scratch=tmp_path / "scratch",
    )
    found = shipped(model=tmp_path / "onnx")
    assert failed(found) == set()
    assert (found.rows, found.source, found.faults) == (4, "transformers, float32", ())
    assert found.measured
    assert found.measured.same_answers == found.measured.agreement == 1
    assert found.measured.drop == 0
    assert found.measured.worst == ()
    assert 0 <= found.measured.first_token_kl_nats < found.measured.worst_kl_nats < 1e-3


def shifted_rows(folder: Path) -> None:
    """Of a packed matrix, an eighth of its rows stand one place further."""

    def shift(part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        part = part.copy()
        part[: len(part) // 8] = np.roll(part[: len(part) // 8], 1, axis=0)
        return part

    reweigh(folder, ["layers.1.attn.o_proj"], shift)


def other_long_rope_base(folder: Path) -> None:
    """Positions turn a little more slowly."""
    angles = np.arange(CONTEXT)[:, None] * 2e4 ** (-np.arange(8) / 8)
    for name, of in (("cos_cache", np.cos), ("sin_cache", np.sin)):
        reweigh(folder, [name], lambda _, of=of: of(angles).astype(np.float32))


@pytest.mark.parametrize(("harm", "by"), [(shifted_rows, "parity_weights"), (other_long_rope_base, "parity_positions")])
def test_what_rounding_hides_from_the_answers_the_weights_tell(shipped, tiny, tmp_path, harm, by):
    convert(tiny.folder, tmp_path / "onnx", CompressSettings(algorithm="rtn"), scratch=tmp_path / "scratch")
    found = shipped(harm, model=tmp_path / "onnx")
    assert failed(found) == {by}


@pytest.mark.parametrize("harm", BROKEN, ids=lambda harm: harm.__name__)
def test_an_export_that_is_broken_in_one_way_is_caught_by_it(shipped, harm):
    assert failed(shipped(harm)) >= BROKEN[harm]


def test_the_first_prompt_that_differs_is_shown_as_both_read_it(shipped):
    (fault,) = shipped(other_template).faults
    assert fault.message.startswith("4 of 4 prompts are not the same tokens: '<|im_start|>user\\nWhere is order")
    assert "became 'Where is order 4711?\\n'" in fault.message


def test_the_worst_rows_come_with_both_answers(shipped, tiny):
    measured = shipped(transposed).measured
    assert len(measured.worst) == 4
    agreement = [example.agreement for example in measured.worst]
    assert agreement == sorted(agreement)
    for example in measured.worst:
        assert example.source in tiny.pairs.values()
        assert example.shipped != example.source
        assert 0 < example.agreement < 1


def test_what_the_source_is_known_to_answer_is_not_written_again(source, rows, shipped):
    whole = shipped()
    theirs = source_side(source, rows)
    silent = replace(source, engine=Silent(source.engine))
    again = compared(TASK, rows, source_side(silent, rows, [r.answer for r in theirs.replies]), theirs, None, seed=0)
    assert again.measured.agreement == whole.measured.agreement == 1
    assert again.measured.token_kl_nats < 1e-9


class Silent:
    """An engine that scores and does not write."""

    def __init__(self, engine: Engine) -> None:
        self.score_top, self.info = engine.score_top, engine.info


def test_without_rows_nothing_passes(source):
    with pytest.raises(BadInput, match="there are no rows"):
        parity(source, source, [], weights=None)


@pytest.fixture(scope="module")
def tagger(tiny, tmp_path_factory) -> Path:
    """The tiny model with a head that labels by chance."""
    folder = tmp_path_factory.mktemp("tagger")
    model, sizes = load_model(tiny.folder), marking_of(TASK.describe()).sizes
    head = TagHead(model.config.hidden_size, sizes, TASK.describe())
    torch.nn.init.normal_(head.matrix, std=0.02, generator=torch.Generator().manual_seed(3))
    attach(model, head)
    save_model(model, folder / "hf", tokenizer_from=tiny.folder)
    convert(folder / "hf", folder / "onnx", CompressSettings(precision="fp32"), scratch=folder / "scratch")
    return folder


def test_of_a_model_that_labels_the_labels_are_compared(tagger, rows, shipped):
    source = Subject(load_engine("transformers", tagger / "hf", threads=1), Tokenizer.load(tagger / "hf"), TASK)
    of = {"source": source, "original": tagger / "hf"}
    sound = shipped(model=tagger / "onnx", **of)
    assert (failed(sound), sound.labels) == (set(), True)
    assert sound.measured.agreement == sound.measured.same_answers == 1
    broken = shipped(transposed, model=tagger / "onnx", **of)
    assert {"parity_first_token_kl", "parity_token_kl", "parity_agreement"} <= failed(broken)
    # A bundle that lost its labelling head would write.
    writes = shipped(**of)
    assert [fault.what for fault in writes.faults] == ["parity_head"]
    assert failed(writes) == {"parity_head"}


def test_bounds_are_those_of_the_precision_unless_they_are_set():
    assert ParitySettings().bounds("onnxruntime-genai, int4+int8") == PARITY_BOUNDS["int4"]
    assert ParitySettings().bounds("onnxruntime-genai, float32") == PARITY_BOUNDS["float"]
    own = ParitySettings(min_agreement=0.5).bounds("int8")
    assert own == PARITY_BOUNDS["int8"]._replace(min_agreement=0.5)


def test_rows_are_spread_from_the_shortest_to_the_longest():
    rows = [{"id": str(i), "input": "x" * ((i * 7) % 50)} for i in range(50)]
    chosen = spread(rows, 5)
    assert sorted(len(row["input"]) for row in chosen) == [0, 12, 24, 37, 49]
    assert [int(row["id"]) for row in chosen] == sorted(int(row["id"]) for row in chosen)
    assert spread(rows, 80) == rows
    assert len(spread(rows, 1)) == 1


VOCABULARY = 6
LOGITS = arrays.arrays(np.float64, VOCABULARY, elements=st.integers(-8, 8).map(float))


def chances(logits: np.ndarray[Any, Any], most: int = VOCABULARY) -> Chances:
    log_probs = logits - np.logaddexp.reduce(logits)
    ids = np.argsort(-log_probs, kind="stable")[:most]
    return ids.tolist(), log_probs[ids].tolist()


@given(LOGITS, LOGITS)
def test_with_every_token_listed_it_is_the_divergence_of_the_whole(source, shipped):
    p, q = (np.exp(logits - np.logaddexp.reduce(logits)) for logits in (source, shipped))
    expected = float((p * np.log(p / q)).sum())
    assert divergence_nats(chances(source), chances(shipped), VOCABULARY) == pytest.approx(expected, abs=1e-6)


@given(LOGITS, LOGITS, st.integers(1, 6))
def test_of_few_listed_tokens_it_is_no_less_than_nothing_and_nothing_of_the_same(source, shipped, most):
    assert divergence_nats(chances(source, most), chances(source, most), VOCABULARY) == pytest.approx(0, abs=1e-9)
    assert divergence_nats(chances(source, most), chances(shipped, most), VOCABULARY) >= 0


def test_a_sure_token_that_the_other_does_not_list_is_far_away():
    assert divergence_nats(([3], [-1e-4]), ([5], [-1e-4]), 50_000) > 10
