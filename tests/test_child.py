"""A child ends with its parent, even when that is killed; until then it is a program like any other."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slmops import child


def is_alive(process_id: int) -> bool:
    stat = Path("/proc", str(process_id), "stat")
    # A dead process that nobody has waited for is a zombie, `Z`.
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for_end_of(process_id: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(process_id) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_alive(process_id)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path, for programs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_it_runs_a_module_with_its_arguments_output_and_exit_status(module):
    (module / "program.py").write_text("import sys; print(__name__, sys.argv[1:]); sys.exit(7)")
    done = subprocess.run(child.command("program", "--option", "a b"), capture_output=True, text=True)
    assert done.stdout == "__main__ ['--option', 'a b']\n"
    assert done.returncode == 7


PARENT = """
import subprocess, sys, time
from slmops import child
process = subprocess.Popen(child.command("program"), stdout=subprocess.PIPE, text=True)
print(process.pid, process.stdout.readline().strip(), flush=True)
time.sleep(60)
"""


def test_it_ends_when_its_parent_is_killed(module):
    (module / "program.py").write_text("import time; print('ready', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        process_id, ready = (parent.stdout or sys.stdin).readline().split()
        assert ready == "ready"
        assert is_alive(int(process_id))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_for_end_of(int(process_id), seconds=10)


def test_it_does_not_begin_when_its_parent_is_gone_already(module):
    (module / "program.py").write_text("print('begun')")
    command = child.command("program")
    command[3] = "1"  # as if another process, long gone, had started it
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
