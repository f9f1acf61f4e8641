"""One GGUF file for Ollama: the bundle's values, its tokens, its answers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from slmops.bundle import open_bundle
from slmops.engines import load_engine
from slmops.engines.blocks import Blocks, gguf_kind
from slmops.errors import BadInput
from slmops.export.gguf_vocabulary import CUTS, GPT_2, vocabulary
from slmops.export.ollama import PROBES, export_ollama
from slmops.models.tokenizer import Tokenizer
from slmops.models.vocabulary import trim_vocabulary
from tests.conftest import PAIRS
from tests.export.conftest import INSTRUCTION
from tests.export.test_huggingface import written
from tests.tokenizer_kinds import KINDS, tokenizer


@pytest.fixture(scope="module", params=["packed", "packed_gguf"])
def exported(request, tmp_path_factory) -> tuple[Path, Path]:
    """A bundle and what is written of it."""
    bundle = request.getfixturevalue(request.param)
    out = tmp_path_factory.mktemp("ollama") / "out"
    export_ollama(bundle, out)
    return bundle, out


def tensors(path: Path) -> dict[str, np.ndarray]:
    from gguf import GGUFReader

    return {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}


def test_every_block_is_the_bundles(exported, packed_gguf):
    """Of ONNX and of GGUF come the same bytes."""
    _, out = exported
    theirs, ours = tensors(packed_gguf / "model" / "model.gguf"), tensors(out / "model.gguf")
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs)


def test_it_answers_as_the_bundle(exported, tmp_path):
    pytest.importorskip("llama_cpp", reason="it is compiled, and installed apart")
    folder, out = exported
    bundle = open_bundle(folder, threads=1)
    prompts = [bundle.tokenizer.prompt(bundle.task.render(text)) for text in PAIRS]
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    bundle.tokenizer.save(tmp_path)
    assert written(load_engine("llama.cpp", tmp_path, threads=1), prompts) == written(bundle.engine, prompts)


def test_the_modelfile_says_how_it_is_asked(exported):
    text = (exported[1] / "Modelfile").read_text()
    assert text.startswith("FROM ./model.gguf\n")
    assert f'SYSTEM """{INSTRUCTION}"""' in text
    told = dict(re.findall(r"^PARAMETER (\S+) (.+)$", text, re.MULTILINE))
    assert (float(told["temperature"]), told["num_predict"], told["stop"]) == (0, "40", '"<|im_end|>"')


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_llamacpp_cuts_texts_as_the_tokenizer_does(kind, trimmed, tmp_path):
    pytest.importorskip("llama_cpp", reason="it is compiled, and installed apart")
    import gguf

    from slmops.engines.llamacpp_tokens import cut
    from slmops.export.gguf import _add_key

    told = tokenizer(kind)
    if trimmed:
        content, _ = trim_vocabulary(json.loads(told.backend.to_str()), told.encode("where is my order"))
        backend = tokenizers.Tokenizer.from_str(json.dumps(content))
        told = Tokenizer(backend, template=told.template, special_tokens=told.special_tokens)
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    for key, value in (vocabulary(told, told.size + 3) | {"llama.vocab_size": told.size + 3}).items():
        _add_key(writer, key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    texts = [*PROBES, *(told.render([{"role": "user", "content": probe}]) for probe in PROBES), " order", "\n\n  x"]
    assert cut(tmp_path / "v.gguf", texts) == [told.encode(text) for text in texts]


def test_another_way_to_cut_is_refused():
    backend = tokenizers.Tokenizer.from_str(tokenizer("bytes").backend.to_str())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Split("x", "isolated"), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    told = Tokenizer(backend, template=None, special_tokens=tokenizer("bytes").special_tokens)
    with pytest.raises(BadInput, match=r"llama\.cpp cuts no texts"):
        vocabulary(told, told.size)
    assert (GPT_2,) in CUTS


@pytest.mark.parametrize("size", [64, 128])
def test_longer_blocks_are_several_with_one_scale(size):
    rng = np.random.default_rng(0)
    width = 160
    count = -(-width // size)
    blocks = Blocks(
        4, width, rng.integers(0, 16, (3, count, size), np.uint8), rng.random((3, count)).astype(np.float16)
    )
    short = blocks.in_blocks_of(32)
    assert short.levels.shape == (3, 5, 32)
    np.testing.assert_array_equal(short.values(), blocks.values())


def test_what_gguf_has_no_room_for_is_refused():
    levels, scales = np.zeros((2, 4, 16), np.uint8), np.ones((2, 4), np.float16)
    with pytest.raises(BadInput, match="no blocks of 32"):
        Blocks(4, 64, levels, scales).in_blocks_of(32)
    with pytest.raises(BadInput, match="zero points in eight bits"):
        gguf_kind(Blocks(8, 64, levels, scales, np.zeros((2, 4), np.uint8)))
