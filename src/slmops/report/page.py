"""The report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slmops.report import buying, comparison, confidence, failures, forest, lines, plane
from slmops.report.pairs import against_all
from slmops.report.story import Story
from slmops.report.teachers import taught_by
from slmops.report.templates import templates
from slmops.report.verdict import held, reference_of, resolution_points
from slmops.report.words import (
    change,
    figure_name,
    healing,
    in_order,
    percent,
    prose,
    shown,
    slot,
)

_CHAPTERS = {
    "compare": ("Side by side", ("quality",)),
    "tradeoff": ("Quality, latency and size", ("scatter",)),
    "parity": ("The bundle against its student", ("parity",)),
    "failures": ("Where it fails", ("worst", "heat", "examples")),
    "regression": ("Rows that once failed", ("regression",)),
    "judged": ("Judged answers", ("judged",)),
    "calibration": ("Confidence and abstention", ("calibrated",)),
    "data": ("Data", ("data",)),
    "curated": ("What the student learned from", ("curated",)),
    "training": ("Training", ("curves", "carved", "trainings", "resources")),
    "compression": ("Compression", ("front",)),
    "cost": ("Cost of running", ("cost",)),
    "method": ("How it was measured", ("quality",)),
    "lineage": ("Lineage", ("manifest",)),
    "reproduce": ("How to reproduce", ("command", "recipe_text")),
}
"""Name of the template, title, and the parts of which one must be there."""

_MACHINE = {"python": "Python", "platform": "system", "cpu": "processor", "cores": "cores"}
_COVERAGES = (1.0, 0.9, 0.8, 0.5)


def page(story: Story) -> str:
    """Render `report.html`; every text in it is escaped, and it loads nothing from anywhere."""
    subject = story.verdict.subject
    reference = reference_of(story.evidence, subject)
    order = comparison.order(story.evidence, subject, reference)
    parts = {
        **_compared(story, subject, reference),
        **_failing(story, subject, reference),
        **_drawn(story, subject, reference),
        **_made(story),
    }
    template = templates().get_template("page.html")
    return template.render(
        story=story,
        evidence=story.evidence,
        verdict=story.verdict,
        subject=subject,
        reference=reference,
        models=story.evidence["models"],
        headline=story.evidence["headline"],
        columns=comparison.columns(story.evidence, order),
        resolution=resolution_points(story.evidence),
        badge=badge([*story.gates, *_missed(story.parity)]),
        facts=facts(story.evidence, subject),
        chapters=_chapters(parts),
        **parts,
    )


def _chapters(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, title) for name, (title, needs) in _CHAPTERS.items() if any(parts[need] for need in needs)]


def badge(gates: Sequence[Mapping[str, Any]]) -> str:
    """The gates in a few words."""
    if not gates:
        return "No gate set"
    missed = sum(gate["state"] != "pass" for gate in gates)
    if not missed:
        return "The gate passes" if len(gates) == 1 else f"All {len(gates)} gates pass"
    return f"{missed} of {len(gates)} gates {'does' if missed == 1 else 'do'} not pass"


def _missed(parity: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Gates of parity that do not pass; that they pass is no gate that anybody set."""
    return [gate for gate in (parity or {}).get("gates", ()) if gate["state"] != "pass"]


def facts(evidence: Mapping[str, Any], subject: str) -> list[tuple[str, str, str]]:
    """The few numbers to remember: value, what it is, and how sure."""
    model, headline = evidence["models"][subject], evidence["headline"]
    found = []
    if headline in model.get("quality", {}):
        low, high = (shown(headline, end) for end in model["interval"][headline])
        found.append(
            (shown(headline, model["quality"][headline]), figure_name(headline), f"95 % interval {low} to {high}")
        )
    against = held(evidence, subject)
    theirs = prose(against.reference)
    kept = against.kept.get(f"{headline}_kept")
    if isinstance(kept, float):
        low, high = against.kept_interval[f"{headline}_kept"]
        found.append(
            (percent(kept), f"of {theirs}’s {figure_name(headline)} kept", f"{percent(low)} to {percent(high)}")
        )
    for key, what in (("time_saving_torch", "time"), ("weights_saving", "weights"), ("memory_saving", "memory")):
        saving = against.savings.get(key)
        if isinstance(saving, float):
            same = against.savings.get("time_saving_same_engine") if what == "time" else None
            beside = "" if same is None else f"{change(-same)} on the same engine"
            found.append((change(-saving) or "the same", f"{what} against {theirs}", beside))
    return found


def _compared(story: Story, subject: str, reference: str | None) -> dict[str, Any]:
    evidence = story.evidence
    order = comparison.order(evidence, subject, reference)
    tests = against_all(evidence, subject, evidence["headline"])
    return {
        "quality": comparison.quality(evidence, order),
        "main_cost": comparison.cost(evidence, order, reference, main_only=True),
        "cost": comparison.cost(evidence, order, reference, main_only=False),
        "energy": comparison.energy_notes(evidence),
        "tests": tests,
        "all_tests": evidence["paired"],
        "differences": forest.differences(tests),
    }


def _failing(story: Story, subject: str, reference: str | None) -> dict[str, Any]:
    model = story.evidence["models"][subject]
    confusion = model.get("confusion")
    return {
        "worst": failures.worst_classes(model, story.evidence["models"].get(reference or "")),
        "class_count": len(model.get("classes", ())),
        "heat": failures.heat(confusion) if confusion else None,
        "examples": story.examples,
        "parity": story.parity,
        "regression": story.regression,
        "failed_again": [row for row in story.regression if not row["passed"]],
        "judged": story.evidence.get("judged"),
        "confused": failures.most_confused(confusion) if confusion else [],
    }


def _drawn(story: Story, subject: str, reference: str | None) -> dict[str, Any]:
    models = story.evidence["models"]
    roles = in_order(models)
    calibrated = {
        r: models[r]["calibration"] for r in roles if r in (subject, reference) and "calibration" in models[r]
    }
    return {
        "scatter": plane.quality_latency_size(story.evidence),
        "curves": lines.curves(story.histories),
        "resources": lines.resources(story.histories),
        "lengths": lines.latency_by_length(models),
        "calibrated": calibrated,
        "reliability": confidence.reliability(calibrated, roles) if calibrated else None,
        "abstaining": _abstaining(calibrated),
        "abstention": confidence.abstention(calibrated, roles) if calibrated else None,
        "front": plane.front(story.front) if story.front else None,
        "slots": {role: slot(role, roles) for role in roles},
    }


def _made(story: Story) -> dict[str, Any]:
    """How it came about: data, training, lineage, and how to do it again."""
    lineage = (story.manifest or {}).get("lineage", {})
    threads = {model["threads"] for model in story.evidence["models"].values() if "threads" in model}
    return {
        "data": story.data,
        "curated": story.curated,
        "bought": buying.curve(story.bought) if story.bought else None,
        "bought_told": buying.told(story.bought) if story.bought else None,
        "learned_balance": learned_balance((story.curated or {}).get("labels", {})),
        "balance": _balance((story.data or {}).get("labels", {})),
        "carved": story.carved,
        "trainings": [(name, figures) for name, figures in story.trainings.items() if "parameters" in figures],
        "taught_by": taught_by(story.recipe),
        "healed": healing(story.healed) if story.healed else None,
        "manifest": story.manifest,
        "lineage": lineage,
        "environment": _environment(lineage.get("environment", {})),
        "threads": f"{threads.pop()} threads" if len(threads) == 1 else None,
        "command": story.command,
        "recipe_text": _yaml(story.recipe),
    }


def _balance(labels: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int, int, float]]:
    """Label, its rows in training and in test, and the former against those of the most frequent label."""
    train, test = labels.get("train", {}), labels.get("test", {})
    most = max(train.values(), default=1) or 1
    known = sorted({*train, *test}, key=lambda label: (-train.get(label, 0), label))
    return [(label, train.get(label, 0), test.get(label, 0), train.get(label, 0) / most) for label in known]


def learned_balance(labels: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int, int, float]]:
    """Label, its labelled rows and its answers, and their sum against that of the most frequent label."""
    most = max((sum(rows.values()) for rows in labels.values()), default=1) or 1
    known = sorted(labels, key=lambda label: (-sum(labels[label].values()), label))
    told = ((label, labels[label]["train"], labels[label]["answers"]) for label in known)
    return [(label, train, answers, (train + answers) / most) for label, train, answers in told]


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the bundle was made on, one line per thing."""
    told = [(name, str(environment[key])) for key, name in _MACHINE.items() if key in environment]
    return [*told, *((name, str(version)) for name, version in environment.get("versions", {}).items())]


def _abstaining(calibrated: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, float, float, float | None]]:
    """A few points of the curves, as the table beside them."""
    found = []
    for role, one in calibrated.items():
        for wanted in _COVERAGES if one["abstention"] else ():
            point = min(one["abstention"], key=lambda p: abs(p["coverage"] - wanted))
            found.append((role, point["coverage"], point["accuracy"], point.get("threshold")))
    return found


def _yaml(recipe: Mapping[str, Any] | None) -> str | None:
    import yaml

    return None if recipe is None else yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=100)
