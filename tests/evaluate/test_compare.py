"""The comparison on predictions whose figures can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.data.read import read_jsonl, write_jsonl
from slmops.errors import BadInput
from slmops.evaluate.compare import compare, errors
from slmops.evaluate.outcome import write_for_ci
from slmops.evaluate.significance import mcnemar, rows_needed, wilson
from slmops.evaluate.stage import Compare, CompareSettings
from slmops.pipeline.stage import Context
from slmops.recipe.evaluate import Gate


@pytest.fixture
def folders(scored) -> dict[str, Path]:
    """Forty rows: the teacher has 32 right, the student 30, the shipped model 28, the baseline 20, the floor none."""
    return {
        "teacher": scored("teacher", 32, latency_p50_ms=200.0, weights_bytes=1000, peak_rss_bytes=800),
        "teacher_same": scored("teacher_same", 32, latency_p50_ms=50.0, weights_bytes=200, peak_rss_bytes=300),
        "baseline": scored("baseline", 20, latency_p50_ms=30.0, weights_bytes=300, peak_rss_bytes=500),
        "student": scored("student", 30, latency_p50_ms=30.0, weights_bytes=300, peak_rss_bytes=500),
        "shipped": scored("shipped", 28, latency_p50_ms=10.0, weights_bytes=40, peak_rss_bytes=200),
        "floor": scored("floor", 0, wrong="no JSON"),
    }


def test_quality_of_each_model_and_its_interval(task, rows, folders):
    models = compare(task, rows, folders, seed=7)["models"]
    assert models["shipped"]["quality"]["exact_match"] == 28 / 40
    assert models["shipped"]["interval"]["exact_match"] == list(wilson(28, 40))
    assert models["shipped"]["quality"]["intent_accuracy"] == 1.0
    # A wrong value is one false positive and one false negative: 28 of 28 + (12 + 12) / 2.
    assert models["shipped"]["quality"]["field_f1"] == pytest.approx(28 / 40)
    assert models["floor"]["quality"]["valid_json"] == 0.0
    assert models["teacher"]["latency_p50_ms"] == 200.0
    assert "latency_p50_ms" not in models["floor"]


def test_what_is_kept_of_the_teacher(task, rows, folders):
    evidence = compare(task, rows, folders, seed=7)
    assert evidence["kept"] == pytest.approx({"exact_match_kept": 28 / 32, "field_f1_kept": 28 / 32})
    for name, (low, high) in evidence["kept_interval"].items():
        assert low < evidence["kept"][name] < high < 1.01


def test_what_is_saved_against_the_teacher(task, rows, folders):
    assert compare(task, rows, folders, seed=7)["savings"] == pytest.approx(
        {
            "time_saving_torch": 1 - 10 / 200,
            "weights_saving": 1 - 40 / 1000,
            "memory_saving": 1 - 200 / 800,
            "time_saving_same_engine": 1 - 10 / 50,
        }
    )


def test_same_text_is_the_share_of_texts_that_quantising_left_alone(task, rows, folders):
    assert compare(task, rows, folders, seed=7)["same_text"] == 38 / 40


def test_pairs_are_compared_row_by_row(task, rows, folders):
    paired = compare(task, rows, folders, seed=7)["paired"]
    tests = {(test["ours"], test["theirs"], test["figure"]): test for test in paired}
    # Every two of six models, on two figures; the shipped one is ours wherever it is one of them.
    assert len(tests) == len(paired) == 2 * 15
    assert not [test for test in paired if test["theirs"] == "shipped"]
    baseline = tests["shipped", "baseline", "exact_match"]
    assert baseline["points"] == pytest.approx((28 - 20) / 40 * 100)
    assert (baseline["test"], baseline["p"]) == ("mcnemar", mcnemar([1] * 8, [0] * 8))
    low, high = baseline["interval"]
    assert 0 < low < 20 < high
    assert baseline["p"] < baseline["p_adjusted"] < 0.15
    assert baseline["rows_for_one_point"] == rows_needed(8 / 40)
    fields = tests["shipped", "floor", "field_f1"]
    assert fields["points"] == pytest.approx(70.0)
    assert (fields["test"], fields["p_adjusted"] < 0.01) == ("bootstrap", True)
    # What is as right as the teacher on every row needs no test, and no number of rows would tell the two apart.
    same = tests["teacher", "teacher_same", "exact_match"]
    assert (same["points"], same["p_adjusted"], same["rows_for_one_point"]) == (0, 1, None)


@pytest.mark.parametrize("about_ours", [True, False])
@pytest.mark.parametrize("figure", ["exact_match", "field_f1"])
def test_p_values_are_corrected_within_the_questions_asked_and_within_the_rest(task, rows, folders, figure, about_ours):
    paired = compare(task, rows, folders, seed=7)["paired"]
    tests = [t for t in paired if t["figure"] == figure and (t["ours"] == "shipped") == about_ours]
    assert len(tests) == (5 if about_ours else 10)
    expected = multitest([test["p"] for test in tests])
    assert [test["p_adjusted"] for test in tests] == pytest.approx(expected)


def multitest(p_values: list[float]) -> list[float]:
    """Holm's correction by its definition: the largest of the scaled p-values up to and with one's own."""
    ranked = sorted(p_values)
    scaled = [min(1.0, (len(ranked) - rank) * p) for rank, p in enumerate(ranked)]
    return [max(scaled[: ranked.index(p) + 1]) for p in p_values]


def test_the_floor_is_beaten_beyond_chance_or_not_at_all(task, rows, folders, scored):
    assert compare(task, rows, folders, seed=7)["floor_beaten"] is True
    near = scored("near", 26)
    assert compare(task, rows, {**folders, "floor": near}, seed=7)["floor_beaten"] is False
    above = scored("above", 40)
    assert compare(task, rows, {**folders, "floor": above}, seed=7)["floor_beaten"] is False
    without = {role: folder for role, folder in folders.items() if role != "floor"}
    assert compare(task, rows, without, seed=7)["floor_beaten"] is None


def test_a_teacher_that_is_never_right_leaves_nothing_to_keep(task, rows, folders, scored):
    hopeless = scored("hopeless", 0, latency_p50_ms=200.0, weights_bytes=1000, peak_rss_bytes=800)
    evidence = compare(task, rows, {**folders, "teacher": hopeless}, seed=7)
    assert evidence["kept"] == {"exact_match_kept": None, "field_f1_kept": None}
    assert evidence["kept_interval"] == {"exact_match_kept": None, "field_f1_kept": None}


def test_roles_may_be_absent(task, rows, folders):
    fewer = {role: folders[role] for role in ("teacher", "shipped")}
    evidence = compare(task, rows, fewer, seed=7)
    assert [(test["ours"], test["theirs"]) for test in evidence["paired"]] == [("shipped", "teacher")] * 2
    assert evidence["same_text"] is None
    assert "time_saving_same_engine" not in evidence["savings"]


def test_the_evidence_holds_no_row_of_the_data(task, rows, folders):
    text = json.dumps(compare(task, rows, folders, seed=7))
    assert not [row["id"] for row in rows if row["input"] in text or f'"{row["id"]}"' in text]


@pytest.mark.parametrize("change", ["fewer", "more", "other order", "other ids"])
def test_answers_to_other_rows_are_refused(task, rows, folders, change):
    path = folders["student"] / "predictions.jsonl"
    answers = read_jsonl(path)
    changed = {
        "fewer": answers[:-1],
        "more": [*answers, answers[0]],
        "other order": answers[::-1],
        "other ids": [{**answer, "id": f"x{answer['id']}"} for answer in answers],
    }
    write_jsonl(path, changed[change])
    with pytest.raises(BadInput, match="does not answer the 40 test rows"):
        compare(task, rows, folders, seed=7)


def test_texts_with_odd_line_ends_stay_one_row(task, rows, folders):
    path = folders["floor"] / "predictions.jsonl"
    write_jsonl(path, ({"id": row["id"], "text": "a\u2028b\x85c"} for row in rows))
    assert compare(task, rows, folders, seed=7)["models"]["floor"]["quality"]["exact_match"] == 0.0


def test_errors_show_what_was_wanted_and_what_was_written(task, rows, folders):
    shown = errors(task, rows, folders["shipped"], most=3)
    assert [error["input"] for error in shown] == ["where is 28?", "where is 29?", "where is 30?"]
    assert shown[0]["wanted"] == '{"intent":"order_late","order":" 28"}'
    assert shown[0]["written"] == '{"intent":"order_late","order":"?"}'


@pytest.fixture
def run_stage(task, rows, tmp_path):
    """Runs `Compare` on scored folders."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "task.json").write_text(json.dumps(task.describe()))
    write_jsonl(data / "test.jsonl", rows)
    (tmp_path / "out").mkdir()

    def run(folders: dict[str, Path], gates: dict[str, Gate]) -> dict[str, float | str]:
        context = Context(out=tmp_path / "out", work=tmp_path, seed=7)
        return dict(Compare().run({"data": data, **folders}, CompareSettings(gates=gates), context))

    return run


def test_as_a_stage_it_writes_evidence_gates_and_errors(run_stage, folders, tmp_path):
    gates = {"exact_match": Gate(min=0.5), "weights_saving": Gate(min=0.99)}
    figures = run_stage(folders, gates)
    out = tmp_path / "out"
    assert figures["gates_failed"] == 1
    assert figures["exact_match_kept"] == pytest.approx(28 / 32)
    assert json.loads((out / "evidence.json").read_text())["n_test"] == 40
    assert [gate["state"] for gate in json.loads((out / "gates.json").read_text())] == ["pass", "fail"]
    assert len(json.loads((out / "errors.json").read_text())) == 12


def test_a_figure_without_a_value_is_no_figure_of_the_stage(run_stage, folders, scored):
    hopeless = scored("hopeless", 0, latency_p50_ms=200.0, weights_bytes=1000, peak_rss_bytes=800)
    figures = run_stage({**folders, "teacher": hopeless}, {"exact_match_kept": Gate(min=0.9)})
    assert "exact_match_kept" not in figures
    assert None not in figures.values()
    assert figures["gates_failed"] == 1


def test_as_a_stage_it_writes_what_ci_shows_and_counts_the_regression_suite(run_stage, folders, rows, tmp_path, task):
    suite, answers = tmp_path / "suite", tmp_path / "answers"
    for folder in (suite, answers):
        folder.mkdir()
    write_jsonl(suite / "test.jsonl", [{**rows[0], "note": "ticket 7"}, rows[1]])
    texts = [task.write(rows[0]["output"]), '{"intent":"other"}']
    write_jsonl(
        answers / "predictions.jsonl",
        ({"id": row["id"], "text": text} for row, text in zip(rows[:2], texts, strict=True)),
    )
    judged = {
        "judge": "big", "against": "teacher", "rows": 40, "readable": 40, "reliable": True, "why": None, "scale": 1.0,
        "figures": {"win_rate": 0.5}, "interval": {"win_rate": [0.35, 0.65]}, "verdicts": [{"id": "t0"}],
        "agreement": {"how": "both orders", "share": None, "rows": 0, "interval": None},
    }  # fmt: skip
    (tmp_path / "judged.json").write_text(json.dumps(judged))
    more = {"regression": suite, "regression_answers": answers, "judged": tmp_path}
    gates = {"regression_failures": Gate(max=0), "judged.win_rate": Gate(min=0.6), "exact_match": Gate(min=0.5)}
    assert run_stage({**folders, **more}, gates)["gates_failed"] == 2
    out = tmp_path / "out"
    evidence = json.loads((out / "evidence.json").read_text())
    assert set(evidence["models"]) == set(folders)
    assert evidence["regression"] == {"rows": 2, "failures": 1, "failed": ["t1"]}
    assert "verdicts" not in evidence["judged"]
    assert "exact_match" not in evidence["judged"]["figures"]
    states = {gate["figure"]: gate["state"] for gate in json.loads((out / "gates.json").read_text())}
    assert states == {"regression_failures": "fail", "judged.win_rate": "fail", "exact_match": "pass"}
    assert [row["passed"] for row in json.loads((out / "regression.json").read_text())] == [True, False]
    parity = {"figure": "parity_agreement", "wanted": "at least 0.9", "state": "fail", "message": "0.1 is not"}
    write_for_ci(tmp_path, out, [parity])
    assert (tmp_path / "junit.xml").read_text().count("<failure") == 4
    assert "### Regression suite: 1 of 2 rows pass" in (tmp_path / "summary.md").read_text()
    assert "`parity_agreement`" in (tmp_path / "summary.md").read_text()
