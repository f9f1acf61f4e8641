"""Text to tokens and back, with the chat template: the same bytes in training, in the evaluation and in a bundle.

Only the `tokenizers` library is used, so a bundle answers without `transformers` or `torch`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers

from slmops.errors import BadInput
from slmops.models.chat_template import CHATML, ChatTemplate

__all__ = ["CHATML", "TextStream", "Tokenizer", "configured_end_ids", "end_of_answer"]

_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_UNFINISHED = "\ufffd"
_NONCHARACTER = "\ufdd0"
"""Stands for nothing and may stand in any text (Unicode 16, section 23.7)."""


class Tokenizer:
    """A `tokenizers.Tokenizer`, its chat template and the tokens that end an answer.

    Attributes:
        backend: the tokenizer itself, without truncation or padding.
        template: source of the chat template, or None.
        special_tokens: role to text, e.g. `{"eos_token": "<|im_end|>"}`; visible to the template.
        end_ids: tokens that end an answer.
        pad_id: fills up batches; never read by a model.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        template: str | None,
        special_tokens: Mapping[str, str],
        end_ids: Iterable[int] = (),
    ) -> None:
        """Bind the parts. `end_ids` are added to the token of the role `eos_token`.

        Raises:
            BadInput: a special token is not in the vocabulary, or nothing ends an answer.
        """
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.template = template
        self.special_tokens = dict(special_tokens)
        ids: dict[str, int] = {}
        for role, token in self.special_tokens.items():
            id = backend.token_to_id(token)
            if id is None:
                raise BadInput(f"the tokenizer's {role} {token!r} is not in its vocabulary")
            ids[role] = id
        self.end_ids = frozenset(end_ids) | {id for role, id in ids.items() if role == "eos_token"}
        if not self.end_ids:
            raise BadInput("the tokenizer names no end token", hint="set `eos_token` in tokenizer_config.json")
        if outside := [id for id in sorted(self.end_ids) if backend.id_to_token(id) is None]:
            raise BadInput(f"end token {outside[0]} is not in the tokenizer's vocabulary")
        self.pad_id = ids.get("pad_token", min(self.end_ids))

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` in `folder`.

        The end tokens are `configured_end_ids` and the `eos_token`.

        Raises:
            BadInput: a file is missing or damaged.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise BadInput(f"{path} is missing", hint="a model folder holds its tokenizer as tokenizer.json")
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise BadInput(f"{path} is not a tokenizer: {error}") from error
        config = _read_json(folder / "tokenizer_config.json")
        return cls(
            backend,
            template=_template(folder, config),
            special_tokens={role: _text(config[role]) for role in _ROLES if config.get(role)},
            end_ids=configured_end_ids(folder),
        )

    @cached_property
    def size(self) -> int:
        """Rows that an embedding needs for this vocabulary."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """Tokens of `text`; special tokens written in it are recognised, none are added.

        Raises:
            BadInput: `text` is not Unicode text (it holds half of a surrogate pair).
        """
        try:
            ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise BadInput(f"the text cannot be encoded as UTF-8: {error}") from error
        return ids

    def encode_plain(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of `text` and the characters of `text` that each stands for, from the first to behind the last.

        What looks like a control token is plain text, as in a message of `prompt`.

        Raises:
            BadInput: as `encode`.
        """
        cuts = [match.start() + 1 for match in self._control.finditer(text)] if self._control else []
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        for start, end in pairwise([0, *cuts, len(text)]):
            piece = text[start:end]
            ids += self.encode(piece)
            offsets = self.backend.encode(piece, add_special_tokens=False).offsets
            places += [(start + first, start + last) for first, last in offsets]
        return ids, places

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens; broken UTF-8 becomes U+FFFD."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=True)
        return text

    def render(self, messages: Iterable[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None) -> str:
        """The chat template's text for `messages`, up to where the assistant's answer begins.

        Args:
            tools: what the model may call, in OpenAI's form; templates that know of none show none.

        Raises:
            BadInput: there is no template, or it fails on these messages.
        """
        return self._chat.render(messages, self.special_tokens, tools)

    def prompt(
        self, messages: Iterable[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Tokens of the rendered messages: what goes into a model.

        Control tokens come from the template alone. What looks like one in a message or a tool is plain text, so no
        message can end its turn or begin another's.

        Raises:
            BadInput: as `render` and `encode`.
        """
        given = [dict(message) for message in messages]
        contents = "".join(_texts([[_without_role(message) for message in given], tools]))
        control = self._control
        if control is None or not control.search(contents):
            return self.encode(self.render(given, tools=tools))
        # A token that is cut in two is not recognised; the mark says where, through whatever the template does.
        runs = re.findall(f"{_NONCHARACTER}+", contents)
        mark = _NONCHARACTER * (1 + max(map(len, runs), default=0))

        def cut(text: str) -> str:
            return control.sub(lambda match: match[0][0] + mark + match[0][1:], text)

        given = [message | _changed(_without_role(message), cut) for message in given]
        rendered = self.render(given, tools=_changed(tools, cut))
        return [id for piece in rendered.split(mark) for id in self.encode(piece)]

    def stream(self) -> TextStream:
        """A decoder for tokens that arrive one by one."""
        return TextStream(self)

    def save(self, folder: Path) -> None:
        """Write the three files that `load` and `transformers.AutoTokenizer` read."""
        folder.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(folder / "tokenizer.json"))
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special_tokens}
        config |= {"clean_up_tokenization_spaces": False, "end_ids": sorted(self.end_ids)}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if self.template is not None:
            (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")

    @cached_property
    def control_tokens(self) -> list[str]:
        """Texts of the tokens that steer a model, such as `<|im_end|>`."""
        added = self.backend.get_added_tokens_decoder().values()
        return sorted({token.content for token in added if token.special} | set(self.special_tokens.values()))

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        """Finds control tokens in a text, the longest first; None where there are none."""
        texts = sorted((token for token in self.control_tokens if len(token) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts))) if texts else None

    @cached_property
    def _chat(self) -> ChatTemplate:
        if self.template is None:
            raise BadInput("the tokenizer has no chat template", hint="add chat_template.jinja to the model folder")
        return ChatTemplate(self.template)


class TextStream:
    """Decodes one answer as it is written; the pieces add up to `Tokenizer.decode` of all its tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # decoding begins here: the last piece given out, as context for the next one
        self._read = 0  # tokens before this are given out

    def feed(self, id: int) -> str:
        """The text that became whole with this token; empty while a character is incomplete."""
        self._ids.append(id)
        text = self._tokenizer.decode(self._ids[self._start :])
        return "" if text.endswith(_UNFINISHED) else self._give(text)

    def flush(self) -> str:
        """What is left at the end, with U+FFFD for bytes that never became a character."""
        return self._give(self._tokenizer.decode(self._ids[self._start :]))

    def _give(self, text: str) -> str:
        given = self._tokenizer.decode(self._ids[self._start : self._read])
        self._start, self._read = self._read, len(self._ids)
        return text[len(given) :]


def end_of_answer(tokenizer: Tokenizer) -> int:
    """The end token that the chat template writes behind an assistant's answer.

    Raises:
        BadInput: the template writes none of the tokenizer's end tokens there.
    """
    mark = "answer"
    text = tokenizer.render([{"role": "user", "content": "question"}, {"role": "assistant", "content": mark}])
    behind = tokenizer.encode(text.partition("question")[2].partition(mark)[2])
    for token in behind:
        if token in tokenizer.end_ids:
            return token
    raise BadInput("the chat template writes no end token behind an answer", hint="set chat_template: chatml")


def configured_end_ids(folder: Path) -> frozenset[int]:
    """End tokens that the configuration files of a model folder name by id; families spread them over all four.

    Raises:
        BadInput: a file is damaged.
    """
    named = [_read_json(folder / name).get("eos_token_id") for name in ("generation_config.json", "config.json")]
    named.append(_read_json(folder / "genai_config.json").get("model", {}).get("eos_token_id"))
    named.append(_read_json(folder / "tokenizer_config.json").get("end_ids"))
    return frozenset(id for ids in named if ids is not None for id in (ids if isinstance(ids, list) else [ids]))


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates; `default` is the one for plain chat
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    return template


def _without_role(message: Mapping[str, Any]) -> dict[str, Any]:
    """What of a message anybody may have written."""
    return {key: value for key, value in message.items() if key != "role"}


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain JSON data, keys too."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from (str(key), *_texts(one))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """Plain JSON data with all of its texts changed, keys too."""
    if isinstance(value, dict):
        return {change(str(key)): _changed(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(one, change) for one in value]
    return change(value) if isinstance(value, str) else value


def _text(token: str | Mapping[str, Any]) -> str:
    """A special token is written as its text or as an object with it."""
    return token if isinstance(token, str) else str(token["content"])


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path} does not hold a JSON object")
    return content
