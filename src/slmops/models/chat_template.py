"""Chat templates, rendered as `transformers` renders them but without it, in a sandbox and within limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from slmops.errors import BadInput

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Plain ChatML without a default system text."""

PLAIN = (
    "{% for message in messages %}"
    "{{ message['content'] + (eos_token if message['role'] == 'assistant' else '') + '\n' }}"
    "{% endfor %}"
)
"""A message a line, and nothing else: a task of one question and one answer needs no marks of who speaks."""

MAX_TEMPLATE_CHARS = 200_000
"""The longest template in public use has about 20,000."""

MAX_PROMPT_CHARS = 8_000_000
"""More than any small model's context holds; rendering stops there."""


class ChatTemplate:
    """A compiled template. It sees messages and special tokens as plain JSON data and nothing else."""

    def __init__(self, source: str) -> None:
        """Compile `source`.

        Raises:
            BadInput: the template is too long or is not Jinja.
        """
        if len(source) > MAX_TEMPLATE_CHARS:
            raise BadInput(f"the chat template has {len(source)} characters; at most {MAX_TEMPLATE_CHARS} are accepted")
        self.source = source
        try:
            self._template = _environment().from_string(source)
        except TemplateError as error:
            raise BadInput(f"the chat template is not valid Jinja: {error}") from error

    def render(
        self,
        messages: Iterable[Mapping[str, Any]],
        special_tokens: Mapping[str, str],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The prompt that asks for the next answer to `messages`.

        Args:
            messages: `{"role": …, "content": …}` each, and perhaps `tool_calls`, plain JSON.
            special_tokens: what templates call `bos_token`, `eos_token` and so on.
            tools: what the model may call, plain JSON; None where there is nothing.

        Raises:
            BadInput: the template refuses the messages, fails, or writes without end.
        """
        plain = [{str(key): _plain(value) for key, value in message.items()} for message in messages]
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.generate(
                **special_tokens, messages=plain, tools=tools, documents=None, add_generation_prompt=True
            ):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_PROMPT_CHARS:
                    raise BadInput(f"the chat template wrote more than {MAX_PROMPT_CHARS} characters")
        except BadInput:
            raise
        except Exception as error:  # whatever a foreign template does wrong is bad input, never a traceback
            raise BadInput(f"the chat template failed: {type(error).__name__}: {error}") from error
        return "".join(pieces)


def _plain(value: Any) -> Any:
    """A text; lists and objects, as calls of tools are, stay what they are."""
    return value if isinstance(value, list | dict) else str(value)


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; it renders as its body."""

    tags = {"generation"}  # noqa: RUF012  declared as a plain set by jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _SafeNamespace(Namespace):
    """A namespace that keeps templates away from Python's own attributes."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace attribute may not begin with an underscore: {name!r}")
        super().__setitem__(name, value)


def _environment() -> ImmutableSandboxedEnvironment:
    """The filters, globals and white-space rules that templates written for `transformers` rely on."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise,
        strftime_now=_strftime_now,
        dict=lambda *args, **named: dict(*args, **named),
        namespace=_SafeNamespace,
    )
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
