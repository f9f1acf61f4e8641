"""From all answers to those that are learned from, as a stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.errors import SlmopsError
from slmops.pipeline.stage import Context
from slmops.progress import Silent
from slmops.recipe.data import ScreenSettings
from slmops.tasks import Classification, Generation
from slmops.teach.answers import Answer, load_answers, save_answers
from slmops.teach.stage_curate import CurateAnswers, CurateSettings

COLOURS = Classification(("red", "blue"), None, 8)
POOL = ["the sky at noon", "a ripe tomato", "the open sea", "a fire engine", "a rose of the garden", "a field of flax"]
SAID = ["blue", "red", "blue", "red", "red", "blue"]


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


class Room:
    """An artifact `data`, answers to its pool, and the stage on both."""

    def __init__(self, folder: Path, task: Any = COLOURS) -> None:
        self.folder, self.notes, self.runs = folder, Notes(), 0
        self.inputs = {"data": folder / "data", "answers": folder / "answers"}
        self.inputs["data"].mkdir()
        (folder / "data" / "task.json").write_text(json.dumps(task.describe()))
        self.side("train", [{"id": "a", "input": "a brick", "output": "red"}])
        self.side("validation", [{"id": "v", "input": "the colour of blood in the light of day", "output": "red"}])
        self.side("test", [{"id": "t", "input": "what the sea is like on a summer morning", "output": "blue"}])
        self.side("pool", [{"id": f"p{i}", "input": text} for i, text in enumerate(POOL)])
        self.side("dropped", [])
        self.answer(dict(enumerate(SAID)))

    def side(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        write_jsonl(self.inputs["data"] / f"{name}.jsonl", map(dict, rows))

    def answer(
        self, texts: Mapping[int, str], inputs: Mapping[int, str] | None = None, *, name: str = "answers"
    ) -> None:
        self.inputs[name] = self.folder / name
        made = []
        for n, text in texts.items():
            top = np.full((3, 2), n)
            asked = (inputs or {}).get(n) or POOL[n]
            made.append(Answer(f"p{n}", asked, text, np.arange(3) + n, top.astype(np.int32), top.astype(np.float32)))
        save_answers(self.inputs[name], made)
        write_jsonl(self.inputs[name] / "dropped.jsonl", [])

    def __call__(self, **settings: Any) -> tuple[list[Answer], list[dict[str, Any]], dict[str, Any]]:
        """The answers, the dropped rows and the card."""
        self.runs += 1
        self.out = self.folder / f"out-{self.runs}"
        self.out.mkdir()
        given = CurateSettings(**{"screen": ScreenSettings(), **settings})
        given = CurateSettings.model_validate(given.model_dump(mode="json"))
        context = Context(out=self.out, work=self.folder / "work", seed=7, progress=self.notes)
        self.figures = CurateAnswers().run(self.inputs, given, context)
        card = json.loads((self.out / "card.json").read_text())
        return load_answers(self.out), read_jsonl(self.out / "dropped.jsonl"), card


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def test_what_is_good_is_handed_on_bit_by_bit(room: Room) -> None:
    kept, dropped, card = room()
    assert dropped == []
    for name in ("answers.jsonl", "answers.safetensors"):
        assert (room.out / name).read_bytes() == (room.inputs["answers"] / name).read_bytes()
    assert [answer.id for answer in kept] == [f"p{i}" for i in range(6)]
    assert card["rows"] == {"train": 1, "validation": 1, "pool": 6, "test": 1, "learned": 6}
    assert card["labels"] == {"blue": {"train": 0, "answers": 3}, "red": {"train": 1, "answers": 3}}
    assert card["cost"] == {"answer_tokens": 18}
    assert card["agreement"] is None
    assert room.figures == {"rows": 6, "dropped": 0, "imbalance": 4 / 3}
    assert len(card["samples"]) == 5
    assert room.notes.said == []


def test_what_every_stage_dropped_is_in_one_file_and_counted(room: Room) -> None:
    lost = {"id": "x", "side": "pool", "stage": "data", "reason": "exact duplicate", "detail": "also in train"}
    room.side("dropped", [{**lost, "like": "a", "similarity": 1.0, "input": "A brick"}])
    room.answer({0: "blue", 2: "blue", 3: "red"})
    thrown = [("p1", "crimson"), ("p4", ""), ("p5", "purple")]
    write_jsonl(
        room.inputs["answers"] / "dropped.jsonl",
        ({"id": id, "text": text, "reason": f"{text!r} is no label"} for id, text in thrown),
    )
    (room.inputs["answers"] / "cost.json").write_text('{"requests": 6, "bought_tokens": 120, "usd": null}')
    _, dropped, card = room()
    assert [(row["id"], row["stage"], row["reason"], row["detail"]) for row in dropped] == [
        ("x", "data", "exact duplicate", "also in train"),
        ("p1", "teach", "invalid", "'crimson' is no label"),
        ("p4", "teach", "no answer", "'' is no label"),
        ("p5", "teach", "invalid", "'purple' is no label"),
    ]
    assert [row["input"] for row in dropped] == ["A brick", POOL[1], POOL[4], POOL[5]]
    counts = {(one["stage"], one["reason"]): one["rows"] for one in card["dropped"]}
    assert counts == {("data", "exact duplicate"): 1, ("teach", "invalid"): 2, ("teach", "no answer"): 1}
    assert [row["text"] for row in card["dropped"][0]["examples"]] in (["crimson", "purple"], ["purple", "crimson"])
    assert card["cost"] == {"answer_tokens": 9, "requests": 6, "bought_tokens": 120, "usd": None}


def test_rows_that_data_has_not_seen_are_screened(room: Room) -> None:
    written = {
        6: "What the sea is like on a summer morning!",
        7: "what the sea is like on a summer mornings",
        8: "the colour of blood in the light of days",
        9: "A brick.",
        10: "The sky, at noon",
        11: "a bruise",
        12: "A bruise",
        13: "a lemon",
    }
    room.answer({**dict(enumerate(SAID)), **dict.fromkeys(written, "red")}, written)
    kept, dropped, _ = room()
    assert [answer.id for answer in kept][:6] == [f"p{i}" for i in range(6)]
    assert {answer.id for answer in kept[6:]} == {"p11", "p13"}
    told = {row["id"]: (row["side"], row["stage"], row["reason"], row["like"]) for row in dropped}
    assert told == {
        "p6": ("written", "curate", "contaminated", "t"),
        "p7": ("written", "curate", "contaminated", "t"),
        "p8": ("written", "curate", "contaminated", "v"),
        "p9": ("written", "curate", "near duplicate", "a"),
        "p10": ("written", "curate", "near duplicate", "p0"),
        "p12": ("written", "curate", "exact duplicate", "p11"),
    }


def test_teachers_that_disagree_are_not_believed(room: Room) -> None:
    room.answer(dict(enumerate(SAID)), name="answers_1")
    room.answer({0: "blue", 1: "blue", 2: "blue", 3: "red"}, name="answers_2")
    _, dropped, card = room(weights=[2.0, 1.0])
    assert dropped == []
    assert card["agreement"] == pytest.approx({"mean": (1 + 2 / 3 + 1 + 1 + 2 / 3 + 2 / 3) / 6, "unanimous": 0.5})
    kept, dropped, card = room(weights=[2.0, 1.0], agreement=0.7)
    assert [answer.id for answer in kept] == ["p0", "p2", "p3"]
    assert {(row["id"], row["reason"], row["text"]) for row in dropped} == {
        ("p1", "inconsistent", "red"),
        ("p4", "inconsistent", "red"),
        ("p5", "inconsistent", "blue"),
    }
    assert card["agreement"] == {"mean": 1.0, "unanimous": 1.0}


def test_a_class_with_too_many_rows_is_told_and_cut_where_that_is_wanted(room: Room) -> None:
    room.answer(dict(enumerate(["red", "red", "red", "red", "red", "blue"])))
    _, dropped, card = room(max_imbalance=2.0)
    assert (dropped, card["imbalance"]) == ([], 6.0)
    assert room.notes.said == [
        "the largest class has 6 times the rows of the smallest, more than teach.curate.max_imbalance 2"
    ]
    kept, dropped, card = room(max_imbalance=2.0, rebalance="downsample")
    assert [answer.text for answer in kept].count("red") == 1, "one more is labelled"
    assert {row["reason"] for row in dropped} == {"class imbalance"}
    assert (len(dropped), card["imbalance"], room.figures["dropped"]) == (4, 2.0, 4)
    assert room.notes.said[1:] == ["dropped 4 answers: class imbalance"]


def test_free_text_is_judged_by_length_language_and_likeness(tmp_path: Path) -> None:
    room = Room(tmp_path, Generation(None, 60))
    english = "You will find the colour number {} in the second drawer, right below the window of the hall."
    asked = [f"where is the colour number {i} of the house" for i in range(40)]
    room.side("pool", [{"id": f"p{i}", "input": text} for i, text in enumerate(asked)])
    room.side("train", [{"id": f"a{i}", "input": f"x {i}", "output": english.format(900 + i)} for i in range(30)])
    texts = {i: english.format(i) + " Take it." * (i % 3) for i in range(36)}
    texts |= {
        36: "Die Farbe liegt in der zweiten Schublade, gleich unter dem Fenster in der Halle des Hauses.",
        37: "ok",
        38: english.format(6),
        39: "Ja.",
    }
    room.answer(texts, dict(enumerate(asked)))
    kept, dropped, _ = room()
    told = {row["id"]: row["reason"] for row in dropped}
    assert told == {"p36": "language outlier", "p37": "length outlier", "p39": "length outlier"}
    assert len(kept) == 37
    _, dropped, _ = room(near_duplicates=0.9)
    assert [(row["id"], row["reason"], row["like"]) for row in dropped[3:]] == [("p38", "near duplicate", "p6")]
    _, dropped, _ = room(lengths=None, language=None)
    assert dropped == []


def test_when_nothing_is_left_the_run_ends_with_the_reasons(room: Room) -> None:
    room.answer(dict(enumerate(SAID)), name="answers_1")
    room.answer({0: "red"}, name="answers_2")
    with pytest.raises(SlmopsError, match="none of the 6 answers is left to learn from: 6 inconsistent"):
        room(weights=[1.0, 1.0], agreement=1.0)


def test_to_curate_again_drops_nothing_more(room: Room) -> None:
    room.answer({**dict(enumerate(SAID)), 6: "red", 7: "red"}, {6: "a bruise", 7: "a bruise!"})
    room(max_imbalance=1.5, rebalance="downsample")
    first = room.out
    room.inputs["answers"] = first
    room.side("dropped", [])
    write_jsonl(first / "dropped.jsonl", [])
    _, dropped, _ = room(max_imbalance=1.5, rebalance="downsample")
    assert dropped == []
    assert (room.out / "answers.safetensors").read_bytes() == (first / "answers.safetensors").read_bytes()
