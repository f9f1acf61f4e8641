"""A project around a tiny real model."""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from slmops.models.tokenizer import CHATML, Tokenizer
from slmops.samples.tickets import tickets

sys.path.insert(0, str(Path(__file__).parent))

from tiny_project import RECIPE, Cli


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A project with a recipe, its schema and a teacher that knows nothing yet."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "recipe.yaml").write_text(RECIPE)
    schema = resources.files("slmops.samples").joinpath("ticket.schema.json").read_text(encoding="utf-8")
    (folder / "ticket.schema.json").write_text(schema)
    _write_model(folder / "model")
    return Cli(folder)


@pytest.fixture(scope="session")
def second_model(cli: Cli) -> Path:
    """Another teacher with the same vocabulary, as untaught as the first."""
    _write_model(cli.folder / "second", seed=1)
    return cli.folder / "second"


def _write_model(folder: Path, seed: int = 0) -> None:
    """A four-layer Llama with random weights, and a byte-level BPE of 700 tokens made from tickets."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rows = tickets("train", 300, seed=1)
    texts = [row["input"] for row in rows] + [json.dumps(row["output"], separators=(",", ":")) for row in rows]
    backend.train_from_iterator(texts, trainer)
    roles = {"bos_token": special[1], "eos_token": special[2], "pad_token": special[2]}
    tokenizer = Tokenizer(backend, template=CHATML, special_tokens=roles)
    (end,) = tokenizer.end_ids
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=end,
        pad_token_id=end,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)
