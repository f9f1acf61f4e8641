"""The arithmetic is chosen by what was measured."""

import pytest
import torch
from transformers import LlamaConfig

from slmops.train import precision
from slmops.train.precision import MARGIN, Precision, measured_rates, resolve_precision

CONFIG = LlamaConfig(hidden_size=64, intermediate_size=96)


def test_what_the_recipe_says_is_taken_and_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(precision, "measured_rates", None)
    assert resolve_precision("bf16", CONFIG) == Precision("bf16")
    assert resolve_precision("fp32", CONFIG).figures() == {"precision": "fp32"}


@pytest.mark.parametrize(("bf16", "name"), [(MARGIN * 100, "bf16"), (MARGIN * 100 - 1, "fp32"), (3.0, "fp32")])
def test_bf16_is_taken_where_it_is_faster_by_the_margin(monkeypatch, bf16, name):
    shapes = []
    monkeypatch.setattr(precision, "measured_rates", lambda *shape: shapes.append(shape) or (100.0, bf16))
    found = resolve_precision("auto", CONFIG)
    assert found == Precision(name, 100.0, bf16)
    assert shapes == [(64, 96)]
    assert found.figures() == {"precision": name, "fp32_gflops": 100.0, "bf16_gflops": bf16}
    assert found.said().startswith(f"training in {name}: this machine multiplies")


def test_a_shape_is_measured_once_a_process():
    measured_rates.cache_clear()
    first = measured_rates(32, 48)
    assert min(first) > 0
    assert measured_rates(32, 48) is first
    assert measured_rates.cache_info().misses == 1


def test_a_slow_machine_is_not_kept_long(monkeypatch):
    calls = []
    monkeypatch.setattr(precision, "_seconds", lambda inputs, _weight: calls.append(inputs.dtype) or 7.0)
    measured_rates.cache_clear()
    measured_rates(32, 40)
    assert calls == [torch.float32, torch.bfloat16] * 2
    measured_rates.cache_clear()
