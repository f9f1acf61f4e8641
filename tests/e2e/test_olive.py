"""Fine-tuning by Olive through the real command line, and shipped like any other student."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_project import Cli

from tests.runtimes import needs_olive

RECIPE = """
name: tuned
task: {kind: classification, max_answer_tokens: 8}
data: {train: train.jsonl, test: test.jsonl}
student: {model: ./model}
train:
  {method: lora, backend: olive, epochs: 8, learning_rate: 1.0e-2, batch_tokens: 128, precision: fp32, baseline: false}
compress: {precision: fp32}
evaluate: {latency_requests: 2, threads: 1}
"""


def test_a_model_is_tuned_by_olive_and_shipped(cli: Cli, tmp_path: Path) -> None:
    needs_olive()
    rows = [
        {"input": f"{begin} {number}", "output": label}
        for number in range(1, 25)
        for begin, label in (("Where is order", "order_late"), ("Money back for", "refund"))
    ]
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "model").symlink_to(cli.folder / "model")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = Cli(tmp_path).run(".slmops")
    figures = run["metrics"]["student"]
    assert figures["olive"].startswith("0.13.")
    assert figures["merge_agreement"] > 0.97
    student = Path(run["steps"]["student"]["path"])
    history = json.loads((student / "history.json").read_text())
    assert history[-1]["text"] < history[0]["text"] - 0.5
    assert [entry["step"] for entry in history] == list(range(5, int(figures["steps"]) + 1, 5))
    adapter = json.loads((student / "adapter" / "adapter_config.json").read_text())
    assert (adapter["peft_type"], adapter["r"]) == ("LORA", 16)
    evidence = json.loads((Path(run["steps"]["evaluate"]["path"]) / "evidence.json").read_text())
    assert evidence["models"].keys() == {"student", "shipped", "floor"}
    assert (tmp_path / "bundles" / "tuned" / "manifest.json").is_file()
