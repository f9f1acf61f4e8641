"""Fine-tuning without a teacher, through the real command line: to a bundle, or where nothing merges, to a report."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_project import Cli

from slmops.models.tokenizer import Tokenizer

RECIPE = """
name: tuned
task: {kind: classification, max_answer_tokens: 8}
data: {train: train.jsonl, test: test.jsonl}
student: {model: ./model}
train: {method: lora, epochs: 6, learning_rate: 1.0e-2, batch_tokens: 512, precision: fp32}
evaluate: {latency_requests: 3, threads: 1}
"""


TEMPLATE = 'student.chat_template={user: "Message: {input}\\n", assistant: "Label: {output}"}'


def project(cli: Cli, folder: Path) -> Cli:
    """The command line in a folder with rows, the tiny model and a recipe."""
    rows = [
        {"input": f"{begin} {number}", "output": label}
        for number in range(1, 31)
        for begin, label in (("Where is order", "order_late"), ("Money back for", "refund"))
    ]
    for name, part in (("train", rows[:40]), ("test", rows[40:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (folder / "model").symlink_to(cli.folder / "model")
    (folder / "recipe.yaml").write_text(RECIPE)
    return Cli(folder)


def test_a_model_is_tuned_measured_and_shipped(cli: Cli, tmp_path: Path) -> None:
    here = project(cli, tmp_path)
    expected = json.loads(here("plan", "recipe.yaml", "--json"))["trainings"][0]
    assert not expected["figures"]
    run = here.run(".slmops")
    figures = run["metrics"]["student"]
    assert figures["trainable_parameters"] == expected["forecast"]["trainable"]
    assert figures["estimated_memory_bytes"] == expected["forecast"]["memory"]["total"]
    assert figures["merge_agreement"] > 0.97
    assert figures["general_perplexity_before"] > 1
    assert figures["general_perplexity_after"] > 1
    assert "perplexity of general text" in (Path(run["steps"]["report"]["path"]) / "report.html").read_text()
    student = Path(run["steps"]["student"]["path"])
    assert json.loads((student / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    evidence = json.loads((Path(run["steps"]["evaluate"]["path"]) / "evidence.json").read_text())
    assert evidence["models"].keys() == {"base", "student", "shipped", "floor"}
    assert (tmp_path / "bundles" / "tuned" / "manifest.json").is_file()
    card = (tmp_path / "bundles" / "tuned" / "MODEL_CARD.md").read_text()
    assert "Fine-tuned from" in card
    assert "measured" in here("plan", "recipe.yaml")

    beside = here.run(".slmops", "--set", "train.method=bottleneck")
    assert "shipped" not in beside["steps"]
    assert beside["steps"]["student:base"]["cached"]
    model = Path(beside["steps"]["student"]["path"]) / "model"
    html = Path(beside["steps"]["report"]["path"]) / "report.html"
    assert "trained weights" in html.read_text()
    refused = here.end(here.start("compress", str(model), "--data", "test.jsonl", "--task", "classification"), 2)
    assert "cannot be merged" in refused.stderr


def test_a_head_that_labels_ships_with_its_template(cli: Cli, tmp_path: Path) -> None:
    here = project(cli, tmp_path)
    head = [TEMPLATE, "student.head=tags", "train.method=full", "train.learning_rate=3.0e-3", "train.baseline=false"]
    head.append("compress.precision=fp32")
    run = here.run(".slmops", *(part for setting in head for part in ("--set", setting)))
    assert run["metrics"]["calibrate"]["temperature"] > 0
    assert run["metrics"]["parity"]["parity_agreement"] == 1
    bundle = tmp_path / "bundles" / "tuned"
    assert (bundle / "model" / "tags.safetensors").is_file()
    tokenizer = Tokenizer.load(bundle / "model")
    assert tokenizer.render([{"role": "user", "content": "hi"}]) == "Message: hi\nLabel: "
    assert json.loads(here("predict", str(bundle), "Money back for 77", "--json"))["answer"] == "refund"
