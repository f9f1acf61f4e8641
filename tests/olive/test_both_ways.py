"""A recipe goes to Olive as a job, Olive 0.13 runs it, and what it made comes back as a bundle."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from slmops.bundle import open_bundle
from slmops.cli.main import app
from slmops.errors import BadInput
from slmops.olive.environment import olive_python
from slmops.olive.run import _SETTINGS
from tests.runtimes import needs_olive

RECIPE = """
name: tuned
seed: 3
task: {kind: classification, max_answer_tokens: 8}
data: {train: train.jsonl, test: test.jsonl, screen: {contaminated: null, overlap: null, near_duplicates: null}}
student: {model: ./model}
train: {method: lora, epochs: 4, learning_rate: 1.0e-2, batch_tokens: 128, precision: fp32, freeze_layers: 1}
"""


@pytest.fixture
def project(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [
        {"input": f"{begin} {n}", "output": label}
        for n in range(12)
        for begin, label in (("Where is order", "late"), ("Money back for", "refund"))
    ]
    for name, part in (("train", rows[:16]), ("test", rows[16:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (tmp_path / "model").symlink_to(tiny.folder)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def slmops(*arguments: object) -> None:
    assert not app(list(map(str, arguments)), standalone_mode=False)


def test_the_job_holds_the_rows_as_the_trainer_here_has_them(project):
    slmops("export", "olive", "recipe.yaml", "--out", "job")
    rows = [json.loads(line) for line in (project / "job" / "train.jsonl").read_text().splitlines()]
    assert 0 < len(rows) < 16
    assert all(row["labels"][-1] == row["input_ids"][-1] for row in rows)
    tune = json.loads((project / "job" / "config.json").read_text())["passes"]["tune"]
    assert not [name for name in tune["target_modules"] if ".0." in name]
    told = (project / "job" / "README.md").read_text()
    assert f"{len(rows)} rows" in told
    with pytest.raises(BadInput, match="is not empty"):
        slmops("export", "olive", "recipe.yaml", "--out", "job")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.method=ia3", "trains `method: lora, dora, qlora`"),
        ("train.stop_early={}", "trains to the end"),
        ("teachers=[{model: ./model}]", "learns given words alone|has a teacher"),
    ],
)
def test_what_olive_does_not_have_is_refused(project, override, says):
    with pytest.raises(BadInput, match=says):
        slmops("export", "olive", "recipe.yaml", "--out", "job", "--set", override)
    assert not (project / "job").exists()


def test_olive_runs_the_job_and_its_adapter_comes_back_as_a_bundle(project):
    needs_olive()
    slmops("export", "olive", "recipe.yaml", "--out", "job")
    command = [olive_python(), "-I", "-m", "olive", "run", "--config", "config.json", "--disable_telemetry"]
    environment = {**_SETTINGS, "PATH": "/usr/bin:/bin", "HOME": str(project), "HF_HOME": str(project / "hf")}
    done = subprocess.run(command, cwd=project / "job", env=environment, capture_output=True, text=True, check=False)
    output = project / "job" / "olive"
    assert (output / "adapter" / "adapter_model.safetensors").is_file(), done.stderr[-2000:]
    arguments = ["--data", "test.jsonl", "--train", "train.jsonl", "--task", "classification", "--threads", 1]
    slmops("import", "olive", output, *arguments, "--latency-requests", 0, "--out", "bundle", "--quiet")
    bundle = open_bundle(project / "bundle", threads=1)
    assert bundle.predict("Where is order 77").answer in ("late", "refund")
    evidence = json.loads((project / "bundle" / "evidence.json").read_text())
    assert evidence["models"].keys() == {"shipped", "floor"}
    base = load_file(project / "model" / "model.safetensors")
    with safe_open(project / "bundle" / "model" / "model.safetensors", "pt") as file:
        moved = {name for name in file.keys() if not file.get_tensor(name).equal(base[name])}  # noqa: SIM118
    assert moved
    assert all(".layers.1." in name for name in moved)
