"""Where rows come from."""

from __future__ import annotations

from typing import Literal

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
