"""One set of answers out of several by a teacher that judges, as a stage of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slmops.pipeline.stage import Context
from slmops.teach.paying import Asked, EndpointAsking, asked_before, cost_of, opened

if TYPE_CHECKING:
    from slmops.tasks import Row, Task
    from slmops.teach.asking import Asker, Remote
    from slmops.teach.judging import Case

LIBRARIES = ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "tokenizers")


class ChooseBest:
    """`data`, of each teacher N that answers `answers_N` and `engine_N`, and `judge` where that runs here → answers as
    of one.

    Of each row the answer that the judge finds best, with its own teacher's probabilities where all have one
    vocabulary. A row of which the judge does not say so is in `dropped.jsonl`.
    """

    name: ClassVar[str] = "choose-best"
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def run(self, inputs: Mapping[str, Path], settings: Asked, context: Context) -> Mapping[str, float | str]:
        from slmops.data.read import read_jsonl
        from slmops.tasks import task_of
        from slmops.teach.answers import by_id
        from slmops.teach.curate import NOT_JUDGED
        from slmops.teach.draws import voters
        from slmops.teach.judging import cases, decide
        from slmops.teach.several import in_one_vocabulary, numbers_of, tokenizers_of, written

        task, pool = task_of(inputs["data"]), read_jsonl(inputs["data"] / "pool.jsonl")
        folders = [inputs[f"answers_{n}"] for n in numbers_of(inputs, "answers_")]
        asked = voters(folders, [1.0] * len(folders))
        draws = [by_id(voter.folder) for voter in asked]
        texts = [{id: answer.text for id, answer in answers.items()} for answers in draws]
        system = settings.endpoint.teacher.system if settings.endpoint else None
        open_, agreed = cases(task, pool, texts, system=system, seed=context.seed)
        cost: dict[str, Any] = {}
        with _asker(inputs, settings, task, pool, open_, context, cost) as asker:
            judged = decide(asker, open_, agreed)
        chosen = [(asked[i].teacher, draws[i][id]) for id, i in _in_order(pool, judged.chosen)]
        found, _ = in_one_vocabulary(chosen, tokenizers_of(inputs))
        lost = [{**row, "counted": NOT_JUDGED} for row in judged.unreadable]
        known = {row["id"] for row in lost} | judged.chosen.keys()
        lost += [row for row in read_jsonl(folders[0] / "dropped.jsonl") if row["id"] not in known]
        figures = written(inputs, context.out, found, lost, [teacher for teacher, _ in chosen], beside=cost)
        return {**figures, "judged": judged.asked, "unreadable": len(judged.unreadable)}


def _in_order(pool: Sequence[Row], chosen: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    return ((row["id"], chosen[row["id"]]) for row in pool if row["id"] in chosen)


@contextmanager
def _asker(
    inputs: Mapping[str, Path],
    settings: Asked,
    task: Task,
    pool: Sequence[Row],
    open_: Sequence[Case],
    context: Context,
    cost: dict[str, Any],
) -> Iterator[Asker]:
    """The judge, for the length of a block; behind it `cost` says what an endpoint took."""
    from slmops.teach.asking import EndpointAsker, LocalAsker, Remote, Sampled
    from slmops.teach.endpoint import keys_of

    endpoint = settings.endpoint
    if endpoint is None:
        from slmops.engines import load_engine
        from slmops.models.tokenizer import Tokenizer

        assert settings.local  # noqa: S101 - one of the two
        model = inputs["judge"] / "model"
        engine, tokenizer = load_engine(settings.local.engine, model, gpu=True), Tokenizer.load(model)
        work, batch = context.work / "replies", settings.local.batch
        yield LocalAsker(engine, tokenizer, Sampled(), context.seed, batch, work, context.progress)
        return
    teacher, remote = endpoint.teacher, Remote(endpoint.teacher, endpoint.privacy)
    draws = Sampled(teacher.temperature, teacher.top_p)
    with opened(context, endpoint.budget) as ledger:
        ledger.follow(_following(endpoint, task, pool, open_, remote, draws))
        beside = [*keys_of(endpoint.others, task, pool, endpoint.privacy), *asked_before(inputs["data"])]
        asker = EndpointAsker(remote, draws, ledger, context.kept or context.work, beside, context.progress)
        yield asker
        cost |= cost_of(ledger.cost(asker.keys), priced=teacher.price is not None)


def _following(
    endpoint: EndpointAsking, task: Task, pool: Sequence[Row], open_: Sequence[Case], remote: Remote, draws: Any
) -> Iterator[tuple[str, str]]:
    """On which answers of other endpoints the judge's questions follow."""
    from slmops.teach.endpoint import Pool

    asked = {case.id: remote.leaving(draws, case.request).key for case in open_}
    for teacher in endpoint.others:
        of_rows = Pool(teacher, task, pool, endpoint.privacy).draws
        yield from ((keys[0], asked[row["id"]]) for row, keys in zip(pool, of_rows, strict=True) if row["id"] in asked)
