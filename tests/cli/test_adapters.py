"""`slmops adapters export` and `slmops predict --adapter`, as processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.bundle import open_bundle
from slmops.engines import Engine, Sampling, load_engine
from slmops.errors import BadInput
from slmops.export.folder import writing_bundle
from tests.adapters import random_adapter
from tests.cli.test_bundle import slmops

TEXT = "Where is order 4711?"


@pytest.fixture(scope="module")
def given(tiny, tmp_path_factory) -> list[str | Path]:
    """The base, one adapter, and their tasks."""
    folder = tmp_path_factory.mktemp("given")
    random_adapter(tiny.folder, folder / "short", seed=1)
    (folder / "base.yaml").write_text("{kind: generation, max_answer_tokens: 20}\n")
    (folder / "short.yaml").write_text("kind: classification\nlabels: [refund, invoice]\ninstruction: Say which\n")
    rows = [{"input": text, "output": "refund"} for text in (*tiny.pairs, "Hello")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *(tiny.folder, "--adapter", f"short={folder / 'short'}", "--rows", f"short={folder / 'rows.jsonl'}"),
        *("--task", f"base={folder / 'base.yaml'}", "--task", f"short={folder / 'short.yaml'}"),
    ]


@pytest.fixture(scope="module")
def exported(given, tmp_path_factory) -> tuple[Path, list[dict]]:
    out = tmp_path_factory.mktemp("exported") / "helpdesk"
    done = slmops("adapters", "export", *given, "--out", out, "--precision", "fp32", "--json", "--threads", "1")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_each_adapter_is_proven_and_keeps_the_proof(exported):
    out, verdicts = exported
    assert {verdict["figure"] for verdict in verdicts} >= {"parity_agreement", "parity_first_token_kl", "parity_drop"}
    assert {(verdict["adapter"], verdict["state"]) for verdict in verdicts} == {("short", "pass")}
    manifest = open_bundle(out).manifest
    assert (manifest.format, manifest.name, manifest.task["kind"]) == (3, "helpdesk", "generation")
    part = manifest.adapters["short"]
    assert (part.path, part.task["labels"]) == ("adapters/short.onnx_adapter", ["refund", "invoice"])
    evidence = json.loads((out / part.evidence).read_text())
    assert evidence["parity"]["measured"]["agreement"] == 1.0
    assert evidence["gates"] == verdicts


def test_predict_answers_with_the_adapter_that_is_named(exported, given, tiny):
    out, _ = exported
    base = load_engine("transformers", tiny.folder, threads=1)
    adapter = base.adapted(Path(str(given[2]).partition("=")[2]))

    def text(engine: Engine, messages: list[dict], most: int) -> str:
        tokens = engine.generate([tiny.tokenizer.prompt(messages)], Sampling(max_tokens=most))
        return tiny.tokenizer.decode([token.id for token in tokens])

    asked = [{"role": "user", "content": TEXT}]
    told = json.loads(slmops("predict", out, TEXT, "--json").stdout)
    assert told["text"] == text(base, asked, 20)
    told = json.loads(slmops("predict", out, TEXT, "--json", "--adapter", "short").stdout)
    assert told["text"] == text(adapter, [{"role": "system", "content": "Say which"}, *asked], 24)
    done = slmops("predict", out, TEXT, "--adapter", "long")
    assert done.returncode == 2
    assert "no adapter 'long'" in done.stderr
    assert "it has: short" in done.stderr


def test_what_is_missing_is_told_before_work_begins(given, tmp_path):
    for told, says in (
        (given[:-2], "short has no --task"),
        ([*given, "--rows", "other=x"], "no adapter of that name"),
        ([*given, "--adapter", "short=x"], "given twice"),
        ([*given, "--name", "Help desk"], "cannot be called 'Help desk'"),
        ([tmp_path, *given[1:]], "holds no config.json"),
        ([*given[:1], "--adapter", f"short={tmp_path}", *given[3:]], "holds no adapter"),
    ):
        done = slmops("adapters", "export", *told, "--out", tmp_path / "out")
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_other_systems_are_not_given_the_base_alone(exported):
    with pytest.raises(BadInput, match=r"has adapters \(short\)"):
        writing_bundle(exported[0], "Ollama")
