"""`slmops runs`, `show`, `diff` and `store`."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def two_runs(slmops, recipe):
    """The ids of a run and of one with another setting."""
    path = recipe()
    return [
        json.loads(slmops("run", path, "--json", "--quiet", "--set", f"train.epochs={epochs}").stdout)["run"]
        for epochs in (3, 5)
    ]


def test_runs_lists_the_newest_first(slmops, two_runs):
    first, second = two_runs
    lines = slmops("runs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [second, first]
    assert all("toy" in line and "done" in line and line.endswith("4/4, 0 cached") for line in lines)
    assert all(len(line) <= 80 for line in lines)
    listed = json.loads(slmops("runs", "--json").stdout)["runs"]
    assert [run["id"] for run in listed] == [second, first]


def test_no_runs_is_no_error(slmops):
    done = slmops("runs")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no runs in .slmops\n")


def test_show_tells_a_run(slmops, two_runs):
    done = slmops("show", two_runs[1])
    assert done.stdout.startswith(f"{two_runs[1]}  toy: done in ")
    assert "exact_match                          0.55" in done.stdout
    assert done.stdout == slmops("show", "last").stdout
    assert json.loads(slmops("show", "last", "--json").stdout)["recipe"]["train"]["epochs"] == 5


def test_show_of_a_failed_run_says_why(slmops, recipe):
    slmops("run", recipe("bug"))
    text = slmops("show", "last").stdout
    assert "failed" in text
    assert "error    ZeroDivisionError: a bug in a stage" in text
    assert "waiting" in text


def test_an_unknown_run_is_bad_input(slmops, two_runs):
    done = slmops("show", "nope")
    assert done.returncode == 2
    assert done.stderr.endswith("hint: `slmops runs` lists them\n")


def test_diff_shows_settings_stages_and_figures(slmops, two_runs):
    text = slmops("diff", *two_runs).stdout
    assert "train.epochs                         3 → 5  (+2)" in text
    assert "exact_match                          0.53 → 0.55  (+0.02)" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    difference = json.loads(slmops("diff", *two_runs, "--json").stdout)
    assert difference["recipe"] == {"train.epochs": [3, 5]}
    assert difference["steps"].keys() == {"evaluate", "bundle", "parity", "report"}
    assert slmops("diff", "last", "last").stdout.endswith(": no difference\n")


def test_store_commands(slmops, two_runs, tmp_path):
    assert json.loads(slmops("store", "size", "--json").stdout)["artifacts"] == 8
    assert slmops("store", "size").stdout.startswith("8 artifacts")
    assert slmops("store", "gc").stdout.startswith("freed 0 artifacts")
    assert slmops("store", "gc", "--keep-runs", "1", "--dry-run").stdout.startswith("would free 4 artifacts")
    assert json.loads(slmops("store", "gc", "--keep-runs", "1", "--json").stdout)["artifacts"] == 4
    assert slmops("store", "verify", "--quiet").stdout == "every artifact is whole\n"

    victim = next((tmp_path / ".slmops" / "store").glob("*/files/table.txt"))
    victim.chmod(0o644)
    victim.write_text("tampered")
    found = slmops("store", "verify")
    assert found.returncode == 1
    assert found.stdout.startswith(f"damaged: {victim}")
    assert "slmops store verify --drop" in found.stderr
    assert slmops("store", "verify", "--drop").stdout.startswith("dropped: ")
    assert json.loads(slmops("store", "verify", "--json").stdout) == {"damaged": {}, "dropped": False}


def test_a_run_that_curated_nothing_has_no_data_card(slmops, two_runs):
    done = slmops("data-card", two_runs[0])
    assert done.returncode == 2
    assert f"the run {two_runs[0]} has made no `curate`" in done.stderr
    assert slmops("data-card", "nope").returncode == 2
