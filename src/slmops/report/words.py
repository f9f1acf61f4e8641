"""What the report calls things: roles, figures, numbers and texts, for a reader who does not know the code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slmops.console import duration

ROLES = {
    "base": "base",
    "teacher": "teacher",
    "teacher_same": "quantised",
    "baseline": "baseline",
    "student": "student",
    "shipped": "shipped",
    "released": "released",
    "floor": "floor",
}
"""Column heads of a recipe's run, in the order of the columns; any other model keeps the name it was given."""

SUBTITLES = {
    "base": "untuned",
    "teacher": "PyTorch",
    "teacher_same": "teacher",
    "baseline": "untaught",
    "student": "PyTorch",
    "shipped": "quantised",
    "released": "last version",
    "floor": "no model",
}
_PROSE = {
    "base": "the model before it was tuned",
    "teacher": "the teacher",
    "teacher_same": "the quantised teacher",
    "baseline": "the same student without a teacher",
    "student": "the student before quantising",
    "shipped": "the quantised student",
    "released": "the last released version",
    "floor": "the trivial floor",
}
_PLAIN = {
    "f1": "F1",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougel": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "ece": "ECE",
    "json": "JSON",
}
_LOWER_IS_BETTER = ("perplexity", "ece")
_OWN_UNIT = ("perplexity",)
_CUT = 700


def in_order(models: Mapping[str, Any]) -> list[str]:
    """The roles of `models` as columns: those of a recipe's run in their order, then the others as they came."""
    return [*(role for role in ROLES if role in models), *(role for role in models if role not in ROLES)]


def slot(role: str, roles: Iterable[str]) -> int:
    """The colour of a model, 1 to 7: a known role always has its own. A base has that of a teacher, never beside it."""
    if role == "base":
        return 1
    known = [role for role in ROLES if role != "base"]
    return (known.index(role) if role in ROLES else list(roles).index(role)) % len(known) + 1


def title(role: str) -> str:
    return ROLES.get(role, role)


def full(role: str) -> str:
    """The role where there is room: `quantised teacher` rather than `quantised`."""
    return "quantised teacher" if role == "teacher_same" else title(role)


def prose(role: str) -> str:
    """The role inside a sentence."""
    return _PROSE.get(role, role)


def subtitle(role: str, model: Mapping[str, Any]) -> str:
    """What a role is, or for a model with a free name what ran it."""
    return SUBTITLES.get(role, str(model.get("precision") or model.get("engine") or ""))


def figure_name(name: str) -> str:
    """`macro_f1` as `macro F1`."""
    return " ".join(_PLAIN.get(word, word) for word in name.split("_"))


def shown(name: str, value: float) -> str:
    """A figure of quality: shares with three digits behind the point, others in their own unit."""
    return three(value) if name in _OWN_UNIT else f"{value:.3f}"


def lower_is_better(name: str) -> bool:
    return name in _LOWER_IS_BETTER


def three(value: float) -> str:
    """Three digits: `1,235`, `98.8`, `5.27`, `0.0123`."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995 or size == 0:
        return f"{value:.2f}"
    return f"{value:.3g}" if size >= 1e-4 else f"{value:.1e}"


def points(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def percent(share: float, digits: int = 1) -> str:
    """`93.3 %`, which no line break parts."""
    return f"{share * 100:.{digits}f}\u00a0%".replace("-", "−")


def change(share: float) -> str:
    """`−97 %`, or nothing worth saying."""
    return f"{share * 100:+.0f}\u00a0%".replace("-", "−") if abs(share) >= 0.005 else ""


def p_value(p: float) -> str:
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.2g}"


def healing(told: Mapping[str, Any]) -> str:
    """`heal.json` in two sentences."""
    return (
        f"Before the task the cut model was healed: in {duration(told['train_seconds'])} it learned on "
        f"{told['train_tokens']:,} tokens of text without answers to predict what the uncut model does. On text kept "
        f"apart, its divergence from the uncut model went from {three(told['kl_before'])} to "
        f"{three(told['kl_after'])} nats per token, its perplexity from {three(told['perplexity_before'])} to "
        f"{three(told['perplexity_after'])}, where that of the uncut model is {three(told['perplexity_uncut'])}."
    )


def visible(text: str) -> str:
    """A text of unknown origin as one that can be printed: control characters as their pictures, the rest unchanged.

    Characters that reorder what stands around them are shown by their number, so that no text can pose as another.
    """
    return "".join(_visible(character) for character in text)


def cut(text: str) -> str:
    """The start of a long text, with how much more there is."""
    return text if len(text) <= _CUT else f"{text[:_CUT]} … ({len(text) - _CUT:,} more characters)"


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    hidden = 0x80 <= code < 0xA0 or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or 0xD800 <= code <= 0xDFFF
    return f"[U+{code:04X}]" if hidden or code in (0x200E, 0x200F, 0xFFFE, 0xFFFF) else character


def written_by_teacher(data: Mapping[str, Any]) -> list[str]:
    """What of the rows a teacher made, in a sentence each; `data` is the content of `data.json`."""
    told = []
    if written := data.get("written"):
        told.append(f"Of the {data['rows']['pool']:,} rows of the pool a teacher wrote {written:,}.")
    if solved := data.get("solved"):
        told.append(
            f"The answers of the {solved:,} training rows are a teacher's solutions, each checked by its final number."
        )
    return told
