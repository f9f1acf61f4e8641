"""What is measured, what running costs, and what must hold of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from slmops.recipe.chat_template import ChatTemplate
from slmops.recipe.settings import File, Folder, Settings, Share, local_model

MetricName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]

REGRESSION_GATE = "regression_failures"
"""The figure that counts failing rows of the regression suite."""


class Gate(Settings):
    """Bounds of one figure of the shipped model, taken alone or beside another model's.

    `{min: 0.8}` bounds the figure, `{min: 0.92, of: teacher}` its ratio to the teacher's, and `{max_drop: 0.01, of:
    teacher}` how far it may lie below the teacher's on the same rows, with 95 % confidence.
    """

    min: float | None = Field(None, description="The figure, or its ratio, must not be below this.")
    max: float | None = Field(None, description="The figure, or its ratio, must not be above this.")
    max_drop: float | None = Field(None, ge=0, lt=1, description="How far it may lie below the other's; 0.01: a point.")
    of: Literal["teacher", "student", "baseline", "floor", "released"] | None = Field(
        None, description="The other model."
    )
    confidence: float | None = Field(
        None,
        description="0.95: `min` and `max` must hold for the whole 95 % interval. `max_drop` always asks for that.",
    )

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.min is None and self.max is None and self.max_drop is None:
            raise ValueError("a gate needs `min`, `max` or `max_drop`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"`min` {self.min} is above `max` {self.max}, so nothing can pass")
        if self.max_drop is not None and self.of is None:
            raise ValueError("`max_drop` needs `of`: the model that is not to be missed by more")
        if self.max_drop is not None and not (self.min is None and self.max is None):
            raise ValueError("`max_drop` and `min` or `max` exclude each other; write a list of two gates")
        if self.confidence not in (None, 0.95):
            raise ValueError(
                f"`confidence` is {self.confidence}; the intervals of an evaluation are 95 %, so give 0.95"
            )
        if self.confidence and self.max_drop is None and self.of not in (None, "teacher"):
            raise ValueError(f"a ratio to the {self.of}'s has no interval; use `max_drop`, or leave `confidence` out")
        return self


def _listed(gates: Any) -> Any:
    return gates if isinstance(gates, list) else [gates]


Gates = Annotated[list[Gate], Field(min_length=1), BeforeValidator(_listed)]
"""One gate or a list of them: what must hold of one figure."""


class JudgeSettings(Settings):
    """A teacher model that judges open answers; what it says is kept apart from what is measured."""

    model: Annotated[str, AfterValidator(local_model)] = Field(
        description="`wheel:NAME`, a folder, a bundle or a Hub id; with `base_url`, what the endpoint calls it."
    )
    base_url: str | None = Field(
        None, pattern=r"^https?://[^/@]+(/.*)?$", description="OpenAI-compatible endpoint; null judges on this machine."
    )
    key_env: str | None = Field(None, description="Environment variable with the endpoint's key; null sends none.")
    chat_template: ChatTemplate = Field("model", description="Of a local judge; as for a teacher.")
    mode: Literal["pairwise", "rubric"] = Field(
        "pairwise", description="Which of two answers is better, asked in both orders; or grades from 1 to 5."
    )
    against: Literal["teacher", "baseline", "student", "floor", "released"] = Field(
        "teacher", description="The model whose answers stand beside the shipped model's."
    )
    rubric: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], str] = Field(
        default_factory=lambda: {
            "correct": "Everything it says is right.",
            "complete": "Nothing that was asked for is missing.",
            "clear": "It is easy to read and has no needless words.",
        },
        min_length=1,
        description="Criterion to what it means, for `mode: rubric`.",
    )
    rows: int = Field(100, ge=1, description="Test rows that are judged, drawn by the recipe's seed.")
    max_answer_tokens: int = Field(256, ge=8, description="Of the judge; a verdict that is cut is unreadable.")
    max_unreadable: Share = Field(0.1, description="Above this share of unreadable verdicts nothing counts.")
    min_agreement: Share = Field(0.6, description="Below this agreement of the judge with itself nothing counts.")
    concurrency: int = Field(8, ge=1, le=256, description="Requests to an endpoint at a time.")

    @model_validator(mode="after")
    def _endpoint_or_local(self) -> JudgeSettings:
        if self.key_env and not self.base_url:
            raise ValueError("`key_env` is for an endpoint; give its `base_url`, or leave the key out")
        return self


class Price(Settings):
    """What a model's answers cost where they are bought, per million tokens."""

    input_usd: float = Field(ge=0, description="For tokens read.")
    output_usd: float = Field(ge=0, description="For tokens written.")
    cached_input_usd: float | None = Field(
        None, ge=0, description="For tokens read from the server's cache; null: as `input_usd`."
    )


class Running(Settings):
    """What the machine costs that the models run on."""

    watts_per_core: float = Field(
        5.0, gt=0, description="Estimates energy where the processor's own counters cannot be read."
    )
    machine_usd_per_hour: float | None = Field(
        None, ge=0, description="Price of the machine; without one no money is given for what runs on it."
    )


class ParityBounds(NamedTuple):
    """What a bundle may differ from its student by; see `ParitySettings`."""

    max_first_token_kl: float
    max_token_kl: float
    min_agreement: float


PARITY_BOUNDS = {
    "int4": ParityBounds(0.5, 0.3, 0.8),
    "int8": ParityBounds(0.05, 0.02, 0.97),
    "float": ParityBounds(0.0001, 0.0001, 0.99),
}
"""By the narrowest weights of what ships: what rounding alone does, with room; see docs/adr/0015."""


class ParitySettings(Settings):
    """How closely the bundle must answer as the student that it was made from; see `slmops.evaluate.parity`.

    A bound that is null is that of the precision that ships.
    """

    rows: int = Field(48, ge=1, description="Test rows that both answer, from the shortest to the longest.")
    max_first_token_kl: float | None = Field(
        None,
        ge=0,
        description="Mean divergence of the first token's probabilities from the student's, in nats; of a model that "
        "labels, that of all labels of a message.",
    )
    max_token_kl: float | None = Field(
        None, ge=0, description="The same per token of the student's answers, or per label."
    )
    min_agreement: Share | None = Field(
        None, description="Share of the tokens of the student's answers, or of the labels, that the bundle chooses too."
    )
    max_drop: Share = Field(
        0.1,
        description="The task's main figure may lie this far below the student's; it fails where the whole 95 % "
        "interval lies beyond.",
    )

    def bounds(self, precision: str) -> ParityBounds:
        """Those that are set, and for the others those of weights of this precision, e.g. `int4+int8`."""
        usual = PARITY_BOUNDS[next((name for name in ("int4", "int8") if name in precision), "float")]
        own = {name: getattr(self, name) for name in usual._fields}
        return usual._replace(**{name: value for name, value in own.items() if value is not None})


class EvaluateSettings(Running):
    """What is measured, and what must hold of it."""

    latency_requests: int = Field(40, ge=1, description="Requests timed one by one, after a warm-up.")
    threads: int = Field(0, ge=0, description="Threads of every engine; 0 takes all cores.")
    quantised_teacher: bool = Field(
        True,
        description="The teacher in the shipped format answers the test rows too: the plain alternative to a student. "
        "When false only its latency is measured.",
    )
    metrics: list[MetricName] = Field(
        default_factory=list,
        description="Figures of your own: `package.module:function` of reference, answer (None when it has not the "
        "task's form) and text, giving a number per row; their mean bears the function's name.",
    )
    gates: dict[str, Gates] = Field(
        default_factory=dict, description="Figure of the shipped model to what must hold of it: a gate or a list."
    )
    released: Folder | None = Field(
        None, description="Folder of the last released bundle: it answers the test rows too, for gates `of: released`."
    )
    regression: File | None = Field(
        None, description="Rows that once failed in production; all must pass, unless a gate says otherwise."
    )
    answered_accuracy: Share = Field(
        0.95,
        description="Of a task with labels: the accuracy wanted of what is answered where unsure answers are not. "
        "The bundle names the least probability for it.",
    )
    judge: JudgeSettings | None = Field(None, description="Judges open answers; null judges none.")
    parity: ParitySettings = Field(
        default_factory=ParitySettings, description="The bundle against the student; a bundle that fails is not placed."
    )

    @model_validator(mode="after")
    def _gates_have_what_they_need(self) -> EvaluateSettings:
        for name, gates in self.gates.items():
            if name == REGRESSION_GATE and not self.regression:
                raise ValueError(f"the gate `{name}` needs `regression`: the file with the rows")
            if name.startswith("judged.") and not self.judge:
                raise ValueError(f"the gate `{name}` needs `judge`")
            if any(gate.of == "released" for gate in gates) and not self.released:
                raise ValueError(f"the gate `{name}` needs `released`: the folder of the released bundle")
        if self.judge and self.judge.against == "released" and not self.released:
            raise ValueError("`judge.against: released` needs `released`: the folder of the released bundle")
        return self

    def all_gates(self) -> dict[str, list[Gate]]:
        """The gates, and that every row of the regression suite passes where no gate says how many may fail."""
        implied = {REGRESSION_GATE: [Gate(max=0)]} if self.regression else {}
        return implied | self.gates
