"""A student that labels learns to point at values it has never seen."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from slmops.data.read import write_jsonl
from slmops.engines import Sampling, load_engine
from slmops.errors import BadInput
from slmops.models.source import save_model
from slmops.models.tag_files import is_tagger
from slmops.models.tokenizer import Tokenizer
from slmops.pipeline.stage import Context
from slmops.recipe.objective import TextTerm
from slmops.recipe.student import Carve
from slmops.recipe.training import Optimisation
from slmops.teach.answers import Answer, save_answers
from slmops.train.collate import collate
from slmops.train.stage import CarveStudent, Distil, DistilSettings
from slmops.train.tagged import UNMARKED, Answered, check_rows, new_head, tagged_examples
from slmops.train.trainer import train
from tests.tiny_task import TASK

ORDER = {"intent": "refund", "order": "4711"}
SETTINGS = Optimisation(epochs=12, learning_rate=3e-3, batch_tokens=512, precision="fp32", checkpoint_seconds=1e6)


def rows(seed: int, count: int) -> list[Answered]:
    rng = random.Random(seed)
    made = []
    for i in range(count):
        order = str(rng.randrange(1000, 10_000))
        late = rng.random() < 0.5
        text = f"Where is order {order}?" if late else f"I want {order} back"
        made.append(Answered(str(i), text, {"intent": "order_late" if late else "refund", "order": order}))
    return made


def test_it_points_at_values_that_no_row_had(tiny, tmp_path):
    examples, names = tagged_examples(rows(1, 80), TASK, tiny.tokenizer)
    assert len(names) == 80
    head = new_head(TASK, tiny.tokenizer, 64)
    trained = train(tiny.folder, examples, SETTINGS, work=tmp_path / "work", seed=1, head=head)
    assert trained.history[-1]["text"] < 0.3 * trained.history[0]["text"]
    save_model(trained.model, tmp_path / "model", tokenizer_from=tiny.folder)
    engine = load_engine("transformers", tmp_path / "model", threads=1)
    unseen = rows(2, 30)
    written = [[] for _ in unseen]
    for token in engine.generate([tiny.prompt(row.text) for row in unseen], Sampling(max_tokens=60)):
        written[token.request].append(token.id)
    right = [TASK.parse(tiny.tokenizer.decode(ids)) == row.answer for ids, row in zip(written, unseen, strict=True)]
    assert sum(right) >= 27


def test_labels_stand_at_the_tokens_of_the_second_reading(tiny):
    (example,), _ = tagged_examples([Answered("1", "order 4711", ORDER)], TASK, tiny.tokenizer)
    batch = collate([example], pad=0)
    read = batch["input_ids"][batch["predicts"]].tolist()
    assert tiny.tokenizer.decode(read) == "order 4711"
    assert len(read) == len(batch["target"]) == len(example.labels)


def test_a_reference_that_the_text_does_not_hold_is_left_out(tiny):
    given = [Answered("1", "hello", {"intent": "other"}), Answered("2", "hello", {"intent": "other", "name": "Zoë"})]
    assert tagged_examples(given, TASK, tiny.tokenizer)[1] == ["1"]


def test_what_a_teacher_says_counts_as_it_was_sure_of_it_and_what_it_leaves_out_little(tiny):
    told = Answered(
        "1", "order 4711 of Zoë", {**ORDER, "amount": "20 €"}, {"intent": 0.5, "order": 0.75, "amount": 0.9}
    )
    (example,), _ = tagged_examples([told], TASK, tiny.tokenizer)
    certain, _ = tagged_examples([told._replace(answer=ORDER, sure=None)], TASK, tiny.tokenizer)
    assert example.labels == certain[0].labels
    of_order = [label in (1, 2) for label in example.labels[:-1]]
    assert set(of_order) == {True, False}
    assert example.certainty == (*(0.75 if inside else UNMARKED for inside in of_order), 0.5)
    batch = collate([example, certain[0]], pad=0)
    count = len(example.answer)
    assert batch["certainty"].tolist() == pytest.approx([*example.certainty, *[1.0] * count])


@pytest.mark.parametrize("own", [False, True], ids=["of its teacher", "of another model"])
def test_it_is_cut_to_frequent_tokens_and_taught_by_the_stages(tiny, tmp_path, own):
    inputs = {name: tmp_path / name for name in ("data", "answers", "model", "student")}
    for folder in inputs.values():
        folder.mkdir()
    (inputs["model"] / "model").symlink_to(tiny.folder)
    inputs["teacher"] = inputs["model"]
    (inputs["data"] / "task.json").write_text(json.dumps(TASK.describe()))
    labelled = [{"id": row.name, "input": row.text, "output": row.answer} for row in rows(1, 8)]
    labelled.append({"id": "odd", "input": "order 4711", "output": {"intent": "refund", "order": "No. 4711"}})
    write_jsonl(inputs["data"] / "train.jsonl", labelled)
    (end,) = tiny.tokenizer.end_ids
    written = [(row.name, row.text, TASK.write(row.answer)) for row in rows(2, 8)]
    tokens = {name: np.array([*tiny.tokenizer.encode(answer), end]) for name, _, answer in written}
    top = {
        name: (np.zeros((len(ids), 1), np.int32), np.zeros((len(ids), 1), np.float32)) for name, ids in tokens.items()
    }
    save_answers(
        inputs["answers"], [Answer(name, text, answer, tokens[name], *top[name]) for name, text, answer in written]
    )
    carve = Carve(layers=1, choose="first", vocabulary="frequent", extra_tokens=2)
    CarveStudent().run(
        inputs if own else {n: p for n, p in inputs.items() if n != "teacher"},
        carve,
        Context(out=inputs["student"], work=tmp_path / "cut", seed=7),
    )
    assert Tokenizer.load(inputs["student"] / "model").size < tiny.tokenizer.size
    moved = SETTINGS.model_copy(update={"epochs": 1})
    words = [TextTerm(kind="text")]
    settings = DistilSettings(optimisation=moved, objective=words, normalise=False, head="tags", max_cut_off=0.0)
    (tmp_path / "out").mkdir()
    figures = Distil().run(inputs, settings, Context(out=tmp_path / "out", work=tmp_path / "work", seed=7))
    assert figures["left_out_not_in_text"] == 1
    assert is_tagger(tmp_path / "out" / "model")


def test_rows_that_cannot_be_marked_are_counted_and_too_many_refused():
    good = {"id": "a", "input": "order 4711", "output": {"intent": "refund", "order": "4711"}}
    bad = {"id": "b", "input": "order 4711", "output": {"intent": "refund", "order": "No. 4711"}}
    assert check_rows([good] * 9 + [bad], TASK) == 1
    with pytest.raises(BadInput, match=r"1 of 2 labelled rows .*\(row b\)"):
        check_rows([good, bad], TASK)
