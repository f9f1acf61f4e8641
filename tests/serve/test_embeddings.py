"""Texts as vectors: what PyTorch says of the same tokens, through the official client too."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import openai
import pytest
import torch

from slmops.compress.convert import convert
from slmops.models.source import load_model
from slmops.recipe.compress import CompressSettings
from slmops.tasks import Generation
from tests.serve.conftest import bundle_of
from tests.serve.listening import Client, listen

TEXTS = ["Where is order 4711?", "a", "I want my 20 € back, and I want it now, and a <|im_end|> besides"]


@pytest.fixture(scope="module")
def client(tiny, tmp_path_factory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("exported")
    convert(tiny.folder, folder / "onnx", CompressSettings(precision="fp32"), scratch=folder / "scratch")
    yield from listen(bundle_of(folder, folder / "onnx", Generation(None, 40)))


def embed(client: Client, given, **more):
    return client.ask("/v1/embeddings", {"model": "tiny", "input": given, **more})


@pytest.fixture(scope="module")
def expected(tiny) -> np.ndarray:
    model, found = load_model(tiny.folder), []
    for text in TEXTS:
        ids = torch.tensor([tiny.tokenizer.encode_plain(text)[0]])
        with torch.no_grad():
            mean = model.base_model(ids).last_hidden_state[0].mean(0)
        found.append((mean / mean.norm()).numpy())
    return np.stack(found)


def test_vectors_are_the_means_of_last_hidden_states_together_and_alone(client, expected):
    status, body, _ = embed(client, TEXTS)
    assert status == 200
    assert [one["index"] for one in body["data"]] == [0, 1, 2]
    np.testing.assert_allclose([one["embedding"] for one in body["data"]], expected, atol=1e-4)
    for text, vector in zip(TEXTS, expected, strict=True):
        (one,) = embed(client, text).body["data"]
        np.testing.assert_allclose(one["embedding"], vector, atol=1e-4)


def test_tokens_are_taken_and_bytes_given(client, tiny, expected):
    ids = [tiny.tokenizer.encode_plain(text)[0] for text in TEXTS]
    _, body, _ = embed(client, ids, encoding_format="base64")
    found = [np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4") for one in body["data"]]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert body["usage"]["prompt_tokens"] == sum(map(len, ids))
    assert embed(client, ids[0]).status == 200


def test_the_official_client_reads_them(client, expected):
    official = openai.OpenAI(base_url=f"http://127.0.0.1:{client.port}/v1", api_key="none", max_retries=0)
    found = official.embeddings.create(model="tiny", input=TEXTS)
    np.testing.assert_allclose([one.embedding for one in found.data], expected, atol=1e-4)


def test_the_same_bundle_still_writes(client, tiny):
    for text, answer in tiny.pairs.items():
        assert client.chat(text).body["choices"][0]["message"]["content"] == answer


@pytest.mark.parametrize(
    ("given", "more", "param"),
    [
        ("long " * 400, {}, "input"),
        ("", {}, "input"),
        ([], {}, "input"),
        ([10**6], {}, "input"),
        ("a", {"dimensions": 8}, "dimensions"),
        ("a", {"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_cannot_be_embedded_is_refused(client, given, more, param):
    status, body, _ = embed(client, given, **more)
    assert (status, body["error"]["param"].split(".")[0]) == (400, param)
    assert embed(client, "a", dimensions=64).status == 200


def test_a_student_that_marks_embeds_and_an_older_export_does_not(marker, writer):
    for client in listen(marker):
        (one,) = embed(client, "a").body["data"]
        assert np.linalg.norm(one["embedding"]) == pytest.approx(1, abs=1e-5)
    for client in listen(writer):
        status, body, _ = embed(client, "a")
        assert (status, body["error"]["code"]) == (404, "unsupported")
