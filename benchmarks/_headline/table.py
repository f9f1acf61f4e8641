"""The ladder as plain text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from _headline.cells import TASKS
from _headline.ladder import Group, Rung

LABEL, RULE = 35, "─" * 80
SHORT = {"exact_match": "EM", "field_f1": "F1", "rouge_l": "R-L", "chrf": "chrF"}
SETTINGS = {"few": "few labels", "all": "all labels"}
_SURE = 0.05
_BESIDE = (
    ("teacher", "teacher, PyTorch"),
    ("teacher_same", "teacher, in the shipped format"),
    ("baseline", "the chosen one without a teacher"),
    ("floor", "no model"),
)


def ladder(groups: Mapping[Group, Sequence[Rung]], chosen: Mapping[Group, Rung], *, short: bool = False) -> str:
    """A block for each task and setting; `short` leaves out the students that were not chosen."""
    blocks = (_block(group, members, chosen[group], short) for group, members in groups.items())
    return "\n\n".join("\n".join(block) for block in blocks)


NOTE = """\
Students are named by head and layers, how the layers were chosen, whether the
vocabulary is trimmed to the task's, and the precision they ship in. EM: exact
match; R-L: ROUGE-L. Choices were made on the validation rows; > is the chosen
one. ms: median of one request. worth: points of EM or R-L over the same student
without a teacher, both in PyTorch; * where a paired bootstrap of the test rows
gives p < 0.05. Figures are means over the seeds, whose number is in column s."""


def _block(group: Group, members: Sequence[Rung], chosen: Rung, short: bool) -> Iterator[str]:
    rows = chosen.records[0]["rows"]
    task, setting = group
    yield f"{TASKS[task]}, {SETTINGS[setting]}: {rows['train']:,} labelled rows, a pool of {rows['pool']:,}"
    yield f"{'':{LABEL + 2}}{'validation':>12}{'test':>12}"
    yield _line("", "s", *[SHORT[figure] for figure in chosen.main] * 2, "ms", "MB", "worth")
    yield _line("n", "", f"{rows['validation']:,}", "", f"{rows['test']:,}")
    yield RULE
    for role, label in _BESIDE:
        if chosen.mean("test", role, chosen.main[0]) is not None:
            yield _model(chosen, role, label)
    yield RULE
    shown = [chosen] if short else sorted(members, key=lambda r: -(r.mean("validation", "shipped", r.main[0]) or 0))
    for rung in shown:
        yield _model(rung, "shipped", f"{'>' if rung is chosen else ' '} {rung.label}", _worth(rung))


def trainings(groups: Mapping[Group, Sequence[Rung]]) -> str:
    """Students as they were trained, in PyTorch, best on validation first: objectives, healing."""
    return "\n\n".join("\n".join(_trainings(group, members)) for group, members in groups.items())


def _trainings(group: Group, members: Sequence[Rung]) -> Iterator[str]:
    task, setting = group
    yield f"{TASKS[task]}, {SETTINGS[setting]}: ways to train, in PyTorch"
    yield _line("", "s", *[SHORT[figure] for figure in members[0].main] * 2, "", "", "worth")
    yield RULE
    for rung in sorted(members, key=lambda r: -(r.mean("validation", "student", r.main[0]) or 0)):
        yield _model(rung, "student", f"  {rung.label}", _worth(rung))
        if rung.group[0] == "dialogsum":
            yield from (_model(rung, role, label) for role, label in _BESIDE if rung.mean("test", role, rung.main[0]))


def _model(rung: Rung, role: str, label: str, worth: str = "") -> str:
    quality = [_share(rung.mean(part, role, figure)) for part in ("validation", "test") for figure in rung.main]
    ms, size = rung.measured(role, "latency_p50_ms"), rung.measured(role, "weights_bytes")
    return _line(label, str(len(rung.records)), *quality, _number(ms), _number(size and size / 1e6), worth)


def _worth(rung: Rung) -> str:
    found = rung.worth()
    return "" if found is None else f"{found.value * 100:+.1f}{'*' if found.p_value < _SURE else ' '}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}".removeprefix("0") if value < 1 else "1.00"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _line(label: str, seeds: str, *cells: str) -> str:
    widths = (6, 6, 6, 6, 6, 6, 7)
    line = f"{label[:LABEL]:{LABEL}}{seeds:>2}"
    return (line + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))).rstrip()


def teachers(found: Sequence[Rung]) -> str:
    """Ways to fit the teacher, by validation figures."""
    lines = [f"{'ways to fit the teacher':{LABEL}}{'s':>2}{'EM':>6}{'F1':>6}{'minutes':>10}   (validation)", RULE]
    for rung in sorted(found, key=lambda rung: (rung.group, -(rung.mean("validation", "teacher", rung.main[0]) or 0))):
        quality = [_share(rung.mean("validation", "teacher", figure)) for figure in rung.main]
        minutes = sum(record["train_s"]["teacher"] for record in rung.records) / len(rung.records) / 60
        label = f"{'.'.join(rung.group)}.{rung.label}"
        lines.append(f"{label[:LABEL]:{LABEL}}{len(rung.records):>2}{quality[0]:>6}{quality[1]:>6}{minutes:>10.1f}")
    return "\n".join(lines)
