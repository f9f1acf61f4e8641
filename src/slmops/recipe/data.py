"""Where rows come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from slmops.recipe.settings import File, Settings


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


class DataSettings(Settings):
    """Where rows come from: files, or a sample; never both."""

    train: File | None = Field(None, description="Labelled rows (JSONL, CSV or Parquet).")
    pool: File | None = Field(None, description="Rows without answers for the teacher.")
    test: File | None = Field(None, description="Held-out labelled rows.")
    sample: SampleData | None = Field(None, description="Made-up rows instead of files.")
    input: str = Field("input", description="Column with the text, in every file.")
    output: str = Field("output", description="Column with the answer, in `train` and `test`.")
    split: Split = Field(default_factory=Split, description="How the labelled rows are parted.")
    screen: ScreenSettings = Field(
        default_factory=ScreenSettings, description="Which rows are kept from training because of other rows."
    )

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        given = [name for name in ("train", "pool", "test") if getattr(self, name) is not None]
        given += [name for name in ("input", "output") if getattr(self, name) != name]
        if self.sample and given:
            raise ValueError(f"`sample` and `{given[0]}` exclude each other")
        if not self.sample and not (self.train and self.test):
            raise ValueError("give `train` and `test` files, or a `sample`")
        return self
