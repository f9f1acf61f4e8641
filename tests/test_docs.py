"""What the documents say can be done: their links lead somewhere, their commands exist, the README's Python runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import typer
import yaml
from typer.core import TyperGroup

from slmops.cli.main import app
from slmops.privacy.redaction import redactor
from slmops.recipe import parse_recipe
from slmops.recipe.curating import Curate
from slmops.recipe.data import ScreenSettings
from slmops.recipe.keys import kind, models
from slmops.recipe.objective import TextTerm
from slmops.recipe.privacy import KINDS, Presidio, PrivacySettings
from slmops.recipe.several import Merging
from slmops.recipe.training import Optimisation, TrainSettings
from slmops.train.examples import Example
from slmops.train.objectives.observe import TeacherModel
from slmops.train.trainer import train

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DISTIL = ROOT / "docs" / "guides" / "distil.md"
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

RECIPE = """
name: support
task: {{kind: classification, max_answer_tokens: 8}}
data: {{train: train.jsonl, pool: pool.jsonl, test: test.jsonl}}
teachers: [{{model: {model}, fit: {{epochs: 8, learning_rate: 2.0e-3, batch_tokens: 512}}}}]
teach: {{precision: fp32}}
student: {{carve: {{layers: 1}}}}
train: {{baseline: false}}
compress: {{precision: fp32}}
evaluate: {{latency_requests: 2}}
"""


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a document in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    """The words of every command that a document tells its reader to type, without the remarks behind them."""
    lines = [line for block in blocks(path, "sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def missing(words: list[str]) -> str | None:
    """What of a command does not exist, or None."""
    match words:
        case ["slmops", *arguments]:
            return refused(arguments)
        case ["make", target, *settings]:
            pattern = re.sub(r"^bench-.*", "bench-%", target)
            known = re.search(rf"^{re.escape(pattern)}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            script = ROOT / "benchmarks" / f"{target.removeprefix('bench-')}.py"
            exists = known and (pattern == target or script.is_file())
            return None if exists and all(setting.startswith("ARGS=") for setting in settings) else target
        case ["python", "-m", module, *_]:
            return None if find_spec(module) else module
    return words[0]


def refused(arguments: list[str]) -> str | None:
    """What the command line itself has against its arguments, or None; nothing is run."""
    command = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        name, *arguments = arguments or ["(nothing)"]
        if name not in command.commands:
            return name
        command = command.commands[name]
    try:
        command.make_context(name, arguments)
    except typer.TyperException as error:
        return error.format_message()
    return None


def test_there_are_documents_with_commands() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md", "docs/guides/first-run.md"} <= {
        *NAMES
    }
    assert ["make", "demo"] in commands(ROOT / "README.md")
    assert ["make", "test"] in commands(ROOT / "README.md")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_exists(name: str) -> None:
    assert {shlex.join(words): fault for words in commands(ROOT / name) if (fault := missing(words))} == {}


@pytest.mark.parametrize(
    "command",
    [
        "slmops fly",
        "slmops runs --jsn",
        "slmops store gc --keep-runs none",
        "make dinner",
        "make bench-none",
        "python -m slmops.x",
    ],
)
def test_a_command_that_does_not_exist_is_told(command: str) -> None:
    assert missing(command.split())


@pytest.mark.parametrize("name", NAMES)
def test_every_link_inside_the_repository_leads_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_the_workflow_for_github_is_one() -> None:
    """It parses, and every slmops command in it exists with the options it is given."""
    (text,) = blocks(ROOT / "docs" / "guides" / "ci.md", "yaml")
    workflow = yaml.safe_load(text)
    # YAML 1.1 reads the key `on` as true; GitHub does not.
    assert set(workflow) == {"name", True, "permissions", "concurrency", "jobs"}
    (job,) = workflow["jobs"].values()
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    assert all(re.fullmatch(r"actions/[a-z/-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    lines = [line for step in job["steps"] if "run" in step for line in step["run"].splitlines()]
    ours = [words[1:] for line in lines if (words := shlex.split(line.partition(">")[0]))[0] == "slmops"]
    assert [arguments[0] for arguments in ours] == ["check", "run"]
    assert {"--junit", "--summary", "--json"} <= set(ours[1])
    assert [fault for arguments in ours if (fault := refused(arguments))] == []
    # What a failing gate leaves must be kept, too.
    assert all("always()" in step["if"] for step in job["steps"][-3:])


def test_the_recipes_of_the_guide_to_gates_are_valid(tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    for path in ("train.jsonl", "test.jsonl", "data/regression.jsonl", "released/support-1.0.0/manifest.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    plain = {"name": "a", "task": {"kind": "classification"}, "data": {"train": "train.jsonl", "test": "test.jsonl"}}
    texts = blocks(ROOT / "docs" / "guides" / "gates.md", "yaml")
    assert len(texts) == 2
    for text in texts:
        recipe = parse_recipe({**plain, "teachers": [{"model": "wheel:none"}], **yaml.safe_load(text)}, folder=tmp_path)
        assert recipe.evaluate.gates


def test_the_recipes_of_the_guide_to_privacy_are_valid(tmp_path: Path) -> None:
    for path in ("train.jsonl", "test.jsonl"):
        (tmp_path / path).touch()
    plain = {"name": "a", "task": {"kind": "classification"}, "data": {"train": "train.jsonl", "test": "test.jsonl"}}
    guide = ROOT / "docs" / "guides" / "privacy.md"
    texts = blocks(guide, "yaml")
    assert len(texts) == 2
    recipes = [
        parse_recipe({**plain, "teachers": [{"model": "wheel:none"}], **yaml.safe_load(text)}, folder=tmp_path)
        for text in texts
    ]
    assert recipes[0].privacy.redact == PrivacySettings().redact, "the guide calls it the default"
    assert recipes[1].privacy.presidio == Presidio(), "the guide shows what is so unless told"
    section = guide.read_text(encoding="utf-8").partition("## What is taken out")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {*KINDS, "patterns"}


def test_what_the_guide_to_privacy_says_of_a_text_is_so() -> None:
    guide = (ROOT / "docs" / "guides" / "privacy.md").read_text(encoding="utf-8")
    match = re.search(r"`(Write to .*?)` leaves as `(.*?)`", guide)
    finder = redactor(PrivacySettings())
    assert match
    assert finder
    assert finder.redact([match[1]]).texts == (match[2],)
    redaction = finder.redact(["I am anna@shop.example"])
    forms = re.findall(r"`([^`]*)`", re.search(r"(`\[email_1\]`.*?) are read", guide)[1])
    assert len(forms) == 4
    assert {redaction.restore(form).text for form in forms} == {"anna@shop.example"}


def distil_blocks(language: str, holding: str) -> list[str]:
    return [block for block in blocks(DISTIL, language) if holding in block]


def test_the_recipes_of_the_guide_to_distilling_are_valid(tmp_path: Path) -> None:
    for path in ("train.jsonl", "test.jsonl"):
        (tmp_path / path).touch()
    plain = {"name": "a", "task": {"kind": "classification"}, "data": {"train": "train.jsonl", "test": "test.jsonl"}}
    texts = distil_blocks("yaml", "objective:")
    assert len(texts) == 7
    recipes = [
        parse_recipe({**plain, "teachers": [{"model": "wheel:none"}], **yaml.safe_load(text)}, folder=tmp_path)
        for text in texts
    ]
    assert recipes[0].train.objective == TrainSettings().objective, "the guide calls it the default"
    known = {kind(model) for model in models(TrainSettings.model_fields["objective"].annotation)} - {"custom"}
    section = DISTIL.read_text(encoding="utf-8").partition("## Which term")[2].partition("\n## ")[0]
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    assert set(told) == known


def test_the_recipes_of_the_guide_to_fine_tuning_are_valid(tmp_path: Path) -> None:
    guide = ROOT / "docs/guides/finetune.md"
    smallest, loss, other, olive, shared, forgets, several = (yaml.safe_load(text) for text in blocks(guide, "yaml"))
    (tmp_path / "pages.txt").write_text("A page.\n")
    for name in ("train", "test"):
        for of in ("", "intents-", "answers-"):
            (tmp_path / f"{of}{name}.jsonl").write_text('{"input": "a", "output": "b"}\n')
    assert parse_recipe(smallest, folder=tmp_path).train.to_make.rank == 16
    assert parse_recipe({**smallest, **other}, folder=tmp_path).train.to_make.rank == 8
    assert parse_recipe({**smallest, **olive}, folder=tmp_path).train.to_make.backend == "olive"
    assert parse_recipe({**smallest, **shared}, folder=tmp_path).train.processes == 2
    assert parse_recipe({**smallest, **forgets}, folder=tmp_path).train.general_text.name == "pages.txt"
    assert parse_recipe({**smallest, **loss}, folder=tmp_path).train.objective[0].label_smoothing == 0.1
    recipe = parse_recipe(several, folder=tmp_path)
    assert {name: one.train.epochs for name, one in recipe.adapters.items()} == {"intents": 3, "answers": 5}
    assert [merge.kept for merge in recipe.merge] == [0.3, 0.5]
    section = guide.read_text(encoding="utf-8").partition("### Merging")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(get_args(Merging))


def test_the_recipe_of_the_guide_to_curating_is_the_default(tmp_path: Path) -> None:
    for path in ("train.jsonl", "test.jsonl"):
        (tmp_path / path).touch()
    (text,) = blocks(ROOT / "docs" / "guides" / "curate.md", "yaml")
    given, files = yaml.safe_load(text), {"train": "train.jsonl", "test": "test.jsonl"}
    plain = {"name": "a", "task": {"kind": "classification"}, "teachers": [{"model": "wheel:none"}]}
    recipe = parse_recipe({**plain, **given, "data": {**given["data"], **files}}, folder=tmp_path)
    default = parse_recipe({**plain, "data": files}, folder=tmp_path)
    assert (recipe.data.screen, recipe.teach.curate) == (default.data.screen, default.teach.curate)
    told = set(given["data"]["screen"]) | set(given["teach"]["curate"]) | {"agreement", "near_duplicates"}
    assert told == {*ScreenSettings.model_fields, *Curate.model_fields}, "the guide shows every key"


def test_what_the_guide_to_distilling_lets_a_teacher_write_is_valid(tmp_path: Path) -> None:
    for path in ("train.jsonl", "test.jsonl"):
        (tmp_path / path).touch()
    plain = {"name": "a", "task": {"kind": "classification"}, "data": {"train": "train.jsonl", "test": "test.jsonl"}}
    for name in ("write", "converse", "reason"):
        text, *others = distil_blocks("yaml", f"  {name}:")
        given = {**plain, "teachers": [{"model": "wheel:none"}], **yaml.safe_load(text)}
        assert getattr(parse_recipe(given, folder=tmp_path).teach, name)
        for other in others:
            remote = {"kind": "endpoint", "base_url": "https://api.example.com/v1", "model": "chat"}
            talks = {"task": {"kind": "conversation"}, "teachers": [remote], "student": {"model": "wheel:none"}}
            assert parse_recipe({**plain, **talks, **yaml.safe_load(other)}, folder=tmp_path).user


def test_the_term_of_the_guide_to_distilling_trains(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = distil_blocks("python", "needs = ")
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "losses.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
        monkeypatch.delitem(sys.modules, name)
    rows = [
        Example(tuple(tiny.prompt(text)), tuple(tiny.tokenizer.encode(answer))) for text, answer in tiny.pairs.items()
    ]
    (*_, custom) = TrainSettings.model_validate(
        yaml.safe_load(distil_blocks("yaml", "custom: house.losses")[-1])["train"]
    ).objective
    moved = Optimisation(epochs=2, batch_tokens=64, precision="fp32", learning_rate=1e-3)
    teacher = TeacherModel(tiny.folder)
    work = tmp_path / "work"
    objective = [TextTerm(), custom]
    history = train(tiny.folder, rows, moved, work=work, seed=1, objective=objective, teacher=teacher).history
    assert set(history[-1]) >= {"text", "Contrastive"}


def test_the_callback_of_the_guide_to_distilling_ends_a_training(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = distil_blocks("python", "import Reply")
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "watch.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "house"]:
        monkeypatch.delitem(sys.modules, name)
    (text,) = distil_blocks("yaml", "callbacks:")
    settings = TrainSettings.model_validate({**yaml.safe_load(text)["train"], "epochs": 6, "precision": "fp32"})
    rows = [
        Example(tuple(tiny.prompt(text)), tuple(tiny.tokenizer.encode(answer))) for text, answer in tiny.pairs.items()
    ]
    # It knows these by heart, so that every evaluation is below the target.
    made = train(
        tiny.folder, rows, settings, work=tmp_path / "w", seed=1, validation=rows, callbacks=settings.callbacks
    )
    assert made.figures["stopped_by"] == "Target: below 0.4 nats"
    assert made.history[-1]["Target.below"] == 2


def write_project(folder: Path, model: Path) -> None:
    """A recipe that the README's Python finds, small enough to run in half a minute."""
    (folder / "recipe.yaml").write_text(RECIPE.format(model=model))
    texts = [
        f"{begin} {number}?" for number in range(1, 31) for begin in ("Where is order", "I want my money back for")
    ]
    rows = [{"input": text, "output": "refund" if "money" in text else "order_late"} for text in texts]
    for name, part in (("train", rows[:40]), ("pool", rows[40:50]), ("test", rows[50:])):
        lines = [{"input": row["input"]} if name == "pool" else row for row in part]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_python_of_the_readme_runs(tiny, tmp_path: Path) -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    write_project(tmp_path, tiny.folder)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "exact match" in done.stdout
    assert (tmp_path / "bundles" / "support" / "manifest.json").is_file()
    answer, *_ = done.stdout.splitlines()[-1].split()
    assert answer in {"order_late", "refund"}
