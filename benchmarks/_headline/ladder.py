"""All records together: cells that differ by seed alone are one rung, and one rung of each setting is chosen.

The choice is made on validation figures. What the chosen student is worth is then read from the test rows, which are
the same for every seed: each row counts with its mean over the seeds, and rows are resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from _headline.cells import SETTINGS, TASKS
from _headline.records import Record, numbers
from slmops.evaluate.significance import Difference, paired_bootstrap, ratio_interval
from slmops.tasks.figures import Array, micro_f1

ROLES = ("teacher", "baseline", "student", "shipped", "floor")
COSTS = ("latency_p50_ms", "weights_bytes")
SAVINGS = ("time_saving_torch", "time_saving_same_engine", "weights_saving", "memory_saving")
KEPT_GOAL = 0.97
GOALS = {
    "time_saving_torch": 0.9,
    "time_saving_same_engine": 0.8,
    "weights_saving": 0.95,
    "exact_match_kept": KEPT_GOAL,
    "slot_f1_kept": KEPT_GOAL,
    "teacher_worth_points": 5.0,
    "seeds": 3,
}
MAIN = {
    "snips": ("exact_match", "field_f1"),
    "banking77": ("exact_match", "field_f1"),
    "dialogsum": ("rouge_l", "chrf"),
}
"""The headline of each task, and what else must be kept where the task has it."""

PREFIXES = {
    ("snips", "few"): "",
    ("snips", "all"): "all_",
    ("banking77", "few"): "banking77_",
    ("banking77", "all"): "banking77_all_",
    ("dialogsum", "few"): "dialogsum_",
}
"""Of the figures of each setting. Few labels and a pool are what a teacher is for, so they bear the plain names."""

Group = tuple[str, str]
"""Task and setting."""


@dataclass(frozen=True)
class Rung:
    """One way to make a student (or, without one, a teacher) and its records, one for each seed.

    `timed` is a record of the same shape on a laptop, where these hold no times.
    """

    name: str
    records: Sequence[Record]
    timed: Record | None = None

    @property
    def group(self) -> Group:
        task, setting, *_ = self.name.split(".")
        return task, setting

    @property
    def main(self) -> tuple[str, str]:
        return MAIN[self.group[0]]

    @property
    def label(self) -> str:
        """The name without its group and what is nothing special."""
        return ".".join(part for part in self.name.split(".")[2:] if part not in ("default", "unhealed", "unshipped"))

    @property
    def is_teacher(self) -> bool:
        return self.records[0]["kept_layers"] is None

    @property
    def is_shipped(self) -> bool:
        return "shipped" in self.records[0]["test"]

    def mean(self, part: str, role: str, figure: str) -> float | None:
        """A figure of `validation` or `test`, over seeds; None where it was not measured of each."""
        found = [record[part].get(role, {}).get(figure) for record in self.records]
        return None if None in found else fmean(found)

    def measured(self, role: str, what: str) -> float | None:
        """Latency or size, over seeds."""
        found = [record["measured"].get(role, {}).get(what) for record in self.records]
        if None in found:
            return self.timed["measured"].get(role, {}).get(what) if self.timed else None
        return fmean(found)

    def saved(self, what: str) -> list[float]:
        """A saving against the teacher of each seed, or of the record that was timed; empty where it is not known."""
        each = [record["savings"][what] for record in self.records if what in record["savings"]]
        if len(each) == len(self.records):
            return each
        return [self.timed["savings"][what]] if self.timed and what in self.timed["savings"] else []

    def kept(self, part: str) -> list[float]:
        """Shares of the teacher's main figures that the shipped model keeps; one of a teacher that has nothing is 0."""
        pairs = [[self.mean(part, role, figure) for role in ("shipped", "teacher")] for figure in self.main]
        return [ours / theirs if theirs else 0.0 for ours, theirs in pairs if ours is not None and theirs is not None]

    def each(self, role: str) -> Array:
        """The headline of each test row, over seeds, shape [rows]; of right and wrong: how often it was right."""
        return np.mean([numbers(record["each"]["test"][role]) for record in self.records], axis=0)

    def counts(self, role: str) -> Array:
        """Slots found, invented and missed in each test row, over seeds, shape [rows, 3]."""
        tables = [[numbers(column) for column in record["counts"]["test"][role]] for record in self.records]
        return np.mean(tables, axis=0).T

    def worth(self) -> Difference | None:
        """What the student has over the same student without a teacher, in the headline; both in PyTorch."""
        if any("baseline" not in record["each"]["test"] for record in self.records):
            return None
        return paired_bootstrap(self.each("student"), self.each("baseline"), seed=0)


def rungs(records: Iterable[Record], timed: Iterable[Record] = ()) -> list[Rung]:
    """By rung; `timed` are the records to take times from where these hold none."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["rung"], []).append(record)
    times = {record["rung"]: record for record in timed}
    return [Rung(name, sorted(of_one, key=lambda one: one["cell"]), times.get(name)) for name, of_one in found.items()]


def grouped(found: Iterable[Rung]) -> dict[Group, list[Rung]]:
    """The rungs whose students are shipped, by task and setting."""
    students = [rung for rung in found if rung.is_shipped]
    groups = {
        (task, setting): [r for r in students if r.group == (task, setting)] for task in TASKS for setting in SETTINGS
    }
    return {group: members for group, members in groups.items() if members}


def compared(found: Iterable[Rung]) -> dict[Group, list[Rung]]:
    """The rungs whose students are not shipped, by task and setting: what was asked is how to train them."""
    groups: dict[Group, list[Rung]] = {}
    for rung in found:
        if not rung.is_shipped and not rung.is_teacher:
            groups.setdefault(rung.group, []).append(rung)
    return groups


def choose(candidates: Sequence[Rung]) -> Rung:
    """The student of a setting, by validation figures alone.

    Of the rungs with most seeds, those that keep enough of the teacher's quality are compared by latency, or by size
    where that was not measured; where none does, the one that keeps most is taken.
    """
    most = max(len(rung.records) for rung in candidates)
    whole = [rung for rung in candidates if len(rung.records) == most]
    good = [rung for rung in whole if min(rung.kept("validation")) >= KEPT_GOAL]
    if good:
        return min(good, key=lambda rung: [rung.measured("shipped", cost) or float("inf") for cost in COSTS])
    return max(whole, key=lambda rung: min(rung.kept("validation")))


def figures(chosen: Mapping[Group, Rung]) -> tuple[dict[str, float], dict[str, Sequence[float]]]:
    """Figures of the benchmark's line, and their ends."""
    found: dict[str, float] = {}
    ends: dict[str, Sequence[float]] = {}
    for group, rung in chosen.items():
        values, spread = _figures(rung)
        called = _called(group)
        found |= {called(name): value for name, value in values.items()}
        ends |= {called(name): both for name, both in spread.items()}
    return found, ends


def _called(group: Group) -> Callable[[str], str]:
    """The names of a group's figures: those of the one task have slots, and the other's exact match is accuracy."""
    words = ("exact_match", "accuracy") if group[0] == "banking77" else ("field_f1", "slot_f1")
    return lambda name: PREFIXES[group] + name.replace(*words)


def _figures(rung: Rung) -> tuple[dict[str, float], dict[str, Sequence[float]]]:
    values: dict[str, float] = {}
    ends: dict[str, Sequence[float]] = {}
    for name in SAVINGS:
        if each := rung.saved(name):
            values[name], ends[name] = fmean(each), (min(each), max(each))
    for figure in rung.main:
        for role in ROLES:
            if (value := rung.mean("test", role, figure)) is not None:
                each = [record["test"][role][figure] for record in rung.records]
                values[f"{figure}_{role}"], ends[f"{figure}_{role}"] = value, (min(each), max(each))
    for figure, share in zip(rung.main, rung.kept("test"), strict=False):
        if not rung.mean("test", "teacher", figure):
            continue
        values[f"{figure}_kept"] = share
        if interval := _kept_interval(rung, figure):
            ends[f"{figure}_kept"] = interval
    if worth := rung.worth():
        values |= {"teacher_worth_points": worth.value * 100, "teacher_worth_p": worth.p_value}
        ends["teacher_worth_points"] = [end * 100 for end in worth.interval]
    return values | {"seeds": len(rung.records), "n_test": rung.records[0]["rows"]["test"]}, ends


def _kept_interval(rung: Rung, figure: str) -> Sequence[float] | None:
    """Of a figure whose rows are known: the headline, and slot F1."""
    if figure == rung.main[0]:
        return ratio_interval(rung.each("shipped"), rung.each("teacher"), seed=0)
    if figure != "field_f1":
        return None
    return ratio_interval(rung.counts("shipped"), rung.counts("teacher"), micro_f1, seed=0)
