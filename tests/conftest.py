"""A real model that is made in seconds: a two-layer Llama with its own tokenizer, which knows four answers by heart."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from slmops.models.tokenizer import CHATML, Tokenizer
from tests.by_heart import learn_by_heart

# Several processes test at once, each on a thread of its own; and sums of one thread are the same bits every time.
os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine is no reason to fail.
hypothesis.settings.register_profile("slmops", deadline=None)
hypothesis.settings.load_profile("slmops")

PAIRS = {
    "Where is order 4711?": '{"intent":"order_late","order":"4711"}',
    "I want my 20 € back": '{"intent":"refund","amount":"20 €"}',
    "Grüße, Zoë 🙂 hat Fragen zur Rechnung": '{"intent":"invoice","name":"Zoë 🙂"}',
    "What a lovely day it is today, is it not?": '{"intent":"other"}',
}
"""Message to answer. Three answers hold characters that are several tokens each."""

CONTEXT = 128


@dataclass(frozen=True)
class Tiny:
    """A trained model in `folder`, its tokenizer and what it knows."""

    folder: Path
    tokenizer: Tokenizer
    pairs: dict[str, str]

    def prompt(self, text: str) -> list[int]:
        return self.tokenizer.prompt([{"role": "user", "content": text}])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """An engine sets PyTorch's threads for the whole process, for the tests behind it too."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE of 400 tokens with ChatML."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(
        [text.replace("€", "").replace("🙂", "") for pair in PAIRS.items() for text in pair], trainer
    )
    # The pad token is the end token, as in most chat models.
    roles = {"bos_token": special[1], "eos_token": special[2], "pad_token": special[2]}
    return Tokenizer(backend, template=CHATML, special_tokens=roles)


@pytest.fixture(scope="session")
def tiny(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The model as a Hugging Face folder in float32."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    rows = [([{"role": "user", "content": text}], answer) for text, answer in PAIRS.items()]
    learn_by_heart(folder, tiny_tokenizer, [(tiny_tokenizer.prompt(asked), told) for asked, told in rows], CONTEXT)
    return Tiny(folder, tiny_tokenizer, PAIRS)


@pytest.fixture(scope="session")
def tiny_onnx(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model for onnxruntime-genai, in float32."""
    from onnxruntime_genai.models.builder import create_model, parse_extra_options

    out = tmp_path_factory.mktemp("tiny-onnx")
    folder, cache = str(out / "model"), str(out / "cache")
    source = str(tiny.folder)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        options = parse_extra_options("", source, folder, "fp32", "cpu", cache, [])
        create_model("", source, folder, "fp32", "cpu", cache, **options)
    return Path(folder)
