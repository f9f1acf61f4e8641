"""The whole checklist over one bundle."""

from __future__ import annotations

from pathlib import Path

from slmops.bundle import open_bundle
from slmops.evaluate.checklist.abstain import abstains
from slmops.evaluate.checklist.answers import answers_in_domain
from slmops.evaluate.checklist.deterministic import deterministic
from slmops.evaluate.checklist.form import output_format
from slmops.evaluate.checklist.lengths import over_lengths
from slmops.evaluate.checklist.line import Line
from slmops.evaluate.checklist.malice import control_tokens_as_text, hostile_inputs
from slmops.evaluate.checklist.memory import memory_growth
from slmops.evaluate.checklist.parity import parity
from slmops.evaluate.checklist.served import Served
from slmops.evaluate.checklist.subject import Subject, in_domain
from slmops.progress import Progress, Silent

_SOAKED = 64
"""Different texts of a soak at most: each is then asked often enough to have shown what it takes."""


def validate(
    folder: Path,
    *,
    rows: Path | None = None,
    model: Path | None = None,
    soak: int = 2_000,
    threads: int = 0,
    progress: Progress | None = None,
) -> list[Line]:
    """Every line of the checklist for the bundle in `folder`.

    The bundle is served by processes of its own: one for the questions, and a fresh one for the soak.

    Args:
        rows: in-domain queries, with the right answers as `output` where they are known.
        model: folder of the model that the bundle was made from.
        soak: requests of the soak.
        threads: of the engine; 0 takes all cores.

    Raises:
        BadInput: the bundle, the rows or the model cannot be used.
        SlmopsError: the bundle's model cannot be loaded.
    """
    bundle = open_bundle(folder, threads=threads)
    queries = in_domain(bundle, rows)
    with Served(folder, threads=threads) as served:
        subject = Subject(bundle, served, queries, progress or Silent())
        context = served.info()["context_tokens"]
        known = subject.greedy("in domain", [row["input"] for row in queries], "in domain") if queries else []
        answers, domain = answers_in_domain(subject, known), abstains(subject, known)
        survived, as_text = hostile_inputs(subject, context), control_tokens_as_text(subject)
        lengths = over_lengths(subject, context)
        repeated = deterministic(subject)
    with Served(folder, threads=threads) as fresh:
        memory = memory_growth(fresh, subject.texts[:_SOAKED], soak, subject.progress)
    form = output_format(subject)
    return [answers, domain, form, memory, *lengths, survived, as_text, repeated, parity(subject, model, threads)]
