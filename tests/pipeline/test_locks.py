from __future__ import annotations

import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from pipeline_toys import PROCESSES

from slmops.pipeline.locks import Held, hold, is_held


def keep(path: Path, held: Event, leave: Event) -> None:
    with hold(path):
        held.set()
        leave.wait(30)


def test_a_lock_ends_with_its_holder_even_if_it_is_killed(tmp_path: Path) -> None:
    held, leave = PROCESSES.Event(), PROCESSES.Event()
    holder = PROCESSES.Process(target=keep, args=(tmp_path / "lock", held, leave))
    holder.start()
    assert held.wait(30)
    assert is_held(tmp_path / "lock")
    assert is_held(tmp_path / "lock"), "asking changes nothing"
    with pytest.raises(Held), hold(tmp_path / "lock"):
        pass
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    assert not is_held(tmp_path / "lock")
    with hold(tmp_path / "lock"):
        pass


def test_waiting_is_announced_and_ends(tmp_path: Path) -> None:
    held, leave = PROCESSES.Event(), PROCESSES.Event()
    holder = PROCESSES.Process(target=keep, args=(tmp_path / "lock", held, leave))
    holder.start()
    assert held.wait(30)
    with hold(tmp_path / "lock", on_wait=leave.set):
        assert leave.is_set(), "it had to wait, and said so"
    holder.join()


def test_sharing(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", shared=True), hold(tmp_path / "lock", shared=True):
        assert not is_held(tmp_path / "lock"), "shared holders exclude nobody who only asks"
        with pytest.raises(Held), hold(tmp_path / "lock"):
            pass


def test_what_was_never_locked_is_free(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()
