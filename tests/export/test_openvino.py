"""A model of OpenVINO's: made by its own converter, where that is installed, and asked by OpenVINO itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slmops.bundle import open_bundle
from slmops.errors import BadInput
from slmops.export.folder import model_config
from slmops.export.openvino import export_openvino, precision
from slmops.export.parameters import parameters
from tests.conftest import PAIRS

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted((ROOT / ".slmops" / "rivals").glob("openvino-*/bin/python"))

ASK = """
import json, sys, openvino as ov, openvino_genai as genai
job = json.load(sys.stdin)
pipeline = genai.LLMPipeline(job["folder"], "CPU", INFERENCE_PRECISION_HINT="f32")
config = genai.GenerationConfig(max_new_tokens=40, do_sample=False, stop_token_ids=set(job["ends"]))
config.apply_chat_template = False
print(json.dumps([pipeline.generate([text], config).texts[0] for text in job["asked"]]))
"""


def test_without_its_converter_it_says_how_to_get_it(packed, tmp_path):
    for python, says in ((None, "needs an environment"), (Path(sys.executable), "has no optimum-intel")):
        with pytest.raises(BadInput, match=says) as told:
            export_openvino(packed, tmp_path / "out", python=python)
        assert "pip install 'optimum-intel[openvino]'" in told.value.hint
    assert not (tmp_path / "out").exists()


def test_it_is_rounded_to_as_many_bits_as_the_bundle(packed):
    stored = [part for _, part in parameters(packed / "model", model_config(open_bundle(packed)))]
    assert precision(stored)[:5] == ["--weight-format", "int4", "--sym", "--group-size", "32"]


@pytest.mark.skipif(not ENVIRONMENTS, reason="OpenVINO's converter is not installed: make bench-compress makes it")
def test_openvino_answers_as_the_bundle(packed, tmp_path):
    out = export_openvino(packed, tmp_path / "out", python=ENVIRONMENTS[0])
    bundle = open_bundle(packed, threads=1)
    talks = [bundle.task.render(text) for text in PAIRS]
    job = {"folder": str(out), "asked": [bundle.tokenizer.render(talk) for talk in talks]}
    job["ends"] = sorted(bundle.tokenizer.end_ids)
    command = [ENVIRONMENTS[0], "-c", ASK]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["".join(bundle.chat(talk)) for talk in talks]
