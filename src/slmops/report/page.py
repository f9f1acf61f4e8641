"""The report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from slmops.report.figures import curves, quality_and_size
from slmops.report.table import RIVALS


def page(
    recipe: Mapping[str, Any],
    *,
    evidence: Mapping[str, Any],
    verdicts: Sequence[Mapping[str, Any]],
    table: str,
    errors: Sequence[Mapping[str, str]],
    data: Mapping[str, Any],
    carved: Mapping[str, Any],
    manifest: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, float]]],
) -> str:
    """Render `report.html`; every text in it is escaped, and it loads nothing from anywhere."""
    import jinja2
    import yaml

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("slmops.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        recipe=recipe,
        recipe_text=yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True),
        evidence=evidence,
        verdicts=verdicts,
        verdict=verdict(evidence, verdicts),
        table=table,
        errors=errors,
        data=data,
        carved=carved,
        manifest=manifest,
        curves=curves(histories),
        quality_and_size=quality_and_size(evidence),
    )


def verdict(evidence: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """One sentence for the reader in a hurry."""
    open_ = [v["figure"] for v in verdicts if v["state"] != "pass"]
    beaten = [
        test["theirs"]
        for test in evidence["paired"]
        if (test["ours"], test["figure"]) == ("shipped", evidence["headline"])
        and test["theirs"] in RIVALS
        and test["points"] <= 0
    ]
    if open_:
        return "Do not ship: " + ", ".join(open_) + (" does" if len(open_) == 1 else " do") + " not pass."
    if beaten:
        return f"Do not ship: the shipped model is no better than the {' and the '.join(beaten)}."
    if verdicts:
        return "Every gate passes."
    return "No gate was set; read the figures below."
