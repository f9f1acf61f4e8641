"""`slmops data show`: what a student is shown, with what it learns of it."""

from __future__ import annotations

import json
import sys

import pytest

from slmops.cli.data import _dimmed
from slmops.pipeline.plan.shown import Rendered

RECIPE = """
name: shown
task: {kind: classification, max_answer_tokens: 8}
data: {train: train.jsonl, test: test.jsonl, split: {validation: 0.2}}
student: {model: ./model}
"""


@pytest.fixture
def project(tmp_path, tiny):
    rows = [{"input": f"Where is order {n}?", "output": "late" if n % 2 else "other"} for n in range(12)]
    for name, part in (("train", [*rows[:10], rows[0]]), ("test", rows[10:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "model").symlink_to(tiny.folder)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys, project):
    """Runs the command line in the project."""
    from slmops.cli.main import main

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.chdir(project)
        monkeypatch.setattr(sys, "argv", ["slmops", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        told = capsys.readouterr()
        return told.out, told.err

    return run


def test_rows_are_those_of_a_run_with_what_was_dropped(command):
    out, err = command("data", "show", "recipe.yaml", "--rows", "2")
    assert [json.loads(line) for line in out.splitlines()] == [
        {"id": "train-1", "input": "Where is order 0?", "output": "other"},
        {"id": "train-2", "input": "Where is order 1?", "output": "late"},
    ]
    assert "rows: 8 train, 2 validation, 0 pool, 2 test" in err
    assert "dropped: 1 of train: exact duplicate" in err
    assert "added: 4 of train: typos" in command("data", "show", "recipe.yaml", "--set", "data.augment.typos=0.5")[1]


def test_what_the_loss_covers_is_marked_in_the_prompt_that_trains(command, project):
    out, _ = command("data", "show", "recipe.yaml", "--rendered", "--rows", "1", "--side", "test")
    assert out.startswith("test-1: ")
    assert "tokens of prompt" in out
    prompt = "<|im_start|>user\nWhere is order 10?<|im_end|>\n<|im_start|>assistant\n"
    assert out.partition("\n")[2] == f"{prompt}⟦other<|im_end|>⟧\n"
    template = "student.chat_template={user: '{input} ', assistant: '= {output}'}"
    told = json.loads(command("data", "show", "recipe.yaml", "--rendered", "--json", "--set", template)[0])
    assert told["rendered"][0]["prompt"] == "Where is order 0? = "
    assert told["rendered"][0]["learned"] == "other<|im_end|>"
    assert len(told["rows"]) == len(told["rendered"]) == 3
    assert not (project / ".slmops").exists(), "nothing is kept"


def test_a_student_that_labels_reads_all_and_learns_one_label(command):
    (row,) = json.loads(
        command("data", "show", "recipe.yaml", "--rendered", "--json", "--rows", "1", "--set", "student.head=tags")[0]
    )["rendered"]
    assert row["prompt"].count("Where is order 0?") == 2
    assert (row["learned"], row["learned_tokens"]) == (None, 1)


def test_on_a_terminal_the_prompt_is_dim():
    row = Rendered("a", "prompt", "answer", 3, 2)
    assert _dimmed(row, colour=True) == "\x1b[2mprompt\x1b[0manswer"
