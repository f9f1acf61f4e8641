"""Several adapters on one base, through the real command line: trained, merged, measured, and one more added."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_project import Cli

RECIPE = """
name: helpers
student: {model: ./model}
train: {method: lora, epochs: 6, learning_rate: 1.0e-2, batch_tokens: 512, precision: fp32, adapter: {rank: 4}}
evaluate: {latency_requests: 1, threads: 1}
compress: {precision: fp32}
adapters:
  orders:
    task: {kind: classification, max_answer_tokens: 8}
    data: {train: orders-train.jsonl, test: orders-test.jsonl}
    evaluate: {gates: {weights_bytes: {max: 1.0e+9}}}
  prices:
    task: {kind: qa, max_answer_tokens: 8}
    data: {train: prices-train.jsonl, test: prices-test.jsonl}
    train: {baseline: false}
merge:
  - {method: ties, weights: {prices: 0.5}}
"""
MORE = """
  tone:
    task: {kind: classification, max_answer_tokens: 8}
    data: {train: orders-train.jsonl, test: orders-test.jsonl}
    train: {adapter: {rank: 2}}
"""


def test_adapters_are_trained_merged_and_measured_and_one_more_trains_alone(cli: Cli, tmp_path: Path) -> None:
    asked = [("Where is order", "order_late"), ("Money back for", "refund")]
    priced = [("What does item", "twenty"), ("Price of part", "thirty")]
    for name, kinds in (("orders", asked), ("prices", priced)):
        rows = [{"input": f"{begin} {n}", "output": label} for n in range(1, 39) for begin, label in kinds]
        for part, some in (("train", rows[:40]), ("test", rows[40:])):
            (tmp_path / f"{name}-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (tmp_path / "model").symlink_to(cli.folder / "model")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    here = Cli(tmp_path)
    run = here.run(".slmops")
    steps = {node: Path(step["path"]) for node, step in run["steps"].items()}
    for node in ("adapter:orders", "adapter:prices", "merge:ties"):
        config = json.loads((steps[node] / "adapter" / "adapter_config.json").read_text())
        assert config["r"] == 4
        assert (steps[node] / "adapter" / "adapter_model.safetensors").is_file()
    evidence = json.loads((steps["merged:orders"] / "evidence.json").read_text())
    assert evidence["models"].keys() == {"base", "student", "floor", "merged:ties"}
    pairs = {(test["ours"], test["theirs"]) for test in evidence["paired"]}
    assert {("student", "base"), ("student", "merged:ties")} <= pairs
    parity = json.loads((steps["parity"] / "parity.json").read_text())
    assert {name: found["measured"]["agreement"] > 0.9 for name, found in parity.items()} == {
        "orders": True,
        "prices": True,
    }
    (first, *_) = (steps["score:student:prices"] / "predictions.jsonl").read_text().splitlines()
    answered = here("predict", tmp_path / "bundles" / "helpers", "What does item 21", "--adapter", "prices")
    assert answered.strip() == json.loads(first)["text"]
    table = (steps["report"] / "table.txt").read_text()
    assert "orders, n = 36" in table
    assert "prices: ties against adapter" in table
    assert "orders: gate pass: weights_bytes" in table
    assert "helpers-orders" in (steps["report:orders"] / "report.html").read_text()

    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("merge:", MORE.lstrip("\n") + "merge:"))
    dry = here("run", "recipe.yaml", "--dry-run", "--json", "--set", "merge.0.of=[orders, prices]")
    missing = {step["node"] for step in json.loads(dry)["steps"] if not step["cached"]}
    missing -= {"shipped", "bundle", "parity", "report"}
    assert {node.rpartition(":")[2] for node in missing} == {"tone"}
    assert "adapter:tone" in missing
    assert "data:tone" not in missing
