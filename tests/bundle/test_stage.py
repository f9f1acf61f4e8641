"""A bundle as the input of a run: the released one to compare with, or a judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.bundle.stage import OpenBundle
from slmops.errors import BadInput
from slmops.pipeline.files import content_digest
from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings


def test_the_model_comes_out_as_it_lies_in_the_bundle(written: Path, task, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "task.json").write_text(json.dumps(task.describe() | {"max_answer_tokens": 12}))
    inputs = {"bundle": written, "data": tmp_path / "data"}
    metrics = OpenBundle().run(inputs, Settings(), Context(out=tmp_path / "out", work=tmp_path, seed=7))
    assert metrics == {"name": "support", "version": "1.2.0"}
    assert content_digest(tmp_path / "out" / "model") == content_digest(written / "model")


def test_a_bundle_of_another_task_is_no_comparison(written: Path, task, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(json.dumps(task.describe() | {"instruction": "Be brief."}))
    with pytest.raises(BadInput, match="its `instruction` is not that of the recipe"):
        OpenBundle().run(
            {"bundle": written, "data": tmp_path}, Settings(), Context(out=tmp_path / "out", work=tmp_path, seed=7)
        )


def test_a_changed_bundle_is_refused(copy: Path, tmp_path: Path) -> None:
    with (copy / "model" / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BadInput, match="cannot be trusted"):
        OpenBundle().run({"bundle": copy}, Settings(), Context(out=tmp_path / "out", work=tmp_path, seed=7))
