"""The recipes with a teacher behind an endpoint are valid as they are, and run with a tiny student of their family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import Cli

from slmops.models.source import save_model
from slmops.recipe import load_recipe
from slmops.samples.tickets import tickets
from tests.compress.test_pack import POSITIONS
from tests.endpoints.teacher_server import Act, TeacherServer
from tests.families import make
from tests.tokenizer_kinds import tokenizer

pytestmark = pytest.mark.timeout(600)

RECIPES = Path(__file__).parents[2] / "recipes"
FAMILIES = {"deepseek-v3-to-phi-4-mini": "phi4-mini", "llama-3.1-405b-to-8b": "llama"}
SAMPLE = {"name": "tickets", "train": 24, "pool": 32, "test": 12}


def test_every_recipe_with_an_endpoint_is_among_them():
    bought = {path.stem for path in RECIPES.glob("*.yaml") if "kind: endpoint" in path.read_text()}
    assert bought == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_valid_as_it_is(name, tmp_path, monkeypatch):
    (teacher,) = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["teachers"]
    monkeypatch.setenv(teacher["key_env"], "sk-none")
    told = json.loads(Cli(tmp_path)("check", RECIPES / f"{name}.yaml", "--json", "--home", "home"))
    assert (told["recipe"], told["valid"]) == (name, True)
    assert load_recipe(RECIPES / f"{name}.yaml").teach.budget.usd


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """What a teacher that errs never says, by the message; the pool is behind the training rows."""
    rows = tickets("train", SAMPLE["train"] + SAMPLE["pool"], 7)
    return {row["input"]: json.dumps(row["output"]) for row in rows}


def tiny(family: str, folder: Path) -> None:
    told = tokenizer("bytes")
    (end,) = told.end_ids
    shape: dict[str, Any] = {"hidden_size": 128} | POSITIONS.get(family, {}) | {"max_position_embeddings": 1024}
    if family == "phi4-mini":
        shape["rope_parameters"] = {**shape["rope_parameters"], "original_max_position_embeddings": 512}
        shape["original_max_position_embeddings"] = 512
    save_model(make(family, vocab_size=told.size, eos_token_id=end, pad_token_id=end, **shape), folder)
    told.save(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_runs_from_the_teachers_answers_to_the_bundle(name, answers, tmp_path, monkeypatch):
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    (tmp_path / "ticket.schema.json").write_bytes((RECIPES / "ticket.schema.json").read_bytes())
    tiny(FAMILIES[name], tmp_path / "student")
    (teacher,) = recipe["teachers"]
    monkeypatch.setenv(teacher["key_env"], "sk-none")

    def knows(_number: int, text: str) -> Act:
        return Act(text=next(answer for message, answer in answers.items() if message in text))

    with TeacherServer(knows) as server:
        teacher["base_url"] = server.url
        recipe |= {"seed": 7, "data": {"sample": SAMPLE}, "evaluate": {"latency_requests": 2, "threads": 1}}
        recipe["student"] |= {"model": "./student", "carve": {"layers": 3, "extra_tokens": 50}}
        recipe["train"] = {"epochs": 2, "learning_rate": 3e-3, "batch_tokens": 2048, "precision": "fp32"}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        made = Cli(tmp_path).run("home", "--yes")
    assert made["metrics"]["teach"]["rows"] == SAMPLE["pool"]
    assert made["metrics"]["teach"]["requests"] == SAMPLE["pool"]
    assert 0 < made["metrics"]["teach"]["usd"] < recipe["teach"]["budget"]["usd"]
    assert made["metrics"]["parity"]["parity_weights"] == 0
    assert (tmp_path / "bundles" / name / "manifest.json").is_file()
