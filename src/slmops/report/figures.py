"""Figures as SVG text, drawn without a display."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from slmops.report.table import ROLES

SIZE_INCHES = (6.4, 3.2)


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Loss against tokens seen, one line per trained model and loss term."""
    figure, axes = _axes("tokens seen", "loss, nats per answer token")
    for name, history in histories.items():
        for term in ("kl", "text"):
            if history and term in history[0]:
                tokens, values = [h["tokens"] for h in history], [h[term] for h in history]
                axes.plot(tokens, values, label=f"{name}: {term}", linewidth=1.5)
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "Training loss of each model against tokens seen")


def quality_and_size(evidence: Mapping[str, Any]) -> str:
    """Exact match with its interval against weights on disk, one dot per model."""
    figure, axes = _axes("weights, MB (log scale)", "exact match")
    for role, model in evidence["models"].items():
        if "quality" not in model or "weights_bytes" not in model:
            continue
        size, match = model["weights_bytes"] / 1e6, model["quality"]["exact_match"]
        low, high = model["interval"]
        axes.errorbar(size, match, yerr=[[match - low], [high - match]], fmt="o", capsize=3)
        axes.annotate(ROLES.get(role, role), (size, match), textcoords="offset points", xytext=(7, 5), fontsize=8)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    return _svg(figure, "Exact match against size of the weights, with 95 % intervals")


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, description: str) -> str:
    """The figure as an inline SVG element with a text alternative, the same bytes for the same figure."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "slmops", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub("<svg ", f'<svg role="img" aria-label="{description}" ', svg, count=1)
