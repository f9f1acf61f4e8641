"""Chat templates that take the place of a tokenizer's own: those of families, by name, and a user's own texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slmops.errors import BadInput
from slmops.models.chat_template import CHATML, PLAIN
from slmops.recipe.chat_template import PLACEHOLDERS, TextTemplate, around

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LLAMA3 = (
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_PHI3 = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
_PHI4_MINI = _PHI3.replace("\n", "")
_GEMMA = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ (first if loop.first else '') + message['content'] + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Template:
    """A template and what it takes for granted of a tokenizer.

    Attributes:
        source: in Jinja, without a first token of the tokenizer's.
        control: tokens that it writes, of which the first stands behind an answer; empty where the tokenizer's
            `eos_token` does.
    """

    source: str
    control: tuple[str, ...] = ()


TEMPLATES = {
    "chatml": Template(CHATML, ("<|im_end|>", "<|im_start|>")),
    "llama3": Template(_LLAMA3, ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")),
    "phi3": Template(_PHI3, ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")),
    "phi4-mini": Template(_PHI4_MINI, ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>")),
    "gemma": Template(_GEMMA, ("<end_of_turn>", "<start_of_turn>")),
    "plain": Template(PLAIN),
}
"""As the families' own write messages, without a default system text and without taking blanks off messages."""


def put_template(tokenizer: PreTrainedTokenizerBase, wanted: str | TextTemplate, model: str) -> None:
    """Give `tokenizer` the template `wanted`, and the end token that goes with it.

    Args:
        wanted: a name in `TEMPLATES`, or texts.
        model: what errors call it.

    Raises:
        BadInput: the tokenizer lacks a token that the template writes.
    """
    template = Template(_jinja(wanted)) if isinstance(wanted, TextTemplate) else TEMPLATES[wanted]
    known = tokenizer.get_vocab()
    if lacking := [token for token in template.control if token not in known]:
        raise BadInput(
            f"chat_template: {wanted} writes {lacking[0]}, which the tokenizer of {model} does not know",
            hint="take the template of the model's own family, plain, or one of your own",
        )
    # A model that was trained behind a first token of its own is another one without it.
    begins = tokenizer.bos_token is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + template.source
    if template.control:
        tokenizer.eos_token = template.control[0]


def _jinja(texts: TextTemplate) -> str:
    """The template that puts each message into its text."""
    before, behind = around(texts.assistant, PLACEHOLDERS["assistant"])
    system = (
        "{{ raise_exception('this template has no place for a system message') }}"
        if texts.system is None
        else _said(*around(texts.system, PLACEHOLDERS["system"]))
    )
    return (
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{system}"
        f"{{% elif message['role'] == 'user' %}}{_said(*around(texts.user, PLACEHOLDERS['user']))}"
        f"{{% else %}}{{{{ {_quoted(before)} + message['content'] + eos_token + {_quoted(behind)} }}}}{{% endif %}}"
        "{% endfor %}"
        f"{{% if add_generation_prompt %}}{{{{ {_quoted(before)} }}}}{{% endif %}}"
    )


def _said(before: str, behind: str) -> str:
    return f"{{{{ {_quoted(before)} + message['content'] + {_quoted(behind)} }}}}"


def _quoted(text: str) -> str:
    """`text` as Jinja's own kind of text, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)
