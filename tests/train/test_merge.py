"""Several adapters become one: what PEFT makes of them is what comes out, with the base's weights and alone."""

import json
import math
from pathlib import Path

import peft
import pytest
import torch

from slmops.models.adapters.attach import adapter_weights
from slmops.models.adapters.combine import combine
from slmops.models.adapters.files import ADAPTER, AdapterWeights
from slmops.models.source import load_model
from slmops.pipeline.stage import Context
from slmops.recipe.several import MergeSettings
from slmops.train.adapted import attach, put_in
from slmops.train.stage_merge import MergeAdapters, MergeAdaptersSettings
from tests.train.test_adapters import logits, settings


def adapter(tiny, folder: Path, seed: int, method: str = "lora", rank: int = 4) -> Path:
    """An adapter that changes what the tiny model says."""
    model, made = load_model(tiny.folder), settings(method, adapter={"rank": rank}).to_make
    attach(model, made)
    drawn = torch.Generator().manual_seed(seed)
    put_in(model, [torch.randn(w.shape, generator=drawn) * 0.05 for w in model.parameters() if w.requires_grad])
    adapter_weights(model, made).save(folder)
    return folder


def alone(tiny, folder: Path) -> torch.Tensor:
    return logits(peft.PeftModel.from_pretrained(load_model(tiny.folder), folder).eval())


def update(model: torch.nn.Module, tiny, layer: str = "model.layers.0.mlp.up_proj") -> torch.Tensor:
    return model.get_submodule(layer).weight - load_model(tiny.folder).get_submodule(layer).weight


def made_of(tiny, parts, method: str, *, density: float | None = None, seed: int = 1):
    model = load_model(tiny.folder)
    return model, combine(model, parts, method, density=density, seed=seed)


@pytest.fixture
def two(tiny, tmp_path):
    return adapter(tiny, tmp_path / "a", 1), adapter(tiny, tmp_path / "b", 2)


@pytest.mark.parametrize("kind", ["lora", "rslora"])
@pytest.mark.parametrize("method", ["linear", "cat"])
def test_one_of_two_that_counts_alone_says_what_it_said(tiny, tmp_path, method, kind):
    a, b = adapter(tiny, tmp_path / "a", 1, kind), adapter(tiny, tmp_path / "b", 2)
    model, one = made_of(tiny, [(a, 1.0), (b, 0.0)], method)
    assert torch.allclose(logits(model), alone(tiny, a), atol=2e-4)
    assert not torch.allclose(logits(model), alone(tiny, b), atol=1e-2)
    one.save(tmp_path / "one")
    assert torch.allclose(alone(tiny, tmp_path / "one"), logits(model), atol=2e-4)
    assert model.state_dict().keys() == load_model(tiny.folder).state_dict().keys()


def test_cat_is_the_sum_of_updates_of_unlike_ranks(tiny, tmp_path):
    a, b = adapter(tiny, tmp_path / "a", 1, rank=2), adapter(tiny, tmp_path / "b", 2, rank=4)
    model, one = made_of(tiny, [(a, 0.5), (b, -1.0)], "cat")
    each = [update(made_of(tiny, [(folder, 1.0), (folder, 0.0)], "linear")[0], tiny) for folder in (a, b)]
    assert torch.allclose(update(model, tiny), 0.5 * each[0] - each[1], atol=1e-5)
    assert one.config["r"] == 6


def test_linear_joins_the_factors(tiny, two):
    _, one = made_of(tiny, [(two[0], 0.5), (two[1], 2.0)], "linear")
    a, b = (AdapterWeights.load(folder) for folder in two)
    scale = a.config["lora_alpha"] / a.config["r"]
    for name, tensor in one.tensors.items():
        wanted = math.sqrt(0.5 * scale) * a.tensors[name] + math.sqrt(2 * scale) * b.tensors[name]
        assert torch.allclose(tensor, wanted, atol=1e-6), name


@pytest.mark.parametrize(("method", "drawn"), [("ties", False), ("dare_linear", True), ("dare_ties", True)])
def test_the_seed_is_of_what_is_drawn(tiny, two, method, drawn):
    parts = [(folder, 1.0) for folder in two]
    first, again, other = (made_of(tiny, parts, method, density=0.3, seed=seed)[1].tensors for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert drawn != all(torch.equal(first[name], other[name]) for name in first)
    # Of two adapters that keep 0.3 of their entries each, half of all are kept by one at least.
    share = float(torch.cat([(tensor != 0).float().flatten() for tensor in first.values()]).mean())
    assert share == pytest.approx(1 - 0.7**2, abs=0.03)


def test_merging_leaves_what_others_draw(tiny, two):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    made_of(tiny, [(folder, 1.0) for folder in two], "dare_linear", density=0.5)
    assert torch.equal(torch.rand(3), wanted)


def test_the_stage_leaves_an_adapter_a_model_and_how(tiny, tmp_path, two):
    for name, folder in zip("ab", two, strict=True):
        (tmp_path / f"step-{name}").mkdir()
        folder.rename(tmp_path / f"step-{name}" / ADAPTER)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model").symlink_to(tiny.folder)
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"base": tmp_path / "base", "adapter:a": tmp_path / "step-a", "adapter:b": tmp_path / "step-b"}
    how = MergeSettings(method="ties", weights={"b": 2.0})
    asked = MergeAdaptersSettings(method="ties", weights=how.weighted("ab"), density=how.kept)
    figures = MergeAdapters().run(inputs, asked, Context(out=out, work=tmp_path / "work", seed=1))
    assert figures["rank"] == 4
    told = json.loads((out / "merge.json").read_text())
    assert told["weights"] == {"a": 1.0, "b": 2.0}
    assert told["density"] == 0.5
    assert torch.allclose(logits(load_model(out / "model")), alone(tiny, out / ADAPTER), atol=2e-4)
