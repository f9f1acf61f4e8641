"""A search on a real model: every candidate is converted and measured in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmops.engines import engine_of
from slmops.engines.onnx_file import describe
from slmops.errors import SlmopsError
from slmops.pipeline.history import History
from slmops.pipeline.run import RunResult
from slmops.recipe.compress import CompressSettings

FEW = {"precision": ["int8", "fp32"]}
Find = Callable[..., RunResult]


def front_of(result: RunResult) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((result.artifacts["shipped"].path / "front.json").read_text())
    return found


def test_the_smallest_that_is_proven_ships(find: Find, home: Path) -> None:
    result = find(400, minimise=["size"], candidates=FEW, screen_rows=8)
    found = front_of(result)
    assert (found["ships"], found["proven"], found["rows"], result.exit_code) == ("int8", True, 400, 0)
    assert describe(result.artifacts["shipped"].path / "model" / "model.onnx")[0] == "int8"
    by_name = {one["name"]: one for one in found["candidates"] + found["others"]}
    assert by_name.keys() == {"int8", "fp32"}
    int8 = by_name["int8"]
    assert (int8["shipped"], int8["front"], int8["state"], int8["drop"]) == (True, True, "pass", 0)
    assert 0 < int8["drop_interval"][1] < 1
    # Another objective asks for the same candidates, and none is made or measured again.
    again = find(400, minimise=["memory"], candidates=FEW, screen_rows=8)
    steps = {step.node: step.cached for step in History(home).run(again.id).steps}
    asked = {node: cached for node, cached in steps.items() if node.partition(":")[0] in ("convert", "screen", "score")}
    assert len(asked) >= 5
    assert all(asked.values())


def test_another_runtime_ships_where_it_is_better(find: Find) -> None:
    """Without padded vocabularies and graphs, a GGUF file of so small a model is the smaller one."""
    pytest.importorskip("llama_cpp", reason="it is compiled, and installed apart")
    tried = {"precision": ["int8"], "runtime": ["onnxruntime-genai", "llama.cpp"]}
    result = find(400, minimise=["size"], candidates=tried, screen_rows=8)
    found = front_of(result)
    sizes = {one["name"]: one["weights_bytes"] for one in found["candidates"]}
    assert sizes.keys() == {"int8", "int8-llama.cpp"}
    assert found["ships"] == min(sizes, key=sizes.get)
    assert engine_of(result.artifacts["shipped"].path / "model") == "llama.cpp"


def test_fewer_tokens_ship_where_they_do_as_well(find: Find) -> None:
    """Screened by nats per byte: of one answer in the tokens of both."""
    ships = CompressSettings(vocabulary="trim", extra_tokens=0)
    tried = {"precision": ["int8"], "vocabulary": ["keep", "trim"]}
    result = find(400, ships, minimise=["size"], candidates=tried, screen_rows=8)
    found = front_of(result)
    by_name = {one["name"]: one for one in found["candidates"] + found["others"]}
    whole, trimmed = by_name["int8"], by_name["int8-trimmed"]
    assert (found["ships"], found["proven"]) == ("int8-trimmed", True)
    assert trimmed["weights_bytes"] < whole["weights_bytes"]
    assert trimmed["loss"] == pytest.approx(whole["loss"], abs=0.01)


def test_too_few_rows_are_an_answer(find: Find) -> None:
    """With the number that would be enough, the nearest candidate, and a gate that does not pass."""
    result = find(40, candidates=FEW, screen_rows=8)
    found = front_of(result)
    assert (found["proven"], result.exit_code) == (False, 3)
    (message,) = result.failed_gates
    assert "points below the student's" in message
    (ships,) = [one for one in found["candidates"] if one["shipped"]]
    assert ships["state"] == "not enough evidence"
    assert 300 < ships["rows_enough"] < 1000
    assert (result.artifacts["shipped"].path / "model" / "genai_config.json").is_file()


def test_what_does_not_fit_the_device_is_said(find: Find) -> None:
    with pytest.raises(SlmopsError, match="int8: it takes more than 64 MB of memory; fp32: it takes more than 64 MB"):
        find(40, candidates=FEW, device={"threads": 1, "memory_mb": 64})


def test_a_candidate_that_cannot_be_made_stands_in_nobodys_way(find: Find, monkeypatch) -> None:
    from slmops.compress import convert as exporter

    real = exporter.convert

    def broken(model: Path, out: Path, settings: Any, **options: Any) -> None:
        if settings.precision == "int4":
            raise SlmopsError("no room for it")
        real(model, out, settings, **options)

    monkeypatch.setattr(exporter, "convert", broken)
    tried = {"precision": ["int4", "fp32"], "algorithm": ["rtn"], "block_size": [32], "head": ["int8"]}
    found = front_of(find(400, candidates=tried, screen_rows=8))
    assert found["ships"] == "fp32"
    assert found["others"] == [{"name": "int4-rtn-b32-head8", "state": "failed", "why": "no room for it"}]
