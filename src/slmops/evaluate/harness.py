"""Standard benchmarks: lm-evaluation-harness asks its tasks of any engine of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.engines import Engine, Sampling, load_engine
from slmops.errors import BadInput, SlmopsError
from slmops.evaluate.subjects import Local
from slmops.models.tokenizer import Tokenizer
from slmops.progress import Progress

if TYPE_CHECKING:
    from lm_eval.api.model import LM

_BATCH = 32
_MAX_NEW_TOKENS = 256
"""Written where a task sets no limit; the harness's own default."""

_SAMPLING = {"temperature", "top_p", "seed"}
_IGNORED = {"until", "do_sample", "max_gen_toks", "max_new_tokens", "max_tokens", "max_length"}


def run(
    subject: Local,
    tasks: Sequence[str],
    *,
    include: Path | None,
    limit: int | None,
    threads: int,
    progress: Progress,
) -> dict[str, Any]:
    """The harness's results for `tasks`: per task its figures with standard errors, version and rows.

    Args:
        include: folder with task files besides the harness's own.
        limit: rows per task; None for all.

    Raises:
        BadInput: the harness is not installed, a task is not known, or the folder does not exist.
        SlmopsError: the harness fails, such as on data that it cannot fetch.
    """
    # The harness would report every call to its makers' hub and look for newer data.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise BadInput(
            f"lm-evaluation-harness cannot be imported: {error}", hint="pip install 'slmops[lm-eval]'"
        ) from error
    if include is not None and not include.is_dir():
        raise BadInput(f"there is no folder {include}")
    manager = TaskManager(include_path=str(include) if include else None)
    if not tasks or (unknown := [task for task in tasks if task not in manager.all_tasks]):
        raise BadInput(f"no task {', '.join(unknown) if tasks else 'is given'}", hint="lm-eval ls tasks lists them")
    engine = load_engine(subject.engine, subject.folder, threads=threads)
    model = harness_model(engine, Tokenizer.load(subject.folder), progress)
    try:
        found = simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, limit=limit, bootstrap_iters=1000, log_samples=False
        )
    except SlmopsError:
        raise
    except Exception as error:  # task files are programs of others: whatever fails in one is not ours to catch by name
        raise SlmopsError(f"the harness failed: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    return _results(subject, found)


def _results(subject: Local, found: Any) -> dict[str, Any]:
    samples = found["n-samples"]
    return {
        "model": subject.describe(),
        "tasks": {
            task: {
                "figures": {name: value for name, value in figures.items() if isinstance(value, int | float)},
                "rows": samples.get(task, {}).get("effective"),
                "version": found["versions"].get(task),
            }
            for task, figures in found["results"].items()
        },
    }


def shown(results: Mapping[str, Any]) -> str:
    """One line per figure, with its standard error."""
    lines = []
    for task, result in results["tasks"].items():
        for name, value in result["figures"].items():
            metric, _, filtered = name.partition(",")
            if metric.endswith("_stderr") or not filtered:
                continue
            error = result["figures"].get(f"{metric}_stderr,{filtered}")
            spread = f" ± {error:.4f}" if error is not None else ""
            lines.append(f"{task:<32} {metric:<20} {value:.4f}{spread}  n = {result['rows']}")
    return "\n".join(lines)


def harness_model(engine: Engine, tokenizer: Tokenizer, progress: Progress) -> LM:
    """The model as the harness wants it: log-likelihoods, rolling log-likelihoods and text up to a stop.

    Tokens are split as the harness's own models split them, so that figures can stand beside published ones.
    """
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    context = engine.info().context_tokens

    class EngineLM(TemplateLM):  # type: ignore[misc]
        @property
        def eot_token_id(self) -> int:
            return min(tokenizer.end_ids)

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: ARG002
            return tokenizer.encode(string)

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
        ) -> list[tuple[float, bool]]:
            pairs = [_fitted(before, after, context) for _, before, after in requests]
            order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
            sums = [0.0] * len(pairs)
            with progress.task("likelihoods", len(pairs), "requests") as bar:
                for start in range(0, len(order), _BATCH):
                    chosen = order[start : start + _BATCH]
                    scores = engine.score([pairs[i][0] for i in chosen], [pairs[i][1] for i in chosen])
                    for i, score in zip(chosen, scores, strict=True):
                        sums[i] = float(score.sum(dtype="float64"))
                    bar.advance(len(chosen))
            return list(zip(sums, _greedy(engine, pairs), strict=True))

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
            totals = []
            for request in requests:
                windows = map(
                    make_disjoint_window,
                    get_rolling_token_windows(tokenizer.encode(request.args[0]), self.prefix_token_id, context - 1, 1),
                )
                pairs = [(list(before), list(after)) for before, after in windows]
                scores = engine.score([before for before, _ in pairs], [after for _, after in pairs])
                totals.append(float(sum(score.sum(dtype="float64") for score in scores)))
            return totals

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
            texts = []
            with progress.task("answers", len(requests), "requests") as bar:
                for request in requests:
                    texts.append(_generate(engine, tokenizer, context, *request.args))
                    bar.advance(1)
            return texts

    return EngineLM()


def _fitted(before: list[int], after: list[int], context: int) -> tuple[list[int], list[int]]:
    """What is too long loses its beginning, as in the harness; one token must stand before what is scored."""
    after = after[-(context - 1) :]
    return before[-(context - len(after)) :], after


def _greedy(engine: Engine, pairs: Sequence[tuple[list[int], list[int]]]) -> list[bool]:
    """Whether each continuation is what the model would write. What follows a context is written once."""
    lengths: dict[tuple[int, ...], int] = {}
    for before, after in pairs:
        lengths[tuple(before)] = max(lengths.get(tuple(before), 1), len(after))
    contexts = list(lengths)
    written: dict[tuple[int, ...], list[int]] = {context: [] for context in contexts}
    if contexts:
        for token in engine.generate(contexts, Sampling(max_tokens=max(lengths.values()))):
            written[contexts[token.request]].append(token.id)
    return [written[tuple(before)][: len(after)] == after for before, after in pairs]


def _generate(engine: Engine, tokenizer: Tokenizer, context: int, prompt: str, arguments: Mapping[str, Any]) -> str:
    """Text up to the first of the task's stops."""
    if odd := sorted(set(arguments) - _SAMPLING - _IGNORED):
        raise BadInput(f"a task asks for {odd[0]}, which no engine here does", hint="change its generation_kwargs")
    until = arguments.get("until") or []
    stops = [until] if isinstance(until, str) else list(until)
    limit = next(
        (int(arguments[name]) for name in ("max_gen_toks", "max_new_tokens", "max_tokens") if name in arguments),
        _MAX_NEW_TOKENS,
    )
    sampled = bool(arguments.get("do_sample", float(arguments.get("temperature", 0)) > 0))
    sampling = Sampling(
        max_tokens=limit,
        temperature=float(arguments.get("temperature", 1.0)) if sampled else 0.0,
        top_p=float(arguments.get("top_p", 1.0)),
        seed=int(arguments.get("seed", 0)),
    )
    # A prompt that is too long loses its beginning; of a small context the answer claims no more than half.
    room = context - min(limit, context // 2)
    ids = (tokenizer.encode(prompt) or [min(tokenizer.end_ids)])[-room:]
    written: list[int] = []
    for token in engine.generate([ids], sampling):
        written.append(token.id)
        text = tokenizer.decode(written)
        if any(stop and stop in text for stop in stops):
            break
    text = tokenizer.decode(written)
    return text[: min((text.find(stop) for stop in stops if stop and stop in text), default=len(text))]
