"""Runs in the environment of olive.lock: `olive optimize --precision int4`, and its model in onnxruntime-genai.

The command measures layers on a data set of the Hub for its GPTQ; here it is shown the benchmark's texts instead, and
blocks that go into the model's width. All else is as `olive optimize` has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime_genai as og
from measuring import Answers, Job, Prompts, Written, log_probs_of, main, size_bytes

BLOCK = 32
"""Of Olive's model builder; its GPTQ would take 128, which do not go into a width of 576."""

SEQUENCE = 512
"""Tokens that are measured at once."""

PAD = -1
"""No real token, so that none at the end of a prompt is taken for padding."""


class Genai:
    """The model in onnxruntime-genai, which chooses tokens itself."""

    def __init__(self, job: Job) -> None:
        config = og.Config(job["model"])
        options = {"intra_op_num_threads": job["threads"]}
        config.overlay(json.dumps({"model": {"pad_token_id": PAD, "decoder": {"session_options": options}}}))
        self._model = og.Model(config)

    def log_probs(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        return log_probs_of(self._begun([ids], 0, least=0).get_output("logits")[0], ids)

    def write(self, prompts: Prompts, limit: int, ends: Collection[int]) -> Written:
        generator, answers = self._begun(prompts, limit, least=0 if ends else limit), Answers(len(prompts), limit, ends)
        while True:
            generator.generate_next_token()
            if not answers.take(generator.get_next_tokens()):
                return answers.done()

    def _begun(self, prompts: Prompts, room: int, *, least: int) -> Any:
        """The prompts read, with room for answers of at least `least` tokens."""
        length = max(map(len, prompts))
        options = og.GeneratorParams(self._model)
        options.set_search_options(
            batch_size=len(prompts), max_length=length + room, min_length=least and length + least, do_sample=False
        )
        generator = og.Generator(self._model, options)
        padded = [[*prompt, *[PAD] * (length - len(prompt))] for prompt in prompts]
        generator.append_tokens(np.array(padded, dtype=np.int32))
        return generator


def make(job: Job, work: Path) -> dict[str, Any]:
    """What the command makes of the model, after its configuration was pointed to the benchmark's texts."""
    source, out = Path(job["source"]) / "model", Path(job["out"])
    out.mkdir()
    olive("optimize", "-m", source, "-o", out, "--precision", "int4", "--block_size", BLOCK, "--dry_run")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    gptq = config["passes"]["gptq"]
    gptq["data_config"] = data_config(job["texts"], source, work / "calibration.jsonl")
    config |= {"cache_dir": str(work / "olive-cache")}
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    begun = time.perf_counter()
    olive("run", "--config", out / "config.json")
    model = next(out.rglob("genai_config.json")).parent
    seconds = time.perf_counter() - begun
    return {"model": str(model), "size_bytes": size_bytes(model, ".onnx", ".onnx.data"), "make_s": seconds}


def data_config(texts: Sequence[Sequence[int]], model: Path, path: Path) -> dict[str, Any]:
    """The texts as Olive reads a data set: a file of lines, which it cuts into tokens and joins."""
    from olive.data.template import huggingface_data_config_template
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    path.write_text("".join(json.dumps({"text": tokenizer.decode(ids)}) + "\n" for ids in texts), encoding="utf-8")
    config = huggingface_data_config_template(
        model_name=str(model),
        task="text-generation",
        load_dataset_config={"data_name": "json", "data_files": str(path), "split": "train"},
        pre_process_data_config={"add_special_tokens": False, "joiner": "", "max_seq_len": SEQUENCE},
        dataloader_config={"batch_size": 1},
    )
    dumped: dict[str, Any] = config.model_dump(mode="json")
    return dumped


def olive(*arguments: object) -> None:
    command = [sys.executable, "-m", "olive", *map(str, arguments), "--disable_telemetry"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ)
    if done.returncode:
        sys.exit(f"olive {arguments[0]}: {done.stdout.decode()[-2000:]}")


if __name__ == "__main__":
    main(Genai, make)
