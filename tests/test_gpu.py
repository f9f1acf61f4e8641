"""On a machine with a GPU: what is computed there is what the processor computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.compress.gptq import quantise
from slmops.engines import load_engine, on_gpu
from slmops.engines.base import Sampling
from slmops.models.device import fastest_device
from slmops.models.rounding import Grid
from slmops.models.source import load_model, save_model
from slmops.progress import Silent
from slmops.recipe.objective import ForwardKl, HiddenTerm, TextTerm
from slmops.recipe.student import Carve
from slmops.recipe.training import Optimisation, Rounding
from slmops.train.choose import choose_layers
from slmops.train.examples import Example
from slmops.train.objectives.observe import TeacherModel, answer_logits
from slmops.train.tagged import new_head, tagged_examples
from slmops.train.trained import Trained
from slmops.train.trainer import train
from tests.families import IDS, make
from tests.tiny_task import TASK
from tests.train.test_tagged import rows

needs_gpu = pytest.mark.skipif(fastest_device() == "cpu", reason="there is no GPU")
SETTINGS = Optimisation(epochs=3, learning_rate=1e-3, batch_tokens=128, precision="fp32", checkpoint_seconds=1e6)


def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(*(tuple(rng.integers(3, 300, size).tolist()) for size in (8, 4))) for _ in range(24)]


def trained(folder: Path, work: Path, **settings: object) -> Trained:
    return train(folder, examples(), SETTINGS.model_copy(update=settings), work=work, seed=1)


def test_without_a_gpu_a_model_is_on_the_processor(tiny):
    """As everywhere where time is taken, whatever the machine has."""
    for gpu in (False, True):
        where = load_engine("transformers", tiny.folder, threads=1, gpu=gpu).info().device
        assert where == (fastest_device() if gpu else "cpu")
    assert not on_gpu("onnxruntime-genai")


ON_THE_PROCESSOR = """
import sys
from pathlib import Path
from tests.test_gpu import trained
folder, work, freeze = sys.argv[1:]
print(trained(Path(folder), Path(work), freeze_layers=int(freeze)).history[-1]["text"])
"""


@needs_gpu
@pytest.mark.parametrize("freeze", [0, 1])
def test_training_ends_near_where_the_processor_ends(tiny, tmp_path, monkeypatch, freeze):
    there = trained(tiny.folder, tmp_path / "gpu", freeze_layers=freeze)
    assert {weight.device.type for weight in there.model.parameters()} == {"cpu"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = [sys.executable, "-c", ON_THE_PROCESSOR, str(tiny.folder), str(tmp_path / "cpu"), str(freeze)]
    done = subprocess.run(told, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert there.history[-1]["text"] == pytest.approx(float(done.stdout.split()[-1]), rel=1e-2)


@needs_gpu
def test_layers_are_weighed_there(tiny, monkeypatch):
    """The model that is cut stays where it was."""
    seen = []
    monkeypatch.setattr("slmops.train.choose.answer_logits", lambda *given: seen.append(given) or answer_logits(*given))
    model = load_model(tiny.folder)
    kept = choose_layers(model, examples(), Carve(layers=1), progress=Silent())
    assert len(kept) == 1
    assert {each.device.type for weighed, batch in seen for each in (weighed, *batch.values())} == {"cuda"}
    assert model.device.type == "cpu"


@needs_gpu
def test_training_goes_on_from_a_checkpoint(tiny, tmp_path):
    first, again = (trained(tiny.folder, tmp_path, checkpoint_seconds=1e-6) for _ in range(2))
    assert again.history[-1]["step"] == first.history[-1]["step"]


@needs_gpu
def test_a_student_on_the_grid_learns_beside_its_teacher(tiny, tmp_path):
    made = train(
        tiny.folder,
        examples(),
        SETTINGS.model_copy(update={"precision": "bf16"}),
        objective=[ForwardKl(logits="online"), HiddenTerm(weight=0.3), TextTerm(weight=0.5)],
        teacher=TeacherModel(tiny.folder, None, [0, 1]),
        rounding=Rounding(block_size=32, head="int4"),
        work=tmp_path,
        seed=1,
    )
    weight = made.model.model.layers[0].mlp.down_proj.weight
    assert torch.equal(Grid(4, 32)(weight), weight)
    assert np.isfinite(made.history[-1]["forward_kl"])


@needs_gpu
def test_a_student_that_labels_learns_there(tiny, tmp_path):
    labelled, _ = tagged_examples(rows(1, 80), TASK, tiny.tokenizer)
    settings = SETTINGS.model_copy(update={"epochs": 12, "learning_rate": 3e-3, "freeze_layers": 1})
    made = train(tiny.folder, labelled, settings, work=tmp_path, seed=1, head=new_head(TASK, tiny.tokenizer, 64))
    assert made.history[-1]["text"] < 0.5 * made.history[0]["text"]
    save_model(made.model, tmp_path / "model", tokenizer_from=tiny.folder)
    answers = []
    for gpu in (False, True):
        engine = load_engine("transformers", tmp_path / "model", threads=1, gpu=gpu)
        prompts = [tiny.tokenizer.prompt(TASK.render(row.text)) for row in rows(2, 10)]
        answers.append([token.id for token in engine.generate(prompts, Sampling(max_tokens=40))])
    assert answers[0] == answers[1]


@needs_gpu
def test_an_engine_writes_and_scores_there_as_here(tiny):
    here, there = (load_engine("transformers", tiny.folder, threads=1, gpu=gpu) for gpu in (False, True))
    prompts = [tiny.prompt(text) for text in tiny.pairs]
    said = [
        [(token.request, token.id) for token in one.generate(prompts, Sampling(max_tokens=40))] for one in (here, there)
    ]
    assert said[0] == said[1]
    answers = [tiny.tokenizer.encode(answer) for answer in tiny.pairs.values()]
    for one, other in zip(here.score(prompts, answers), there.score(prompts, answers), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    np.testing.assert_allclose(here.score_choices(prompts, answers), there.score_choices(prompts, answers), atol=1e-2)


@needs_gpu
def test_weights_are_rounded_there_as_here():
    texts = [IDS[0].tolist(), IDS[1, :7].tolist()]
    models = [make("llama").eval().to(device) for device in ("cpu", "cuda")]
    errors = [quantise(model, texts, Grid(4, 16), Silent())["rounding_error"] for model in models]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)
    weight = models[1].get_decoder().layers[1].mlp.down_proj.weight
    assert torch.equal(Grid(4, 16)(weight), weight)
