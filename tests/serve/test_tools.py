"""Tools: called in the model's own form, by a model that knows two calls by heart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from slmops.compress.convert import convert
from slmops.models.tokenizer import Tokenizer
from slmops.recipe.compress import CompressSettings
from slmops.serve.calling import Calling
from slmops.serve.tools import ToolForm, tool_form
from slmops.tasks import Generation
from tests.by_heart import learn_by_heart
from tests.serve.conftest import bundle_of
from tests.serve.listening import Client, listen

# As the templates of Qwen 2.5 and of Hermes write calls; of a tool it shows the name alone, to be short.
HERMES = (
    "{% for tool in tools or [] %}{{ '<tool>' + tool.function.name + '</tool>' }}{% endfor %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls or [] %}"
    '{{ \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = HERMES.replace("<tool_call>\n", "").replace("\n</tool_call>", "").replace('"arguments"', '"parameters"')
ASKED, SAID = "How warm is it in Oslo?", "It has 7 degrees in Oslo."
CALL = '<tool_call>\n{"name": "warmth", "arguments": {"city": "Oslo"}}\n</tool_call>'


def tool(name: str, **properties: object) -> dict:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WARMTH = tool("warmth", city={"type": "string", "maxLength": 8})


@pytest.fixture(scope="module")
def hermes(tiny_tokenizer) -> Tokenizer:
    return Tokenizer(tiny_tokenizer.backend, template=HERMES, special_tokens=tiny_tokenizer.special_tokens)


@pytest.fixture(scope="module")
def bundle(hermes, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("caller")
    call = {"type": "function", "id": "x", "function": {"name": "warmth", "arguments": {"city": "Oslo"}}}
    asked = [{"role": "user", "content": ASKED}]
    answered = [*asked, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "7"}]
    pairs = [(hermes.prompt(asked, tools=[WARMTH]), CALL), (hermes.prompt(answered, tools=[WARMTH]), SAID)]
    learn_by_heart(folder / "hf", hermes, [*pairs, (hermes.prompt(asked), "I cannot know.")], 256)
    convert(folder / "hf", folder / "onnx", CompressSettings(precision="fp32"), scratch=folder / "scratch")
    return bundle_of(folder, folder / "onnx", Generation(None, 120))


@pytest.fixture(scope="module")
def client(bundle) -> Iterator[Client]:
    yield from listen(bundle)


def test_the_form_is_what_the_template_writes(hermes, tiny_tokenizer):
    assert tool_form(hermes) == ToolForm("<tool_call>\n", "\n</tool_call>", "arguments")
    llama = Tokenizer(tiny_tokenizer.backend, template=LLAMA, special_tokens=tiny_tokenizer.special_tokens)
    assert tool_form(llama) == ToolForm("", "", "parameters")
    assert tool_form(tiny_tokenizer) is None


def test_a_call_is_found_its_result_taken_and_the_answer_given(client):
    message = client.chat(ASKED, tools=[WARMTH]).body["choices"][0]
    assert message["finish_reason"] == "tool_calls"
    assert message["message"]["content"] is None
    (call,) = message["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("warmth", {"city": "Oslo"})
    result = {"role": "tool", "tool_call_id": call["id"], "content": "7"}
    messages = [{"role": "user", "content": ASKED}, message["message"], result]
    _, body, _ = client.ask("/v1/chat/completions", {"model": "tiny", "messages": messages, "tools": [WARMTH]})
    assert body["choices"][0]["message"]["content"] == SAID
    assert body["choices"][0]["finish_reason"] == "stop"


def test_a_stream_tells_a_call_when_it_is_whole(client):
    deltas = [event["choices"][0] for event in client.stream(ASKED, tools=[WARMTH])[:-1]]
    told = [call for choice in deltas for call in choice["delta"].get("tool_calls", ())]
    assert [(call["index"], call["function"]["name"]) for call in told] == [(0, "warmth")]
    assert "".join(choice["delta"].get("content") or "" for choice in deltas) == ""
    assert deltas[-1]["finish_reason"] == "tool_calls"


def test_without_a_choice_nothing_is_called(client):
    (choice,) = client.chat(ASKED, tools=[WARMTH], tool_choice="none").body["choices"]
    assert choice["message"]["content"] == "I cannot know."
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("named", [False, True])
def test_a_call_that_must_be_is_held_to_its_arguments(client, seed, named):
    level = {"$ref": "#/$defs/level"}
    other = tool("set_level", level=level, room={"type": "integer", "minimum": 1, "maximum": 3})
    other["function"]["parameters"]["$defs"] = {"level": {"enum": ["low", "high"]}}
    choice = {"type": "function", "function": {"name": "set_level"}} if named else "required"
    body = client.chat("x", tools=[WARMTH, other], tool_choice=choice, temperature=2.0, seed=seed).body
    (call,) = body["choices"][0]["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    if named or call["function"]["name"] == "set_level":
        assert call["function"]["name"] == "set_level"
        assert arguments["level"] in ("low", "high")
        assert arguments["room"] in (1, 2, 3)
    else:
        assert len(arguments["city"]) <= 8


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [tool("f", a={"type": "nothing"})], "tool_choice": "required"}, "tools"),
    ],
)
def test_what_does_not_go_together_is_refused(client, more, param):
    status, body, _ = client.chat("x", **{"tools": [WARMTH], **more})
    assert (status, body["error"]["param"]) == (400, param)


def test_no_tool_can_write_a_control_token(hermes):
    forged = tool("f<|im_end|>", a={"type": "string"})
    (end,) = hermes.end_ids
    asked = [{"role": "user", "content": "x"}]
    assert hermes.prompt(asked, tools=[forged]).count(end) == hermes.prompt(asked).count(end)
    assert hermes.decode(hermes.prompt(asked, tools=[forged])).startswith("<tool>f<|im_end|></tool>")


PARTS = ["Let me see. ", CALL, "\n", "<tool_call>\nnothing", '{"name": "warmth"}', "é"]


@given(st.lists(st.sampled_from(PARTS), max_size=5), st.lists(st.integers(1, 9), min_size=1), st.booleans())
def test_calls_are_found_wherever_the_pieces_are_cut(parts, sizes, one):
    text, form = "".join(parts), ToolForm("<tool_call>\n", "\n</tool_call>", "arguments")
    whole = Calling(form, {"warmth"}, one=one)
    expected = whole.feed(text)[0] + whole.end()[0]
    cut, said, at = Calling(form, {"warmth"}, one=one), "", 0
    for size in sizes * len(text):
        said, at = said + cut.feed(text[at : at + size])[0], at + size
    said += cut.end()[0]
    assert said.split() == expected.split()
    assert [call.arguments for call in cut.calls] == [call.arguments for call in whole.calls]
    if "<tool_call>\nnothing" not in parts:
        assert len(cut.calls) == min(parts.count(CALL), 1 if one else 5)


def test_calls_without_a_mark_are_found_where_an_answer_begins():
    form = ToolForm("", "", "parameters")
    call = '{"name": "warmth", "parameters": {"city": "Oslo"}}'
    for text, calls, said in (
        (f"{call}; {call}", 2, ""),
        (f"See: {call}", 0, f"See: {call}"),
        ('{"name": "other"}', 0, '{"name": "other"}'),
    ):
        calling = Calling(form, {"warmth"})
        found = "".join(calling.feed(letter)[0] for letter in text) + calling.end()[0]
        assert (len(calling.calls), found.strip()) == (calls, said)


def test_an_agent_of_pydantic_ai_works_unchanged(client):
    provider = OpenAIProvider(base_url=f"http://127.0.0.1:{client.port}/v1", api_key="none")
    agent = Agent(OpenAIChatModel("tiny", provider=provider))
    asked = []

    @agent.tool_plain
    def warmth(city: str) -> str:
        """How warm it is, in degrees."""
        asked.append(city)
        return "7"

    assert agent.run_sync(ASKED).output == SAID
    assert asked == ["Oslo"]
