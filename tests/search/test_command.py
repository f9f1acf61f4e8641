"""`slmops compress` as a process of its own, on a model that answers all rows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from slmops.data.read import write_jsonl
from tests.conftest import Tiny
from tests.tiny_task import SCHEMA

pytestmark = pytest.mark.timeout(600)
Done = subprocess.CompletedProcess[str]


class Project(NamedTuple):
    folder: Path
    model: Path

    def command(self, *more: str, rows: str = "rows.jsonl") -> list[str]:
        told = ["--data", rows, "--task", "extraction", "--schema", "schema.json", "--label", "intent"]
        tried = ["--try", "precision=int8,fp32", "--minimise", "size"]
        return [sys.executable, "-m", "slmops.cli.main", "compress", str(self.model), *told, *tried, *more]

    def run(self, *more: str, rows: str = "rows.jsonl") -> Done:
        command = self.command(*more, rows=rows)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)

    def kept(self) -> dict[str, int]:
        """Every whole artifact, and when it was made."""
        return {path.parent.name: path.stat().st_mtime_ns for path in self.folder.glob(".slmops/store/*/manifest.json")}


def write_rows(path: Path, tiny: Tiny, count: int) -> None:
    pairs = [(text, json.loads(answer)) for text, answer in tiny.pairs.items()]
    write_jsonl(path, [{"id": str(i), "input": pairs[i % 4][0], "output": pairs[i % 4][1]} for i in range(count)])


@pytest.fixture(scope="module")
def project(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("compress")
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    write_rows(folder / "rows.jsonl", tiny, 500)
    write_rows(folder / "few.jsonl", tiny, 60)
    return Project(folder, tiny.folder)


@pytest.fixture(scope="module")
def killed(project: Project) -> dict[str, int]:
    """What was whole when the command was killed amid its candidates."""
    process = subprocess.Popen(project.command(), cwd=project.folder, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "screen:int8" in line and "done" in line:
            break
    time.sleep(0.3)
    process.kill()
    process.communicate()
    return project.kept()


@pytest.fixture(scope="module")
def finished(project: Project, killed: dict[str, int]) -> Done:
    return project.run()


def test_after_a_kill_no_candidate_is_made_again(project, killed, finished):
    assert finished.returncode == 0, finished.stderr
    assert len(killed) >= 6
    assert {key: made for key, made in project.kept().items() if key in killed} == killed


def test_the_table_fits_the_terminal_and_says_what_ships(finished):
    lines = finished.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:2] == ["400", "rows"]
    assert "> int8: within the bound" in lines
    assert any(line.startswith("* fp32") or line.startswith("  fp32") for line in lines)


def test_the_model_and_its_evidence_lie_where_they_were_wanted(project, finished):
    place = project.folder / "compressed" / project.model.name
    assert finished.stderr.splitlines()[-1] == f"written to compressed/{project.model.name}"
    assert {"model", "front.json", "report.html", "report.json"} == {path.name for path in place.iterdir()}
    assert json.loads((place / "front.json").read_text())["ships"] == "int8"
    page = (place / "report.html").read_text()
    assert "Compression" in page
    assert "int8" in page


def test_too_few_rows_end_with_3_and_the_number_that_would_do(project, finished):
    done = project.run("--json", "-q", "--out", "few", rows="few.jsonl")
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["proven"] is False
    assert "rows would decide" in done.stderr
    assert (project.folder / "few" / "model" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--device", "memory=1TB"], "--device memory=1TB cannot be read"),
        (["--device", "threads=0"], "--device threads=0 cannot be read"),
        (["--device", "memory=10MB"], "below 64 MB"),
        (["--minimise", "beauty"], "--minimise"),
        (["--try", "precision=int3"], "--try precision"),
        (["--try", "vocabulary=some"], "--try vocabulary"),
        (["--extra-tokens", "9"], "--extra-tokens is of a trimmed vocabulary"),
        (["--figure", "exact_mach"], "exact_mach is no figure of this task"),
        (["--out", "."], "holds no compressed model"),
        (["--data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_what_cannot_be_is_refused_before_work(project, more: Sequence[str], said):
    before = project.kept()
    done = project.run(*more)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert project.kept() == before
