"""Speed and memory of supervised fine-tuning as `mergebench` does it, against TRL's defaults on the same samples; and a GRPO step.

    python benchmarks/train.py --folder /tmp/bench

Needs no network: it writes a random Llama (1.1 billion parameters where there is a GPU, under one million where there is
none) and samples of random tokens whose lengths are spread as those of instruction data are. Each measurement is a process of
its own on one device (one GPU, or one thread); those of one round follow each other. Prints a table, and everything as JSON on
the last line. Not a test: nothing here fails.

Tokens are those of samples, without padding. Model FLOPs of a step, forward and backward, recomputation not counted:
6 x (parameters of the layers) x tokens + 6 x (parameters of the output layer) x response tokens
+ 6 x layers x heads x head size x (sum of the squared lengths of the samples), the attention of causal samples. MFU is their share of the
peak of the device for dense bfloat16, from its data sheet (`PEAKS`, or --peak-tflops).
"""

from __future__ import annotations

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12}  # the first that fits
SHAPES: dict[str, dict[str, Any]] = {
    "gpu": {"vocab_size": 32768, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "cpu": {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 4, "num_attention_heads": 4},
}
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}  # unless the caller says otherwise
WARM = 2  # steps before the clock runs
OURS, DEFAULTS, GRPO = "mergebench", "TRL's defaults", "GRPO"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--steps", type=int, help="optimizer steps of each measurement (default: 12 on a GPU, 6 without)")
    parser.add_argument("--batch", type=int, help="samples in a step (default: 128 on a GPU, 16 without)")
    parser.add_argument("--max-length", type=int, help="tokens of a row (default: 4096 on a GPU, 512 without)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peak-tflops", type=float, help="peak of the device in dense bfloat16, if it is not known here")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    import torch

    kind = "gpu" if torch.cuda.is_available() else "cpu"
    for name, (on_gpu, on_cpu) in {"steps": (12, 6), "batch": (128, 16), "max_length": (4096, 512)}.items():
        if getattr(options, name) is None:
            setattr(options, name, on_gpu if kind == "gpu" else on_cpu)
    if options.measure:
        print(json.dumps(MEASUREMENTS[options.measure](options, kind)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = prepare(folder, kind, options)
        found = [measured(name, folder, options) for _ in range(options.rounds) for name in MEASUREMENTS]
    report(kind, options, flops_per_token(kind, rows), found)


def prepare(folder: Path, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Write the model, its tokenizer and the samples; returns these."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks import synthetic

    shape = SHAPES[kind]
    synthetic.write_tokenizer(folder / "model", shape["vocab_size"])
    torch.manual_seed(0)
    config = LlamaConfig(
        **shape,
        num_key_value_heads=shape["num_attention_heads"] // 4,
        max_position_embeddings=8192,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    with torch.device("cuda" if kind == "gpu" else "cpu"):
        model = LlamaForCausalLM(config)
    (model.bfloat16() if kind == "gpu" else model).save_pretrained(folder / "model")
    rng = random.Random(0)
    scale = options.max_length / 4096
    rows = []
    for _ in range(options.steps * options.batch):
        length = min(options.max_length, max(8, int(rng.lognormvariate(5.9, 0.7) * scale)))
        ids = [1, *(rng.randrange(4, shape["vocab_size"]) for _ in range(length - 2)), 2]
        rows.append({"prompt": max(2, length // 4), "ids": ids})
    (folder / "samples.json").write_text(json.dumps(rows))
    return rows


def measured(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What one measurement, in a process of its own, found."""
    words = ["--folder", folder, "--steps", options.steps, "--batch", options.batch, "--max-length", options.max_length, "--measure", name]
    print(f"{name} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        return {"name": name, "error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return {"name": name, **json.loads(done.stdout.strip().splitlines()[-1])}


def samples_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The samples of `prepare`."""
    rows: list[dict[str, Any]] = json.loads((options.folder / "samples.json").read_text())
    return rows


def ours(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """`mergebench.training.sft` with the settings of small models, by which rows are packed to full length."""
    from mergebench.training.engine import Run
    from mergebench.training.examples import IGNORED, Example
    from mergebench.training.models import attention, load_tokenizer
    from mergebench.training.preemption import Signals
    from mergebench.training.samples import Joined, Listed
    from mergebench.training.settings import SftSettings
    from mergebench.training.sft import schedule, train_sft

    rows = samples_of(options)
    examples = [Example(str(i), row["ids"], [IGNORED] * row["prompt"] + row["ids"][row["prompt"] :]) for i, row in enumerate(rows)]
    samples = Joined([Listed(examples)])
    settings = SftSettings(
        learning_rate=1e-5,
        steps=options.steps,
        batch_size=options.batch,
        max_length=options.max_length,
        packing=True,
        dtype="bfloat16" if kind == "gpu" else "float32",
    )
    plan = schedule(samples, settings, 0)
    ticks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as state, Signals() as signals:
        run = Run(Path(state), "benchmark", 0, lambda done, *_, **__: ticks.append(now()) if done else None, signals)
        lines, _ = train_sft(options.folder / "model", load_tokenizer(options.folder / "model"), samples, plan, settings, run)
    return facts(ticks, plan.tokens, lines[-1]["loss"]) | {
        "attention": attention(options.folder / "model", kind == "gpu"),
        "fill": round(sum(plan.tokens) / len(plan.rows) / options.max_length, 3),
    }


def defaults(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """`SFTTrainer` as it comes, on the same samples, batch and length."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ticks.append(now())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                tokens.append(int(logs["num_tokens"]))

    ticks: list[tuple[float, float]] = []
    tokens: list[int] = []
    rows = samples_of(options)
    micro = min(8, options.batch)  # 8 is the default
    config = SFTConfig(
        output_dir=str(options.folder / "defaults"),
        max_length=options.max_length,
        max_steps=options.steps,
        gradient_accumulation_steps=options.batch // micro,
        per_device_train_batch_size=micro,
        learning_rate=1e-5,
        logging_steps=1,
        save_strategy="no",
        use_cpu=kind == "cpu",
        bf16=kind == "gpu",
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    columns = {"input_ids": [row["ids"] for row in rows], "labels": [[-100] * row["prompt"] + row["ids"][row["prompt"] :] for row in rows]}
    trainer = SFTTrainer(
        model=str(options.folder / "model"),
        args=config,
        train_dataset=Dataset.from_dict(columns),
        processing_class=AutoTokenizer.from_pretrained(options.folder / "model"),
        callbacks=[Clock()],
    )
    trainer.train()
    per_step = [after - before for before, after in zip([0, *tokens], tokens, strict=False)]
    return facts(ticks, per_step, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1])


def grpo(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Seconds of a GRPO step, with vLLM where it is installed and there is a GPU."""
    import importlib.util

    from mergebench.training.engine import Run
    from mergebench.training.grpo import train_grpo
    from mergebench.training.models import load_tokenizer
    from mergebench.training.preemption import Signals
    from mergebench.training.settings import GrpoSettings

    vllm = kind == "gpu" and importlib.util.find_spec("vllm") is not None
    settings = GrpoSettings(
        learning_rate=1e-6,
        steps=3,
        prompts=8 if kind == "gpu" else 2,
        generations=8 if kind == "gpu" else 2,
        micro_batch_size=8 if kind == "gpu" else 4,
        max_completion_length=256 if kind == "gpu" else 16,
        dtype="bfloat16" if kind == "gpu" else "float32",
        vllm=vllm,
    )
    rows = [{"prompt": f"t{i + 4} t{i + 5}", "answer": "1"} for i in range(64)]
    with tempfile.TemporaryDirectory(dir=options.folder) as state, Signals() as signals:
        run = Run(Path(state), "benchmark", 0, lambda *_, **__: None, signals)
        train_grpo(options.folder / "model", load_tokenizer(options.folder / "model"), rows, settings, run)
        lines = [json.loads(line) for line in run.live_log.read_text().splitlines()]
    ends = [line["seconds"] for line in lines]
    completions = settings.prompts * settings.generations
    return {
        "vllm": vllm,
        "seconds_per_step": statistics.median(b - a for a, b in itertools.pairwise(ends)),
        "completions_per_step": completions,
        "completion_tokens_per_step": round(statistics.mean(line.get("completions/mean_length", 0) for line in lines) * completions),
        "peak_memory_bytes": peak_memory(),
    }


def now() -> tuple[float, float]:
    """Wall and CPU seconds, when the GPU has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic(), time.process_time()


def facts(ticks: list[tuple[float, float]], tokens: list[int], loss: float) -> dict[str, Any]:
    """Speed between the end of step `WARM` and that of the last.

    Args:
        ticks: `now` at the end of each step.
        tokens: of each step.
    """
    seconds, processor = (ticks[-1][clock] - ticks[WARM - 1][clock] for clock in range(2))
    counted = sum(tokens[WARM:])
    return {
        "tokens_per_second": counted / seconds,
        "seconds": seconds,
        "processor_seconds": processor,
        "tokens_per_processor_second": counted / processor,
        "tokens": counted,
        "steps": len(ticks) - WARM,
        "loss": loss,
        "peak_memory_bytes": peak_memory(),
    }


def peak_memory() -> int:
    """Bytes: of the GPU as its allocator reserved them, else of this process."""
    import resource

    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


MEASUREMENTS = {OURS: ours, DEFAULTS: defaults, GRPO: grpo}


def flops_per_token(kind: str, rows: list[dict[str, Any]]) -> float:
    """Model FLOPs of training on the samples, divided by their tokens (the formula is at the top)."""
    shape = SHAPES[kind]
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    # Queries and outputs are hidden x hidden, keys and values a quarter of it each; then the three matrices of the MLP.
    layer = 2.5 * hidden**2 + 3 * hidden * shape["intermediate_size"]
    lengths = [len(row["ids"]) for row in rows]
    responses = sum(len(row["ids"]) - row["prompt"] for row in rows)
    head = hidden * shape["vocab_size"] * responses
    attention = layers * hidden * sum(length**2 for length in lengths)
    return 6 * (layers * layer * sum(lengths) + head + attention) / sum(lengths)


def report(kind: str, options: argparse.Namespace, flops: float, found: list[dict[str, Any]]) -> None:
    """Print a table with the medians over the rounds, and everything as JSON."""
    import torch

    device = torch.cuda.get_device_name() if kind == "gpu" else f"CPU ({platform.machine()})"
    known = next((peak for name, peak in PEAKS.items() if name in device), None)
    peak = options.peak_tflops * 1e12 if options.peak_tflops else known
    for one in found:
        if "tokens_per_second" in one:
            one["model_flops_per_second"] = one["tokens_per_second"] * flops
            one["mfu"] = one["model_flops_per_second"] / peak if peak else None
    print(f"Device: {device}. Model FLOPs per token: {flops:.4g}." + (f" Peak: {peak:.4g} FLOP/s." if peak else " No peak is known."))
    print("| what | tokens/s | MFU | seconds/step | peak memory (MiB) |\n|---|---:|---:|---:|---:|")
    for name in MEASUREMENTS:
        runs = [one for one in found if one["name"] == name]
        if errors := [one["error"] for one in runs if "error" in one]:
            print(f"| {name} | {errors[0]} | | | |")
            continue
        speed = median(runs, "tokens_per_second")
        mfu = median(runs, "mfu")
        step = median(runs, "seconds_per_step") or statistics.median(one["seconds"] / one["steps"] for one in runs)
        cells = [
            f"{speed:,.0f}" if speed else "",
            f"{mfu:.1%}" if mfu else "n/a",
            f"{step:.2f}",
            f"{median(runs, 'peak_memory_bytes') / 2**20:,.0f}",
        ]
        print(f"| {' | '.join([name, *cells])} |")
    clock = "tokens_per_second" if kind == "gpu" else "tokens_per_processor_second"  # the CPU may do other work
    speeds = [median([one for one in found if one["name"] == name], clock) for name in (OURS, DEFAULTS)]
    if all(speeds):
        second = "second" if kind == "gpu" else "processor second"
        print(f"mergebench trains {speeds[0] / speeds[1]:.2f} times as many tokens a {second} as TRL's defaults.")
    if kind == "cpu":
        print("There is no GPU here: the GPU part was not run, and these numbers say nothing about one.")
    print(json.dumps({"device": device, "peak_flops": peak, "flops_per_token": flops, "versions": versions(), "measurements": found}))


def median(runs: list[dict[str, Any]], key: str) -> float:
    """Over the runs that have the value, or 0."""
    return statistics.median([one[key] for one in runs if one.get(key)] or [0])


def versions() -> dict[str, str | None]:
    """Of what computes; None for what is not installed."""
    found: dict[str, str | None] = {}
    for package in ("torch", "transformers", "trl", "accelerate", "flash-attn", "vllm"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


if __name__ == "__main__":
    main()
