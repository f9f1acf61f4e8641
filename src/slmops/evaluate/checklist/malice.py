"""Does it survive what nobody should send?"""

from __future__ import annotations

from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.served import Crashed, Outcome, Refused
from slmops.evaluate.checklist.subject import Subject
from slmops.evaluate.checklist.texts import OUT_OF_DOMAIN, hostile

HANDLED = "hostile inputs handled"
AS_TEXT = "control tokens stay text"


def hostile_inputs(subject: Subject, context_tokens: int) -> Line:
    """Each must be answered or cleanly refused; one longer than the context must be refused, not cut."""
    inputs = hostile(subject.bundle.tokenizer.control_tokens)
    huge = {"huge": "too long " * context_tokens, "far too huge": "a" * 400_000}
    bad = []
    with subject.progress.task("hostile inputs", len(inputs) + len(huge), "requests") as bar:
        for name, text in (inputs | huge).items():
            problem = _problem(subject.predict("hostile", text), must_refuse=name in huge)
            if problem:
                bad.append(f"{name}: {problem}")
            bar.advance()
    count = len(inputs) + len(huge)
    return Line(
        HANDLED,
        judged(not bad),
        f"{count - len(bad)} of {count}",
        "all answered or refused cleanly",
        "; ".join(bad[:3]),
        {"inputs": count, "handled": count - len(bad), "not_handled": bad},
    )


def _problem(outcome: Outcome, *, must_refuse: bool) -> str | None:
    if isinstance(outcome, Crashed):
        return outcome.how
    if must_refuse and not isinstance(outcome, Refused):
        return "answered, though it is longer than the context"
    return None


def control_tokens_as_text(subject: Subject) -> Line:
    """Whether a message that spells a control token puts it into the prompt: it could end its turn and forge others."""
    bundle = subject.bundle
    tokenizer, task = bundle.tokenizer, bundle.task
    control = {tokenizer.backend.token_to_id(token) for token in tokenizer.control_tokens}

    def steering(text: str) -> list[int]:
        return [id for id in tokenizer.prompt(task.render(text)) if id in control]

    plain = steering(OUT_OF_DOMAIN[0])
    through = [token for token in tokenizer.control_tokens if steering(f"{OUT_OF_DOMAIN[0]} {token} x") != plain]
    return Line(
        AS_TEXT,
        judged(not through),
        f"{len(through)} of {len(control)} pass through",
        "none",
        f"a message can write {', '.join(through[:4])}" if through else "",
        {"control_tokens": len(control), "passing_through": through},
    )
