"""Taking out of texts what is not to leave, so that it can be put back into the answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from slmops.privacy.contacts import emails, ips, phones
from slmops.privacy.national import national_ids
from slmops.privacy.numbers import cards, ibans
from slmops.privacy.placeholders import Name, Restored, ends_within, meant, restore, written
from slmops.privacy.secrets import secrets, urls
from slmops.privacy.spans import Detector, Span, united
from slmops.recipe.privacy import PrivacySettings

_ESCAPE = re.compile(r"\\[nrtbf\"/\\]")


@dataclass(frozen=True)
class Redaction:
    """Texts that belong together, as they may leave.

    Attributes:
        texts: with placeholders; one value has one placeholder in all of them.
        values: what each placeholder stands for.
        kinds: that placeholders may be of.
        own: what looked like a placeholder in the texts as they were; no such name was given away.
    """

    texts: tuple[str, ...]
    values: Mapping[Name, str] = field(repr=False)
    kinds: frozenset[str]
    own: frozenset[Name]

    @property
    def counts(self) -> Counter[str]:
        """How many values of each kind were taken out."""
        return Counter(kind for kind, _ in self.values)

    def restore(self, text: str, *, escape: bool = True) -> Restored:
        """An answer to these texts with the values in place of their placeholders; see `placeholders.restore`."""
        return restore(text, self.values, self.kinds, self.own, escape=escape)

    def ends_within(self, text: str) -> bool:
        """Whether an answer that was cut off ends in the middle of a placeholder."""
        return ends_within(text, self.values)

    def messages(self, given: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        """The messages whose contents these texts were, as they may leave."""
        return [{**message, "content": text} for message, text in zip(given, self.texts, strict=True)]


class Redactor:
    """Finds what is not to leave, by the detectors that a recipe asks for.

    Attributes:
        kinds: that it can find; with Presidio, what that was asked for.
    """

    def __init__(self, detectors: Sequence[Detector], kinds: Sequence[str]) -> None:
        """`kinds`: of the spans that the detectors find."""
        self._detectors = tuple(detectors)
        self.kinds = frozenset(kinds)

    def redact(self, texts: Sequence[str]) -> Redaction:
        """The texts with a placeholder for every value, the same one wherever the value stands.

        A value that was found once is taken out everywhere, also where nothing around it says what it is. No name is
        given away that the texts may be read to hold already, so `restore` gives back exactly what there was.
        """
        spans = [united(self._found(text)) for text in texts]
        kind_of = {text[s.start : s.end]: s.kind for text, found in zip(texts, spans, strict=True) for s in found}
        if kind_of:
            spans = [united([*found, *_everywhere(text, kind_of)]) for text, found in zip(texts, spans, strict=True)]
        cuts = [_cut(text, found) for text, found in zip(texts, spans, strict=True)]
        own = frozenset(name for parts in cuts for part in parts[::2] for name in meant(part))
        names = _Names(own)
        made = []
        for parts, found in zip(cuts, spans, strict=True):
            taken = [written(names.of(value, span.kind)) for value, span in zip(parts[1::2], found, strict=True)]
            made.append("".join(x for pair in zip(parts[::2], [*taken, ""], strict=True) for x in pair))
        values = {name: value for value, name in names.given.items()}
        return Redaction(tuple(made), values, self.kinds, own)

    def redact_plain(self, value: Any) -> Any:
        """Plain JSON data with all its texts redacted together; keys and numbers stay."""
        texts = list(_texts(value))
        left = iter(self.redact(texts).texts)
        return _with_texts(value, left)

    def _found(self, text: str) -> Iterator[Span]:
        for detector in self._detectors:
            yield from detector(text)
        # In JSON a line's end is two characters, and the n of `\n` would pass for a letter of the word behind it.
        plain = _ESCAPE.sub("  ", text)
        if plain != text:
            for detector in self._detectors:
                yield from detector(plain)


def redactor(settings: PrivacySettings) -> Redactor | None:
    """What finds that which the settings name; None where nothing is to be found.

    Raises:
        BadInput: Presidio is asked for and not there.
    """
    return _redactor(settings.model_dump_json())


@cache
def _redactor(settings_json: str) -> Redactor | None:
    settings = PrivacySettings.model_validate_json(settings_json)
    built_in: dict[str, Detector] = {
        "url": urls,
        "secret": secrets,
        "email": emails,
        "iban": ibans,
        "card": cards,
        "national_id": national_ids(settings.national_ids),
        "phone": phones(settings.phone_regions),
        "ip": ips,
    }
    detectors = [_pattern(name, pattern) for name, pattern in settings.patterns.items()]
    detectors += [detector for kind, detector in built_in.items() if kind in settings.redact]
    kinds = [*settings.patterns, *settings.redact]
    if settings.detector == "presidio":
        from slmops.privacy.presidio import presidio

        detectors.append(presidio(settings.presidio))
        kinds += [entity.lower() for entity in settings.presidio.entities]
    return Redactor(detectors, kinds) if detectors else None


def redactor_for(base_url: str, settings: PrivacySettings) -> Redactor | None:
    """What is to be taken out of texts for an endpoint; None for one that counts as this machine.

    Raises:
        BadInput: see `redactor`.
    """
    return None if settings.is_local(base_url) else redactor(settings)


def unchanged(texts: Sequence[str]) -> Redaction:
    """Texts that leave as they are."""
    return Redaction(tuple(texts), {}, frozenset(), frozenset())


def _pattern(name: str, pattern: str) -> Detector:
    compiled = re.compile(pattern)

    def find(text: str) -> Iterator[Span]:
        return (Span(*match.span(), name) for match in compiled.finditer(text))

    return find


class _Names:
    """The names given away, counted by kind; those in `taken` are passed over."""

    def __init__(self, taken: frozenset[Name]) -> None:
        self.given: dict[str, Name] = {}
        self._taken, self._last = taken, Counter[str]()

    def of(self, value: str, kind: str) -> Name:
        while value not in self.given:
            self._last[kind] += 1
            name = kind, self._last[kind]
            if name not in self._taken:
                self.given[value] = name
        return self.given[value]


def _everywhere(text: str, kind_of: Mapping[str, str]) -> Iterator[Span]:
    """Every place of every value, places that overlap with themselves included."""
    for value, kind in kind_of.items():
        at = text.find(value)
        while at >= 0:
            yield Span(at, at + len(value), kind)
            at = text.find(value, at + 1)


def _cut(text: str, spans: Sequence[Span]) -> list[str]:
    """The text in pieces: what stays, what is taken out, what stays, …; it begins and ends with what stays."""
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], text[span.start : span.end]]
        at = span.end
    return [*pieces, text[at:]]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _with_texts(value: Any, texts: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, Mapping):
        return {name: _with_texts(inner, texts) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_texts(inner, texts) for inner in value]
    return value
