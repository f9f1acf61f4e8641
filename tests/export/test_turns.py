"""Templates in pieces say what they say whole, or are refused."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmops.errors import BadInput
from slmops.export.foundry import prompt_template
from slmops.export.ollama import go_template
from slmops.export.turns import Turns
from slmops.models.chat_template import CHATML, PLAIN
from slmops.models.tokenizer import Tokenizer
from tests.tokenizer_kinds import tokenizer

SMOLLM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are SmolLM.<|im_end|>\n' }}{% endif %}"
) + CHATML
LLAMA_3 = (
    "{{ '<|begin|>' }}{% for message in messages %}"
    "{{ '<|head|>' + message['role'] + '<|/head|>\n\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{{ '<|head|>assistant<|/head|>\n\n' }}"
)
PHI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|assistant|>\n' }}"
)
GEMMA = (
    "{{ '<bos>' }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "{{ '<start>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ (first if loop.first else '') + message['content'] + '<|im_end|>\n' }}{% endfor %}{{ '<start>model\n' }}"
)
TEMPLATES = {"plain": PLAIN, "chatml": CHATML, "smollm": SMOLLM, "llama-3": LLAMA_3, "phi": PHI, "gemma": GEMMA}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def with_template(template: str) -> Tokenizer:
    told = tokenizer("bytes")
    return Tokenizer(told.backend, template=template, special_tokens=told.special_tokens)


def talk(texts: list[str], system: bool) -> list[dict[str, str]]:
    roles = ["system"] * system + ["user" if i % 2 == 0 else "assistant" for i in range(len(texts) - system)]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@given(texts=st.sampled_from([1, 3, 5]).flatmap(lambda n: st.lists(TEXT, min_size=n, max_size=n)), extra=TEXT)
def test_pieces_render_what_the_template_does(template, texts, extra):
    told = with_template(template)
    turns = Turns.of(told)
    for messages in (talk(texts, False), talk([extra, *texts], True)):
        assert turns.render(messages) == told.render(messages)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_what_foundry_is_told_is_the_same_prompt(template):
    told = with_template(template)
    pieces = prompt_template(Turns.of(told))
    fill = {name: text.replace("{Content}", name) for name, text in pieces.items()}
    assert ("system" in pieces) == (template != GEMMA), "there it has no turn of its own"
    assert pieces["prompt"].replace("{Content}", "hello") == told.render(talk(["hello"], False))
    turns = Turns.of(told)
    if "system" in pieces:
        whole = fill["system"] + fill["user"] + fill["assistant"] + fill["user"] + _behind(turns)
        assert whole == told.render(talk(["system", "user", "assistant", "user"], True))


def _behind(turns: Turns) -> str:
    """What of the text behind the last message is no part of the user's piece."""
    return turns.answer.removeprefix(turns.end if turns.user_assistant.startswith(turns.end) else turns.user_assistant)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for message in messages %}{{ loop.index ~ message['content'] ~ '<|im_end|>' }}{% endfor %}", "more"),
        (
            CHATML.replace(
                "{% for", "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}{% for", 1
            ),
            "refuses",
        ),
        (CHATML.replace("<|im_end|>", "!"), "no end token"),
    ],
)
def test_a_template_that_pieces_cannot_say_is_refused(template, says):
    with pytest.raises(BadInput, match=says):
        Turns.of(with_template(template))


GO = """package main
import ("encoding/json"; "os"; "text/template")
type message struct { Role string; Content string }
type job struct { Template string; Talks [][]message }
func main() {
	var given job
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil { panic(err) }
	told := template.Must(template.New("").Option("missingkey=zero").Parse(given.Template))
	for _, talk := range given.Talks {
		if err := told.Execute(os.Stdout, map[string]any{"Messages": talk}); err != nil { panic(err) }
		os.Stdout.WriteString("\\x00")
	}
}
"""


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """A program that renders by Go's own text/template, as Ollama does."""
    if not shutil.which("go"):
        pytest.skip("Go is not installed, whose templates Ollama renders")
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO)
    build = ["go", "build", "-o", folder / "render", folder / "main.go"]
    subprocess.run(build, check=True, env={"PATH": "/usr/bin:/bin:/usr/local/go/bin", "HOME": str(folder)})
    return folder / "render"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_go_renders_what_jinja_does(go, template):
    told = with_template(template)
    talks = [
        talk(["hello"], False),
        talk(["be brief", 'say "hi" {{ .Role }}\n'], True),
        talk(["a", "b", "c", "d", "Zoë 🙂 `x`"], False),
        talk(["s", "a", "b", "c"], True),
    ]
    job = {"Template": go_template(Turns.of(told)), "Talks": talks}
    done = subprocess.run([go], input=json.dumps(job), capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == [told.render(messages) for messages in talks]
