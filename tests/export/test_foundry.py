"""A folder for Foundry Local, held against the real one where it is installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from slmops.bundle import open_bundle
from slmops.engines.onnxruntime import read_config
from slmops.export.foundry import export_foundry, model_id
from tests.conftest import PAIRS

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".slmops" / "foundry" / "bin" / "python"


@pytest.fixture(scope="module")
def folder(packed, tmp_path_factory) -> Path:
    return export_foundry(packed, tmp_path_factory.mktemp("foundry") / "out")


def test_it_says_how_it_is_asked(folder, packed):
    bundle = open_bundle(packed)
    told = json.loads((folder / "inference_model.json").read_text())
    assert told["Name"] == "tiny"
    asked = [{"role": "user", "content": "hello"}]
    assert told["PromptTemplate"]["prompt"].replace("{Content}", "hello") == bundle.tokenizer.render(asked)
    own = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    assert own == bundle.tokenizer.template == (folder / "chat_template.jinja").read_text()
    config = read_config(folder)
    assert (config["search"]["do_sample"], config["search"]["top_k"]) == (False, 1)
    assert set(config["model"]["eos_token_id"]) == bundle.tokenizer.end_ids


def test_the_runtime_cuts_texts_as_the_bundle(folder, packed):
    """Of the folder alone, by the tokenizer and the template that Foundry Local runs."""
    import onnxruntime_genai as og

    theirs = og.Tokenizer(og.Model(str(folder)))
    bundle = open_bundle(packed)
    for text in PAIRS:
        asked = bundle.task.render(text)
        rendered = theirs.apply_chat_template(json.dumps(asked), add_generation_prompt=True)
        assert theirs.encode(rendered).tolist() == bundle.tokenizer.prompt(asked)


@pytest.mark.skipif(not PYTHON.is_file(), reason="Foundry Local is not installed: make foundry")
def test_foundry_local_answers_as_the_bundle(folder, packed, tmp_path):
    bundle = open_bundle(packed, threads=1)
    talks = [bundle.task.render(text) for text in PAIRS] + [[{"role": "user", "content": text}] for text in PAIRS]
    told = {"folder": str(folder), "data": str(tmp_path), "id": model_id(bundle), "asked": talks, "tokens": 40}
    side = Path(__file__).with_name("foundry_side.py")
    done = subprocess.run([PYTHON, side], input=json.dumps(told), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = ["".join(bundle.chat(messages)) for messages in talks]
    assert json.loads(done.stdout.splitlines()[-1]) == ours
