"""From the recipe's terms to the objects that compute them."""

from __future__ import annotations

from collections.abc import Sequence

from slmops.errors import BadInput
from slmops.recipe import objective as recipe
from slmops.train.objectives import divergences, spans
from slmops.train.objectives.base import (
    ATTENTION,
    HIDDEN,
    ONLINE,
    ONLINE_SPANS,
    STATES,
    STORED,
    STORED_SPANS,
    TOKEN_BY_TOKEN,
    VECTORS,
    Term,
    judges_own_answers,
)
from slmops.train.objectives.custom import Custom, load_custom
from slmops.train.objectives.text import Text


def needs_of(term: recipe.Term) -> frozenset[str]:
    """What one term must be given; see `base.NEEDS`. PyTorch is not loaded, unless a custom term does.

    Raises:
        BadInput: a custom term cannot be loaded.
    """
    match term:
        case recipe.Divergence():
            return frozenset({STORED if term.logits == "stored" else ONLINE})
        case recipe.Spanned():
            return frozenset({STORED_SPANS if term.logits == "stored" else ONLINE_SPANS})
        case recipe.HiddenTerm():
            return frozenset({HIDDEN})
        case recipe.AttentionTerm():
            return frozenset({ATTENTION})
        case recipe.SupervisedContrastive():
            return frozenset({STATES})
        case recipe.Contrastive():
            return frozenset({VECTORS})
        case recipe.CustomTerm():
            return load_custom(term.custom, term.arguments).needs
        case _:
            return frozenset()


def all_needs(objective: Sequence[recipe.Term]) -> frozenset[str]:
    """What the terms together must be given."""
    return frozenset[str]().union(*map(needs_of, objective))


def check_on_policy(objective: Sequence[recipe.Term], fraction: float) -> None:
    """Refuse an objective that cannot learn from the student's own answers, or has a term that no batch is left for.

    Args:
        fraction: share of the batches with answers of the student's own; 0 asks for nothing.

    Raises:
        BadInput: see above, or a custom term cannot be loaded.
    """
    if not fraction:
        return
    named = list(zip(recipe.term_names(objective), objective, map(needs_of, objective), strict=True))
    judging = {name: ONLINE in needs and term.weight > 0 for name, term, needs in named if judges_own_answers(needs)}
    if not any(judging.values()):
        raise BadInput(
            "train.on_policy: no term of train.objective compares the student's own answers with what the teacher "
            "would say",
            hint="give a divergence a weight and `logits: online`, such as {kind: reverse_kl, logits: online}",
        )
    idle = [name for name, *_ in named if name not in judging]
    if fraction == 1 and idle:
        raise BadInput(
            f"train.on_policy: fraction 1 leaves no given answers, which {' and '.join(idle)} of train.objective need",
            hint="lower the fraction, or leave these terms out",
        )


def refuse_token_by_token(objective: Sequence[recipe.Term]) -> None:
    """Refuse terms that set position beside position, where the student has other tokens than its teacher.

    Raises:
        BadInput: names them, and those that apply.
    """
    named = zip(recipe.term_names(objective), map(needs_of, objective), strict=True)
    if odd := [name for name, needs in named if needs & TOKEN_BY_TOKEN]:
        raise BadInput(
            f"train.objective: {', '.join(odd)}: compares the models token by token, and the student's vocabulary is "
            "not the teacher's",
            hint="of any two vocabularies: span and uld go by spans of text, stored or online; text goes by the words",
        )


def custom_terms(objective: Sequence[recipe.Term]) -> list[Custom]:
    """The user's own among the terms.

    Raises:
        BadInput: one cannot be loaded.
    """
    return [load_custom(term.custom, term.arguments) for term in objective if isinstance(term, recipe.CustomTerm)]


def make_terms(objective: Sequence[recipe.Term]) -> list[Term]:
    """The terms, named apart, in the order of the recipe.

    Raises:
        BadInput: a custom term cannot be loaded.
    """
    names = recipe.term_names(objective)
    return [_made(term, name) for term, name in zip(objective, names, strict=True)]


def _made(term: recipe.Term, name: str) -> Term:
    match term:
        case recipe.TextTerm():
            return Text(name, term.label_smoothing, term.focal, term.class_weights is not None)
        case recipe.ForwardKl():
            return divergences.ForwardKl(name, term.temperature, term.logits)
        case recipe.ReverseKl():
            return divergences.ReverseKl(name, term.temperature, term.logits)
        case recipe.Jsd():
            return divergences.Jsd(name, term.temperature, term.logits, term.beta)
        case recipe.SkewedKl():
            return divergences.SkewedKl(name, term.temperature, term.logits, term.alpha)
        case recipe.SkewedReverseKl():
            return divergences.SkewedReverseKl(name, term.temperature, term.logits, term.alpha)
        case recipe.SpanTerm():
            return spans.SpanLikelihood(name, term.logits, term.temperature)
        case recipe.UldTerm():
            return spans.SortedDistance(name, term.logits)
        case recipe.HiddenTerm():
            from slmops.train.objectives.hidden import Hidden

            return Hidden(
                name=name,
                student_layers=term.student_layers,
                teacher_layers=term.teacher_layers,
                distance=term.distance,
                project=term.project,
            )
        case recipe.AttentionTerm():
            from slmops.train.objectives.attention import Attention

            return Attention(name, term.student_layers, term.teacher_layers, term.distance, term.heads)
        case recipe.SupervisedContrastive():
            from slmops.train.objectives.contrastive import SupervisedContrastive

            return SupervisedContrastive(name, term.temperature)
        case recipe.Contrastive():
            from slmops.train.objectives.contrastive import Contrastive

            return Contrastive(name, term.temperature)
        case recipe.CustomTerm():
            return load_custom(term.custom, term.arguments, name)
