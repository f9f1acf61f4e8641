"""Is every answer of the form that the task specifies, whatever was asked?"""

from __future__ import annotations

from slmops.evaluate.checklist.line import Line, judged
from slmops.evaluate.checklist.subject import Subject

NAME = "output format"
MIN_FORMED = 0.95
"""Share of all answers, those to hostile texts included."""


def output_format(subject: Subject) -> Line:
    """Over the answers of all other checks but the soak, which asks the same texts again and again."""
    formed, unformed = subject.formed.total(), subject.unformed.total()
    if not formed + unformed:
        return Line(NAME, "skipped", detail="nothing was answered")
    share = formed / (formed + unformed)
    parts = [
        f"{check} {subject.formed[check]}/{subject.formed[check] + subject.unformed[check]}"
        for check in sorted(subject.formed | subject.unformed)
    ]
    return Line(
        NAME,
        judged(share >= MIN_FORMED),
        f"{share:.1%} of {formed + unformed} valid",
        f"at least {MIN_FORMED:.0%}",
        ", ".join(parts),
        {"answers": formed + unformed, "valid": share},
    )
