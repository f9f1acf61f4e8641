"""One recipe from data to report through the real command line, on a real model that is tiny."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_project import Cli, figures_of_quality, predictions

from slmops.evaluate.cost import COSTS
from slmops.evaluate.evidence import figures
from slmops.evaluate.gates import COMPARED_FIGURES

pytestmark = pytest.mark.timeout(900)

HOME, OTHER_HOME = "one/.slmops", "two/.slmops"
FROM_COMPRESS_ON = {
    "shipped",
    "teacher:same",
    "score:shipped",
    "score:teacher_same",
    "evaluate",
    "card",
    "bundle",
    "parity",
    "report",
}
KILLS = 4


class Runs(NamedTuple):
    """A run that was left alone, and the last of several in another home of which all but it were killed."""

    unbroken: dict[str, Any]
    survivor: dict[str, Any]


@pytest.fixture(scope="module")
def runs(cli: Cli) -> Runs:
    # Both at once: the machine has more than one core, and neither home knows of the other.
    with ThreadPoolExecutor() as pool:
        unbroken = pool.submit(cli.run, HOME)
        survivor = pool.submit(_kill_and_finish, cli)
        return Runs(unbroken.result(), survivor.result())


def _kill_and_finish(cli: Cli) -> dict[str, Any]:
    rng = random.Random(28)  # comes upon training, converting and measuring
    # Not in the last few stages, which a fast machine might have done before the signal comes.
    for stage in sorted(rng.sample(range(2, 18), KILLS)):
        process = cli.start("run", "recipe.yaml", "--home", OTHER_HOME)
        assert process.stderr is not None
        while not process.stderr.readline().startswith(f"[{stage:>2}/23] "):
            assert process.poll() is None
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.communicate()
        time.sleep(0.5)
        # A child that lived on would write where the next run writes.
        assert not [command for command in _commands() if OTHER_HOME in command]
    return cli.run(OTHER_HOME)


def _commands() -> Iterator[str]:
    """The command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


@pytest.fixture(scope="module")
def changed(cli: Cli, runs: Runs) -> tuple[dict[str, Any], ...]:
    """Two processes at once, in the home of the finished run, of the same recipe compressed in another way."""
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(cli.run, HOME, "--set", "compress.precision=int8") for _ in range(2)]
        return tuple(one.result() for one in both)


def made(run: dict[str, Any]) -> set[str]:
    return {node for node, step in run["steps"].items() if not step["cached"]}


def test_a_run_makes_every_stage_and_its_figures(runs):
    run = runs.unbroken
    assert made(run) == set(run["steps"])
    assert run["exit_code"] == 0
    assert run["metrics"]["evaluate"]["gates_failed"] == 0
    assert run["metrics"]["data"]["test_rows"] == 40
    roles = {"teacher", "teacher_same", "baseline", "student", "shipped", "floor"}
    assert figures_of_quality(run)["models"].keys() == roles
    evidence = json.loads((Path(run["steps"]["evaluate"]["path"]) / "evidence.json").read_text())
    known = {*COSTS, *COMPARED_FIGURES, *evidence["models"]["shipped"]["quality"], *evidence["kept"]}
    assert figures(evidence).keys() <= known, "a gate on any other is refused before anything runs"


def test_again_nothing_runs_and_the_table_is_printed(cli, runs):
    begun = time.monotonic()
    done = cli.end(cli.start("run", "recipe.yaml", "--home", HOME))
    assert time.monotonic() - begun < 10
    assert done.stderr.count(" cached\n") == len(runs.unbroken["steps"])
    table = done.stdout
    assert table == (Path(runs.unbroken["steps"]["report"]["path"]) / "table.txt").read_text()
    assert all(
        word in table for word in ("teacher", "baseline", "student", "shipped", "floor", "exact match", "n = 40")
    )
    assert max(map(len, table.splitlines())) <= 80


def test_a_dry_run_tells_what_is_cached_and_writes_nothing(cli, runs):
    plan = json.loads(cli("run", "recipe.yaml", "--home", HOME, "--dry-run", "--json", "--set", "train.epochs=5"))
    would_run = {step["node"] for step in plan["steps"] if not step["cached"]}
    behind = {"evaluate", "card", "bundle", "parity", "report"}
    assert would_run == {"student", "score:student", "shipped", "score:shipped", *behind}
    assert plan["recipe"]["train"]["epochs"] == 5
    text = cli("run", "recipe.yaml", "--home", "nowhere/.slmops", "--dry-run")
    assert text.count("would run") == len(runs.unbroken["steps"])
    assert not (cli.folder / "nowhere").exists()


def test_two_at_once_share_one_home_and_make_each_stage_once(changed):
    one, other = map(made, changed)
    assert not one & other
    assert one | other == FROM_COMPRESS_ON
    assert figures_of_quality(changed[0]) == figures_of_quality(changed[1])


def test_the_history_tells_runs_apart(cli, runs, changed):
    listed = json.loads(cli("runs", "--json", "--home", HOME))["runs"]
    assert {run["run"] for run in (runs.unbroken, *changed)} <= {run["id"] for run in listed}
    shown = json.loads(cli("show", changed[0]["run"], "--json", "--home", HOME))
    assert shown["state"] == "done"
    assert {step["node"] for step in shown["steps"] if not step["cached"]} == made(changed[0])
    difference = json.loads(cli("diff", runs.unbroken["run"], changed[0]["run"], "--json", "--home", HOME))
    assert difference["recipe"] == {"compress.algorithm": ["gptq", "rtn"], "compress.precision": ["int4", "int8"]}
    assert set(difference["steps"]) == FROM_COMPRESS_ON


def test_killed_at_random_moments_it_ends_with_the_same_evidence(cli, runs):
    assert figures_of_quality(runs.survivor) == figures_of_quality(runs.unbroken)
    assert predictions(runs.survivor) == predictions(runs.unbroken)


def test_after_a_kill_what_was_whole_is_not_made_again(cli, runs):
    listed = json.loads(cli("runs", "--json", "--home", OTHER_HOME))["runs"]
    assert [run["state"] for run in listed] == ["done"] + ["killed"] * KILLS
    times_made: dict[str, int] = {}
    for run in listed:
        for step in run["steps"]:
            if step["state"] == "done" and not step["cached"]:
                times_made[step["node"]] = times_made.get(step["node"], 0) + 1
    assert set(times_made.values()) == {1}
    assert len(made(runs.survivor)) < len(runs.survivor["steps"])
    assert not list((cli.folder / OTHER_HOME / "tmp").glob("*"))
    assert not list((cli.folder / OTHER_HOME / "work").glob("*"))
    cli("store", "verify", "--home", OTHER_HOME)


def test_ctrl_c_ends_with_130_and_says_so(cli, runs):
    process = cli.start("run", "recipe.yaml", "--home", HOME, "--set", "train.epochs=400")
    assert process.stderr is not None
    while "train on" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    done = cli.end(process, code=130)
    assert "interrupted; the state is saved" in done.stderr
    assert json.loads(cli("show", "last", "--json", "--home", HOME))["state"] == "interrupted"


def test_a_failing_gate_ends_with_3_and_ships_nothing(cli, runs):
    placed = cli.folder / Path(HOME).parent / "bundles" / "tiny" / "manifest.json"
    before = placed.read_bytes()
    process = cli.start("run", "recipe.yaml", "--home", HOME, "--set", "evaluate.gates.exact_match.min=0.99")
    done = cli.end(process, code=3)
    assert "error: exact_match: " in done.stderr
    assert "below 0.99" in done.stderr
    assert "gate fail: exact_match" in done.stdout
    assert placed.read_bytes() == before


def test_a_student_that_labels_ships_and_answers_alone(cli, runs, tmp_path):
    # It shares teacher and answers with the student that writes.
    marked = ("student.head=tags", "train.epochs=20", "bundle.name=marked")
    run = cli.run(HOME, *(part for change in marked for part in ("--set", change)))
    assert {"teacher", "teach"} <= {node for node, step in run["steps"].items() if step["cached"]}
    shipped = figures_of_quality(run)["models"]["shipped"]["quality"]
    assert shipped["valid_json"] == shipped["valid_schema"] == 1.0
    shutil.copytree(cli.folder / "one/bundles/marked", tmp_path / "elsewhere")
    answer = json.loads(cli("predict", tmp_path / "elsewhere", "Where is my parcel AB-1234?", "--json", "--threads", 1))
    assert answer["failure"] is None
    assert "intent" in answer["answer"]


def test_a_wrong_recipe_ends_with_2_and_says_where(cli):
    wrong = cli.folder / "wrong.yaml"
    wrong.write_text((cli.folder / "recipe.yaml").read_text().replace("epochs: 4,", "epoch: 4,"))
    done = cli.end(cli.start("run", wrong), code=2)
    assert "train.epoch" in done.stderr
    assert "epochs" in done.stderr


def test_the_bundle_answers_elsewhere_without_the_store(cli, runs, tmp_path):
    home = cli.folder / OTHER_HOME
    bundle = shutil.copytree(home.parent / "bundles" / "tiny", tmp_path / "shipped")
    scored = Path(runs.survivor["steps"]["score:shipped"]["path"]) / "predictions.jsonl"
    written = {row["id"]: row["text"] for row in map(json.loads, scored.read_text().splitlines())}
    rows = tmp_path / "rows.jsonl"
    shutil.copyfile(Path(runs.survivor["steps"]["data"]["path"]) / "test.jsonl", rows)
    away = home.rename(home.with_name("away"))
    try:
        answers = [json.loads(line) for line in cli("predict", bundle, "--file", rows, "--threads", 1).splitlines()]
        asked = next(answer for answer in answers if answer["answer"])
        text = next(row["input"] for row in map(json.loads, rows.read_text().splitlines()) if row["id"] == asked["id"])
        one = json.loads(cli("predict", bundle, text, "--json", "--threads", 1))
    finally:
        away.rename(home)
    assert one["answer"]["intent"] == asked["answer"]["intent"]
    # Batches are put together otherwise, so the last bits of a logit may differ.
    same = [answer["text"] == written[answer["id"]] for answer in answers]
    assert len(same) == 40
    assert sum(same) >= 38
