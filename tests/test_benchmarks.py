"""What benchmarks print and keep."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from slmops import Recipe
from slmops.pipeline.plan import nodes_for

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
    contract: ModuleType = benchmark("_contract")
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    older = contract.put_between(readme, "demo", "an older table\n")
    shown = contract.put_between(older, "demo", "```text\n        teacher\nexact match 0.5\n```\n")
    begin, end = shown.index("<!-- demo:begin -->"), shown.index("<!-- demo:end -->")
    assert shown[begin:end] == "<!-- demo:begin -->\n```text\n        teacher\nexact match 0.5\n```\n"
    outside = [text.partition("<!-- demo:begin")[0] + text.partition("demo:end -->")[2] for text in (readme, shown)]
    assert outside[0] == outside[1]


def training_run(tokens_per_s: float, peak_mb: float, start: dict[str, float]) -> dict:
    """Three steps of 100 tokens, the first at a tenth of the speed."""
    steps = [{"tokens": 100, "seconds": 100 / tokens_per_s * slower} for slower in (10, 1, 1)]
    ours = {"other_s": 0.0, "weights": {"layers": 900, "head": 400}, "matmul_flops_per_s": 1e6}
    return {"steps": steps, "peak_mb": peak_mb, "start": start, "end": start} | ours


def training(*, with_rival: bool) -> dict:
    text, both = {"text": 2.0}, {"text": 2.0, "forward_kl": 1.0}
    ours = {"sft": training_run(100, 2000, text), "freeze": training_run(400, 1500, text)}
    ours |= {"freeze": ours["freeze"] | {"other_s": 0.75}, "kd": training_run(200, 1000, both)}
    theirs = {}
    if with_rival:
        slow, fast = training_run(25, 4000, text), training_run(50, 3000, text)
        theirs["sft"] = {"run": fast, "trials": {"defaults": slow, "packed": fast}}
        theirs["kd"] = {"run": training_run(50, 5000, both), "trials": {"plain": training_run(50, 5000, both)}}
    sizes = {"rows": 6, "tokens": 300, "answer_tokens": 75, "threads": 2, "freeze_layers": 12, "teach_s": 1.5}
    return sizes | {"ours": ours, "theirs": theirs}


def test_the_figures_of_training(benchmark) -> None:
    train = benchmark("train")
    figures = train.figures(training(with_rival=True))
    # The first step warms up: at its speed every rate would be a fraction of this.
    assert (figures["sft_tokens_per_s"], figures["sft_tokens_per_s_trl"]) == (100, 50)
    assert (figures["sft_ratio_vs_trl"], figures["sft_ratio_vs_trl_defaults"]) == (2, 4)
    assert (figures["memory_ratio_vs_trl"], figures["kd_memory_ratio_vs_trl"]) == (1.5, 5)
    # What is done once before the steps counts as part of one pass: 300 tokens in 0.75 s and as long again.
    assert figures["sft_ratio_vs_trl_freeze12"] == pytest.approx(4)
    assert figures["kd_ratio_vs_trl"] == 4
    assert figures["kd_ratio_vs_trl_with_teach"] == pytest.approx(2)
    # Six operations for each of 900 weights and, for a quarter of the tokens, 400 more; a hundred tokens a second.
    assert figures["flops_utilisation"] == pytest.approx(0.6)
    assert (figures["kd_loss_start"], figures["sft_loss_start_trl"]) == (1.0, 2.0)
    assert benchmark("_contract").missed(figures, train.GOALS) == []


def test_without_its_rival_training_misses_its_goals(benchmark) -> None:
    train = benchmark("train")
    figures = train.figures(training(with_rival=False))
    assert figures["sft_tokens_per_s"] == 100
    assert not [name for name in figures if "trl" in name]
    assert benchmark("_contract").missed(figures, train.GOALS) == list(train.GOALS)


def test_the_ends_of_a_ratio_are_its_worst_and_best_quartiles(benchmark) -> None:
    train, found = benchmark("train"), training(with_rival=True)
    found["ours"]["sft"] |= {"steps": [{"tokens": 10, "seconds": 10 / rate} for rate in (1, 80, 100, 120)]}
    spread = train.spread(found)
    assert spread["sft_tokens_per_s"] == pytest.approx((90, 110))
    assert spread["sft_ratio_vs_trl"] == pytest.approx((1.8, 2.2))


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ({"text": 2.001, "forward_kl": 1.0}, True),
        ({"text": 2.0, "forward_kl": 1.4}, True),  # kept probabilities leave something out
        ({"text": 2.0, "forward_kl": 0.9}, False),
        ({"text": 2.1, "forward_kl": 1.0}, False),
    ],
)
def test_sides_that_start_elsewhere_are_not_compared(benchmark, theirs, same) -> None:
    assert benchmark("train").same_start({"text": 2.0, "forward_kl": 1.0}, theirs) is same


def test_both_sides_of_training_get_the_same_settings(benchmark) -> None:
    import torch

    from slmops.train.optimiser import MasterAdamW

    train = benchmark("train")
    ours = MasterAdamW([torch.nn.Parameter(torch.zeros(2))], lr=1e-3, weight_decay=0.0)
    assert ours.defaults["betas"] == train.BETAS
    assert train.rows_per_batch(range(32), {"steps": [{}] * 8}) == 4
    assert train.rows_per_batch(range(2), {"steps": [{}] * 8}) == 1
    pins = train.LOCK.read_text().split()
    assert {"trl==1.16.0", "torch==2.13.0", "transformers==5.23.0"} <= set(pins)


def test_rows_of_training_are_short_and_long(benchmark, tiny) -> None:
    rows = benchmark("_train_rows")
    made = rows.threads_of_messages(24, seed=7)
    assert made == rows.threads_of_messages(24, seed=7)
    assert {row["input"].count("\n\n") + 1 for row in made} == set(rows.MESSAGES)
    tokens = rows.as_tokens(made[:2], tiny.folder)
    assert all(row["answer"][-1] in tiny.tokenizer.end_ids for row in tokens)
    assert tokens[0]["prompt"] == tiny.prompt(made[0]["input"])


def test_the_clock_of_training_counts_steps_and_what_comes_before(benchmark, monkeypatch) -> None:
    ours = benchmark("_train_ours")
    now, cores = iter([0.0, 3.0, 3.5, 5.0, 9.0]), iter([0.0, 6.0, 7.0, 10.0, 17.0])
    monkeypatch.setattr(ours.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(ours.time, "process_time", lambda: next(cores))
    clock = ours.Clock()
    with clock.task("run the still layers", 10, "tokens") as task:
        task.advance(10)
    with clock.task("train", 30, "tokens") as task:
        task.advance(10, text=1.0)
        task.advance(20, text=0.5)
    first, second = clock.steps("train")
    assert first == {"tokens": 10, "seconds": 1.5, "cpu_s": 3.0}
    assert second == {"tokens": 20, "seconds": 4.0, "cpu_s": 7.0}
    assert clock.seconds(but="train") == 3.0


def test_our_side_of_training_trains(benchmark, tiny, tmp_path) -> None:
    """The whole of it on the tiny model: layers cut, targets kept, a pass over the rows, losses before and after."""
    ours, (text, answer) = benchmark("_train_ours"), next(iter(tiny.pairs.items()))
    row = {"prompt": tiny.prompt(text), "answer": [*tiny.tokenizer.encode(answer), min(tiny.tokenizer.end_ids)]}
    rows = {"rows": [row] * 4}
    made = ours.models({"model": str(tiny.folder), "student_layers": 1}, tmp_path)
    taught = ours.teach(rows | {"model": made["teacher"], "batch": 3, "top_logits": 5}, tmp_path)
    moved = {"epochs": 1, "learning_rate": 1e-3, "warmup": 0.0, "batch_tokens": 64, "precision": "fp32"}
    job = rows | {"model": made["student"], "optimisation": moved, "seed": 7, "probe": 2}
    found = ours.fit(job | {"answers": taught["answers"]}, tmp_path)
    assert sum(step["tokens"] for step in found["steps"]) == 4 * (len(row["prompt"]) + len(row["answer"]))
    assert found["end"]["forward_kl"] < found["start"]["forward_kl"]
    assert found["weights"] == {"layers": 64 * (2 * 64 + 2 * 32 + 3 * 128), "head": tiny.tokenizer.size * 64}
    assert found["peak_mb"] > 0


def test_no_training_goes_on_from_another(benchmark, tiny, tmp_path, monkeypatch) -> None:
    """Two equal jobs that write a checkpoint after their fifth step find the same."""
    import torch

    ours, (text, answer) = benchmark("_train_ours"), next(iter(tiny.pairs.items()))
    monkeypatch.setattr(ours, "MULTIPLICATIONS", 1)
    row = {"prompt": tiny.prompt(text), "answer": [*tiny.tokenizer.encode(answer), min(tiny.tokenizer.end_ids)]}
    moved = {"batch_tokens": 32, "epochs": 1, "precision": "fp32", "checkpoint_seconds": 1e-6}
    job = {"job": "fit", "rows": [row] * 7, "model": str(tiny.folder), "optimisation": moved, "seed": 7, "probe": 2}
    found = []
    for name in ("first", "second"):
        (tmp_path / f"{name}.json").write_text(json.dumps(job | {"threads": torch.get_num_threads()}))
        ours.main(tmp_path, name)
        found.append(json.loads((tmp_path / f"{name}.found.json").read_text()))
    assert list(tmp_path.glob("first/checkpoints/checkpoint-*"))
    assert [len(run["steps"]) for run in found] == [7, 7]
    assert found[0]["end"] == found[1]["end"]


def test_what_a_teacher_is_worth_is_told_over_all_rows_and_by_seed(benchmark) -> None:
    worth = benchmark("worth")
    rows = np.arange(200)
    first = {"baseline": rows < 60, "student": rows < 90, "shipped": rows < 80, "floor": rows < 10}
    second = {**first, "student": rows < 70, "shipped": rows < 60}
    found = [{role: right.astype(float) for role, right in one.items()} for one in (first, second)]
    values, spread = worth.figures(found)
    assert values["rows"] == 400
    assert values["exact_match_student"] == pytest.approx(0.4)
    assert values["student_over_baseline_points"] == pytest.approx(10)
    assert spread["student_over_baseline_points_seeds"] == pytest.approx((5, 15))
    low, high = spread["student_over_baseline_points"]
    assert 5 < low == values["student_over_baseline_points_low"] < 10 < high < 15
    assert benchmark("_contract").missed(values, worth.GOALS) == []
    level = [{**one, "shipped": one["baseline"]} for one in found]
    assert benchmark("_contract").missed(worth.figures(level)[0], worth.GOALS) == ["shipped_over_baseline_points_low"]


def test_what_a_teacher_is_worth_is_asked_of_the_demo_without_asking_the_teacher(benchmark) -> None:
    worth, running = benchmark("worth"), benchmark("_headline.running")
    recipe = Recipe.load(worth.RECIPE, [*worth.COMMON, *worth.ON_GPU, "seed=12"])
    made = running.needed(nodes_for(recipe), {worth.SCORED + role for role in worth.ROLES})
    scored = {node.id for node in made if node.id.startswith(worth.SCORED)}
    assert scored == {worth.SCORED + role for role in worth.ROLES}


def test_what_choosing_is_worth_is_told_by_round_and_over_all(benchmark) -> None:
    selection = benchmark("selection")
    none, half, all_ = np.zeros(40), np.tile([0.0, 1.0], 20), np.ones(40)
    found = {"random": [{10: none, 20: half, 30: half}] * 2, "uncertainty": [{10: none, 20: half, 30: all_}] * 2}
    values, spread = selection.figures(found)
    assert (values["accuracy_first_10"], values["accuracy_random_30"], values["accuracy_selected_30"]) == (0, 0.5, 1)
    assert (values["selected_over_random_points_20"], values["selected_over_random_points_30"]) == (0, 50)
    assert values["selected_over_random_points"] == 25, "the mean of the rounds"
    assert spread["selected_over_random_points"][0] == values["selected_over_random_points_low"] > 0
    assert benchmark("_contract").missed(values, selection.GOALS) == []
    level = dict.fromkeys(found, found["random"])
    assert benchmark("_contract").missed(selection.figures(level)[0], selection.GOALS) != []


def test_rows_of_a_selection_are_parted_by_intent_and_coded(benchmark) -> None:
    selection, corpus = benchmark("selection"), benchmark("_headline.corpus")
    assert len(selection.CODES) == len(set(selection.CODES)) >= 77
    rows = [{"id": f"{n}-{i}", "input": f"{n} {i}", "output": {"intent": n}} for n in ("a", "b") for i in range(9)]
    known = corpus.Corpus({}, rows, [], {}, few=1, validation=1, pool=1, given_up=0)
    code = {"a": "ba", "b": "be"}
    labelled, pool = selection.parted(known, code, seed=1)
    assert [row["output"] for row in labelled] == ["ba"] * 4 + ["be"] * 4
    assert {row["id"] for row in labelled}.isdisjoint(row["id"] for row in pool)
    assert len(labelled) + len(pool) == len(rows)


def test_the_oracle_answers_with_the_label_and_counts(benchmark) -> None:
    from slmops.endpoints.client import Client, Endpoint

    async def ask(url: str) -> str:
        async with Client(Endpoint(url, "labels"), timeout_s=10, connections=1) as client:
            messages = [{"role": "user", "content": "where is it?"}]
            return (await client.complete(messages, idempotency_key="1", max_tokens=4)).text

    with benchmark("_oracle").Oracle({"where is it?": "ba"}, 0) as oracle:
        assert asyncio.run(ask(oracle.url)) == "ba"
        assert oracle.asked == {"where is it?": 1}
        with pytest.raises(OSError, match="in use"), benchmark("_oracle").Oracle({}, oracle.port):
            pass


def test_training_on_a_gpu_is_not_measured_without_one() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    script = Path(__file__).parents[1] / "benchmarks" / "gpu" / "train.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode
    assert done.stderr.strip() == "there is no GPU here: make bench-train measures on the processor"


def test_the_rate_of_asking_is_that_of_a_real_server_and_stands_beside_the_rivals(benchmark) -> None:
    teach = benchmark("teach")
    ours = [teach.rate(rows=16, latency_ms=1, concurrency=4)]
    assert (ours[0]["rows"], len(ours[0]["quarters_s"])) == (16, 4)
    theirs = [{"rows": 8, "rows_per_s": ours[0]["rows_per_s"] / 4, "cpu_ms_per_row": 3.0}] * 3
    figures = teach.figures_of(ours, theirs, ideal=2 * ours[0]["rows_per_s"])
    assert (figures["rate_over_ideal"], figures["rate_over_distilabel"]) == (0.5, pytest.approx(4))
    assert figures["cpu_ms_per_row"] > 0 < figures["server_cpu_ms_per_row"]
    alone = teach.figures_of(ours, [], ideal=1000.0)
    assert "rate_over_distilabel" in benchmark("_contract").missed(alone, teach.GOALS)
    assert "distilabel==" in teach.LOCK.read_text(encoding="utf-8")


def test_a_rate_of_which_rows_were_asked_twice_does_not_count(benchmark) -> None:
    teach = benchmark("teach")
    with teach.server(0) as port:
        ask = json.dumps({"messages": [{"content": "a"}]}).encode()
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/chat/completions", ask) as answer:
                assert b"refund" in answer.read()
        with pytest.raises(SystemExit, match="1 of 2 rows were asked, 2 times at most"):
            teach.measured({"seconds": 1.0, "cpu_s": 1.0}, 2, port)
