"""What looks on while a model is trained: figures, warnings, checkpoints, and when it is enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file

from slmops.errors import BadInput, SlmopsError
from slmops.progress import Evaluated, Progress, Task
from slmops.recipe.training import Optimisation
from slmops.train.alarms import Alarms
from slmops.train.callbacks import Moment
from slmops.train.calling import Callbacks
from slmops.train.checkpoint import kept_state, last_checkpoint, save_tensors, step_of, write_checkpoint
from slmops.train.clock import Clock
from slmops.train.events import Record
from slmops.train.peak import Peak
from slmops.train.precision import Precision
from slmops.train.processes import Processes
from slmops.train.stopping import Lowest, evaluation_steps


class After(NamedTuple):
    """What is to be done behind a step: end, because it is `enough`, or `keep` a checkpoint."""

    enough: bool
    keep: bool


class Watcher:
    """Reports progress, evaluates, warns, says when it is time for a checkpoint, and stops at nonsense.

    Attributes:
        validate: the validation loss of the weights as they are, in nats; called where `stop_early` says so.
        weights: the moving weights as the model sees them, in float32; what is kept of the best step.
        peak: the memory that training took; from its beginning on.
        clock: of the steps alone; what it tells is in the history.
        history: one entry per logged step: `step`, `tokens`, what `Clock.taken` tells of training alone, the mean of
            each loss term that was computed since the last entry, and `validation` where the validation rows were
            evaluated. Where the student wrote answers itself, also `on_policy_tokens` of all processes, and
            `on_policy_seconds` of `seconds` that went into writing them. Numbers of the user's callbacks are there as
            `Class.name`, of those since the last entry the last.
    """

    LOG_EVERY = 5

    validate: Callable[[], float]
    weights: Callable[[], list[torch.Tensor]]
    peak: Peak

    def __init__(
        self,
        tokens: Sequence[int],
        terms: Sequence[str],
        settings: Optimisation,
        precision: Precision,
        *,
        held: int,
        work: Path,
        processes: Processes,
        progress: Progress,
        evaluated: Evaluated | None = None,
        callbacks: Callbacks | None = None,
    ) -> None:
        """Watch a training.

        Args:
            tokens: of the given answers and their prompts in each step, [steps], for all processes together. Progress
                counts by them: how long the student's own answers get is known only when they are written, and their
                share of the work is about the same in all stretches of a training.
            terms: names of the loss terms.
            held: bytes that are there when training begins: weights, and what was computed before.
            evaluated: told of every evaluation; what it raises ends the training.
            callbacks: the user's own; the first process calls them.
        """
        self.tokens, self.terms, self.settings, self.precision = tokens, list(terms), settings, precision
        self.work, self.processes, self.progress, self.held = work, processes, progress, held
        self.evaluated, self._evaluations = evaluated, 0
        self.callbacks, self.stopped_by = callbacks or Callbacks(), ""
        self._said: dict[str, float] = {}
        stop = settings.stop_early
        self.evaluate_at = evaluation_steps(len(tokens), settings.epochs, stop.every) if stop else set()
        self.task: Task | None = None
        self.record: Record | None = None
        self.history: list[dict[str, float]] = []
        self.clock = Clock()
        self.taken, self.own_tokens, self.own_seconds = 0, 0, 0.0
        self.alarms, self.lowest = Alarms(steps=len(tokens)), Lowest()
        self._done, self._norm = 0, 0.0
        self._losses: dict[str, float] = {}
        self._loss = self._share = 0.0
        self._sums, self._shares = dict.fromkeys(terms, 0.0), dict.fromkeys(terms, 0.0)
        self._recent: list[dict[str, float]] = []
        self._saved = time.monotonic()

    def collected(self, tokens: int, own_tokens: int, seconds: float) -> None:
        """Take in what a step will learn from, all processes together.

        Args:
            tokens: of prompts and answers.
            own_tokens: those that the student has just written.
            seconds: the writing took.
        """
        self.taken += tokens
        if own_tokens:
            self.own_tokens, self.own_seconds = self.own_tokens + own_tokens, self.own_seconds + seconds

    def observe(self, terms: dict[str, float], loss: float, share: float, *, comparable: bool) -> None:
        """Take in one batch.

        Args:
            terms: those that were computed, by name.
            loss: their weighted sum.
            share: of the step's answer tokens.
            comparable: warnings go by this loss. Given answers and the student's own have losses of unlike size.

        Raises:
            SlmopsError: the loss is no longer a number.
        """
        if not all(map(math.isfinite, (*terms.values(), loss))):
            raise self._no_number("loss", str(terms))
        for name, value in terms.items():
            self._sums[name] += share * value
            self._shares[name] += share
        if comparable:
            self._loss, self._share = self._loss + share * loss, self._share + share

    def saw_gradient(self, norm: float) -> None:
        """Take in the norm of a step's gradient, before it is clipped.

        Raises:
            SlmopsError: it is no number, so the step would spoil every weight.
        """
        if not math.isfinite(norm):
            raise self._no_number("gradient", f"its norm is {norm}")
        self._norm = norm

    def _no_number(self, what: str, value: str) -> SlmopsError:
        exact = "" if self.precision.name == "fp32" else ", or set precision: fp32"
        return SlmopsError(
            f"the {what} is no longer a number at step {self._done + 1} of {len(self.tokens)} ({value}); "
            f"{self._kept()}",
            hint=f"lower the learning rate (now {self.settings.learning_rate:g}), raise warmup{exact}",
        )

    def _kept(self) -> str:
        kept = last_checkpoint(self.work)
        return f"the checkpoint of step {step_of(kept)} is kept" if kept else "there is no checkpoint yet"

    def begin(self, last: Path | None) -> None:
        """Training begins, or goes on from the checkpoint `last`."""
        self.work.mkdir(parents=True, exist_ok=True)
        self._done = step_of(last)
        if last:
            kept = kept_state(last)
            self.history = kept["history"]
            self.clock = Clock(kept["seconds"], kept["cpu_seconds"])
            entry = self.history[-1]
            self.taken, self.own_tokens = int(entry["tokens"]), int(entry.get("on_policy_tokens", 0))
            self.own_seconds = entry.get("on_policy_seconds", 0.0)
            self.alarms, self.lowest = Alarms(**kept["alarms"]), Lowest(**kept["lowest"])
            for entry in self.history:
                self._tell(entry)
            if self.processes.first:
                self.callbacks.restore(kept["callbacks"])
        self._call("on_start")
        self.peak = Peak(self.held)
        self._saved = time.monotonic()
        self.clock.begin()

    def took(self, step: int) -> After:
        """So many steps are done: tell of the last, evaluate where it is time."""
        self._done, now = step, time.monotonic()
        self.clock.end()
        loss, terms = self._whole_step()
        if self.task:
            self.task.advance(self.tokens[step - 1], **terms)
        if self.record:
            self.record(step, {f"train/{name}": value for name, value in terms.items()} | {"gradient_norm": self._norm})
        self._say(self.alarms.step(step, loss, self._norm))
        self._recent.append(terms)
        self._losses = terms
        last = self._call("on_step") or step == len(self.tokens)
        evaluates = bool(self.evaluate_at) and (step in self.evaluate_at or last)
        enough = keep = False
        if evaluates or last or step % self.LOG_EVERY == 0:
            self._log(step)
            enough = (evaluates and self._evaluate(step)) or bool(self.stopped_by)
            # A checkpoint falls on a log point, so that a resumed run logs the same means as an unbroken one.
            due = self.processes.first_says(now - self._saved >= self.settings.checkpoint_seconds)
            keep = due and not enough and not last
        self.clock.begin()
        return After(enough, keep)

    def _whole_step(self) -> tuple[float | None, dict[str, float]]:
        """The comparable loss of the step, and each term, over those batches of all processes that have it."""
        loss, *sums = self.processes.total([self._loss, *self._sums.values()])
        share, *shares = self.processes.total([self._share, *self._shares.values()])
        self._loss = self._share = 0.0
        self._sums, self._shares = dict.fromkeys(self.terms, 0.0), dict.fromkeys(self.terms, 0.0)
        parts = zip(self.terms, sums, shares, strict=True)
        return loss / share if share else None, {name: total / part for name, total, part in parts if part}

    def _log(self, step: int) -> None:
        known = {name: [terms[name] for terms in self._recent if name in terms] for name in self.terms}
        means = {name: sum(values) / len(values) for name, values in known.items() if values}
        own = {"on_policy_tokens": self.own_tokens, "on_policy_seconds": self.own_seconds} if self.own_tokens else {}
        self.history.append({"step": step, "tokens": self.taken, **self.clock.taken(), **own, **means, **self._said})
        self._recent, self._said = [], {}

    def _evaluate(self, step: int) -> bool:
        """Evaluate, keep the weights where they are the best so far; whether it is time to stop."""
        loss = self.validate()
        if not math.isfinite(loss):
            raise self._no_number("validation loss", str(loss))
        self.history[-1]["validation"] = loss
        self._tell(self.history[-1])
        if self.record:
            self.record(step, {"validation": loss})
        self._say(self.alarms.evaluated(step, loss))
        if self.lowest.take(step, loss):
            self._keep_best(step)
        self._call("on_evaluation")
        stop = self.settings.stop_early
        if stop is None or self.lowest.waited < stop.patience or step == len(self.tokens):
            return False
        self.progress.note(
            f"stopped at step {step} of {len(self.tokens)}: the validation loss has not fallen below "
            f"{self.lowest.loss:.3g} (step {self.lowest.step}) in {stop.patience} evaluations"
        )
        return True

    def _call(self, event: str) -> bool:
        """Tell the user's callbacks, keep their numbers; whether one of them wants to stop, now or before.

        Raises:
            BadInput: one fails; it says which checkpoint is kept.
        """
        if not self.callbacks:
            return False
        figures: dict[str, float] = {}
        stop = None
        if self.processes.first:
            with self._blaming():
                figures, stop = self.callbacks.call(event, self._moment())
        if self.record and figures:
            self.record(self._done, {f"callbacks/{name}": value for name, value in figures.items()})
        # Between two entries of the history a number waits for the next.
        (self._said if event in ("on_start", "on_step") else self.history[-1]).update(figures)
        if not self.stopped_by and self.processes.first_says(stop is not None):
            self.stopped_by = stop or "a callback in the first process"
            self.progress.note(f"stopped at step {self._done} of {len(self.tokens)} by {self.stopped_by}")
        return bool(self.stopped_by)

    def _moment(self) -> Moment:
        known = [entry["validation"] for entry in self.history if "validation" in entry]
        return Moment(
            step=self._done,
            steps=len(self.tokens),
            tokens=self.taken,
            losses=MappingProxyType(dict(self._losses)),
            gradient_norm=self._norm if self._losses else None,
            validation=known[-1] if known else None,
        )

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """What goes wrong in a callback is told with what is kept of the training."""
        try:
            yield
        except BadInput as error:
            raise BadInput(f"{error}, at step {self._done}; {self._kept()}", hint=error.hint) from error

    def end(self) -> None:
        """All steps are done, or enough of them."""
        self._call("on_end")

    def _tell(self, entry: Mapping[str, float]) -> None:
        """Tell who looks on of an evaluation, if the entry of the history has one."""
        if self.evaluated and "validation" in entry:
            self._evaluations += 1
            self.evaluated(self._evaluations, entry["validation"])

    def _say(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            self.progress.note(f"warning: {warning}")

    def keep(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the checkpoint of `step`; the first process does.

        Args:
            tensors: what the training goes on from.
        """
        self.processes.wait()
        self._call("on_checkpoint")
        if self.processes.first:
            write_checkpoint(self.work, step, tensors, self._state())
            for best in self.work.glob("best-*"):
                if best != self._best_file():
                    best.unlink()
        self._saved = time.monotonic()
        self.clock.begin()

    def _state(self) -> dict[str, Any]:
        with self._blaming():
            callbacks = self.callbacks.state()
        return {
            "history": self.history,
            "seconds": self.clock.seconds,
            "cpu_seconds": self.clock.cpu_seconds,
            "precision": asdict(self.precision),
            "alarms": self.alarms.state(),
            "lowest": self.lowest.state(),
            "callbacks": callbacks,
        }

    def _best_file(self) -> Path:
        return self.work / f"best-{self.lowest.step}.safetensors"

    def _keep_best(self, step: int) -> None:
        """Write the weights of `step`; those that the last checkpoint knows as the best stay until the next one."""
        weights = self.weights()  # of all processes, for each may hold a part of them
        if self.processes.first:
            part = self.work / f"best-{step}.part"
            save_tensors({str(i): weight for i, weight in enumerate(weights)}, part)
            part.replace(self._best_file())

    def result(self) -> list[torch.Tensor]:
        """The weights that come out: of the lowest validation loss where there is one, else the last ones."""
        self.processes.wait()
        if not self.evaluate_at:
            return self.weights()
        best = load_file(self._best_file())
        return [best[str(i)] for i in range(len(best))]

    def figures(self) -> dict[str, float | str]:
        """Headlines: the precision, the best evaluation, the writing, and the step of each warning."""
        warned: dict[str, float | str] = {f"{kind}_at_step": step for kind, step in self.alarms.given.items()}
        best: dict[str, float | str] = {}
        if self.lowest.loss is not None:
            best = {"validation_loss": self.lowest.loss, "best_step": self.lowest.step, "steps": self._done}
        if self.stopped_by:
            best |= {"stopped_at_step": self._done, "stopped_by": self.stopped_by}
        own: dict[str, float | str] = {}
        if self.own_tokens:
            own = {
                "on_policy_tokens": self.own_tokens,
                "on_policy_tokens_per_s": self.own_tokens / max(self.own_seconds, 1e-9),
                "on_policy_time_share": self.own_seconds / max(self.clock.seconds, 1e-9),
            }
        return {**self.precision.figures(), **best, **own, **warned}
