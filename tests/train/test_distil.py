"""The stage that trains the student: what it reads for each objective, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from slmops.data.read import write_jsonl
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.stage import Context
from slmops.recipe.objective import AttentionTerm, ForwardKl, HiddenTerm, Objective, SpanTerm, TextTerm
from slmops.recipe.training import OnPolicy, Optimisation
from slmops.tasks import Classification
from slmops.teach.answers import Answer, save_answers
from slmops.train import trainer
from slmops.train.cut import Kept
from slmops.train.on_policy import OwnAnswers, Writer
from slmops.train.stage import Distil, DistilSettings

TASK = Classification(("refund", "other"), None, 8)
MOVED = Optimisation(epochs=1, batch_tokens=128, precision="fp32", learning_rate=1e-3)


@pytest.fixture
def inputs(tiny, tmp_path) -> dict[str, Path]:
    """A student that is its teacher, four answers and two labelled rows."""
    folders = {name: tmp_path / name for name in ("student", "teacher", "data", "answers")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("student", "teacher"):
        (folders[name] / "model").symlink_to(tiny.folder)
    (folders["student"] / "carve.json").write_text(json.dumps(asdict(Kept(None, [0, 1], None, None))))
    (folders["data"] / "task.json").write_text(json.dumps(TASK.describe()))
    write_jsonl(folders["data"] / "train.jsonl", [{"id": f"t{i}", "input": "hm", "output": "other"} for i in range(2)])
    (end,) = tiny.tokenizer.end_ids
    answer(folders["answers"], [*tiny.tokenizer.encode("refund"), end], "refund")
    return folders


def answer(folder: Path, tokens: list[int], text: str) -> None:
    top = np.stack([tokens, np.zeros_like(tokens)], -1).astype(np.int32)
    log_probs = np.log(np.full(top.shape, [0.7, 0.2], dtype=np.float32))
    save_answers(folder, [Answer(f"p{i}", "hello", text, np.array(tokens), top, log_probs) for i in range(4)])


def distil(
    inputs: dict[str, Path], folder: Path, objective: Objective, on_policy: OnPolicy | None = None, epochs: float = 1
) -> dict[str, float | str]:
    settings = DistilSettings(
        optimisation=MOVED.model_copy(update={"epochs": epochs}),
        objective=objective,
        normalise=False,
        on_policy=on_policy,
        max_cut_off=0.5,
    )
    (folder / "out").mkdir()
    return dict(Distil().run(inputs, settings, Context(out=folder / "out", work=folder / "work", seed=7)))


@pytest.mark.parametrize(
    ("objective", "figures"),
    [
        ([ForwardKl(), TextTerm()], {"loss_forward_kl", "loss_text"}),
        ([ForwardKl(logits="online"), ForwardKl()], {"loss_forward_kl", "loss_forward_kl_2"}),
        ([HiddenTerm(), AttentionTerm()], {"loss_hidden", "loss_attention"}),
    ],
)
def test_every_term_is_a_figure(inputs, tmp_path, objective, figures):
    found = distil(inputs, tmp_path, objective)
    assert {name for name in found if name.startswith("loss_")} == figures
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(("limit", "longest"), [(None, TASK.max_answer_tokens), (3, 3)])
def test_the_student_writes_as_much_as_the_task_or_the_recipe_allows(inputs, tmp_path, monkeypatch, limit, longest):
    told = []

    class Telling(Writer):
        def __init__(self, how, batches, seed):
            told.append(how)
            super().__init__(how, batches, seed)

    monkeypatch.setattr(trainer, "Writer", Telling)
    own = OnPolicy(fraction=1.0, temperature=0.5, max_tokens=limit)
    found = distil(inputs, tmp_path, [ForwardKl(logits="online")], own)
    (how,) = told
    assert how == OwnAnswers(1.0, 0.5, longest, Tokenizer.load(inputs["student"] / "model").end_ids)
    assert 6 <= float(found["on_policy_tokens"]) <= 6 * longest
    assert 0 < float(found["on_policy_time_share"]) < 1
    assert "loss_forward_kl" in found


def test_spans_are_of_given_answers_and_divergences_of_both(inputs, tmp_path):
    """There are batches of both kinds: what would need spans of an answer of its own could not be collated."""
    terms = [ForwardKl(logits="online"), SpanTerm(), SpanTerm(logits="online")]
    found = distil(inputs, tmp_path, terms, OnPolicy(fraction=0.5, max_tokens=2), epochs=6)
    assert {"loss_forward_kl", "loss_span", "loss_span_2"} <= found.keys()
    assert float(found["on_policy_tokens"]) > 0


def test_an_unmoved_student_of_itself_is_no_distance_away(inputs, tmp_path):
    """Its layers are matched with those it was cut from, and it reads what its teacher reads."""
    found = distil(
        inputs, tmp_path, [TextTerm(weight=1e-9), ForwardKl(logits="online", weight=0), HiddenTerm(weight=0)]
    )
    assert found["loss_forward_kl"] == pytest.approx(0, abs=1e-2)
    assert found["loss_hidden"] == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("logits", ["stored", "online"])
def test_of_a_student_with_the_teachers_tokens_every_token_is_a_span(inputs, tmp_path, logits):
    found = distil(inputs, tmp_path, [TextTerm(weight=1e-9), SpanTerm(logits=logits, weight=0)])
    # What was stored is none of the model's own, what it says online is.
    assert float(found["loss_span"]) == pytest.approx(0, abs=1e-3) if logits == "online" else found["loss_span"] > 0.1
