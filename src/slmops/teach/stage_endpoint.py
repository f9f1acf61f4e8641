"""A teacher behind an endpoint answers the pool, as a stage of a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slmops.errors import BadInput
from slmops.pipeline.stage import Context
from slmops.teach.paying import COST, EndpointAsking, asked_before, buyer_of, cost_of, opened, tariff_of

if TYPE_CHECKING:
    from slmops.endpoints.ledger import Ledger
    from slmops.progress import Progress
    from slmops.teach.endpoint import Pool


class TeachByEndpoint:
    """`data` and `model` (which learns, and in whose tokens answers are told) → the pool's answers, as of `Teach`.

    Of a row's `n` draws the answer is the one that most of them give; all of them are in `draws/`.
    `whole` has the whole pool, where `data` has the rows of this teacher alone; of those that teach beside it, what
    they were asked of that counts against the one budget. `cost.json` says what its own answers cost.

    The teacher sees placeholders for what `privacy` takes out; answers have the values again, `dropped.jsonl` has not.
    What was bought is in the home's ledger, by what was asked of whom: another pool or recipe does not buy it again.
    """

    name: ClassVar[str] = "teach-endpoint"
    version: ClassVar[int] = 4
    libraries: ClassVar[tuple[str, ...]] = ("phonenumbers", "python-stdnum", "tokenizers")

    def run(self, inputs: Mapping[str, Path], settings: EndpointAsking, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl, write_jsonl
        from slmops.models.tokenizer import Tokenizer
        from slmops.tasks import task_of
        from slmops.teach.answers import save_answers
        from slmops.teach.draws import save_draws
        from slmops.teach.endpoint import Pool, keys_of, parted

        rows = read_jsonl(inputs["data"] / "pool.jsonl")
        if not rows:
            raise BadInput("the pool has no rows for the teacher to answer", hint="give texts of its own as data.pool")
        pool = Pool(settings.teacher, task_of(inputs["data"]), rows, settings.privacy)
        kept, whole = context.kept or context.work, inputs.get("whole", inputs["data"])
        beside = keys_of(settings.others, pool.task, read_jsonl(whole / "pool.jsonl"), settings.privacy)
        written = asked_before(whole)
        with opened(context, settings.budget) as ledger:
            records, set_aside = _bought(pool, [*beside, *written], ledger, kept, context.progress)
            spent = ledger.cost([*pool.keys, *(written if settings.wrote else ())])
        found = parted(pool, records, set_aside, Tokenizer.load(inputs["model"] / "model"))
        save_answers(context.out, found.answers)
        save_draws(context.out, found.draws)
        write_jsonl(context.out / "dropped.jsonl", found.dropped)
        told = cost_of(spent, priced=settings.teacher.price is not None)
        (context.out / COST).write_text(json.dumps(told) + "\n", encoding="utf-8")
        tokens = sum(len(answer.tokens) for answer in found.answers)
        figures = {"rows": len(found.answers), "dropped": len(found.dropped), "answer_tokens": tokens}
        figures["redacted"] = sum(redaction.counts.total() for redaction in pool.redactions)
        return {**figures, "usd": spent.usd, "bought_tokens": spent.tokens, "requests": spent.requests}


def rows_answered(data: Path, asking: EndpointAsking, context: Context) -> list[str]:
    """The ids of the rows in the pool of `data` to which an answer was bought, usable or not, in whichever run."""
    from slmops.data.read import read_jsonl
    from slmops.tasks import task_of
    from slmops.teach.endpoint import Pool

    pool = Pool(asking.teacher, task_of(data), read_jsonl(data / "pool.jsonl"), asking.privacy)
    with opened(context, asking.budget) as ledger:
        known = ledger.answers.find(dict.fromkeys(pool.keys))
    return [row["id"] for row, keys in zip(pool.rows, pool.draws, strict=True) if any(key in known for key in keys)]


def _bought(
    pool: Pool, beside: Sequence[str], ledger: Ledger, kept: Path, progress: Progress
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Buy what is not known; of the questions, by their keys, the records of replies, and why others have none.

    Args:
        beside: the keys of what else counts against the budget.
        kept: folder of the log of what leaves.

    Raises:
        BadInput: nothing may leave, and the teacher is not here.
        SlmopsError: see `buy`; or what is known already is enough to see that nothing can be used.
    """
    from slmops.endpoints.buying import none_usable
    from slmops.endpoints.client import Endpoint, key_of
    from slmops.privacy.audit import gate_for
    from slmops.teach.endpoint import forecast, manner_of, said

    teacher, manner = pool.teacher, manner_of(pool.teacher, pool.task)
    ledger.count([*pool.keys, *beside])
    known = ledger.answers.find(dict.fromkeys(pool.keys))
    told = forecast(pool, known)
    progress.note(f"ask {told}")
    if taken := sum((redaction.counts for redaction in pool.redactions), Counter[str]()):
        said_of = ", ".join(f"{count} {kind}" for kind, count in sorted(taken.items()))
        progress.note(f"placeholders stand for what is taken out of the rows: {said_of}")
    reasons = pool.told(known)
    if len(known) >= manner.unusable and None not in reasons:
        raise none_usable([said(record, reason) for record, reason in zip(known.values(), reasons, strict=True)])
    if not told.questions:
        return known, {}
    gate = gate_for(teacher.base_url, teacher.model, f"teacher {teacher.name}", pool.privacy, kept)
    endpoint = Endpoint(teacher.base_url, teacher.model, key_of(teacher.key_env, f"the teacher {teacher.name}"))
    with progress.task("teacher answers the pool", told.questions, "rows" if teacher.n == 1 else "answers") as bar:
        set_aside = buyer_of(teacher)(
            endpoint,
            pool.questions(known),
            manner,
            tariff_of(teacher),
            ledger,
            lambda _: None,  # each question says for itself
            bar,
            any_usable=None in reasons,
            gate=gate,
        )
    return ledger.answers.find(dict.fromkeys(pool.keys)), set_aside
