"""Pieces of work on a real Ray cluster with two worker nodes, one of which is killed midway: nothing is lost."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydantic import BaseModel

from slmops.engines import load_engine
from slmops.errors import BadInput, Interrupted
from slmops.pipeline.away import AwayExecutor
from slmops.pipeline.cluster import on_ray
from slmops.pipeline.run import run_graph
from slmops.pipeline.stage import Context, Node, one_by_one
from slmops.progress import Silent
from slmops.tasks import from_description
from slmops.teach.label import label_pool, label_pool_by
from tests.conftest import PAIRS
from tests.ray_cluster import cluster, ends

__all__ = ["cluster", "ends"]

ray = pytest.importorskip("ray", reason="it is installed apart: pip install 'slmops[ray]'")

TASK = {"kind": "generation", "instruction": None, "max_answer_tokens": 24}


def slow(text: str) -> str:
    """Leaves a mark of each time that it begins, and where; one with a gate ends once that is there.

    The mark holds the process.
    """
    asked = json.loads(text)
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"
    (Path(asked["marks"]) / f"{asked['number']}-{node}-{uuid.uuid4().hex}").write_text(str(os.getpid()))
    while asked["gate"] and not Path(asked["gate"]).exists():
        time.sleep(0.01)
    return str(asked["number"] ** 2)


def begun(marks: Path, node: str) -> dict[int, int]:
    """The pieces that have begun on a node, with their processes."""
    found = {int(path.name.partition("-")[0]): path.read_text() for path in marks.glob(f"*-{node}-*")}
    return {number: int(process) for number, process in found.items() if process}


def lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ends_soon(process: int) -> bool:
    """Whether the process is gone within ten seconds."""
    until = time.monotonic() + 10
    while lives(process) and time.monotonic() < until:
        time.sleep(0.01)
    return not lives(process)


def refuses(_text: str) -> str:
    raise BadInput("the piece is wrong", hint="mend it")


def test_a_node_that_is_killed_loses_nothing(cluster, tmp_path):
    made, nodes = cluster
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    marks.mkdir()
    items = [
        json.dumps({"number": number, "marks": str(marks), "gate": str(gate) if number > 3 else None})
        for number in range(10)
    ]
    came, before = {}, set[int]()
    for number, result in on_ray("tests.pipeline.test_cluster:slow", items):
        came[number] = result
        if len(came) == 4:
            before, lost = set(came), nodes.pop()
            while not begun(marks, lost.node_id).keys() - before:
                time.sleep(0.01)
            made.remove_node(lost, allow_graceful=False)
            # Its processes end a little later: until then what they have begun is held.
            while any(map(lives, begun(marks, lost.node_id).values())):
                time.sleep(0.01)
            gate.touch()
    assert came == {number: str(number**2) for number in range(10)}
    times = Counter(int(path.name.partition("-")[0]) for path in marks.iterdir())
    assert all(times[number] == 1 for number in before)
    assert max(times.values()) == 2


def test_the_pool_is_answered_on_a_cluster_as_here(cluster, tiny, tmp_path):
    rows = [{"id": f"r{n}", "input": text} for n, text in enumerate([*PAIRS, *(text[:9] for text in PAIRS)])]
    task, asked = from_description(TASK), {"batch": 3, "top_logits": 4}
    engine = load_engine("transformers", tiny.folder, threads=1)
    here = label_pool(engine, tiny.tokenizer, task, rows, work=tmp_path / "here", **asked)
    kept: list[int] = []

    def counted(function: str, items: list[str]) -> Iterator[tuple[int, str]]:
        kept.append(len(items))
        return on_ray(function, items)

    by = ("transformers", tiny.folder, tiny.tokenizer, task, rows)
    for _ in range(2):
        there = label_pool_by(counted, *by, work=tmp_path / "there", **asked)
    assert kept == [3, 0]
    for ours, theirs in zip(there, here, strict=True):
        assert (ours.id, ours.text) == (theirs.id, theirs.text)
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_allclose(ours.top_log_probs, theirs.top_log_probs, atol=1e-5)


def test_what_a_piece_raises_is_raised_here(cluster):
    with pytest.raises(BadInput, match="the piece is wrong") as told:
        list(on_ray("tests.pipeline.test_cluster:refuses", ["a"]))
    assert told.value.hint == "mend it"


def test_here_they_are_done_one_by_one(tmp_path):
    items = [json.dumps({"number": number, "marks": str(tmp_path), "gate": None}) for number in range(2)]
    assert list(one_by_one("tests.pipeline.test_cluster:slow", items)) == [(0, "0"), (1, "1")]


class Watched:
    """Leaves a mark of its process, is looked at, and goes on until it is ended or refuses."""

    name = "watched"
    version = 1
    libraries = ("pydantic",)

    def run(self, inputs: Mapping[str, Path], settings: Refusing, context: Context) -> Mapping[str, float | str]:
        assert not inputs
        (context.work / "process").write_text(str(os.getpid()))
        context.progress.note("at work")
        if settings.refuses:
            raise BadInput("the rows are wrong", hint="mend them")
        context.evaluated(1, 0.5)
        while True:
            time.sleep(0.01)


class Refusing(BaseModel):
    refuses: bool


class Noting(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(("refuses", "kind"), [(False, Interrupted), (True, BadInput)])
def test_work_away_is_ended_by_who_looks_on_and_by_what_it_raises(cluster, tmp_path, refuses, kind):
    def enough(evaluations: int, loss: float) -> None:
        raise Interrupted("enough", hint=f"{evaluations} {loss}")

    told = Noting()
    node = Node("watched", Watched, Refusing(refuses=refuses))
    with pytest.raises(kind) as error:
        run_graph(
            [node],
            name="away",
            resolved_recipe={},
            seed=1,
            home=tmp_path,
            progress=told,
            executor=AwayExecutor(1, 0, enough),
        )
    assert error.value.hint == ("mend them" if refuses else "1 0.5")
    assert "at work" in told.notes
    (mark,) = (tmp_path / "work").glob("*/process")
    # Its lock is free a moment before the process is gone; one that went on would never be.
    assert refuses or ends_soon(int(mark.read_text()))
