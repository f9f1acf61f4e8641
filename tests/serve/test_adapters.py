"""A served base with adapters: each is a model of its own to clients, in one batch and in little memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slmops.bundle import AdapterPart, open_bundle, write_bundle
from slmops.engines import Engine, Sampling, load_engine
from slmops.errors import BadInput
from slmops.serve.fastest import choose
from slmops.tasks import Classification, Generation, Task
from tests.adapters import NAMES, Adapted, adapted_models
from tests.serve.listening import Client, listen

INSTRUCTION = "Say which kind it is"
LABELS = Classification(("refund", "invoice", "other"), INSTRUCTION, 8)
TASKS: dict[str | None, Task] = {
    None: Generation(None, 12),
    "first": Generation("Answer in short", 12),
    "second": LABELS,
}


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory) -> dict[str, Adapted]:
    return adapted_models(tiny.folder, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def bundle(models, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("adapters") / "bundle"
    model = models["onnxruntime-genai"]
    write_bundle(
        out,
        name="tiny",
        version="1",
        engine="onnxruntime-genai",
        model_folder=model.model,
        task=TASKS[None].describe(),
        lineage={},
        evidence={},
        adapters={name: AdapterPart(path, TASKS[name].describe()) for name, path in model.adapters.items()},
    )
    return out


@pytest.fixture(scope="module")
def merged(models) -> dict[str | None, Engine]:
    base = load_engine("transformers", models["transformers"].model, threads=1)
    return {None: base, **{name: base.adapted(path) for name, path in models["transformers"].adapters.items()}}


@pytest.fixture
def client(bundle) -> Iterator[Client]:
    yield from listen(bundle, adapters=1)


def model_of(adapter: str | None) -> str:
    return f"tiny:{adapter}" if adapter else "tiny"


def expected(merged, tiny, text: str, adapter: str | None) -> str:
    """What PyTorch writes, asked as the task asks."""
    prompt = tiny.tokenizer.prompt(TASKS[adapter].render(text))
    sampling = Sampling(max_tokens=TASKS[adapter].max_answer_tokens)
    return tiny.tokenizer.decode([token.id for token in merged[adapter].generate([prompt], sampling)])


def said(client: Client, text: str, adapter: str | None) -> str:
    reply = client.chat(text, model=model_of(adapter))
    assert reply.status == 200, reply.body
    assert reply.body["model"] == model_of(adapter)
    return reply.body["choices"][0]["message"]["content"]


def test_models_are_listed_and_asked_by_name(client, merged, tiny):
    told = client.ask("/v1/models").body["data"]
    assert [(one["id"], one.get("parent")) for one in told] == [
        ("tiny", None),
        ("tiny:first", "tiny"),
        ("tiny:second", "tiny"),
    ]
    assert client.ask("/v1/models/tiny:first").body["id"] == "tiny:first"
    text = "Where is order 4711?"
    answers = {adapter: said(client, text, adapter) for adapter in TASKS}
    assert answers == {adapter: expected(merged, tiny, text, adapter) for adapter in TASKS}
    assert len(set(answers.values())) == 3
    unknown = client.chat(text, model="tiny:third")
    assert (unknown.status, unknown.body["error"]["code"]) == (404, "model_not_found")
    assert "tiny:second" in unknown.body["error"]["message"]


def test_labels_are_those_of_the_adapters_task(client, bundle):
    body = {"model": "tiny:second", "input": ["I want my 20 € back", "Where is order 4711?"]}
    told = client.ask("/v1/classify", body).body["data"]
    for one, wanted in zip(
        told, open_bundle(bundle, threads=1).adapted("second").probabilities(body["input"]), strict=True
    ):
        assert one["probabilities"] == pytest.approx(wanted, abs=2e-3)
    assert client.ask("/v1/classify", body | {"model": "tiny"}).status == 404
    assert client.ask("/v1/classify", body | {"model": "tiny:first"}).status == 404


def test_vectors_are_of_the_base_alone(client):
    assert client.ask("/v1/embeddings", {"model": "tiny:first", "input": "a"}).status == 404


def test_one_is_given_up_for_another_and_nobody_is_refused(client, merged, tiny):
    """With room for one adapter, requests for two and the base come together."""
    texts = list(tiny.pairs)
    asked = [(text, adapter) for text in texts for adapter in TASKS]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda one: said(client, *one), asked))
    assert answers == [expected(merged, tiny, *one) for one in asked]
    figures = client.send("/metrics").body.decode()
    assert "slmops_adapters 1.0" in figures
    loads = next(line for line in figures.splitlines() if line.startswith("slmops_adapter_loads_total"))
    assert float(loads.split()[1]) >= 2
    assert 'gen_ai_request_model="tiny:first"' in figures
    assert "third" not in figures


def test_one_that_is_asked_all_the_time_keeps_no_other_out(client):
    """There is room for one adapter, and at every moment somebody writes with the first."""
    body = {"model": "tiny:first", "prompt": [5, 6, 7], "max_tokens": 40, "temperature": 2.0}
    over = threading.Event()

    def ask_on(_number: int) -> set[int]:
        seen = set()
        while not over.is_set():
            seen.add(client.ask("/v1/completions", body).status)
        return seen

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask_on, number) for number in range(3)]
        try:
            assert client.ask("/v1/completions", body | {"model": "tiny:second", "max_tokens": 2}).status == 200
        finally:
            over.set()
        assert {status for one in asking for status in one.result()} == {200}


def test_a_runtime_that_cannot_fill_slots_is_refused(bundle):
    opened = open_bundle(bundle)
    assert choose(opened, "auto", streams=1) == "onnxruntime-genai"
    with pytest.raises(BadInput, match="openvino cannot run"):
        choose(opened, "openvino", streams=1)
    assert set(opened.manifest.adapters) == set(NAMES)
