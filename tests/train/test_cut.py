"""Cutting as a stage: what is kept, what is written about it, and when it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from slmops.data.read import write_jsonl
from slmops.errors import BadInput
from slmops.models.source import count_parameters, load_model
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.models.width import width_of
from slmops.pipeline.stage import Context
from slmops.recipe.student import Carve
from slmops.tasks import Classification
from slmops.teach.answers import Answer, save_answers
from slmops.train.stage import CarveStudent
from slmops.train.stage_checks import CheckCut

TASK = Classification(("refund", "other"), None, 8)


@pytest.fixture
def inputs(tiny, tmp_path) -> dict[str, Path]:
    """A teacher with data and answers, as the stage finds them."""
    data, answers, model = (tmp_path / name for name in ("data", "answers", "teacher"))
    shutil.copytree(tiny.folder, model / "model")
    data.mkdir()
    (data / "task.json").write_text(json.dumps(TASK.describe()))
    texts = list(tiny.pairs)
    write_jsonl(data / "train.jsonl", [{"id": "t", "input": texts[0], "output": "refund"}])
    write_jsonl(data / "pool.jsonl", [{"id": f"p{i}", "input": text} for i, text in enumerate(texts)])
    tokens = np.array([*tiny.tokenizer.encode("other"), end_of_answer(tiny.tokenizer)])
    none, no_log_probs = np.zeros((len(tokens), 0), dtype=np.int32), np.zeros((len(tokens), 0), dtype=np.float32)
    save_answers(answers, [Answer(f"p{i}", text, "other", tokens, none, no_log_probs) for i, text in enumerate(texts)])
    return {"model": model, "data": data, "answers": answers}


def carve(inputs: dict[str, Path], out: Path, **settings: object) -> tuple[dict, dict]:
    """The stage's record and its figures."""
    out.mkdir()
    context = Context(out=out, work=out / "work", seed=7)
    figures = CarveStudent().run(inputs, Carve(**{"layers": 2, "extra_tokens": 20, **settings}), context)
    return json.loads((out / "carve.json").read_text()), dict(figures)


def test_the_record_tells_what_is_kept_of_what(inputs, tiny, tmp_path):
    record, figures = carve(inputs, tmp_path / "out", layers=1, heads=1, channels=96)
    teacher, student = load_model(inputs["model"] / "model"), load_model(tmp_path / "out" / "model")
    before = {"layers": 2, "tokens": tiny.tokenizer.size, "heads": 2, "query_heads": 4, "channels": 128}
    after = {"layers": 1, "tokens": len(record["tokens"]), "heads": 1, "query_heads": 2, "channels": 96}
    assert record["before"] == before | {"parameters": count_parameters(teacher)}
    assert record["after"] == after | {"parameters": count_parameters(student)}
    assert [len(record[part]) for part in ("layers", "heads", "channels")] == [1, 1, 1]
    assert [len(record[part][0]) for part in ("heads", "channels")] == [1, 96]
    assert figures == record["after"] | {
        "parameters_kept": record["after"]["parameters"] / record["before"]["parameters"]
    }
    assert (width_of(student).groups, width_of(student).channels) == (1, 96)
    assert Tokenizer.load(tmp_path / "out" / "model").size == student.config.vocab_size


def test_the_weights_are_the_teachers_own(inputs, tmp_path):
    record, _ = carve(inputs, tmp_path / "out", heads=1, channels=96, choose="first", vocabulary="keep")
    teacher = load_model(inputs["model"] / "model").model.layers
    for i, layer in enumerate(load_model(tmp_path / "out" / "model").model.layers):
        whole, channels, (head,) = teacher[i], record["channels"][i], record["heads"][i]
        assert layer.mlp.up_proj.weight.equal(whole.mlp.up_proj.weight[channels])
        assert layer.mlp.down_proj.weight.equal(whole.mlp.down_proj.weight[:, channels])
        assert layer.self_attn.k_proj.weight.equal(whole.self_attn.k_proj.weight[16 * head : 16 * head + 16])
        assert layer.self_attn.q_proj.weight.equal(whole.self_attn.q_proj.weight[32 * head : 32 * head + 32])


def test_without_a_width_all_of_it_is_kept(inputs, tmp_path):
    record, _ = carve(inputs, tmp_path / "out")
    assert (record["heads"], record["channels"]) == (None, None)
    assert width_of(load_model(tmp_path / "out" / "model")) == width_of(load_model(inputs["model"] / "model"))


def test_another_model_is_cut_alike(inputs, tmp_path):
    settings = {"layers": 1, "heads": 1, "channels": 96}
    record, figures = carve(inputs, tmp_path / "one", **settings)
    like = {"model": inputs["model"], "like": tmp_path / "one"}
    again, same = carve(like, tmp_path / "two", **settings)
    assert (again, same) == (record, figures)
    one, two = (load_model(tmp_path / name / "model").state_dict() for name in ("one", "two"))
    assert all(weight.equal(two[name]) for name, weight in one.items())
    assert one.keys() == two.keys()


@pytest.mark.parametrize(
    ("settings", "said", "hint"),
    [
        ({"heads": 3}, "3 key-value heads do not fit: a layer of the model has 2", "can be 1, 2, or null"),
        ({"channels": 129}, "129 channels do not fit: a layer of the model has 128", "to 1 to 128"),
    ],
)
def test_a_width_that_the_model_lacks_is_refused_before_it_is_fitted_and_after(inputs, tmp_path, settings, said, hint):
    context = Context(out=tmp_path, work=tmp_path, seed=7)
    with pytest.raises(BadInput, match=said) as early:
        CheckCut().run({"model": inputs["model"]}, Carve(**settings), context)
    with pytest.raises(BadInput, match=said) as late:
        carve(inputs, tmp_path / "out", **settings)
    assert hint in early.value.hint
    assert early.value.hint == late.value.hint


def test_a_width_that_the_model_has_passes(inputs, tmp_path):
    context = Context(out=tmp_path, work=tmp_path, seed=7)
    figures = CheckCut().run({"model": inputs["model"]}, Carve(heads=2, channels=128), context)
    assert figures == {"groups": 2, "queries": 2, "head_size": 16, "channels": 128}
    assert json.loads((tmp_path / "width.json").read_text()) == figures
