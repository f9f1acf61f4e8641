"""`slmops run` and `slmops check`."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

TABLE = "model    exact match\nshipped  0.5\n"


def test_run_prints_the_table_and_nothing_else_on_stdout(slmops, recipe, tmp_path):
    done = slmops("run", recipe())
    assert (done.returncode, done.stdout) == (0, TABLE)
    assert "[1/4] evaluate" in done.stderr
    assert (tmp_path / ".slmops" / "slmops.db").is_file()
    assert (tmp_path / "bundles" / "toy").is_dir()
    again = slmops("run", recipe(), "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, TABLE, "")
    elsewhere = slmops("run", recipe(), "--home", "elsewhere")
    assert "cached" not in elsewhere.stderr


def test_run_for_machines(slmops, recipe):
    done = slmops("run", recipe(), "--json", "--set", "train.epochs=5")
    answer = json.loads(done.stdout)
    assert (answer["state"], answer["exit_code"], answer["recipe"]) == ("done", 0, "toy")
    assert answer["metrics"]["evaluate"] == {"exact_match": 0.55, "gates_failed": 0}
    assert answer["steps"].keys() == {"evaluate", "bundle", "parity", "report"}
    assert Path(answer["log"]).read_text()
    assert slmops("show", answer["run"]).returncode == 0


def test_a_failed_gate_is_exit_code_3_and_says_which_figure_by_how_much(slmops, recipe, tmp_path):
    done = slmops("run", recipe("gate"))
    assert (done.returncode, done.stdout) == (3, TABLE)
    assert "error: exact_match_kept: 0.900 is 0.020 below 0.92" in done.stderr
    assert not (tmp_path / "bundles").exists()
    assert json.loads(slmops("run", recipe("gate"), "--json").stdout)["exit_code"] == 3


def test_every_gate_that_does_not_pass_is_a_line(slmops, recipe):
    done = slmops("run", recipe("unclear"), "--quiet")
    assert done.returncode == 3
    assert done.stderr.splitlines()[:3] == [
        "error: 2 gates do not pass",
        "  same_text: 12 rows; 30 are needed (not enough evidence)",
        "  field_f1: 0.100 is 0.800 below 0.9",
    ]
    assert len(json.loads(slmops("run", recipe("unclear"), "--json").stdout)["failed_gates"]) == 2


@pytest.mark.parametrize(("name", "code", "failed"), [("toy", 0, 0), ("gate", 3, 1), ("unclear", 3, 2)])
def test_the_files_for_ci_are_written_whether_gates_pass_or_not(slmops, recipe, tmp_path, name, code, failed):
    (tmp_path / "out").mkdir()
    for _ in ("made", "cached"):
        done = slmops("run", recipe(name), "--junit", "out/gates.xml", "--summary", "out/summary.md")
        assert (done.returncode, done.stdout) == (code, TABLE)
        assert (tmp_path / "out/gates.xml").read_text() == f"<testsuites failures='{failed}'/>"
        assert (tmp_path / "out/summary.md").read_text() == f"## {failed} gates do not pass\n"
        (tmp_path / "out/gates.xml").unlink()


@pytest.mark.parametrize("option", ["--junit", "--summary"])
def test_files_that_cannot_be_written_are_told_before_the_run(slmops, recipe, tmp_path, option):
    for path, problem in (("nowhere/x", "its folder is missing"), (".", "it is a folder")):
        done = slmops("run", recipe(), option, path)
        assert (done.returncode, done.stdout) == (2, "")
        assert problem in done.stderr
    dry = slmops("run", recipe(), "--dry-run", option, "x")
    assert dry.returncode == 2
    assert "--dry-run makes no result" in dry.stderr
    assert not (tmp_path / ".slmops").exists()


def test_a_bug_is_one_line_and_a_log(slmops, recipe):
    done = slmops("run", recipe("bug"), "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: unexpected ZeroDivisionError: a bug in a stage (in stage `evaluate`; log: ")
    assert hint == "hint: run again with --debug for the traceback"
    log = Path(error.rpartition("log: ")[2].rstrip(")"))
    assert "ZeroDivisionError" in log.read_text()
    for arguments in (["--debug", "run", recipe("bug")], ["run", recipe("bug"), "--debug"]):
        debugged = slmops(*arguments)
        assert debugged.returncode == 1
        assert "Traceback" in debugged.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_exit_code_130_without_a_traceback(slmops, toy_command, recipe, tmp_path, number):
    process = subprocess.Popen(
        [*toy_command, "run", str(recipe("slow"))], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "[1/4] evaluate" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(0.1)
    process.send_signal(number)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert rest.splitlines() == [
        "error: interrupted; the state is saved",
        "hint: the same command goes on from there",
    ]
    assert "interrupted" in slmops("runs").stdout


def test_dry_run_prints_the_resolved_recipe_and_what_is_cached(slmops, recipe, tmp_path):
    path = recipe()
    done = slmops("run", path, "--dry-run", "--set", "train.epochs=7")
    document, _, stages = done.stdout.partition("\n\n")
    assert yaml.safe_load(document)["train"]["epochs"] == 7
    assert [line.split()[:3] for line in stages.splitlines()] == [
        [node, "would", "run"] for node in ("evaluate", "bundle", "parity", "report")
    ]
    assert not (tmp_path / ".slmops").exists()
    slmops("run", path)
    steps = json.loads(slmops("run", path, "--dry-run", "--json").stdout)["steps"]
    assert [step["cached"] for step in steps] == [True] * 4


def test_check_says_ok_or_why_not(slmops, recipe, tmp_path):
    done = slmops("check", recipe())
    assert (done.returncode, done.stdout) == (0, "OK: toy (classification), 4 stages, 0 of them cached\n")
    assert json.loads(slmops("check", recipe(), "--json").stdout)["valid"] is True
    wrong = slmops("check", recipe(), "--set", "train.epoch=1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "train.epochs" in wrong.stderr
    missing = slmops("check", "nowhere.yaml")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: nowhere.yaml")
    assert not (tmp_path / ".slmops").exists()


def test_a_home_that_cannot_be_written_is_exit_code_2(slmops, recipe, tmp_path):
    (tmp_path / "file").touch()
    done = slmops("run", recipe(), "--home", "file")
    assert done.returncode == 2
    assert "error: cannot write below" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def buying(recipe) -> Path:
    """A recipe whose teacher is to be paid."""
    path = recipe("toy")
    teacher = {"kind": "endpoint", "base_url": "https://api.example.com/v1", "model": "big-1"}
    teacher |= {"price": {"input_usd": 2.0, "output_usd": 10.0}}
    written = yaml.safe_load(path.read_text()) | {"teachers": [teacher], "student": {"model": "wheel:none"}}
    path.write_text(yaml.safe_dump(written))
    return path


def test_a_run_that_buys_is_refused_where_nobody_can_be_asked_and_yes_lets_it(slmops, buying, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    refused = slmops("run", buying)
    assert refused.returncode == 2
    assert "this run buys answers: big-1 at api.example.com: " in refused.stderr
    assert " USD\nhint: give --yes if it may" in refused.stderr
    assert slmops("run", buying, "--yes").returncode == 0


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2)])
def test_a_person_is_asked_before_anything_is_bought(slmops, buying, monkeypatch, answer, code):
    stdin = io.StringIO(f"{answer}\n")
    stdin.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", stdin)
    done = slmops("run", buying)
    assert done.returncode == code
    assert "buy them?" in done.stderr


def test_a_dry_run_says_what_would_be_bought(slmops, buying):
    buys = json.loads(slmops("run", buying, "--dry-run", "--json").stdout)["buys"]
    assert 0 < buys["questions"] <= buys["rows"]
    # No token is less than a byte, so this bounds it from above; a message of the sample has some dozens.
    assert buys["rows"] * 512 < buys["max_tokens"] < buys["rows"] * 2000
    assert buys["max_usd"] == pytest.approx(buys["max_tokens"] * 2e-6, rel=0.5)
    assert "would ask big-1 at api.example.com" in slmops("run", buying, "--dry-run").stdout


def test_what_is_free_needs_no_leave(slmops, buying):
    assert slmops("run", buying, "--set", "teachers.0.price={input_usd: 0, output_usd: 0}").returncode == 0
