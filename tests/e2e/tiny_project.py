"""A recipe on a tiny real model, the command line as a process of its own, and what a run must always give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECIPE = """
name: tiny
task: {kind: extraction, schema: ticket.schema.json, max_answer_tokens: 48}
data: {sample: {name: tickets, train: 60, pool: 60, test: 40}}
teachers:
  - model: ./model
    fit: {epochs: 30, learning_rate: 5.0e-3, batch_tokens: 512, precision: fp32, checkpoint_seconds: 1}
teach: {precision: fp32, batch: 16}
student: {carve: {layers: 2, extra_tokens: 100}}
train: {epochs: 4, learning_rate: 3.0e-3, batch_tokens: 512, precision: fp32, checkpoint_seconds: 1, baseline_epochs: 4}
evaluate: {latency_requests: 5, threads: 1, gates: {weights_saving: {min: 0.3}}}
"""


@dataclass(frozen=True)
class Cli:
    """The command line in folder `folder`, which holds `recipe.yaml`."""

    folder: Path

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """The process that runs `slmops` with these arguments."""
        # One thread: two runs at once share the machine, and sums do not depend on how many cores it has.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
        command = [sys.executable, "-m", "slmops.cli.main", *map(str, arguments)]
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """What `slmops` with these arguments prints to stdout; it must end with `code`."""
        return self.end(self.start(*arguments), code).stdout

    @staticmethod
    def end(process: subprocess.Popen[str], code: int = 0) -> subprocess.CompletedProcess[str]:
        stdout, stderr = process.communicate(timeout=600)
        assert process.returncode == code, stderr
        assert "Traceback" not in stderr
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def run(self, home: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        """The JSON that `slmops run` prints."""
        answer: dict[str, Any] = json.loads(self("run", "recipe.yaml", "--home", home, "--json", *arguments, code=code))
        return answer


def figures_of_quality(run: Mapping[str, Any]) -> dict[str, Any]:
    """What must not depend on when and where a run was made: all of the evidence but times and memory."""
    folder = Path(run["steps"]["evaluate"]["path"])
    evidence = json.loads((folder / "evidence.json").read_text())
    models = {
        role: {name: model.get(name) for name in ("quality", "interval", "weights_bytes", "parameters")}
        for role, model in evidence["models"].items()
    }
    named = ("n_test", "kept", "kept_interval", "same_text", "paired", "rows_for_one_point")
    return {"models": models, "weights_saving": evidence["savings"]["weights_saving"]} | {
        name: evidence[name] for name in named
    }


def predictions(run: Mapping[str, Any]) -> dict[str, str]:
    """Role to the file of its answers."""
    return {
        node: (Path(step["path"]) / "predictions.jsonl").read_text()
        for node, step in run["steps"].items()
        if node.startswith("score:")
    }
