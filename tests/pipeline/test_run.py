from __future__ import annotations

import ctypes
import logging
import os
import resource
import signal
import struct
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pipeline_toys import PROCESSES, Toy, ToySettings, calls_in, chain, run_chain
from pydantic import BaseModel

from slmops.errors import BadInput, Interrupted, SlmopsError
from slmops.pipeline.executor import LocalExecutor
from slmops.pipeline.history import History
from slmops.pipeline.job import Job
from slmops.pipeline.run import plan_graph, run_graph
from slmops.pipeline.stage import Context, Node
from slmops.pipeline.store import Store
from slmops.pipeline.upkeep import verify
from slmops.progress import Progress, Silent


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Nothing(BaseModel):
    pass


def test_a_graph_becomes_its_artifacts(home: Path, calls: Path) -> None:
    notes = Notes()
    result = run_chain(home, chain(calls), progress=notes)
    assert (result.artifacts["c"].path / "text.txt").read_text() == "aabc"
    assert result.artifacts["c"].metrics == {"length": 4}
    assert [made.cached for made in result.artifacts.values()] == [False] * 3
    assert calls_in(calls) == ["a fresh", "b fresh", "c fresh"]
    assert result.exit_code == 0
    assert [line.split()[0] for line in notes.lines] == [
        "run",
        "[1/3]",
        "[1/3]",
        "[2/3]",
        "[2/3]",
        "[3/3]",
        "[3/3]",
        "run",
    ]
    log = result.log.read_text()
    assert "toy a: 10 of 10 steps" in log
    assert all(line in log for line in notes.lines)
    (run,) = History(home).runs()
    assert (run.id, run.state, run.exit_code) == (result.id, "done", 0)
    assert run.environment["versions"].keys() == {"slmops", "pydantic"}
    assert [step.key for step in run.steps] == [made.key for made in result.artifacts.values()]


def test_again_nothing_runs(home: Path, calls: Path) -> None:
    first = run_chain(home, chain(calls))
    notes = Notes()
    again = run_chain(home, chain(calls), progress=notes)
    assert [made.cached for made in again.artifacts.values()] == [True] * 3
    assert again.artifacts["c"].path == first.artifacts["c"].path
    assert again.artifacts["c"].metrics == first.artifacts["c"].metrics
    assert len(calls_in(calls)) == 3
    assert [line.split()[-1] for line in notes.lines[1:-1]] == ["cached"] * 3


def test_a_change_runs_what_depends_on_it(home: Path, calls: Path) -> None:
    run_chain(home, chain(calls))
    assert [planned.cached for planned in plan_graph(chain(calls, last="d"), seed=7, home=home)] == [True, True, False]
    run_chain(home, chain(calls, last="d"))
    assert calls_in(calls)[3:] == ["d fresh"]


def test_planning_writes_nothing(home: Path, calls: Path) -> None:
    planned = plan_graph(chain(calls), seed=7, home=home)
    assert [(step.node, step.stage, step.cached) for step in planned] == [(n, "toy", False) for n in "abc"]
    assert not home.exists()


def test_sources_are_handed_over_by_their_path(home: Path, calls: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("rows ")
    node = Node("n", Toy, ToySettings(text="n", calls=calls), sources={"data": tmp_path / "rows"})
    assert (run_chain(home, [node]).artifacts["n"].path / "text.txt").read_text() == "rows n"


def test_a_failure_keeps_what_was_done(home: Path, calls: Path) -> None:
    good, bad = chain(calls), chain(calls)
    bad[1] = replace(bad[1], settings=ToySettings(text="b", calls=calls, error="a bug"))
    with pytest.raises(ValueError, match="a bug") as error:
        run_chain(home, bad)
    run = History(home).run("last")
    assert (run.state, run.exit_code, run.error) == ("failed", 1, "ValueError: a bug")
    assert [step.state for step in run.steps] == ["done", "failed", "waiting"]
    log = home / "runs" / run.id / "run.log"
    assert error.value.__notes__ == [f"in stage `b`; log: {log}"]
    assert "Traceback" in log.read_text()
    assert not any((home / "tmp").iterdir())
    run_chain(home, good)
    assert calls_in(calls) == ["a fresh", "b fresh", "b fresh", "c fresh"], "another setting, another work folder"


def test_a_graph_that_is_none_leaves_no_trace(home: Path, calls: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        run_chain(home, [Node("a", Toy, ToySettings(text="a", calls=calls), inputs={"x": "nowhere"})])
    assert not home.exists()


def test_a_damaged_artifact_is_made_again(home: Path, calls: Path) -> None:
    result = run_chain(home, chain(calls))
    victim = result.artifacts["b"].path / "text.txt"
    victim.unlink()
    notes = Notes()
    assert not plan_graph(chain(calls), seed=7, home=home)[1].cached
    again = run_chain(home, chain(calls), progress=notes)
    assert [made.cached for made in again.artifacts.values()] == [True, False, True]
    assert f"{victim} is missing: making it again" in notes.lines
    assert victim.read_text() == "ab"


class Edits:
    """Edits its own source while it runs."""

    name = "edits"
    version = 1
    libraries = ()

    def run(self, inputs: Mapping[str, Path], _settings: Nothing, _context: Context) -> Mapping[str, float | str]:
        inputs["data"].write_text("edited")
        return {}


def test_a_source_that_changes_under_a_stage_spoils_it(home: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("as they were")
    with pytest.raises(SlmopsError, match="rows changed while `n` read it"):
        run_chain(home, [Node("n", Edits, Nothing(), sources={"data": tmp_path / "rows"})])
    assert Store(home).whole() == []


class Keyed(Nothing):
    def check_surroundings(self) -> None:
        if not os.environ.get("TOY_KEY"):
            raise BadInput("the key is missing")


def test_what_a_later_stage_needs_is_looked_for_before_the_first_one_runs(
    home: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [*chain(calls), Node("judge", Judges, Keyed(), inputs={"c": "c"})]
    for refused in (run_chain, lambda home, nodes: plan_graph(nodes, seed=1, home=home)):
        with pytest.raises(BadInput, match="the key is missing"):
            refused(home, nodes)
    assert not calls.exists()
    monkeypatch.setenv("TOY_KEY", "secret")
    run_chain(home, nodes)
    monkeypatch.delenv("TOY_KEY")
    assert run_chain(home, nodes).artifacts["judge"].cached, "what is made needs no key"


class Judges:
    name = "judges"
    version = 1
    libraries = ()

    def run(self, _inputs: Mapping[str, Path], _settings: Nothing, context: Context) -> Mapping[str, float | str]:
        states = ("pass", "fail", "not enough evidence")
        lines = [f'{{"state": "{state}", "message": "it is {state}"}}' for state in states]
        (context.out / "gates.json").write_text(f"[{', '.join(lines)}]")
        return {"gates_failed": 2}


def test_a_failed_gate_gives_exit_code_3_each_time(home: Path) -> None:
    for cached in (False, True):
        result = run_chain(home, [Node("evaluate", Judges, Nothing())])
        assert result.artifacts["evaluate"].cached == cached
        assert result.failed_gates == ("it is fail", "it is not enough evidence (not enough evidence)")
        assert result.exit_code == History(home).run("last").exit_code == 3
        assert History(home).run("last").state == "done"


def test_a_failed_gate_of_one_of_several_names_it(home: Path) -> None:
    result = run_chain(home, [Node("evaluate:one", Judges, Nothing()), Node("evaluate:two", Judges, Nothing())])
    assert result.failed_gates[::2] == ("one: it is fail", "two: it is fail")


class Elsewhere:
    """An executor that does the work in another process, from the job alone."""

    def run(self, job: Job, _progress: Progress, _log: logging.Logger) -> Mapping[str, float | str]:
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=work, args=(job, theirs))
        process.start()
        metrics: Mapping[str, float | str] = ours.recv()
        process.join()
        return metrics


def work(job: Job, reply) -> None:
    reply.send(dict(LocalExecutor().run(job, Silent(), logging.getLogger())))


def test_a_stage_runs_in_another_process_unchanged(home: Path, calls: Path) -> None:
    result = run_chain(home, chain(calls), executor=Elsewhere())
    assert (result.artifacts["c"].path / "text.txt").read_text() == "aabc"
    assert result.artifacts["c"].metrics == {"length": 4}


def test_a_stage_that_cannot_be_addressed_is_refused(home: Path) -> None:
    class Local(Toy):
        pass

    with pytest.raises(SlmopsError, match="is defined inside a function"):
        run_chain(home, [Node("a", Local, ToySettings(text="a", calls=Path("calls")))])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_recorded_and_goes_on(home: Path, calls: Path, number: signal.Signals) -> None:
    nodes = chain(calls, pause=0.5)
    process = PROCESSES.Process(target=run_to_exit, args=(home, nodes))
    process.start()
    wait_for(lambda: len(calls_in(calls)) == 2)
    os.kill(process.pid or 0, number)
    process.join()
    assert process.exitcode == Interrupted.exit_code
    run = History(home).run("last")
    assert (run.state, run.exit_code) == ("interrupted", 130)
    assert [step.state for step in run.steps] == ["done", "interrupted", "waiting"]
    assert not any((home / "tmp").iterdir())
    run_chain(home, nodes)
    assert calls_in(calls) == ["a fresh", "b fresh", "b resumed", "c fresh"]


def run_to_exit(home: Path, nodes: list[Node]) -> None:
    """Exits with the code of what happened."""
    try:
        raise SystemExit(run_chain(home, nodes).exit_code)
    except SlmopsError as error:
        raise SystemExit(error.exit_code) from error


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_sigterm_means_again_what_it_meant_before(home: Path, calls: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run_chain(home, chain(calls))
    assert signal.getsignal(signal.SIGTERM) is before
    assert logging.getLogger("slmops").handlers == []


def run_and_tell(home: Path, nodes: list[Node], reply) -> None:
    notes = Notes()
    result = run_chain(home, nodes, progress=notes)
    reply.send(({name: made.cached for name, made in result.artifacts.items()}, notes.lines))


def test_two_runs_at_once_share_the_work(home: Path, calls: Path) -> None:
    nodes = chain(calls, pause=0.3)
    pipes = [PROCESSES.Pipe() for _ in range(2)]
    processes = [PROCESSES.Process(target=run_and_tell, args=(home, nodes, theirs)) for _, theirs in pipes]
    for process in processes:
        process.start()
    (first, first_notes), (second, second_notes) = (ours.recv() for ours, _ in pipes)
    for process in processes:
        process.join()
    assert sorted(calls_in(calls)) == ["a fresh", "b fresh", "c fresh"]
    assert {node: first[node] + second[node] for node in first} == {"a": 1, "b": 1, "c": 1}, "made by one of them"
    assert "another run is making `a`; waiting" in first_notes + second_notes
    assert [run.state for run in History(home).runs()] == ["done", "done"]


def limited(home: Path, nodes: list[Node]) -> None:
    """No file may grow over 200 kB, as on a disk that is nearly full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    with pytest.raises(SlmopsError, match="no space left for") as error:
        run_chain(home, nodes)
    raise SystemExit(error.value.exit_code)


def test_a_full_disk_is_named_and_nothing_half_written_stays(home: Path, calls: Path) -> None:
    nodes = chain(calls)
    nodes[1] = replace(nodes[1], settings=ToySettings(text="b", calls=calls, size=1_000_000))
    process = PROCESSES.Process(target=limited, args=(home, nodes))
    process.start()
    process.join()
    assert process.exitcode == 1
    run = History(home).run("last")
    assert (run.state, [step.state for step in run.steps]) == ("failed", ["done", "failed", "waiting"])
    assert Store(home).whole() == [run.steps[0].key]
    assert not any((home / "tmp").iterdir())
    run_chain(home, nodes)
    assert calls_in(calls) == ["a fresh", "b fresh", "b resumed", "c fresh"]


def read_only(home: Path, nodes: list[Node]) -> None:
    """As somebody for whom permissions count, which is not so for a root with its capabilities."""
    version_3, of_this_thread = 0x20080522, 0
    ctypes.CDLL(None).capset(struct.pack("Ii", version_3, of_this_thread), bytes(24))
    with pytest.raises(BadInput, match="cannot write below") as error:
        run_chain(home, nodes)
    assert [run.state for run in History(home).runs()] == ["done"], "reading works"
    assert all(step.cached for step in plan_graph(nodes, seed=7, home=home))
    assert verify(home) == {}
    raise SystemExit(error.value.exit_code)


def test_a_read_only_home_is_named_and_can_be_read(home: Path, calls: Path) -> None:
    run_chain(home, chain(calls))
    paths = [home, *home.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    process = PROCESSES.Process(target=read_only, args=(home, chain(calls)))
    process.start()
    process.join()
    for path in paths:
        path.chmod(0o755)
    assert process.exitcode == 2
    assert [run.state for run in History(home).runs()] == ["done"]


def test_a_home_that_is_a_file_is_named(tmp_path: Path, calls: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(BadInput, match="cannot write below"):
        run_chain(tmp_path / "home", chain(calls))


def test_the_seed_reaches_the_stage_and_the_key(home: Path, calls: Path) -> None:
    keys = [
        run_graph(chain(calls), name="toy", resolved_recipe={}, seed=seed, home=home).artifacts["a"].key
        for seed in (1, 2)
    ]
    assert keys[0] != keys[1]
    assert len(calls_in(calls)) == 6
