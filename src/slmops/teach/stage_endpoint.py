"""A teacher behind an endpoint answers the pool, as a stage of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.recipe.settings import Settings
from slmops.recipe.teaching import Budget
from slmops.recipe.training import EndpointTeacher

if TYPE_CHECKING:
    from slmops.endpoints.ledger import Ledger
    from slmops.tasks import Row
    from slmops.teach.answers import Answer
    from slmops.teach.endpoint import Pool

LEDGER = "endpoints.db"
"""The file of answers and charges in `Context.kept`."""


class EndpointAsking(Settings):
    """Who is asked, and what it may cost."""

    unkeyed: ClassVar[Mapping[str, Any]] = {
        "budget": True,
        "teacher": {"name", "key_env", "price", "concurrency", "retries", "timeout_s"},
    }
    """Raising a budget does not make answers anew; neither does a new key or a slower pace."""

    teacher: EndpointTeacher
    budget: Budget

    def check_surroundings(self) -> None:
        """Refuse an endpoint whose key the environment does not have.

        Raises:
            BadInput: it has not.
        """
        from slmops.endpoints.client import key_of

        key_of(self.teacher.key_env, f"the teacher {self.teacher.name}")


class TeachByEndpoint:
    """`data` and `model` (which learns, and in whose tokens answers are told) → the pool's answers, as of `Teach`.

    What was bought is in the home's ledger, by what was asked of whom: another pool or recipe does not buy it again.
    """

    name: ClassVar[str] = "teach-endpoint"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    def run(self, inputs: Mapping[str, Path], settings: EndpointAsking, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.endpoints.ledger import Ledger
        from slmops.pipeline.locks import hold
        from slmops.tasks import task_of
        from slmops.teach.answers import save_answers
        from slmops.teach.endpoint import Pool

        rows = read_jsonl(inputs["data"] / "pool.jsonl")
        if not rows:
            raise BadInput("the pool has no rows for the teacher to answer", hint="give texts of its own as data.pool")
        pool = Pool(settings.teacher, task_of(inputs["data"]), rows)
        kept = context.kept or context.work
        kept.mkdir(parents=True, exist_ok=True)

        def waiting() -> None:
            context.progress.note("another run is asking an endpoint; waiting, so that nothing is bought twice")

        with hold(kept / f"{LEDGER}.lock", on_wait=waiting):
            ledger = Ledger(kept / LEDGER, settings.budget)
            try:
                answers, dropped = _answered(pool, ledger, inputs["model"] / "model", context)
                spent = ledger.spent
            finally:
                ledger.close()
        save_answers(context.out, answers)
        write_jsonl(context.out / "dropped.jsonl", dropped)
        tokens = sum(len(answer.tokens) for answer in answers)
        figures = {"rows": len(answers), "dropped": len(dropped), "answer_tokens": tokens}
        return {**figures, "usd": spent.usd, "bought_tokens": spent.tokens, "requests": spent.requests}


def _answered(pool: Pool, ledger: Ledger, model: Path, context: Context) -> tuple[list[Answer], list[Row]]:
    """Buy what is not known; the usable answers in the order of the rows, and the other rows with the reason."""
    from slmops.endpoints.buying import buy, none_usable
    from slmops.endpoints.client import Endpoint, key_of
    from slmops.endpoints.money import Tariff
    from slmops.models.tokenizer import Tokenizer
    from slmops.teach.endpoint import answer_of, forecast, manner_of, unusable

    teacher, keys = pool.teacher, [pool.key(row) for row in pool.rows]
    ledger.count(keys)
    known = ledger.answers.find(dict.fromkeys(keys))
    told = forecast(pool, pool.questions(keys, known))
    context.progress.note(f"ask {told}")
    set_aside: dict[str, str] = {}
    reasons = {one: unusable(record, pool.task) for one, record in known.items()}
    any_usable = None in reasons.values()
    manner = manner_of(teacher, pool.task)
    if len(reasons) >= manner.unusable and not any_usable:
        raise none_usable(_examples(known, reasons))
    if told.questions:
        endpoint = Endpoint(teacher.base_url, teacher.model, key_of(teacher.key_env, f"the teacher {teacher.name}"))
        with context.progress.task("teacher answers the pool", told.questions, "rows") as bar:
            set_aside = buy(
                endpoint,
                pool.questions(keys, known),
                manner,
                Tariff.of(teacher.price),
                ledger,
                lambda record: unusable(record, pool.task),
                bar,
                any_usable=any_usable,
            )
        known = ledger.answers.find(dict.fromkeys(keys))
    tokenizer = Tokenizer.load(model)
    answers, dropped = [], []
    for one, row in zip(keys, pool.rows, strict=True):
        record = known.get(one)
        reason = set_aside.get(one) if record is None else unusable(record, pool.task)
        if record is None or reason is not None:
            dropped.append({"id": row["id"], "text": record["text"] if record else "", "reason": reason})
        else:
            answers.append(answer_of(row, record, tokenizer))
    if not answers:
        raise none_usable([f"{row['text'][:120]!r}: {row['reason']}" for row in dropped])
    return answers, dropped


def _examples(known: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str | None]) -> Sequence[str]:
    return [f"{record['text'][:120]!r}: {reasons[one]}" for one, record in known.items()]
