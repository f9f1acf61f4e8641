"""The recipes that fine-tune a family are valid as they are, and train a tiny model of it with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.models.source import save_model
from slmops.pipeline.plan import nodes_for
from slmops.pipeline.run import run_graph
from slmops.recipe import load_recipe
from tests.compress.test_pack import POSITIONS
from tests.families import make
from tests.tokenizer_kinds import tokenizer

RECIPES = Path(__file__).parents[1] / "recipes"
FAMILIES = {
    "finetune-gemma-3-1b": "gemma3",
    "finetune-llama-3.2-1b": "llama",
    "finetune-phi-4-mini": "phi4-mini",
    "finetune-qwen3-0.6b": "qwen3",
    "finetune-smollm2-135m": "llama",
}
TRAINED = {"data", "student:base", "student"}
# QLoRA packs rows of whole blocks of 64.
ROOM: dict[str, Any] = {"max_position_embeddings": 1024, "intermediate_size": 64}


def test_every_recipe_without_a_teacher_is_among_them():
    assert {path.stem for path in RECIPES.glob("finetune-*.yaml")} == set(FAMILIES)


def tiny(family: str, folder: Path) -> None:
    told = tokenizer("bytes")
    (end,) = told.end_ids
    shape = {"hidden_size": 128} | POSITIONS.get(family, {}) | ROOM
    if family == "phi4-mini":
        shape["rope_parameters"] = {**shape["rope_parameters"], "original_max_position_embeddings": 512}
        shape["original_max_position_embeddings"] = 512
    save_model(make(family, vocab_size=told.size, eos_token_id=end, pad_token_id=end, **shape), folder)
    told.save(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_valid_and_trains_a_tiny_model_of_its_family(name, tmp_path):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    assert recipe.name == name
    assert not recipe.teachers
    assert recipe.ships
    tiny(FAMILIES[name], tmp_path / "tiny")
    sample = "data.sample={name: tickets, train: 24, pool: 0, test: 8}"
    small = load_recipe(RECIPES / f"{name}.yaml", [sample, f"student.model={tmp_path / 'tiny'}", "train.epochs=1"])
    assert small.train.method == recipe.train.method
    nodes = [node for node in nodes_for(small) if node.id in TRAINED]
    made = run_graph(nodes, name=name, resolved_recipe={}, seed=7, home=tmp_path / "home")
    student = made.artifacts["student"].path
    assert (student / "model" / "model.safetensors").is_file()
    assert (student / "adapter").is_dir() == (recipe.train.method != "full")
