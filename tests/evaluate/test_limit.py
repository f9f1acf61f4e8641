"""A process that takes more memory than it may."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from slmops.evaluate.limit import DoesNotFit, keep_below

TAKES = "import time; held = bytearray({bytes}); print('taken', flush=True); time.sleep({seconds})"


def start(megabytes: int, seconds: float) -> subprocess.Popen[str]:
    code = TAKES.format(bytes=megabytes * 10**6, seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_it_is_ended_and_that_is_said():
    begun = time.monotonic()
    with (
        start(150, 60) as process,
        pytest.raises(DoesNotFit, match="it takes more than 60 MB"),
        keep_below(60, process),
    ):
        pass
    assert process.returncode == -9
    assert time.monotonic() - begun < 30, "it would have slept on"


@pytest.mark.parametrize(("takes", "bound"), [(20, 200), (150, None)])
def test_what_stays_below_is_left_alone(takes, bound):
    with start(takes, 0.2) as process, keep_below(bound, process):
        assert process.stdout is not None
        assert process.stdout.read() == "taken\n"
    assert process.returncode == 0


def test_an_error_inside_is_not_hidden():
    with start(20, 60) as process:
        with pytest.raises(KeyError), keep_below(200, process):
            _end_and_fail(process)
        assert process.returncode == -9


def _end_and_fail(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    raise KeyError
