"""An adapter that answers otherwise than PyTorch's merged model does not ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmops.bundle import AdapterPart
from slmops.evaluate.adapter_parity import Trained, place_proven
from slmops.tasks import Generation
from tests.adapters import NAMES, Adapted, adapted_models

TASK = Generation(None, 8).describe()


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory) -> dict[str, Adapted]:
    return adapted_models(tiny.folder, tmp_path_factory.mktemp("proven"))


def verdicts(models: dict[str, Adapted], parts: dict[str, AdapterPart], out: Path, tiny) -> list[dict[str, Any]]:
    torch, onnx = models["transformers"], models["onnxruntime-genai"]
    rows = [{"id": str(i), "input": text, "output": answer} for i, (text, answer) in enumerate(tiny.pairs.items())]
    trained = Trained(torch.model, torch.adapters, dict.fromkeys(NAMES, rows))
    told = {"name": "tiny", "version": "1", "task": TASK}
    return place_proven(out / "bundle", onnx.model, parts, trained, told, work=out / "work", threads=1)


def test_another_adapters_file_is_found_out(models, tmp_path, tiny):
    parts = {name: AdapterPart(file, TASK) for name, file in models["onnxruntime-genai"].adapters.items()}
    told = verdicts(models, parts, tmp_path, tiny)
    assert {verdict["state"] for verdict in told} == {"pass"}
    assert (tmp_path / "bundle").is_dir()
    swapped = {**parts, "first": replace(parts["first"], path=parts["second"].path)}
    told = verdicts(models, swapped, tmp_path / "swapped", tiny)
    failed = {(verdict["adapter"], verdict["figure"]) for verdict in told if verdict["state"] == "fail"}
    assert ("first", "parity_agreement") in failed
    assert {name for name, _ in failed} == {"first"}
    assert not (tmp_path / "swapped" / "bundle").exists()
