"""The stages `Floor` and `Compare` on files as a run has them, for every kind of judging."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.errors import BadInput
from slmops.evaluate.stage import METRIC, Compare, CompareSettings, Floor
from slmops.pipeline.stage import Context
from slmops.recipe.evaluate import Gate
from slmops.recipe.settings import Settings
from slmops.tasks import Classification, Generation, Row, Summarisation, Task

LABELS = ("invoice", "late", "refund")
ROLES = ("teacher", "student", "shipped", "floor")
COSTS = {"latency_p50_ms": 10.0, "weights_bytes": 100, "peak_rss_bytes": 1000}


class Run:
    """A folder of data and of scored models, and the stages run on them."""

    def __init__(self, place: Path, task: Task, rows: Sequence[Row], train: Sequence[Row] = ()) -> None:
        self.place, self.rows = place, rows
        self.inputs: dict[str, Path] = {"data": place / "data"}
        for name in ("data", "out", "work"):
            (place / name).mkdir()
        (place / "data" / "task.json").write_text(json.dumps(task.describe()))
        write_jsonl(place / "data" / "test.jsonl", rows)
        write_jsonl(place / "data" / "train.jsonl", train)

    def score(self, role: str, texts: Sequence[str], extra: Sequence[Mapping[str, Any]] | None = None) -> None:
        folder = self.inputs[role] = self.place / role
        folder.mkdir()
        (folder / "probe.json").write_text(json.dumps({} if role == "floor" else COSTS))
        more = extra or [{}] * len(texts)
        lines = [{"id": r["id"], "text": t, **x} for r, t, x in zip(self.rows, texts, more, strict=True)]
        write_jsonl(folder / "predictions.jsonl", lines)

    @property
    def context(self) -> Context:
        return Context(out=self.place / "out", work=self.place / "work", seed=7)

    def compare(self, gates: Mapping[str, Gate] | None = None, metrics: Sequence[str] = ()) -> dict[str, Any]:
        settings = CompareSettings(gates=dict(gates or {}), metrics=list(metrics))
        self.figures = Compare().run(self.inputs, settings, self.context)
        text = (self.place / "out" / "evidence.json").read_text()
        evidence: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        return evidence

    def floor(self) -> tuple[list[Row], dict[str, Any]]:
        Floor().run(self.inputs, Settings(), self.context)
        out = self.place / "out"
        return read_jsonl(out / "predictions.jsonl"), json.loads((out / "probe.json").read_text())


@pytest.fixture
def labelled(tmp_path: Path) -> Run:
    """Sixty rows of three labels; the models are right on 54, 50, 48 and 24 of them, and tell how sure they are."""
    rows = [{"id": f"t{i}", "input": f"text {i}", "output": LABELS[i % 3]} for i in range(60)]
    run = Run(tmp_path, Classification(LABELS, None, 4), rows)
    for role, right in zip(ROLES, (54, 50, 48, 24), strict=True):
        texts = [r["output"] if i < right else LABELS[(i + 1) % 3] for i, r in enumerate(rows)]
        sure = [{"probabilities": {label: 0.8 if label == text else 0.1 for label in LABELS}} for text in texts]
        if role == "shipped":
            texts[-1] = "no idea"
        run.score(role, texts, None if role == "floor" else sure)
    return run


def test_evidence_of_a_classification(labelled: Run) -> None:
    evidence = labelled.compare({"macro_f1": Gate(min=0.5)})
    assert (evidence["format"], evidence["headline"], evidence["n_test"]) == (2, "exact_match", 60)
    assert evidence["machine"].keys() == {"processor", "system", "cores", "memory_bytes"}
    for role in ROLES:
        model = evidence["models"][role]
        assert model["quality"].keys() == model["interval"].keys()
        for name, value in model["quality"].items():
            low, high = model["interval"][name]
            assert 0 <= low <= value <= high <= 1, (role, name)
        assert [one["label"] for one in model["classes"]] == list(LABELS)
    shipped = evidence["models"]["shipped"]
    assert sum(map(sum, shipped["confusion"]["counts"])) == 60
    assert [row[-1] for row in shipped["confusion"]["counts"]] == [0, 0, 1]
    assert shipped["calibration"]["ece"] == pytest.approx(shipped["quality"]["ece"])
    assert shipped["calibration"]["abstention"][-1]["coverage"] == 1
    assert "calibration" not in evidence["models"]["floor"]
    assert evidence["kept"]["exact_match_kept"] == pytest.approx(48 / 54)
    assert evidence["kept"].keys() == evidence["kept_interval"].keys() == {"exact_match_kept", "macro_f1_kept"}
    assert evidence["floor_beaten"] is True
    assert {(test["figure"], test["test"]) for test in evidence["paired"]} == {
        ("exact_match", "mcnemar"),
        ("macro_f1", "bootstrap"),
    }
    assert all(test["rows_for_one_point"] > 100 for test in evidence["paired"])
    assert evidence["rows_for_one_point"] > 1000
    assert labelled.figures["macro_f1"] == shipped["quality"]["macro_f1"]
    assert labelled.figures["gates_failed"] == 0


def test_a_gate_on_a_figure_of_another_kind_of_task_is_refused(labelled: Run) -> None:
    with pytest.raises(BadInput, match=r"evaluate\.gates\.rouge_l") as error:
        labelled.compare({"rouge_l": Gate(min=0.5)})
    assert "macro_f1" in (error.value.hint or "")


def test_test_rows_of_one_class_decide_nothing(tmp_path: Path) -> None:
    rows = [{"id": f"t{i}", "input": "x", "output": "late"} for i in range(40)]
    run = Run(tmp_path, Classification(LABELS, None, 4), rows)
    for role in ROLES:
        run.score(role, ["late"] * 40)
    with pytest.raises(BadInput, match="every test row has the label 'late'"):
        run.compare()


def test_without_test_rows_nothing_passes(tmp_path: Path) -> None:
    run = Run(tmp_path, Classification(LABELS, None, 4), [])
    run.score("shipped", [])
    with pytest.raises(BadInput, match="there are no test rows"):
        run.compare({"exact_match": Gate(min=0.0)})


SENTENCES = ["The parcel is late.", "We pay the money back.", "An invoice is on its way.", "The desk lamp is broken."]


@pytest.fixture
def written(tmp_path: Path) -> Run:
    """Summaries of thirty texts; a worse model loses more of the words."""
    draw = random.Random(5)
    rows = []
    for i in range(30):
        summary = " ".join(draw.sample(SENTENCES, 2))
        rows.append({"id": f"t{i}", "input": f"{summary} And more besides.", "output": [summary, "Short."]})
    train = [{"id": f"l{i}", "input": "x", "output": " ".join(SENTENCES[:2])} for i in range(3)]
    run = Run(tmp_path, Summarisation(None, 64), rows, train)
    for role, lost in zip(ROLES, (0.1, 0.2, 0.3, 0.8), strict=True):
        texts = [" ".join(w for w in r["output"][0].split() if draw.random() > lost) for r in rows]
        run.score(role, texts, [{"nll": 2.0 + lost, "tokens": 4} for _ in rows])
    return run


def test_evidence_of_a_free_text(written: Run) -> None:
    evidence = written.compare()
    assert evidence["headline"] == "rouge_l"
    for role in ROLES:
        model = evidence["models"][role]
        assert {"rouge_l", "chrf", "rouge_1", "rouge_2", "bleu", "valid_format", "perplexity"} == set(model["quality"])
        assert all(low <= model["quality"][name] <= high for name, (low, high) in model["interval"].items())
        assert "classes" not in model
    bleus = [evidence["models"][role]["quality"]["bleu"] for role in ROLES]
    assert bleus == sorted(bleus, reverse=True)
    assert evidence["floor_beaten"] is True
    assert {test["test"] for test in evidence["paired"]} == {"bootstrap"}
    wrong = json.loads((written.place / "out" / "errors.json").read_text())
    assert wrong[0]["wanted"].count(".") == 2


def test_the_floor_is_the_better_of_two_methods(written: Run) -> None:
    predictions, probe = written.floor()
    assert probe["method"] == "fitted"
    assert probe["methods"].keys() == {"fitted", "most_frequent"}
    # The summary is the first two sentences, as many as those of the training rows.
    assert [p["text"] for p in predictions] == [row["output"][0] for row in written.rows]


def test_where_guessing_does_better_than_fitting_the_floor_guesses(tmp_path: Path) -> None:
    train = [{"id": f"a{i}", "input": f"word {i}", "output": "late"} for i in range(6)]
    train += [{"id": f"b{i}", "input": f"money {i}", "output": "refund"} for i in range(4)]
    # In these rows words mislead: all speak of money, and nearly all are late.
    rows = [{"id": f"t{i}", "input": f"money {i}", "output": "late" if i else "refund"} for i in range(10)]
    predictions, probe = Run(tmp_path, Classification(LABELS, None, 4), rows, train).floor()
    assert probe["method"] == "most_frequent"
    assert {p["text"] for p in predictions} == {"late"}
    assert probe["methods"]["most_frequent"] == 0.9 > probe["methods"]["fitted"]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module with one function `polite` of this body, and gives its path."""

    def write(body: str) -> str:
        name = f"house_{abs(hash(body))}"
        (tmp_path / f"{name}.py").write_text(f"def polite(reference, answer, text):\n    {body}\n")
        return f"{name}:polite"

    monkeypatch.syspath_prepend(tmp_path)
    return write


def test_a_users_own_figure_stands_beside_the_others(written: Run, house: Callable[[str], str]) -> None:
    path = house("return len(text) / 100")
    written.inputs[METRIC + path] = written.place
    evidence = written.compare({"polite": Gate(max=0.99)}, [path])
    for role in ROLES:
        texts = [p["text"] for p in read_jsonl(written.inputs[role] / "predictions.jsonl")]
        model = evidence["models"][role]
        assert model["quality"]["polite"] == pytest.approx(sum(map(len, texts)) / 100 / 30)
        low, high = model["interval"]["polite"]
        assert low < model["quality"]["polite"] < high
    assert written.figures["gates_failed"] == 0


def test_a_figure_that_fails_names_its_row(written: Run, house: Callable[[str], str]) -> None:
    with pytest.raises(BadInput, match=r"polite fails on row 't0': AttributeError"):
        written.compare(metrics=[house("return text.politeness")])


def test_answers_to_fewer_rows_are_refused(written: Run) -> None:
    path = written.inputs["student"] / "predictions.jsonl"
    write_jsonl(path, read_jsonl(path)[:-1])
    with pytest.raises(BadInput, match="does not answer the 30 test rows"):
        written.compare()


def test_a_model_that_says_nothing_has_nothing_of_the_text(tmp_path: Path) -> None:
    rows = [{"id": f"t{i}", "input": "x", "output": SENTENCES[i % 4]} for i in range(30)]
    run = Run(tmp_path, Generation(None, 8), rows)
    run.score("teacher", [row["output"] for row in rows])
    run.score("shipped", [""] * 30)
    evidence = run.compare()
    assert set(evidence["models"]["shipped"]["quality"].values()) == {0.0}
    assert evidence["models"]["teacher"]["quality"]["bleu"] == pytest.approx(1)
    assert (evidence["floor_beaten"], evidence["same_text"]) == (None, None)
