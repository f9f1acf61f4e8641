"""A run that is killed, or whose disk fails, at any file-system step leaves a home that the next run can trust."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pipeline_toys import PROCESSES, calls_in, chain, run_chain

from slmops.errors import SlmopsError
from slmops.pipeline.history import History
from slmops.pipeline.stage import Node
from slmops.pipeline.store import Store

STEPS = {"open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"}
"""Audit events of file-system steps below a home; `os.fsync` has none."""


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: these tests sync hundreds of files."""
    shared = Path("/dev", "shm")
    with TemporaryDirectory(prefix="slmops-test-", dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


def at_step(number: int, home: Path, act: Callable[[], None]) -> None:
    """Call `act` just before the `number`-th file-system step that concerns `home`, in this process."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == number:
            act()

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event in STEPS and isinstance(arguments[0], str | os.PathLike):
            path = os.fspath(arguments[0])
            # Deleting a tree names its files relative to their folder.
            if str(path).startswith(str(home)) or event in ("os.remove", "os.rmdir"):
                step()

    fsync = os.fsync

    def counted_fsync(descriptor: int) -> None:
        step()
        fsync(descriptor)

    os.fsync = counted_fsync
    sys.addaudithook(audit)


def killed_at(number: int, home: Path, nodes: list[Node]) -> None:
    at_step(number, home, lambda: os.kill(os.getpid(), signal.SIGKILL))
    run_chain(home, nodes)


def failing_at(number: int, home: Path, nodes: list[Node]) -> None:
    """Exit code 1: an error that a user can read; 0: the step did no harm, or does not exist."""

    def fail() -> None:
        home.with_suffix(".failed").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(home))

    at_step(number, home, fail)
    try:
        run_chain(home, nodes)
    except SlmopsError as error:
        if "no space left" in str(error):
            raise SystemExit(error.exit_code) from error
        raise SystemExit(f"unclear: {error}") from error
    except BaseException as error:
        raise SystemExit(f"unexpected: {error!r}") from error


def in_process(target: Callable[..., None], *arguments: object) -> int | None:
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def check_next_run(home: Path, calls: Path, nodes: list[Node]) -> None:
    """What was whole is used, what was not is made once more, and what was interrupted goes on where it was."""
    store, before = Store(home), calls_in(calls)
    whole = set(store.whole())
    for key in whole:
        store.verify(key)

    result = run_chain(home, nodes)

    assert (result.artifacts["b"].path / "text.txt").read_text() == "ab"
    assert {made.key for made in result.artifacts.values() if made.cached} == whole
    started_before = {line.split()[0] for line in before}
    repeated = [line for line in calls_in(calls)[len(before) :] if line.split()[0] in started_before]
    assert len(repeated) <= 1, "only the interrupted stage is repeated"
    assert all(line.endswith("resumed") for line in repeated), "its work folder survived"
    for key in store.whole():
        store.verify(key)
    assert list(store.works.iterdir()) == list(store.drafts.iterdir()) == []


def room(folder: Path, number: int) -> tuple[Path, Path, list[Node]]:
    """Home, calls and nodes of one attempt."""
    calls = folder / f"{number}.calls"
    return folder / f"{number}.home", calls, chain(calls)[:2]


def test_killed_at_every_step(memory: Path) -> None:
    for number in itertools.count(1):
        home, calls, nodes = room(memory, number)
        exit_code = in_process(killed_at, number, home, nodes)
        check_next_run(home, calls, nodes)
        states = [run.state for run in History(home).runs()]
        if exit_code == 0:
            assert states == ["done", "done"]
            break
        assert exit_code == -signal.SIGKILL
        assert states in (["done", "killed"], ["done"]), "a run killed before it was recorded is not in the history"
    assert number > 60, "the run that has no such step ends by itself"


def test_a_disk_that_fails_at_every_step(memory: Path) -> None:
    said = set()
    for number in itertools.count(1):
        home, calls, nodes = room(memory, number)
        exit_code = in_process(failing_at, number, home, nodes)
        said.add(exit_code)
        check_next_run(home, calls, nodes)
        if not home.with_suffix(".failed").exists():
            break
    assert number > 60
    assert said == {0, 1}, "every failure is said in plain words"


def test_killed_at_random_moments(memory: Path) -> None:
    rng = random.Random(7)
    for number in range(12):
        home, calls, nodes = room(memory, number)
        nodes = [replace(node, settings=node.settings.model_copy(update={"pause": 0.1})) for node in nodes]
        process = PROCESSES.Process(target=run_chain, args=(home, nodes))
        process.start()
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.join()
        check_next_run(home, calls, nodes)


def test_killed_again_and_again(memory: Path) -> None:
    """The same home through one kill after another."""
    home, calls, nodes = room(memory, 0)
    for number in range(1, 200, 9):
        if in_process(killed_at, number, home, nodes) == 0:
            break
    check_next_run(home, calls, nodes)
    assert len(calls_in(calls)) < 40
