"""A chat template told as the texts between messages, for systems that know no Jinja.

What stands between two messages follows from who speaks before and who speaks next. So six texts say everything that
ChatML, Llama 3, Phi and Gemma do: they are read off renderings, and held against others. A template that does more is
refused, since whoever ships it would be asked differently there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from slmops.errors import BadInput
from slmops.models.tokenizer import Tokenizer

_TRIALS = ("u", "su", "uau", "suau", "uauau", "suauau")
"""Conversations by who speaks: system, user, assistant."""

_ROLES = {"s": "system", "u": "user", "a": "assistant"}


@dataclass(frozen=True)
class Turns:
    """What stands before, between and behind the messages of a conversation.

    Attributes:
        system: before a system message, which begins.
        user: before a user's message that begins.
        system_user, user_assistant, assistant_user: between two.
        answer: behind the last user's message, up to where the answer begins.
        end: what of a text between two closes the one before: up to an end token and the line end behind it.
    """

    system: str
    user: str
    system_user: str
    user_assistant: str
    assistant_user: str
    answer: str
    end: str

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Turns:
        """Read off the template of `tokenizer`.

        Raises:
            BadInput: it does more than six texts can say, or has no end token behind an answer.
        """
        long = _between(tokenizer, "suauau")
        user = _between(tokenizer, "u")
        turns = cls(long[0], user[0], long[1], long[2], long[3], long[-1], _closing(tokenizer, long[3]))
        for trial in _TRIALS:
            if _between(tokenizer, trial) != turns.around(trial):
                raise BadInput(
                    "the chat template cannot be told without Jinja: what stands between its messages depends on more "
                    f"than who speaks (tried {', '.join(_ROLES[one] for one in trial)})",
                    hint="set chat_template: chatml, and run the recipe again",
                )
        return turns

    def around(self, speakers: str) -> list[str]:
        """The texts before, between and behind the messages of `speakers`, such as `suau`."""
        steps = {"su": self.system_user, "ua": self.user_assistant, "au": self.assistant_user}
        first = self.system if speakers[0] == "s" else self.user
        return [first, *(steps[a + b] for a, b in pairwise(speakers)), self.answer]

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt that asks for the next answer to `messages`."""
        texts = self.around("".join(message["role"][0] for message in messages))
        contents = [message["content"] for message in messages]
        return "".join(text + content for text, content in zip(texts, [*contents, ""], strict=True))


def _between(tokenizer: Tokenizer, speakers: str) -> list[str]:
    marks = [f"message{number}" for number in range(len(speakers))]
    messages = [{"role": _ROLES[one], "content": mark} for one, mark in zip(speakers, marks, strict=True)]
    try:
        rest, texts = tokenizer.render(messages), []
    except BadInput as error:
        raise BadInput(
            f"the chat template refuses a conversation of {', '.join(_ROLES[one] for one in speakers)}: {error}",
            hint="set chat_template: chatml, and run the recipe again",
        ) from error
    for mark in marks:
        before, _, rest = rest.partition(mark)
        texts.append(before)
    return [*texts, rest]


def end_tokens(tokenizer: Tokenizer) -> list[str]:
    """Texts of the tokens that end an answer."""
    return [str(tokenizer.backend.id_to_token(id)) for id in sorted(tokenizer.end_ids)]


def _closing(tokenizer: Tokenizer, text: str) -> str:
    """Of a text behind an answer, what closes it."""
    ends = [token for token in end_tokens(tokenizer) if token in text]
    if not ends:
        raise BadInput("the chat template writes no end token behind an answer", hint="set chat_template: chatml")
    token = min(ends, key=text.index)
    closed = text[: text.index(token) + len(token)]
    rest = text[len(closed) :]
    return closed + rest[: len(rest) - len(rest.lstrip("\n"))]
