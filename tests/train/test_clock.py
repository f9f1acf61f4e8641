"""What a training takes: its steps count, and nothing between them."""

from __future__ import annotations

import pytest

from slmops.train import clock as module
from slmops.train.clock import Clock


def test_what_lies_between_two_steps_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"monotonic": 100.0, "process_time": 7.0}
    for name in now:
        monkeypatch.setattr(module.time, name, lambda name=name: now[name])

    def passes(seconds: float, cpu_seconds: float) -> None:
        now["monotonic"] += seconds
        now["process_time"] += cpu_seconds

    clock = Clock(10.0, 20.0)
    passes(2, 3)
    clock.end()
    passes(50, 60)
    clock.begin()
    passes(1, 2)
    clock.end()
    taken = clock.taken()
    assert (taken["seconds"], taken["cpu_seconds"]) == (13.0, 25.0)
    assert taken["rss_bytes"] > 1e6
