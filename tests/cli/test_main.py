"""The frame around every command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import metadata


def test_help_lists_every_command(slmops):
    done = slmops("--help")
    for name in ("init", "doctor", "run", "check", "runs", "show", "diff", "predict", "chat", "store"):
        assert f"\n  {name} " in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_help_imports_nothing_heavy():
    heavy = ("torch", "transformers", "onnxruntime", "sklearn", "pydantic", "rich", "numpy", "sqlite3")
    code = f"import sys, slmops.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_arguments_show_help(slmops):
    done = slmops()
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")


def test_version(slmops):
    assert slmops("--version").stdout == f"slmops {metadata.version('slmops')}\n"


def test_wrong_arguments_are_exit_code_2_with_a_way_on(slmops):
    for arguments in (
        ["rums"],
        ["runs", "--jsn"],
        ["run"],
        ["store"],
        ["store", "gc", "--keep-runs", "0"],
        ["--debgu"],
    ):
        done = slmops(*arguments)
        assert done.returncode == 2, arguments
        assert done.stdout == ""
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        assert hint.endswith("--help")
    assert "Did you mean 'runs'" in slmops("rums").stderr


def test_a_reader_that_leaves_is_no_traceback(toy_command, tmp_path):
    for arguments in (["runs", "--json"], ["--help"]):
        command = f"{shlex.join([*toy_command, *arguments])} | true"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stderr == ""
