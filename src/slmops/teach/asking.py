"""Asking a teacher for anything but the answers to the pool: here, behind an endpoint, or only to see what it costs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from slmops.endpoints.answers import key
from slmops.endpoints.buying import Manner, Question, none_usable
from slmops.endpoints.client import Endpoint, key_of
from slmops.endpoints.money import Cost
from slmops.engines.base import Engine, Sampling
from slmops.errors import BadInput
from slmops.privacy.audit import gate_for
from slmops.privacy.redaction import Redaction, redactor_for, unchanged
from slmops.progress import Progress, Silent
from slmops.recipe.privacy import PrivacySettings
from slmops.recipe.teachers import EndpointTeacher
from slmops.tasks import Message
from slmops.teach.paying import buyer_of, tariff_of
from slmops.teach.thinking import UNFINISHED, Reasoning, spoken

if TYPE_CHECKING:
    from slmops.endpoints.ledger import Ledger
    from slmops.models.tokenizer import Tokenizer


_MEND = "take another teacher for it, or leave it out of the recipe; nothing that was bought is bought again"


_TOO_LONG = "show fewer rows (teach.write.shots), or take a teacher with a longer context"


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        draw: tells requests with the same messages apart, so that each is drawn for itself.
        begun: what the reply begins with. A model here goes on from it, which keeps small ones to the form; an endpoint
            cannot be made to.
    """

    messages: Sequence[Message]
    max_tokens: int
    draw: int = 0
    begun: str = ""


@dataclass(frozen=True)
class Said:
    """What a teacher wrote; `whole` unless it was cut off or stopped by a filter."""

    text: str
    whole: bool


class Drawn(Protocol):
    """How a teacher's words are drawn; with a `top_p` of None as the teacher does."""

    @property
    def temperature(self) -> float: ...

    @property
    def top_p(self) -> float | None: ...


@dataclass(frozen=True)
class Sampled:
    """See `Drawn`; the most likely words unless told."""

    temperature: float = 0.0
    top_p: float | None = None


Useless = Callable[[Said], str | None]
"""Why nothing can be made of a reply, or None; a teacher of whose first replies nothing can be made is given up."""


class Asker(Protocol):
    """A teacher that can be asked. The same requests bring the same replies, so work that was killed can be redone."""

    def ask(self, requests: Sequence[Request], title: str, useless: Useless) -> list[Said | None]:
        """A reply to each request, in their order; None where there is none.

        Raises:
            SlmopsError: the teacher cannot be asked on; see `slmops.endpoints.buying.buy`.
        """


class _Patience:
    """Gives a teacher up of whose first replies nothing can be made."""

    def __init__(self) -> None:
        self.any_usable = False
        self._in_vain: dict[str, str] = {}

    def judge(self, replies: Mapping[str, Said | None], useless: Useless) -> None:
        """Take replies, by a key each; None is one that nothing can be made of whatever it says.

        Raises:
            SlmopsError: nothing can be made of any so far, and these are as many as one that is bought may have.
        """
        for one, reply in replies.items():
            reason = useless(reply) if reply else _INVENTED
            self.any_usable |= reason is None
            self._in_vain[one] = f"{reply.text[:120] if reply else ''!r}: {reason}"
        if not self.any_usable and len(self._in_vain) >= Manner.unusable:
            raise none_usable([*self._in_vain.values()], _MEND)


@dataclass
class LocalAsker:
    """A model on this machine.

    What it wrote is kept batch by batch in `work`, so that an interrupted call goes on behind the last one.
    """

    engine: Engine
    tokenizer: Tokenizer
    draws: Drawn
    seed: int
    batch: int
    work: Path
    progress: Progress = field(default_factory=Silent)
    _patience: _Patience = field(default_factory=_Patience)

    def ask(self, requests: Sequence[Request], title: str, useless: Useless) -> list[Said | None]:
        """See `Asker.ask`.

        Raises:
            BadInput: a request does not fit into the model's context.
        """
        encode, prompt = self.tokenizer.encode, self.tokenizer.prompt
        prompts = [[*prompt(request.messages), *encode(request.begun)] for request in requests]
        found: list[Said | None] = [None] * len(requests)
        self.work.mkdir(parents=True, exist_ok=True)
        with self.progress.task(title, len(requests), "requests") as bar:
            for together in self._batches(requests, prompts):
                try:
                    said = self._write([prompts[i] for i in together], requests[together[0]])
                except BadInput as error:
                    raise BadInput(f"{title}: {error}", hint=_TOO_LONG) from error
                found_now = {
                    i: Said(requests[i].begun + one.text, one.whole) for i, one in zip(together, said, strict=True)
                }
                self._patience.judge({f"{title} {i}": one for i, one in found_now.items()}, useless)
                for i, one in found_now.items():
                    found[i] = one
                bar.advance(len(together))
        return found

    def _batches(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> Iterable[list[int]]:
        """Positions of requests of one draw and limit, those of like length together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((request.draw, request.max_tokens), []).append(i)
        for group in groups.values():
            order = sorted(group, key=lambda i: len(prompts[i]))
            yield from (order[start : start + self.batch] for start in range(0, len(order), self.batch))

    def _write(self, prompts: Sequence[Sequence[int]], like: Request) -> list[Said]:
        top_p = 1.0 if self.draws.top_p is None else self.draws.top_p
        draws = {"temperature": self.draws.temperature, "top_p": top_p}
        # Another draw is another seed: within one call, an engine tells equal prompts apart, and no further.
        sampling = Sampling(like.max_tokens, seed=self.seed + like.draw, **draws)
        name = key(
            prompts=[list(prompt) for prompt in prompts], max_tokens=like.max_tokens, seed=sampling.seed, **draws
        )
        path = self.work / f"{name[:32]}.json"
        if not path.exists():
            written: list[list[int]] = [[] for _ in prompts]
            whole = [False] * len(prompts)
            for token in self.engine.generate(prompts, sampling):
                written[token.request].append(token.id)
                whole[token.request] |= token.finish == "stop"
            texts = [self.tokenizer.decode(ids) for ids in written]
            part = path.with_suffix(".part")
            part.write_text(json.dumps(list(zip(texts, whole, strict=True))), encoding="utf-8")
            part.replace(path)
        return [Said(text, whole) for text, whole in json.loads(path.read_text(encoding="utf-8"))]


def _sampling(teacher: EndpointTeacher, draws: Drawn, max_tokens: int) -> dict[str, Any]:
    told = {teacher.limit_answers_by: max_tokens, "temperature": draws.temperature}
    return told if draws.top_p is None else {**told, "top_p": draws.top_p}


@dataclass(frozen=True)
class Leaving:
    """A request as it leaves: without what is not to.

    Attributes:
        key: a digest of all that shapes the reply, as `slmops.teach.endpoint.Pool.key` is of an answer, and its draw.
        max_tokens: of the reply, what it may think with included.
        seeded: what the request has for its draw.
        reasoning: whether what the teacher thinks aloud is part of what it says.
    """

    key: str
    messages: Sequence[Message]
    max_tokens: int
    redaction: Redaction
    seeded: Mapping[str, int]
    reasoning: Reasoning

    def said(self, record: Mapping[str, Any]) -> Said | None:
        """What the teacher said, in the words of the request; None where it speaks of what nobody told it."""
        told = spoken(record, self.reasoning)
        restored = self.redaction.restore(told["text"])
        if restored.invented:
            return None
        return Said(restored.text, told["finish"] not in ("length", "content_filter", UNFINISHED))


@dataclass(frozen=True)
class Remote:
    """A teacher behind an endpoint, what is taken out of all that it is asked, and whether its thinking is learned.

    Attributes:
        part: that it has, as the log of what leaves and errors say it.
    """

    teacher: EndpointTeacher
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    reasoning: Reasoning = "strip"
    part: Literal["teacher", "user"] = "teacher"

    def leaving(self, draws: Drawn, request: Request) -> Leaving:
        """A request to it.

        Raises:
            BadInput: see `slmops.privacy.redaction.redactor`.
        """
        teacher = self.teacher
        finder, texts = redactor_for(teacher.base_url, self.privacy), [one["content"] for one in request.messages]
        redaction = finder.redact(texts) if finder else unchanged(texts)
        messages, limit = redaction.messages(request.messages), request.max_tokens + teacher.thinking_tokens
        seeded = {} if teacher.seed is None else {"seed": teacher.seed + request.draw}
        one = key(
            host=Endpoint(teacher.base_url, teacher.model).host,
            model=teacher.model,
            messages=messages,
            sampling={**_sampling(teacher, draws, limit), **seeded},
            draw=request.draw,
        )
        return Leaving(one, messages, limit, redaction, seeded, self.reasoning)


_INVENTED = "it has a placeholder that stands for nothing"


@dataclass
class EndpointAsker:
    """A model behind an endpoint, asked through the ledger: nothing is bought twice, and the budget holds.

    Attributes:
        kept: folder of the log of what leaves.
        beside: keys of what else counts against the budget: the answers to the pool.
        keys: of every request so far; of two that share the ledger, those of both.
    """

    remote: Remote
    draws: Drawn
    ledger: Ledger
    kept: Path
    beside: Sequence[str] = ()
    progress: Progress = field(default_factory=Silent)
    keys: dict[str, None] = field(default_factory=dict)
    _patience: _Patience = field(default_factory=_Patience)

    def beside_it(self, remote: Remote) -> EndpointAsker:
        """Another one, asked through the same ledger: one budget counts both."""
        return replace(self, remote=remote, _patience=_Patience())

    def ask(self, requests: Sequence[Request], title: str, useless: Useless) -> list[Said | None]:
        """See `Asker.ask`."""
        leaving = [self.remote.leaving(self.draws, request) for request in requests]
        asked = {one.key: one for one in leaving}
        self.keys |= dict.fromkeys(asked)
        self.ledger.count([*self.beside, *self.keys])
        known = self._known(asked, useless)
        open_ = [one for one in asked.values() if one.key not in known]
        if open_:
            self._buy(open_, title, useless)
            known = self._known(asked, useless)
        return [one.said(known[one.key]) if one.key in known else None for one in leaving]

    def _known(self, asked: Mapping[str, Leaving], useless: Useless) -> dict[str, dict[str, Any]]:
        known = self.ledger.answers.find(asked)
        self._patience.judge({one: asked[one].said(record) for one, record in known.items()}, useless)
        return known

    def _buy(self, open_: Sequence[Leaving], title: str, useless: Useless) -> None:
        teacher = self.remote.teacher
        # All requests of one call have one limit.
        (limit,) = {one.max_tokens for one in open_}
        manner = Manner(
            _sampling(teacher, self.draws, limit),
            limit,
            teacher.concurrency,
            teacher.retries,
            teacher.timeout_s,
            mend=_MEND,
        )
        who = f"{self.remote.part} {teacher.name}"
        gate = gate_for(teacher.base_url, teacher.model, who, self.remote.privacy, self.kept)
        endpoint = Endpoint(teacher.base_url, teacher.model, key_of(teacher.key_env, f"the {who}"))

        def question(one: Leaving) -> Question:
            def unusable(record: Mapping[str, Any]) -> str | None:
                reply = one.said(record)
                return useless(reply) if reply else _INVENTED

            return Question(one.key, one.messages, unusable, one.seeded)

        with self.progress.task(title, len(open_), "requests") as bar:
            buyer_of(teacher)(
                endpoint,
                map(question, open_),
                manner,
                tariff_of(teacher),
                self.ledger,
                lambda _: None,  # each question says for itself
                bar,
                any_usable=self._patience.any_usable,
                gate=gate,
            )


@dataclass
class ForecastAsker:
    """Nobody: it knows what was bought, and counts what else would be asked, and what that costs at most.

    A request that is not known has no reply, as one that brings nothing; so whoever asks asks as often as it may.

    Attributes:
        remote: who would be asked; None for a model on this machine, which costs nothing and of which nothing is known.
        longest: it has one instead, as long as it may be, for those whose next request depends on it.
        find: the records of those keys that are known.
        most: of what is not known.
        keys: of every request; of two that talk, those of both, so that no two say the same.
    """

    remote: Remote | None
    draws: Drawn
    find: Callable[[Iterable[str]], Mapping[str, Mapping[str, Any]]]
    longest: bool = False
    most: Cost = field(default_factory=Cost)
    keys: dict[str, None] = field(default_factory=dict)

    def ask(self, requests: Sequence[Request], title: str, useless: Useless) -> list[Said | None]:  # noqa: ARG002
        """See `Asker.ask`."""
        if self.remote is None:
            return [self._unknown(f"here {len(self.keys)}", request.max_tokens) for request in requests]
        tariff = tariff_of(self.remote.teacher)
        leaving = [self.remote.leaving(self.draws, request) for request in requests]
        known = self.find([one.key for one in leaving])
        replies: list[Said | None] = []
        for one in leaving:
            if one.key not in known and one.key not in self.keys:
                self.most += tariff.most(one.messages, one.max_tokens)
            unknown = self._unknown(one.key, one.max_tokens)
            replies.append(one.said(known[one.key]) if one.key in known else unknown)
        return replies

    def _unknown(self, one: str, max_tokens: int) -> Said | None:
        self.keys[one] = None
        # No token is read again as more than it was written as.
        return Said(f"{len(self.keys):x>{max_tokens}}", whole=True) if self.longest else None


class Numbered:
    """Requests whose messages came before get the next draw."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def request(self, messages: Sequence[Message], max_tokens: int, begun: str = "") -> Request:
        text = json.dumps(messages)
        self._seen[text] += 1
        return Request(messages, max_tokens, self._seen[text] - 1, begun)
