"""What only the ONNX engine must do: refuse configurations that reach outside, and describe packed weights."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slmops.engines import Sampling, load_engine
from slmops.engines.onnx_file import describe
from slmops.errors import BadInput


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["model"]["decoder"].update(filename="../model.onnx"), "outside its folder: '../model.onnx'"),
        (lambda c: c["model"]["decoder"].update(filename="/etc/passwd"), "outside its folder"),
        (lambda c: c["model"]["decoder"]["session_options"].update(custom_ops_library="evil.so"), "custom_ops_library"),
        (lambda c: c["model"]["decoder"]["session_options"].update(provider_options=[{"cuda": {}}]), "only plain CPU"),
        (lambda c: c["model"].update(vision={"stages": [{"filename": "a/b.onnx"}]}), "outside its folder: 'a/b.onnx'"),
        (lambda c: c["model"].update(decoder=[]), "is not a configuration"),
        (lambda c: c["model"]["decoder"]["inputs"].update(position_ids="position_ids"), "position_ids are not run"),
        (lambda c: c.pop("model"), "is not a configuration"),
        (lambda c: c["model"].pop("vocab_size"), "is not a configuration"),
        (lambda c: c["model"].update(context_length="many"), "whole numbers"),
    ],
)
def test_configurations_that_are_refused(tiny_onnx, tmp_path, edit: Callable, says: str):
    folder = Path(shutil.copytree(tiny_onnx, tmp_path / "model"))
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
    with pytest.raises(BadInput, match=says):
        load_engine("onnxruntime-genai", folder)


def test_search_settings_of_the_folder_do_not_touch_the_answer(tiny, tiny_onnx, tmp_path):
    """A model card's sampling defaults end up in the configuration; greedy decoding must stay greedy."""
    folder = Path(shutil.copytree(tiny_onnx, tmp_path / "model"))
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    config["search"] |= {
        "do_sample": True,
        "temperature": 5.0,
        "repetition_penalty": 9.0,
        "min_length": 60,
        "no_repeat_ngram_size": 1,
        "num_beams": 3,
        "max_length": 4,
    }
    path.write_text(json.dumps(config))
    engine = load_engine("onnxruntime-genai", folder, threads=1)
    for text, answer in tiny.pairs.items():
        ids = [token.id for token in engine.generate([tiny.prompt(text)], Sampling(max_tokens=60))]
        assert tiny.tokenizer.decode(ids) == answer


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_packed_weights_are_counted_as_what_they_stand_for(tiny, precision, tmp_path):
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    source, folder, cache = str(tiny.folder), str(tmp_path / "model"), str(tmp_path / "cache")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        options = parse_extra_options("", source, folder, precision, "cpu", cache, [])
        create_model("", source, folder, precision, "cpu", cache, **options)
    found, parameters = describe(Path(folder) / "model.onnx")
    # The builder keeps head and embedding as one in int4; in int8 it writes the embedding a second time, as float.
    assert found == {"int4": "int4", "int8": "int8+float32"}[precision]
    untied = 0 if precision == "int4" else tiny.tokenizer.size * 64
    assert parameters == load_engine("transformers", tiny.folder, threads=1).info().parameters + untied
    # Batches are padded with an index that packed embeddings must take as well.
    engine = load_engine("onnxruntime-genai", Path(folder), threads=1)
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    together = list(engine.generate(prompts, Sampling(max_tokens=40)))
    for request, prompt in enumerate(prompts):
        alone = [token.id for token in engine.generate([prompt], Sampling(max_tokens=40))]
        assert [token.id for token in together if token.request == request] == alone
