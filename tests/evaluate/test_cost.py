"""Energy and money: a processor's counters as files, and prices that can be checked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.data.read import write_jsonl
from slmops.evaluate.cost import running_cost
from slmops.evaluate.energy import Meter
from slmops.evaluate.stage import Compare, CompareSettings
from slmops.pipeline.stage import Context
from slmops.recipe.evaluate import Price, Running

FIGURES = {"cpu_s_per_request": 0.4, "tokens_per_prompt": 50.0, "tokens_per_answer": 20.0, "tokens_per_s": 80.0}


def zone(powercap: Path, name: str, domain: str, energy_uj: int, wraps_at: int = 1_000_000_000) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(domain + "\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    part = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 5)
    whole = zone(tmp_path, "intel-rapl:2", "psys", 0)
    meter = Meter(tmp_path)
    assert meter.joules() == 0
    first.write_text("3500000")
    second.write_text("1000005")
    part.write_text("900000000")
    whole.write_text("900000000")
    assert meter.joules() == 3.5


def test_a_counter_that_begins_again(tmp_path):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, wraps_at=9_999_999)
    meter = Meter(tmp_path)
    counter.write_text("1000000")
    assert meter.joules() == 2.0


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_a_machine_that_does_not_tell(tmp_path, content):
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    if content is None:
        counter.unlink()
    else:
        counter.write_text(content)
    assert Meter(tmp_path).joules() is None
    assert Meter(tmp_path / "nothing").joules() is None


def test_energy_is_estimated_and_says_so():
    cost = running_cost(FIGURES, Running(watts_per_core=6.0))
    assert cost == {
        "energy_j_per_request": pytest.approx(2.4),
        "energy_method": "estimated: processor time x 6 W per core",
    }


def test_measured_energy_stays():
    measured = FIGURES | {"energy_j_per_request": 1.0, "energy_method": "measured: RAPL package domain"}
    assert running_cost(measured, Running()) == {}


def test_a_machine_by_the_hour():
    cost = running_cost(FIGURES, Running(machine_usd_per_hour=0.36))
    # 20 tokens at 80 a second are a quarter of a second: a thousand take 250 s, and an hour costs 0.36.
    assert cost["usd_per_1000"] == pytest.approx(0.025)
    assert cost["usd_method"] == "machine: 0.36 USD per hour, one request at a time"


def test_bought_answers_cost_their_tokens():
    cost = running_cost(FIGURES, Running(machine_usd_per_hour=0.36), Price(input_usd=0.3, output_usd=1.0))
    assert cost["usd_per_1000"] == pytest.approx((50 * 0.3 + 20 * 1.0) / 1000)
    assert cost["usd_method"].startswith("bought: 0.3 USD per million tokens read, 1 written")


def test_a_model_without_a_probe_costs_nothing_to_tell():
    everything = Running(machine_usd_per_hour=1.0)
    assert running_cost({"engine": "scikit-learn"}, everything, Price(input_usd=1, output_usd=1)) == {}


def test_the_comparison_applies_prices_to_its_models(task, rows, scored, tmp_path):
    (tmp_path / "task.json").write_text(json.dumps(task.describe()))
    write_jsonl(tmp_path / "test.jsonl", rows)
    probed = FIGURES | {"latency_p50_ms": 250.0, "weights_bytes": 1000, "peak_rss_bytes": 2000}
    folders = {role: scored(role, 30, **probed) for role in ("teacher", "shipped")} | {"floor": scored("floor", 0)}
    settings = CompareSettings(
        gates={}, running=Running(machine_usd_per_hour=0.36), teacher_price=Price(input_usd=1.0, output_usd=2.0)
    )
    Compare().run({"data": tmp_path, **folders}, settings, Context(out=tmp_path, work=tmp_path, seed=7))
    models = json.loads((tmp_path / "evidence.json").read_text())["models"]
    assert models["teacher"]["usd_per_1000"] == pytest.approx(0.09)
    assert models["shipped"]["usd_per_1000"] == pytest.approx(0.025)
    assert models["shipped"]["energy_method"].startswith("estimated")
    assert "usd_per_1000" not in models["floor"]
