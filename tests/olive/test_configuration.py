"""Rows, steps and files as Olive's trainer takes them."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.olive.configuration import Steps, configuration, write_model, write_rows
from slmops.recipe.training import Tuning

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


@given(LENGTHS, st.integers(32, 500), st.integers(1, 4), st.floats(0.1, 5))
def test_no_batch_passes_the_bound_and_every_pass_is_taken(lengths, batch_tokens, accumulate, epochs):
    settings = Tuning(batch_tokens=batch_tokens, accumulate=accumulate, epochs=epochs)
    steps = Steps.of(lengths, settings)
    assert steps.rows == 1 or steps.rows * max(lengths) <= batch_tokens
    a_pass = math.ceil(len(lengths) / (steps.rows * accumulate))
    assert steps.count >= epochs * a_pass > steps.count - 1 - 1e-9 or steps.count == 1
    assert 1 <= steps.log_every <= steps.count
    assert steps.save_every % steps.log_every == 0
    assert 1 <= steps.warmup <= max(1, steps.count)


def test_the_loss_is_taken_at_answers_alone(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [((5, 6, 7), (8, 2)), ((5,), (9, 2))])
    first, second = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert first == {"input_ids": [5, 6, 7, 8, 2], "attention_mask": [1] * 5, "labels": [-100, -100, -100, 8, 2]}
    assert second["labels"] == [-100, 9, 2]


@pytest.mark.parametrize(("method", "name"), [("lora", "LoRA"), ("dora", "DoRA"), ("qlora", "QLoRA")])
def test_a_recipes_words_are_olives(method, name):
    settings = Tuning.model_validate(
        {"method": method, "backend": "olive", "epochs": 2, "accumulate": 2, "weight_decay": 0.1}
        | {"adapter": {"rank": 8, "alpha": 4, "dropout": 0.25}, "checkpoint_activations": True}
    )
    told = configuration(
        *(settings, settings.to_make, Steps.of([10] * 20, settings)),
        modules=["model.layers.0.mlp.up_proj"],
        model="base",
        dtype="float32",
        on_processor=True,
        seed=3,
    )
    tune = told["passes"]["tune"]
    assert (tune["type"], tune["r"], tune["alpha"], tune["lora_dropout"]) == (name, 8, 4, 0.25)
    # QLoRA finds its modules itself, and would be told twice.
    assert tune.get("target_modules") == (None if method == "qlora" else ["model.layers.0.mlp.up_proj"])
    args = tune["training_args"]
    assert args["learning_rate"] == 1e-3
    assert (args["weight_decay"], args["gradient_checkpointing"], args["seed"]) == (0.1, True, 3)
    assert (args["gradient_accumulation_steps"], args["max_steps"], args["use_cpu"]) == (2, 2, True)


def test_a_tokenizer_without_a_pad_token_gets_one_for_olive_alone(tiny, tmp_path):
    config = tiny.folder / "tokenizer_config.json"
    told = json.loads(config.read_text())
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny.folder.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / config.name).write_text(json.dumps({k: v for k, v in told.items() if k != "pad_token"}))
    write_model(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / config.name).read_text())["pad_token"] == told["eos_token"]
    assert "pad_token" not in json.loads((source / config.name).read_text())
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    (source / config.name).write_text("{}")
    with pytest.raises(BadInput, match="neither a pad nor an end token"):
        write_model(source, tmp_path / "other")
