"""What a student imitates: one term of the loss, or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from slmops.recipe.own import Arguments, ClassName, arguments_apart
from slmops.recipe.settings import Settings, Share


class Weighted(Settings):
    """What every term has. All of them but `Contrast` are means per answer token."""

    weight: float = Field(1.0, ge=0, description="What the term counts beside the others.")


class TextTerm(Weighted):
    """Cross-entropy on the words of the answer: the teacher's on the pool, the reference on labelled rows."""

    kind: Literal["text"] = Field("text", description="The answer's words alone.")
    label_smoothing: Share = Field(
        0.0,
        description="Share of the target that is spread over all tokens alike (Szegedy et al. 2016): answers are "
        "learned less sure of themselves.",
    )
    focal: float = Field(
        0.0,
        ge=0,
        description="γ: a token that has probability p counts (1 - p)^γ (Lin et al. 2017), so what is known already "
        "counts little; 0 counts all alike, 2 is common.",
    )
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="How much an answer counts, by its class: a mapping, in which a class that is left out counts 1, "
        "or balanced, rows / (classes × rows of the class) (King and Zeng 2001); null counts all alike.",
    )

    @property
    def plain(self) -> bool:
        """Whether it is cross-entropy and no more."""
        return not (self.label_smoothing or self.focal or self.class_weights)


class Divergence(Weighted):
    """How far the student's next-token distribution is from the teacher's."""

    temperature: float = Field(1.0, gt=0, le=100, description="Softens both distributions; the loss is scaled by T².")
    logits: Literal["stored", "online"] = Field(
        "stored",
        description="stored: the `teach.top_logits` that were kept with each answer; online: the teacher runs beside "
        "the student, which costs its forward pass in every step and gives all of its distribution.",
    )


class ForwardKl(Divergence):
    """KL(teacher ‖ student): the student covers all that the teacher would say (Hinton et al. 2015)."""

    kind: Literal["forward_kl"] = Field("forward_kl", description="KL divergence from teacher to student.")


class ReverseKl(Divergence):
    """KL(student ‖ teacher): the student keeps to what the teacher finds likely (Gu et al. 2024, MiniLLM)."""

    kind: Literal["reverse_kl"] = Field("reverse_kl", description="KL divergence from student to teacher.")


class Jsd(Divergence):
    """Generalised Jensen-Shannon divergence (Agarwal et al. 2024, GKD)."""

    kind: Literal["jsd"] = Field("jsd", description="Between forward and reverse KL, and bounded.")
    beta: float = Field(0.5, gt=0, lt=1, description="Share of the teacher in the mixture both are compared with.")


class SkewedKl(Divergence):
    """KL(teacher ‖ teacher and student mixed): gradients that stay small (Ko et al. 2024, DistiLLM)."""

    kind: Literal["skewed_kl"] = Field("skewed_kl", description="Forward KL to a mixture with some of the teacher.")
    alpha: float = Field(0.1, ge=0, lt=1, description="Share of the teacher in the mixture; 0 is forward KL.")


class SkewedReverseKl(Divergence):
    """KL(student ‖ student and teacher mixed): reverse KL without its spikes (Ko et al. 2024, DistiLLM)."""

    kind: Literal["skewed_reverse_kl"] = Field(
        "skewed_reverse_kl", description="Reverse KL to a mixture with some of the student."
    )
    alpha: float = Field(0.1, ge=0, lt=1, description="Share of the student in the mixture; 0 is reverse KL.")


class Spanned(Weighted):
    """A term that goes by spans of text at whose ends a token of both models ends: their tokenizers may differ."""

    logits: Literal["stored", "online"] = Field(
        "stored",
        description="stored: what `teach.top_logits` kept with each answer; online: the teacher runs beside the "
        "student and reads the same texts in its own tokens, the labelled rows' too.",
    )


class SpanTerm(Spanned):
    """Likelihoods of spans of text, matched (Minixhofer et al. 2025, ALM)."""

    kind: Literal["span"] = Field("span", description="KL divergence of a span being written, or anything else.")
    temperature: float = Field(
        100.0,
        gt=0,
        description="τ: likelihoods to the power 1/τ are compared; the larger, the more unlikely spans count.",
    )


class UldTerm(Spanned):
    """Probabilities in descending order, matched where spans begin (Boizard et al. 2024, ULD)."""

    kind: Literal["uld"] = Field("uld", description="Sum of the differences of sorted probabilities.")


class Layered(Weighted):
    """A term that compares layers of the two models; the teacher runs beside the student."""

    student_layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="Layers of the student, the first is 0; null lets the term choose."
    )
    teacher_layers: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, description="The teacher's layer for each of `student_layers`; null lets the term choose."
    )

    @model_validator(mode="after")
    def _pairs(self) -> Layered:
        ours, theirs = self.student_layers, self.teacher_layers
        if theirs is not None and (ours is None or len(ours) != len(theirs)):
            raise ValueError("`teacher_layers` needs `student_layers` of the same length: they are pairs")
        if ours is not None and len(set(ours)) != len(ours):
            raise ValueError("`student_layers` names a layer twice")
        return self


class HiddenTerm(Layered):
    """What layers put out, matched (Romero et al. 2015; Jiao et al. 2020, TinyBERT).

    Unless told, every student layer that moves is matched with the teacher's layer that it was cut from, or with evenly
    spaced ones.
    """

    kind: Literal["hidden"] = Field("hidden", description="Hidden states of intermediate layers.")
    distance: Literal["mse", "cosine"] = Field("mse", description="Mean squared difference, or 1 minus the cosine.")
    project: bool = Field(
        True, description="Learn a linear map to the teacher's width where widths differ; false refuses such a pair."
    )


class AttentionTerm(Layered):
    """Where heads look, matched; the last layers of both models unless told (Wang et al. 2020, MiniLM)."""

    kind: Literal["attention"] = Field("attention", description="Attention distributions.")
    distance: Literal["kl", "mse"] = Field("kl", description="KL(teacher ‖ student) per head, or squared difference.")
    heads: Literal["each", "mean"] = Field(
        "each", description="Head by head, which needs as many in both models; or the mean over heads."
    )


class Contrast(Weighted):
    """A term that compares the rows of a batch with each other: a mean per row, which needs no teacher."""

    temperature: float = Field(
        0.1, gt=0, le=100, description="τ: cosines are divided by it; the smaller, the more the nearest others count."
    )


class SupervisedContrastive(Contrast):
    """Rows of one label near each other, and far from all others (Khosla et al. 2020, SupCon, equation 2)."""

    kind: Literal["supervised_contrastive"] = Field(
        "supervised_contrastive",
        description="The states that rows of a batch are answered from: those of one label are pulled together.",
    )


class Contrastive(Contrast):
    """A text near its answer, and far from the answers of the batch's other rows (van den Oord et al. 2018, InfoNCE).

    What is compared are the vectors that `/v1/embeddings` serves of the two texts.
    """

    kind: Literal["contrastive"] = Field(
        "contrastive", description="The vectors of a row's input and of its answer, against other answers."
    )


class CustomTerm(Weighted):
    """A term of your own: `{custom: package.module:Class, weight: 1.0, margin: 0.5}`.

    All keys but these go to the class's constructor. docs/guides/distil.md shows one.
    """

    kind: Literal["custom"] = Field("custom", description="May be left out beside `custom`.")
    custom: ClassName = Field(description="`package.module:Class` of a class with `needs` and `loss`.")
    arguments: Arguments = Field(default_factory=dict)


def _arguments_apart(term: Any) -> Any:
    """A custom term as its model has it."""
    own = arguments_apart(term, CustomTerm)
    return {"kind": "custom", **own} if isinstance(own, Mapping) and "custom" in own else own


def _listed(objective: Any) -> Any:
    terms = objective if isinstance(objective, list) else [objective]
    return [_arguments_apart(term) for term in terms]


Term = Annotated[
    TextTerm
    | ForwardKl
    | ReverseKl
    | Jsd
    | SkewedKl
    | SkewedReverseKl
    | SpanTerm
    | UldTerm
    | HiddenTerm
    | AttentionTerm
    | SupervisedContrastive
    | Contrastive
    | CustomTerm,
    Field(discriminator="kind"),
]
Objective = Annotated[list[Term], Field(min_length=1), BeforeValidator(_listed)]
"""One term, or a list of them, whose weighted sum is minimised."""


def imitate_words_and_probabilities() -> list[Term]:
    """The default: the teacher's stored probabilities, and its words beside them."""
    return [ForwardKl(kind="forward_kl", weight=1.0), TextTerm(kind="text", weight=0.3)]


def return_to_the_uncut_model() -> list[Term]:
    """The default of healing: all that the uncut model would say next, and what its layers made of it."""
    return [
        ForwardKl(kind="forward_kl", weight=1.0, logits="online"),
        HiddenTerm(kind="hidden", weight=1.0, distance="cosine"),
    ]


def term_names(objective: Sequence[Term]) -> list[str]:
    """What each term is called in logs and figures: its kind or its class, numbered from the second of a name on."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for term in objective:
        name = term.custom.partition(":")[2] if isinstance(term, CustomTerm) else term.kind
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def in_pieces(auto: bool, objective: Objective, *, normalise: bool) -> None:
    """Refuse `accumulate: auto` where the loss of a batch is no mean over its answer tokens.

    In pieces, as many as the memory that is free asks for, such a batch would be another one.

    Raises:
        ValueError: says what is against it.
    """
    if not auto:
        return
    weighed = [
        term
        for term in objective
        if isinstance(term, CustomTerm | Spanned | Contrast) or (isinstance(term, TextTerm) and term.class_weights)
    ]
    if normalise or weighed:
        what = "normalise" if normalise else f"objective: {term_names(weighed)[0]}"
        raise ValueError(
            f"`accumulate: auto` goes by the memory that is free, and with `{what}` the loss of a batch is no mean "
            "over its answer tokens, so in pieces it is another: set it to a number"
        )


def something_to_learn(objective: Sequence[Term]) -> None:
    if not any(term.weight for term in objective):
        raise ValueError("every term of `objective` has weight 0, so there is nothing to learn")
    weighed = [term.class_weights for term in objective if isinstance(term, TextTerm) and term.class_weights]
    if any(weights != weighed[0] for weights in weighed):
        raise ValueError("two terms of `objective` have other `class_weights`, and an answer counts the same in all")
