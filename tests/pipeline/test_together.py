"""Processes that do a stage's work together: what they say comes here, and where one ends all end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import BaseModel

from slmops.errors import BadInput, Interrupted, SlmopsError
from slmops.pipeline.executor import LocalExecutor
from slmops.pipeline.job import Job, import_path
from slmops.pipeline.run import run_graph
from slmops.pipeline.stage import Context, Helped, Node
from slmops.progress import Silent


class Several(BaseModel):
    processes: int = 2
    second: str = "helps"
    """What the second process does."""


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Both:
    """The first writes down who the others are; what the second does is told."""

    name = "both"
    version = 1
    libraries = ("pydantic",)

    def run(self, inputs: Mapping[str, Path], settings: Several, context: Context) -> Mapping[str, float | str]:
        assert not inputs
        rank = int(os.environ["RANK"])
        (context.work / f"process-{rank}").write_text(str(os.getpid()))
        if rank:
            context.progress.note("nobody hears this")
            return second(settings.second)
        context.progress.note(f"{os.environ['WORLD_SIZE']} of us")
        with context.progress.task("work", 3, "steps") as task:
            task.advance(2, loss=0.5)
        context.evaluated(1, 0.25)
        while settings.second != "helps":
            time.sleep(0.01)
        (context.out / "made").write_text("by the first")
        return {"rank": rank}


def second(what: str) -> Mapping[str, float | str]:
    if what == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "refuses":
        raise BadInput("the row is wrong", hint="mend it")
    if what == "breaks":
        raise ValueError("a bug")
    while what == "waits":
        time.sleep(0.01)
    raise Helped


def both(tmp_path: Path, what: str = "helps", **given: Any) -> Any:
    node = Node("both", Both, Several(second=what))
    return run_graph([node], name="both", resolved_recipe={}, seed=1, home=tmp_path, **given)


def ended(home: Path) -> bool:
    marks = list((home / "work").glob("*/process-*"))
    assert marks
    return not any(psutil.pid_exists(int(mark.read_text())) for mark in marks)


def test_what_the_first_says_comes_here_and_what_it_makes_counts(tmp_path: Path) -> None:
    told, seen = Noting(), list[tuple[int, float]]()
    made = both(tmp_path, progress=told, executor=LocalExecutor(evaluated=lambda *what: seen.append(what)))
    assert (made.artifacts["both"].path / "made").read_text() == "by the first"
    assert made.artifacts["both"].metrics == {"rank": 0}
    assert "2 of us" in told.notes
    assert "nobody hears this" not in told.notes
    assert seen == [(1, 0.25)]


@pytest.mark.parametrize(
    ("what", "kind", "told", "hint"),
    [
        ("is killed", SlmopsError, r"process 2 of 2 that worked together was killed \(SIGKILL\)", "goes on"),
        ("refuses", BadInput, "the row is wrong", "mend it"),
        ("breaks", SlmopsError, "process 2 of 2 that worked together stopped unexpectedly", "process-2.log"),
    ],
)
def test_where_one_ends_all_end(tmp_path: Path, what: str, kind: type[SlmopsError], told: str, hint: str) -> None:
    with pytest.raises(kind, match=told) as error:
        both(tmp_path, what)
    assert hint in (error.value.hint or "")
    assert ended(tmp_path)
    if what == "breaks":
        (log,) = (tmp_path / "work").glob("*/together/process-2.log")
        assert "ValueError: a bug" in log.read_text()


def test_who_looks_on_may_end_them(tmp_path: Path) -> None:
    def enough(evaluations: int, loss: float) -> None:
        raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        both(tmp_path, "waits", executor=LocalExecutor(evaluated=enough))
    assert ended(tmp_path)


def test_one_is_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    job = Job(
        import_path(Both), import_path(Several), Several(processes=1).model_dump_json(), {}, *3 * [str(tmp_path)], 1
    )
    assert LocalExecutor().run(job, Noting(), None) == {"rank": 0}  # type: ignore[arg-type]
    assert (tmp_path / "process-0").read_text() == str(os.getpid())
