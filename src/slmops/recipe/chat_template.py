"""How messages become the text of a prompt, where that is not as the model's own tokenizer says."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator

from slmops.recipe.settings import MAPPING, PLAIN, Settings, plain_or_mapping

PLACEHOLDERS = {"system": "{system}", "user": "{input}", "assistant": "{output}"}
"""Of the text for each role: where the message stands in it."""

TemplateName = Literal["model", "chatml", "llama3", "phi3", "phi4-mini", "gemma", "plain"]
"""`model` is the tokenizer's own; the others are in `slmops.models.templates`."""


class TextTemplate(Settings):
    """A template of your own: for each message a text, in which one placeholder says where the message stands.

    A brace that is meant as one is written twice, as in `{{`. Behind an answer stands the tokenizer's end token.
    """

    system: str | None = Field(
        None, description="Around a system message, with `{system}`; null has no place for one, and refuses it."
    )
    user: str = Field(description="Around a message of the user, with `{input}`.")
    assistant: str = Field(
        description="Around an answer, with `{output}`. What stands before it ends the prompt; the answer and its end "
        "token are learned."
    )

    @field_validator("system", "user", "assistant")
    @classmethod
    def _one_place(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is not None and info.field_name:
            around(text, PLACEHOLDERS[info.field_name])
        return text


ChatTemplate = Annotated[
    Annotated[TemplateName, Tag(PLAIN)] | Annotated[TextTemplate, Tag(MAPPING)], Discriminator(plain_or_mapping)
]


def around(text: str, placeholder: str) -> tuple[str, str]:
    """What stands before and behind the one `placeholder` of `text`, with doubled braces made single.

    Raises:
        ValueError: it is not there or not once, there is another one, or a brace stands alone.
    """
    before, behind, places = "", "", 0
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{error}; a brace that is meant as one is written twice: {{{{ or }}}}") from None
    for literal, name, form, conversion in parts:
        before, behind = (before, behind + literal) if places else (before + literal, behind)
        if name is None:
            continue
        written = f"{{{name}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}}}"
        if written != placeholder:
            raise ValueError(
                f"`{written}` is no placeholder here: `{placeholder}` says where the message stands, and a brace that "
                "is meant as one is written twice: {{ or }}"
            )
        places += 1
    if places != 1:
        raise ValueError(f"`{placeholder}` must stand in it once, and it does {places} times")
    return before, behind
