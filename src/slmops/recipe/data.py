"""Where rows come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from slmops.recipe.hub_rows import hub_file
from slmops.recipe.settings import MAPPING, PLAIN, Settings, Share, existing_file, plain_or_mapping

Rows = Annotated[Path, Field(strict=False), AfterValidator(existing_file), BeforeValidator(hub_file)]
"""A file of rows, here or in the cache of the Hub."""

Column = Annotated[
    Annotated[str, Tag(PLAIN)] | Annotated[dict[str, str], Tag(MAPPING), Field(min_length=1)],
    Discriminator(plain_or_mapping),
]
"""A column, or the columns of an object by the names that they have in it; a dot leads into what a column holds."""


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
    group: str | None = Field(
        None,
        description="Column whose value rows share that must not be parted, such as a customer or a document; null "
        "parts rows one by one.",
    )


Similarity = Annotated[float, Field(ge=0.5, le=1)]
"""Of two texts: the share of their shingles of five characters that both have; 1 is the same but for case and marks."""


class ScreenSettings(Settings):
    """Which rows are kept from training because of other rows. The same text again always is."""

    contaminated: Similarity | None = Field(
        0.85,
        description="Similarity to a row of test or validation from which a row of train or pool is dropped; null "
        "looks for the same text alone.",
    )
    overlap: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.5,
        description="Share of the words of a row of test or validation that stand in a row of train or pool, in runs "
        "of `run_words` or more, from which that row is dropped; null does not look.",
    )
    run_words: int = Field(13, ge=3, description="Words of a run; held-out texts with fewer have no overlap.")
    near_duplicates: Similarity | None = Field(
        0.9,
        description="Similarity to a row of train, or another of the pool, from which a row of the pool is dropped; "
        "null looks for the same text alone.",
    )


class Augment(Settings):
    """Changed copies of training rows, drawn by the recipe's seed. Rows of validation and test stay as they are.

    Numbers, and whatever an answer takes from its text, stay as they are in a copy too.
    """

    typos: float = Field(
        0.0, ge=0, le=1, description="Share of the training rows that get a copy with letters swapped, lost or doubled."
    )
    typo_words: Share = Field(0.15, description="Share of the words of such a copy that have a typo; one at least.")
    case: float = Field(
        0.0, ge=0, le=1, description="Share of the training rows that get a copy in small letters, or all in capitals."
    )


class DataSettings(Settings):
    """Where rows come from: files, or a sample; never both."""

    train: Rows | None = Field(
        None,
        description="Labelled rows (JSONL, JSON, CSV or Parquet): a file, or `hub:OWNER/NAME:SPLIT` for a set of "
        "the Hub in the local cache.",
    )
    pool: Rows | None = Field(None, description="Rows without answers for the teacher.")
    test: Rows | None = Field(None, description="Held-out labelled rows.")
    sample: SampleData | None = Field(None, description="Made-up rows instead of files.")
    input: Column = Field(
        "input",
        description="Column with the text, in every file; a mapping makes an object of several columns: `{question: q, "
        "context: passage}`.",
    )
    output: Column = Field(
        "output", description="Column with the answer, in `train` and `test`; a mapping makes an object of several."
    )
    split: Split = Field(default_factory=Split, description="How the labelled rows are parted.")
    screen: ScreenSettings = Field(
        default_factory=ScreenSettings, description="Which rows are kept from training because of other rows."
    )
    augment: Augment = Field(default_factory=Augment, description="Copies of training rows with noise.")

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        given = [name for name in ("train", "pool", "test") if getattr(self, name) is not None]
        given += [name for name in ("input", "output") if getattr(self, name) != name]
        if self.sample and given:
            raise ValueError(f"`sample` and `{given[0]}` exclude each other")
        if self.sample and self.split.group:
            raise ValueError("`split.group` names a column of your own rows, and the rows of a `sample` have none")
        if not self.sample and not (self.train and self.test):
            raise ValueError("give `train` and `test` files, or a `sample`")
        return self
