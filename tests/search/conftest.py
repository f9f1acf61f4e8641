"""A graph that searches on the tiny model, which knows four answers by heart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from slmops.data.read import write_jsonl
from slmops.pipeline.run import RunResult, run_graph
from slmops.pipeline.stage import Context, Node
from slmops.recipe.compress import CompressSettings
from slmops.recipe.search import SearchSettings
from slmops.recipe.settings import Settings
from slmops.search.stage import FindSettings, Search
from tests.conftest import Tiny
from tests.tiny_task import TASK


class Given:
    """`model` (a folder outside) → `model/`."""

    name, version, libraries = "given", 1, ()

    def run(self, inputs: Mapping[str, Path], settings: Settings, context: Context) -> Mapping[str, float | str]:  # noqa: ARG002
        shutil.copytree(inputs["model"], context.out / "model")
        return {}


class RowsSettings(Settings):
    pairs: dict[str, str]
    rows: int


class Rows:
    """As the data stage writes them: the pairs again and again, all for validation."""

    name, version, libraries = "rows", 1, ()

    def run(self, inputs: Mapping[str, Path], settings: RowsSettings, context: Context) -> Mapping[str, float | str]:  # noqa: ARG002
        pairs = [(text, json.loads(answer)) for text, answer in settings.pairs.items()]
        rows = [{"id": str(i), "input": pairs[i % 4][0], "output": pairs[i % 4][1]} for i in range(settings.rows)]
        for part in ("train", "validation", "test"):
            write_jsonl(context.out / f"{part}.jsonl", rows)
        write_jsonl(context.out / "pool.jsonl", [])
        (context.out / "task.json").write_text(json.dumps(TASK.describe()))
        return {}


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests: a candidate that a search has made is there for the next."""
    return tmp_path_factory.mktemp("search") / "home"


@pytest.fixture(scope="session")
def find(tiny: Tiny, home: Path) -> Callable[..., RunResult]:
    """Runs a search of these settings on so many rows."""

    def run(rows: int, ships: CompressSettings | None = None, **settings: Any) -> RunResult:
        wanted = FindSettings(ships=ships or CompressSettings(), search=SearchSettings.model_validate(settings))
        nodes = [
            Node("model", Given, Settings(), sources={"model": tiny.folder}),
            Node("data", Rows, RowsSettings(pairs=tiny.pairs, rows=rows)),
            Node("shipped", Search, wanted, {"model": "model", "data": "data"}),
        ]
        return run_graph(nodes, name="search", resolved_recipe={}, seed=7, home=home)

    return run
