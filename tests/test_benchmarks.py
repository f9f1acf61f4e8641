"""What benchmarks print and keep."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
QUALITY = {"exact_match": 0.8, "field_f1": 0.9}
TEST = {"figure": "exact_match", "points": 12.5, "interval": [8.0, 17.0], "p_adjusted": 0.001}
EVIDENCE = {
    "n_test": 400,
    "savings": {"time_saving_torch": 0.93, "weights_saving": 0.94, "memory_saving": 0.9},
    "kept": {"exact_match_kept": 0.97, "field_f1_kept": None},
    "kept_interval": {"exact_match_kept": [0.94, 1.0], "field_f1_kept": None},
    "models": {
        "teacher": {"quality": QUALITY, "interval": {"exact_match": [0.76, 0.84]}},
        "shipped": {"quality": QUALITY, "interval": {"exact_match": [0.75, 0.83]}},
        "teacher_same": {"latency_p50_ms": 30.0},
    },
    "paired": [TEST | {"ours": "shipped", "theirs": "floor"}, TEST | {"ours": "student", "theirs": "floor"}],
}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Imports a benchmark as running its file does; results go to an empty folder."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(import_module("_contract"), "RESULTS", tmp_path / "results")
    return import_module


def test_the_last_line_is_the_object_that_is_kept(benchmark, tmp_path, capsys) -> None:
    contract: ModuleType = benchmark("_contract")
    contract.publish("toy", {"speed": 2.5, "wait_s": 3.0}, goals={"speed": 2, "wait_s": 2}, spread={"speed": (2, 3)})
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert result == json.loads((tmp_path / "results" / "toy.json").read_text())
    assert result.keys() == {"name", "machine", "figures", "spread", "goals", "missed"}
    assert result["spread"] == {"speed": [2, 3]}
    assert any(line.startswith("wait_s") and line.endswith("MISSED") for line in table)
    assert any(line.startswith("speed") and line.endswith("met") for line in table)


def test_a_small_run_is_not_kept(benchmark, tmp_path, capsys) -> None:
    benchmark("_contract").publish("toy", {"speed": 1.0}, goals={}, keep=False)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["missed"] == []
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("name", "figure", "good"),
    [
        ("kept", 0.92, True),
        ("kept", 0.91, False),
        ("setup_s", 180, True),
        ("setup_s", 181, False),
        ("memory_mb", 2, True),
        ("accuracy_points_drop", 2, True),
        ("over_floor_points", 2, False),
    ],
)
def test_names_say_which_way_is_better(benchmark, name, figure, good) -> None:
    goal = {"kept": 0.92, "setup_s": 180, "memory_mb": 5, "accuracy_points_drop": 5, "over_floor_points": 5}[name]
    assert benchmark("_contract").missed({name: figure}, {name: goal}) == ([] if good else [name])


def test_the_figures_of_the_demo(benchmark) -> None:
    demo = benchmark("demo")
    figures = demo.figures(EVIDENCE)
    assert figures["exact_match_shipped"] == 0.8
    assert figures["field_f1_teacher"] == 0.9
    assert (figures["n_test"], figures["over_floor_points_low"]) == (400, 8.0)
    assert demo.spread(EVIDENCE)["exact_match_kept"] == [0.94, 1.0]
    assert demo.spread(EVIDENCE)["over_floor_points"] == [8.0, 17.0]
    # What could not be measured is no figure, and so a goal that is missed.
    missed = benchmark("_contract").missed(figures, demo.GOALS)
    assert missed == ["weights_saving", "field_f1_kept", "over_baseline_points_low"]


def test_both_sides_of_the_evaluation_get_the_same_rows(benchmark, tmp_path) -> None:
    evaluate = benchmark("evaluate")
    path = tmp_path / "test.csv"
    path.write_text("text,category\n" + "".join(f'"message, {i}",label_{i % 3}\n' for i in range(30)))
    texts, labels = evaluate.read(path, 5)
    assert (texts, labels) == (evaluate.read(path, 5)[0], ["label_0", "label_1", "label_2"])
    assert len(set(texts)) == 5
    task = json.loads(evaluate.task_file(tmp_path / "rows.jsonl"))
    assert (task["output_type"], task["target_delimiter"]) == ("multiple_choice", "")
    assert evaluate.LOCK.read_text().count("lm_eval==") == 1


def test_the_readme_shows_the_table_of_one_run_between_its_marks(benchmark) -> None:
    demo: ModuleType = benchmark("demo")
    readme = demo.README.read_text(encoding="utf-8")
    shown = demo.with_table(demo.with_table(readme, "an older table\n"), "        teacher\nexact match 0.5\n")
    begin, end = shown.index("<!-- demo:begin -->"), shown.index("<!-- demo:end -->")
    assert shown[begin:end] == "<!-- demo:begin -->\n```text\n        teacher\nexact match 0.5\n```\n"
    outside = [text.partition(demo.BEGIN)[0] + text.partition(demo.END)[2] for text in (readme, shown)]
    assert outside[0] == outside[1]
