from __future__ import annotations

import os
import signal
import sqlite3
from dataclasses import asdict
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from pipeline_toys import PROCESSES, chain

from slmops.errors import BadInput, Interrupted, SlmopsError
from slmops.pipeline.compare import compare, dotted
from slmops.pipeline.history import History
from slmops.pipeline.keys import address
from slmops.pipeline.recording import recorded


def record(home: Path, *, name: str = "toy", last: str = "c", recipe: dict[str, Any] | None = None) -> str:
    """A run that goes well."""
    steps = address(chain(Path("calls"), last=last), 7)
    with recorded(History(home), name, recipe or {}, steps, {"cores": 2}) as recording:
        for number, step in enumerate(steps):
            recording.step_started(step.node.id)
            recording.step_done(step.node.id, cached=number == 0, seconds=1.5, metrics={"loss": number})
    return recording.id


def test_a_run_is_told_as_it_happened(tmp_path: Path) -> None:
    name = record(tmp_path, recipe={"name": "toy", "train": {"epochs": 3}})
    (run,) = History(tmp_path).runs()
    assert (run.id, run.name, run.state, run.exit_code, run.error) == (name, "toy", "done", 0, None)
    assert run.recipe == {"name": "toy", "train": {"epochs": 3}}
    assert run.environment == {"cores": 2}
    assert run.seconds is not None
    assert 0 <= run.seconds < 10
    assert [(step.node, step.state, step.cached, step.metrics) for step in run.steps] == [
        ("a", "done", True, {"loss": 0}),
        ("b", "done", False, {"loss": 1}),
        ("c", "done", False, {"loss": 2}),
    ]


@pytest.mark.parametrize(
    ("error", "state", "exit_code", "text"),
    [
        (BadInput("row 3 is empty"), "failed", 2, "row 3 is empty"),
        (Interrupted("stopped"), "interrupted", 130, "stopped"),
        (ValueError("a bug"), "failed", 1, "ValueError: a bug"),
    ],
)
def test_a_run_ends_in_the_history_however_it_ends(
    tmp_path: Path, error: Exception, state: str, exit_code: int, text: str
) -> None:
    with pytest.raises(type(error)):
        fail_in_first_step(tmp_path, error)
    (run,) = History(tmp_path).runs()
    assert (run.state, run.exit_code, run.error) == (state, exit_code, text)
    assert [step.state for step in run.steps] == [state, "waiting", "waiting"]


def fail_in_first_step(home: Path, error: Exception) -> None:
    with recorded(History(home), "toy", {}, address(chain(Path("calls")), 7), {}) as recording:
        recording.step_started("a")
        raise error


def stay(home: Path, started: Event, leave: Event) -> None:
    with recorded(History(home), "toy", {}, address(chain(Path("calls")), 7), {}) as recording:
        recording.step_started("a")
        started.set()
        leave.wait(30)


def test_a_killed_run_is_shown_as_killed(tmp_path: Path) -> None:
    started, leave = PROCESSES.Event(), PROCESSES.Event()
    process = PROCESSES.Process(target=stay, args=(tmp_path, started, leave))
    process.start()
    assert started.wait(30)
    assert History(tmp_path).run("last").state == "running"
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    run = History(tmp_path).run("last")
    assert (run.state, run.seconds) == ("killed", None)
    assert [step.state for step in run.steps] == ["killed", "waiting", "waiting"]


def write_many(home: Path) -> None:
    for _ in range(2):
        record(home)


def test_processes_that_start_together_share_the_history(tmp_path: Path) -> None:
    processes = [PROCESSES.Process(target=write_many, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    runs = History(tmp_path).runs()
    assert len({run.id for run in runs}) == 8
    assert {run.state for run in runs} == {"done"}


def test_runs_are_found_by_id_by_its_beginning_and_as_last(tmp_path: Path) -> None:
    first, second = record(tmp_path), record(tmp_path)
    history = History(tmp_path)
    assert [run.id for run in history.runs()] == [second, first]
    assert history.run("last").id == second
    assert history.run(first).id == first
    unique = first if first[:-1] == second[:-1] else first[:-1]
    assert history.run(unique).id == first
    with pytest.raises(BadInput, match="2 runs begin with `2"):
        history.run("2")
    with pytest.raises(BadInput, match="there is no run `9"):
        history.run("9")


def test_an_empty_home_has_no_runs(tmp_path: Path) -> None:
    assert History(tmp_path).runs() == []
    (tmp_path / "slmops.db").touch()
    assert History(tmp_path).runs() == []
    with pytest.raises(BadInput, match="there is no run `last`"):
        History(tmp_path).run("last")


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    record(tmp_path)
    with sqlite3.connect(tmp_path / "slmops.db") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(SlmopsError, match="written by a newer slmops"):
        History(tmp_path).runs()


def test_keys_are_needed_by_the_kept_runs_of_each_recipe(tmp_path: Path) -> None:
    for last in ("one", "two", "three"):
        record(tmp_path, last=last)
    record(tmp_path, name="other", last="four")
    with pytest.raises(ValueError, match="boom"):
        stop_early(tmp_path)
    history = History(tmp_path)
    keys = {run.steps[-1].key: run for run in reversed(history.runs())}
    one, two, three, four, failed = keys
    assert {one, two, three, four, failed} <= history.needed_keys()
    assert history.needed_keys(keep_runs=2) >= {two, three, four, failed}
    assert one not in history.needed_keys(keep_runs=2)
    # The failed run is newer than the last success: its checkpoints are worth keeping.
    assert history.needed_keys(keep_runs=1) & {one, two, three, four, failed} == {three, four, failed}


def stop_early(home: Path) -> None:
    steps = address(chain(Path("calls"), last="five"), 7)
    with recorded(History(home), "toy", {}, steps, {}):
        raise ValueError("boom")


def test_difference_of_two_runs(tmp_path: Path) -> None:
    first = record(tmp_path, recipe={"train": {"epochs": 3, "rate": 0.1}, "tags": ["a"], "old": None})
    second = record(tmp_path, last="d", recipe={"train": {"epochs": 5, "rate": 0.1}, "tags": ["a", "b"]})
    history = History(tmp_path)
    before, after = history.run(first), history.run(second)
    difference = compare(before, after)
    assert difference.recipe == {"train.epochs": (3, 5), "old": (None, None), "tags.1": (None, "b")}
    assert difference.steps == {"c": (before.steps[2].key, after.steps[2].key)}
    assert difference.metrics == {"c": {"loss": (2, 2)}}
    assert difference.environment == {}
    same = asdict(compare(before, before))
    assert same == {"recipe": {}, "environment": {}, "steps": {}, "metrics": {}}


def test_dotted_paths_keep_empty_values() -> None:
    assert dotted({"a": {"b": [1, {"c": 2}]}, "d": [], "e": {}}) == {"a.b.0": 1, "a.b.1.c": 2, "d": [], "e": {}}
