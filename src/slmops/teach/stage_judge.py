"""One set of answers out of several by a teacher that judges, as a stage of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slmops.pipeline.stage import Context
from slmops.teach.paying import Asked, EndpointAsking, LocalAsking, asked_before, cost_of, opened

if TYPE_CHECKING:
    from slmops.tasks import Task
    from slmops.teach.asking import Asker
    from slmops.teach.judging import Case, Judged

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
        from slmops.teach.judging import cases
        from slmops.teach.several import in_one_vocabulary, numbers_of, tokenizers_of, written

        task, pool = task_of(inputs["data"]), read_jsonl(inputs["data"] / "pool.jsonl")
        folders = [inputs[f"answers_{n}"] for n in numbers_of(inputs, "answers_")]
        asked = voters(folders, [1.0] * len(folders))
        draws = [by_id(voter.folder) for voter in asked]
        texts = [{id: answer.text for id, answer in answers.items()} for answers in draws]
        system = settings.endpoint.teacher.system if settings.endpoint else None
        open_, agreed = cases(task, pool, texts, system=system, seed=context.seed)
        judged, cost = _judged(inputs, settings, task, open_, agreed, context)
        places = [(row["id"], judged.chosen[row["id"]]) for row in pool if row["id"] in judged.chosen]
        chosen = [(asked[i].teacher, draws[i][id]) for id, i in places]
        found, _ = in_one_vocabulary(chosen, tokenizers_of(inputs))
        lost = [{**row, "counted": NOT_JUDGED} for row in judged.unreadable]
        known = {row["id"] for row in lost} | judged.chosen.keys()
        lost += [row for row in read_jsonl(folders[0] / "dropped.jsonl") if row["id"] not in known]
        figures = written(inputs, context.out, found, lost, [teacher for teacher, _ in chosen], beside=cost)
        return {**figures, "judged": judged.asked, "unreadable": len(judged.unreadable)}


def _judged(
    inputs: Mapping[str, Path],
    settings: Asked,
    task: Task,
    open_: Sequence[Case],
    agreed: Mapping[str, int],
    context: Context,
) -> tuple[Judged, dict[str, Any] | None]:
    """What the judge says, and what an endpoint took for it."""
    from slmops.teach.judging import decide

    if settings.endpoint:
        return _bought(settings.endpoint, inputs["data"], task, open_, agreed, context)
    assert settings.local  # noqa: S101 - one of the two
    return decide(_local(inputs["judge"] / "model", settings.local, context), open_, agreed), None


def _local(model: Path, asking: LocalAsking, context: Context) -> Asker:
    """A judge that runs here; it writes what it finds most likely."""
    from slmops.engines import load_engine
    from slmops.models.tokenizer import Tokenizer
    from slmops.teach.asking import LocalAsker, Sampled

    engine, tokenizer = load_engine(asking.engine, model, gpu=True), Tokenizer.load(model)
    work = context.work / "replies"
    return LocalAsker(engine, tokenizer, Sampled(), context.seed, asking.batch, work, context.progress)


def _bought(
    asking: EndpointAsking,
    data: Path,
    task: Task,
    open_: Sequence[Case],
    agreed: Mapping[str, int],
    context: Context,
) -> tuple[Judged, dict[str, Any]]:
    """What a judge behind an endpoint says, and what that cost."""
    from slmops.data.read import read_jsonl
    from slmops.teach.asking import EndpointAsker, Remote, Sampled
    from slmops.teach.endpoint import Pool
    from slmops.teach.judging import decide

    pool, teacher = read_jsonl(data / "pool.jsonl"), asking.teacher
    remote, drawn = Remote(teacher, asking.privacy), Sampled(teacher.temperature, teacher.top_p)
    pools = [Pool(other, task, pool, asking.privacy) for other in asking.others]
    asked = {case.id: remote.leaving(drawn, case.request).key for case in open_}
    # A question of the judge follows on the answers to its row, so it counts wherever these do.
    of_rows = [(row["id"], keys[0]) for one in pools for row, keys in zip(one.rows, one.draws, strict=True)]
    beside = [*(key for one in pools for key in one.keys), *asked_before(data)]
    with opened(context, asking.budget) as ledger:
        ledger.follow((key, asked[id]) for id, key in of_rows if id in asked)
        asker = EndpointAsker(remote, drawn, ledger, context.kept or context.work, beside, context.progress)
        judged = decide(asker, open_, agreed)
        return judged, cost_of(ledger.cost(asker.keys), priced=teacher.price is not None)
