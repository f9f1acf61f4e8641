"""Several adapters and what they were merged into, side by side: a row per task, a column per model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from slmops.report.comparison import Column, quality
from slmops.report.comparison import Line as PageLine
from slmops.report.pairs import Difference, difference
from slmops.report.table import CELL_WIDTH, LABEL_WIDTH, PER_BLOCK, interval, line, wrapped
from slmops.report.words import figure_name, p_value, points, shown

MERGED = "merged:"
"""Begins the roles of models whose adapter was made of several."""

OWN = "student"
"""The role of an adapter where its task is measured."""

FORMAT = 1
"""Of `report.json`; raised when an older reader would misread it."""


@dataclass(frozen=True)
class Several:
    """What is known of the adapters of a run.

    Attributes:
        name: of the project.
        base: the model that all adapters stand beside.
        evidence: adapter to the `evidence.json` of its task, with all models that were measured on it.
        gates: adapter to its `gates.json`.
        merges: what adapters were merged into, by name, to its `merge.json`.
        histories: adapter to its `history.json`.
        trainings: adapter to its `training.json`.
        parity: verdicts on what ships, each with its `adapter`; none where nothing does.
        recipe: as resolved, without paths.
        command: what makes this report again.
    """

    name: str
    base: str
    evidence: Mapping[str, Mapping[str, Any]]
    gates: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    merges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    trainings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parity: Sequence[Mapping[str, Any]] = ()
    recipe: Mapping[str, Any] | None = None
    command: str | None = None

    @property
    def roles(self) -> list[str]:
        """The columns."""
        return ["base", OWN, *(MERGED + name for name in self.merges)]

    @cached_property
    def tests(self) -> dict[str, list[Difference]]:
        """By adapter: it against the base, then every merged model against it, on the main figure of its task."""
        return {name: list(_tests(evidence, self.roles)) for name, evidence in self.evidence.items()}

    @property
    def title(self) -> str:
        """The answer in one line."""
        count = len(self.evidence)
        against = [test for tests in self.tests.values() for test in tests if test.theirs == "base"]
        if not against:
            return f"{count} adapters on one base"
        better = sum(test.reading == "better" for test in against)
        return f"{better} of {count} adapters {'is' if better == 1 else 'are'} shown to be better than the base"

    @property
    def reasons(self) -> list[str]:
        """Which adapters nobody needs, and of each merged model how it stands against the adapters it is made of."""
        idle = [name for name, evidence in self.evidence.items() if evidence["floor_beaten"] is False]
        told = [f"{name}: the adapter is not shown to be better than a trivial method." for name in idle]
        for name in self.merges:
            tests = [test for tests in self.tests.values() for test in tests if test.ours == MERGED + name]
            worse = sum(test.reading == "worse" for test in tests)
            told.append(f"{name}: shown to be worse than the adapter by itself on {worse} of {len(tests)} tasks.")
        return told

    def record(self) -> dict[str, Any]:
        """`report.json`: all as plain JSON data."""
        adapters = {
            name: {"evidence": evidence, "gates": self.gates.get(name, []), "training": self.trainings.get(name)}
            for name, evidence in self.evidence.items()
        }
        told = {"title": self.title, "base": self.base, "adapters": adapters, "merges": dict(self.merges)}
        return {
            "format": FORMAT,
            "name": self.name,
            **told,
            "parity": list(self.parity),
            "recipe": self.recipe,
            "command": self.command,
        }


def title(role: str) -> str:
    """A column's head."""
    return "adapter" if role == OWN else role.removeprefix(MERGED)


def _tests(evidence: Mapping[str, Any], roles: Sequence[str]) -> Iterator[Difference]:
    pairs = [(OWN, "base"), *((role, OWN) for role in roles if role.startswith(MERGED))]
    found = (difference(evidence, ours, theirs, evidence["headline"]) for ours, theirs in pairs)
    yield from (test for test in found if test)


def table(several: Several) -> str:
    """The tasks and the models on them as plain text, then the tests, the gates and the answer."""
    roles = several.roles
    blocks = [roles[start : start + PER_BLOCK] for start in range(0, len(roles), PER_BLOCK)]
    lines = [text for block in blocks for text in (*_block(several, block), "")]
    below = [
        "[ ] are 95 % intervals",
        *(f"{name}: {_said(test)}" for name, tests in several.tests.items() for test in tests),
        *(
            f"{name}: gate {verdict['state']}: {verdict['message']}"
            for name, verdicts in several.gates.items()
            for verdict in verdicts
        ),
        *(f"as shipped, {verdict['state']}: {verdict['message']}" for verdict in several.parity),
        *several.reasons,
        several.title,
    ]
    return "\n".join([*lines, *(part for text in below for part in wrapped(text))]) + "\n"


def _block(several: Several, roles: Sequence[str]) -> Iterator[str]:
    yield line("", [title(role) for role in roles])
    yield "─" * (LABEL_WIDTH + CELL_WIDTH * len(roles))
    for name, evidence in several.evidence.items():
        figure, models = evidence["headline"], [evidence["models"].get(role, {}) for role in roles]
        values = [model.get("quality", {}).get(figure) for model in models]
        yield f"{name}, n = {evidence['n_test']:,}"
        yield line(f"  {figure_name(figure)}", ["–" if value is None else shown(figure, value) for value in values])
        yield line("  95 % interval", [interval(model.get("interval", {}).get(figure)) for model in models])


def _said(test: Difference) -> str:
    between = f"[{points(test.low)} to {points(test.high)}]"
    return (
        f"{title(test.ours)} against {title(test.theirs)}: {points(test.points)} points of {figure_name(test.figure)} "
        f"{between}, {p_value(test.p)}: {test.reading}"
    )


def page(several: Several) -> str:
    """Render `report.html`; every text in it is escaped, and it loads nothing from anywhere."""
    import yaml

    from slmops.report.lines import curves
    from slmops.report.templates import templates

    gates = [(name, verdict) for name, verdicts in several.gates.items() for verdict in verdicts]
    recipe = several.recipe and dict(several.recipe)
    parts = {
        "curves": curves(several.histories),
        "trainings": [(name, told) for name, told in several.trainings.items() if "parameters" in told],
        "recipe_text": recipe and yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100),
    }
    chapters = {"adapters": "Side by side", "trainings": "Training", "reproduce": "How to reproduce"}
    needs = {"adapters": True, "trainings": parts["trainings"], "reproduce": recipe}
    template = templates().get_template("several.html")
    return template.render(
        story=several,
        columns=columns(several),
        groups=list(groups(several)),
        gates=gates,
        missed=sum(verdict["state"] != "pass" for _, verdict in gates),
        unlike=sum(verdict["state"] != "pass" for verdict in several.parity),
        tests=[(name, _titled(test)) for name, tests in several.tests.items() for test in tests],
        own=OWN,
        chapters=[(name, told) for name, told in chapters.items() if needs[name]],
        **parts,
    )


def columns(several: Several) -> list[Column]:
    """The heads of the page's table."""
    beside = {"base": "untuned", OWN: "by itself"}
    return [Column(role, title(role), beside.get(role, "merged"), n + 1) for n, role in enumerate(several.roles)]


def groups(several: Several) -> Iterator[tuple[str, list[PageLine]]]:
    """Adapter by adapter every figure of its task, of all models; a model that was not measured on it has none."""
    for name, evidence in several.evidence.items():
        known = evidence["models"]
        whole = {**evidence, "models": {role: known.get(role, {}) for role in several.roles}}
        yield f"{name}, {evidence['n_test']:,} held-out rows", quality(whole, several.roles)


def _titled(test: Difference) -> Difference:
    return replace(test, ours=title(test.ours), theirs=title(test.theirs))
