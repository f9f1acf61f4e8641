"""The official client, unchanged: what it reads of our answers is what it reads of OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import openai
import pytest
from pydantic import BaseModel

from slmops.serve.access import Keys
from tests.serve.listening import listen

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def client(writer) -> Iterator[openai.OpenAI]:
    for server in listen(writer, keys=Keys([KEY])):
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0)


def messages(text: str) -> list:
    return [{"role": "user", "content": text}]


def test_a_chat_whole_and_as_a_stream(client, tiny):
    for text, expected in tiny.pairs.items():
        whole = client.chat.completions.create(model="tiny", messages=messages(text), logprobs=True, top_logprobs=2)
        (choice,) = whole.choices
        assert choice.message.content == expected
        assert choice.finish_reason == "stop"
        assert len(choice.logprobs.content) == whole.usage.completion_tokens
        stream = client.chat.completions.create(
            model="tiny", messages=messages(text), stream=True, stream_options={"include_usage": True}
        )
        *chunks, last = stream
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
        assert last.usage.total_tokens == whole.usage.total_tokens


def test_an_answer_as_an_object_of_a_class(client):
    class Ticket(BaseModel):
        late: bool
        urgency: Literal["low", "high"]

    parsed = client.chat.completions.parse(model="tiny", messages=messages("hello"), response_format=Ticket)
    assert isinstance(parsed.choices[0].message.parsed, Ticket)


def test_completions_models_and_the_manager_of_a_stream(client, tiny):
    text, expected = next(iter(tiny.pairs.items()))
    prompt = tiny.tokenizer.render(messages(text))
    assert client.completions.create(model="tiny", prompt=prompt).choices[0].text == expected
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "slmops"
    with client.chat.completions.stream(model="tiny", messages=messages(text)) as stream:
        assert stream.get_final_completion().choices[0].message.content == expected


def test_errors_come_as_the_clients_own(client):
    with pytest.raises(openai.BadRequestError, match="max_tokens") as error:
        client.chat.completions.create(model="tiny", messages=messages("x"), max_tokens=0)
    assert error.value.param == "max_tokens"
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="other", messages=messages("x"))
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tiny", messages=messages("long " * 400))
    assert error.value.code == "context_length_exceeded"
