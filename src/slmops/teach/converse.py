"""Talks of several turns, in which the teacher is the assistant, and it or another plays the user."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from slmops.data.check import text_digest
from slmops.errors import BadInput, SlmopsError
from slmops.recipe.writing import Converse
from slmops.tasks import Message, Row, Task
from slmops.tasks.conversation import turns
from slmops.teach.asking import Asker, Numbered, Said
from slmops.teach.write import Written, free_prefix


class _Talk:
    """One talk as it grows.

    Attributes:
        messages: so far; the last is the user's where it is the assistant's turn.
        over: why it did not come to its end.
    """

    def __init__(self, opening: list[Message], persona: str) -> None:
        self.messages, self.persona, self.over = opening, persona, ""

    def say(self, role: str, reply: Said | None) -> None:
        # Who is shown a talk with names before its messages begins with one all the same.
        text = reply.text.strip().removeprefix(f"{role.capitalize()}:").strip() if reply else ""
        if reply is None:
            self.over = f"no reply of the {role}"
        elif not reply.whole:
            self.over = f"a message of the {role} was cut off"
        elif not text:
            self.over = f"an empty message of the {role}"
        elif role == "user" and any(text_digest(text) == text_digest(m["content"]) for m in self.messages):
            self.over = "the user repeats a message"
        else:
            self.messages.append({"role": role, "content": text})


def converse(
    asker: Asker,
    settings: Converse,
    task: Task,
    train: Sequence[Row],
    known: Mapping[str, Sequence[Row]],
    *,
    seed: int,
    user: Asker | None = None,
) -> Written:
    """Talks that begin as training rows do and end with a message of the user, for the pool.

    All talks go on together, a message at a time. One in which somebody has nothing to say is dropped.

    Args:
        train: rows whose first message opens a talk; `system` messages before it stay.
        known: rows by their side, whose ids are taken and whose texts are not to come again.
        user: who plays the user; None: the teacher does.
    """
    out = Written(free_prefix(known.values()))
    texts = {text_digest(row["input"]) for rows in known.values() for row in rows}
    talks, numbered = _begun(settings, train, seed), Numbered()
    for _ in range(settings.turns - 1):
        for role, speaker in (("assistant", asker), ("user", user or asker)):
            open_ = [talk for talk in talks if not talk.over]
            limit = task.max_answer_tokens if role == "assistant" else settings.max_message_tokens
            asked = [
                task.render(json.dumps(talk.messages, ensure_ascii=False)) if role == "assistant" else play(talk)
                for talk in open_
            ]
            requests = [numbered.request(messages, limit) for messages in asked]
            who = "teacher" if speaker is asker else "second teacher"
            for talk, reply in zip(open_, speaker.ask(requests, f"{who} talks as the {role}", _useless), strict=True):
                talk.say(role, reply)
    for talk in talks:
        text = json.dumps(talk.messages, ensure_ascii=False)
        if not talk.over and text_digest(text) in texts:
            talk.over = "repeats another talk"
        if talk.over:
            out.dropped.append({"input": text, "reason": talk.over, "wanted": None})
        else:
            texts.add(text_digest(text))
            out.rows.append({"id": f"{out.prefix}-talk-{len(out.rows) + 1}", "input": text})
    return out


def check_enough(written: Written, settings: Converse) -> None:
    """Refuse too few talks.

    Raises:
        SlmopsError: says why the others came to no end.
    """
    found = len(written.rows)
    if found and found >= settings.at_least * settings.rows:
        return
    reasons = Counter(row["reason"] for row in written.dropped)
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
    raise SlmopsError(
        f"{found} of {settings.rows} talks came to their end; others: {told}",
        hint="raise teach.converse.max_message_tokens or task.max_answer_tokens, give other personas, or lower "
        "at_least; what was bought is kept",
    )


def play(talk: _Talk) -> list[Message]:
    """The request for the user's next message.

    The talk is told, not continued: a model that is asked to go on as the user answers as the assistant all too often.
    """
    told = "\n".join(
        f"{m['role'].capitalize()}: {m['content']}" for m in talk.messages if m["role"] in ("user", "assistant")
    )
    return [
        {
            "role": "user",
            "content": f"You play the user of an assistant. Who you are: {talk.persona}\n\nThe talk so far:\n\n{told}"
            "\n\nWrite the next message of the user: what this person would say or ask now, in the language of the "
            "talk. Write that message alone, without a name before it.",
        }
    ]


def _begun(settings: Converse, train: Sequence[Row], seed: int) -> list[_Talk]:
    """As many talks as wanted; each row opens one before any opens a second."""
    openings = [_opening(row["input"]) for row in train]
    if not openings:
        raise BadInput("teach.converse: there is no training row that could open a talk")
    rng = random.Random(f"converse:{seed}")  # noqa: S311
    order: list[int] = []
    while len(order) < settings.rows:
        order += rng.sample(range(len(openings)), len(openings))
    return [
        _Talk([dict(message) for message in openings[row]], settings.personas[n % len(settings.personas)])
        for n, row in enumerate(order[: settings.rows])
    ]


def _opening(text: str) -> list[Message]:
    """The messages of a row up to the user's first."""
    held = turns(text) or [{"role": "user", "content": text}]
    first = next(at for at, message in enumerate(held) if message["role"] == "user")
    return held[: first + 1]


def _useless(reply: Said) -> str | None:
    return None if reply.text.strip() else "the message is empty"
