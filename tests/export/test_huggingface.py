"""A bundle as a plain Hugging Face folder: the same values, the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from slmops.bundle import open_bundle
from slmops.compress.export import export
from slmops.engines import Sampling, load_engine
from slmops.errors import BadInput
from slmops.export.huggingface import export_huggingface
from slmops.export.parameters import HEAD, parameters, values
from tests.compress.test_gguf_file import model
from tests.conftest import PAIRS

SAMPLING = Sampling(max_tokens=40)


def written(engine, prompts: list[list[int]]) -> list[list[int]]:
    """Tokens of the likeliest answers."""
    answers: list[list[int]] = [[] for _ in prompts]
    for token in engine.generate(prompts, SAMPLING):
        answers[token.request].append(token.id)
    return answers


@pytest.mark.parametrize("exact", [True, False])
def test_transformers_answers_as_the_bundle(packed, tmp_path, exact):
    out = export_huggingface(packed, tmp_path / "out", exact=exact)
    bundle = open_bundle(packed, threads=1)
    prompts = [bundle.tokenizer.prompt(bundle.task.render(text)) for text in PAIRS]
    after = load_engine("transformers", out, threads=1)
    assert after.info().precision == ("float32" if exact else "float16")
    assert written(after, prompts) == written(bundle.engine, prompts)


def test_it_is_loaded_without_this_project(packed, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = export_huggingface(packed, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    asked = [{"role": "user", "content": "Where is order 4711?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert prompt == open_bundle(packed).tokenizer.prompt(asked)
    assert (loaded.generation_config.do_sample, loaded.generation_config.max_new_tokens) == (False, 40)
    assert (out / "README.md").read_text().startswith("---\n")


@pytest.mark.parametrize("kind", ["qwen2", "phi3", "gemma3"])
def test_every_parameter_comes_back_under_its_name(kind, tmp_path):
    source = model(kind, tmp_path / "hf")
    export(source, tmp_path / "onnx", scratch=tmp_path / "scratch")
    config = json.loads((tmp_path / "onnx" / "config.json").read_text())
    before = load_file(source / "model.safetensors")
    after = {name: values(part) for name, part in parameters(tmp_path / "onnx", config)}
    assert after.keys() - {HEAD} == before.keys() - {HEAD}
    # A norm of Gemma's is one more in ONNX, and rounded there.
    atol = 2e-7 if kind == "gemma3" else 0
    for name, array in after.items():
        np.testing.assert_allclose(array, before[name], rtol=0, atol=atol, err_msg=name)


def test_a_bundle_from_before_is_told(packed, tmp_path: Path):
    from slmops.export.folder import model_config

    bundle = open_bundle(packed)
    with pytest.raises(BadInput, match=r"no model/config\.json") as told:
        model_config(type(bundle)(tmp_path, bundle.manifest))
    assert "again" in told.value.hint


def test_a_bundle_of_another_runtime_is_refused(packed_gguf, tmp_path):
    with pytest.raises(BadInput, match=r"is for llama\.cpp"):
        export_huggingface(packed_gguf, tmp_path / "out")
    assert not (tmp_path / "out").exists()
