"""What a job costs, from the parameters of its base and the settings of its stage: time, memory, bytes on disk.

Nothing here is a measurement of this machine or site: every number follows from a parameter count, the sizes of the data and the
assumptions named below, which `mergebench plan` prints and, where finished jobs have left cost records, corrects.
Requests of resources are made from these estimates in `mergebench.workflow.resources`.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mergebench import catalogue
from mergebench.merging.declarations import SCALE, declared
from mergebench.workflow.plan import Plan

GB = 10**9
# The reference GPU: an A100 (312 TFLOP/s in bfloat16, 19.5 in float32, 2.0 TB/s), and what of it such jobs reach.
MATRIX_RATE = 0.4 * 312e12  # FLOP/s: training and reading prompts in bfloat16
FLOAT_RATE = 0.6 * 19.5e12  # FLOP/s: calibration statistics, in float32
READ_RATE = 0.6 * 2.0e12  # bytes/s: a decoding step reads the weights once
STEP_OVERHEAD = 0.025  # seconds that a decoding step costs whatever the model
# One CPU core, and a shared file system.
CORE_RATE = 4e10  # FLOP/s of a tiny twin in float32
CORE_STEP = 0.004  # seconds of one decoding step of a tiny twin
STREAM_RATE = 5e8  # bytes/s that merging and spectra read, compute and write
NETWORK_RATE = 1e8  # bytes/s of a download
GPU_START, CPU_START = 60.0, 5.0  # seconds until a job works: imports, loading, the first kernels

TRAINING_TOKENS = 400  # tokens of a training row
PROMPT_TOKENS, SHOT_TOKENS, CHOICE_TOKENS = 200, 120, 80  # of a benchmark's row, of each worked example, of all its choices
BATCH_TOKENS = 65_536  # tokens of one batch on a GPU
TOKEN_BYTES = 3_000_000  # activations of one trained token with checkpointing: logits over 256,000 entries, and the layers' inputs
CACHE = 0.3e6 * BATCH_TOKENS + 4 * GB  # GPU memory of a batch: keys and values of its tokens, and its logits
LARGEST = 0.25  # share of the parameters in the largest tensor (Gemma-2-2b's embedding: 0.23)
GRAM = 1.1  # entries of all Gram matrices by parameter (Gemma-2-9b: 1.12, Llama-3.2-3B: 0.83)
PROCESS = 0.7 * GB  # of a process that has imported torch and transformers
TRAINED = 18  # bytes per parameter: float32 weights, gradients and two moments, and the bfloat16 copy of the weights
SAVED = 12  # bytes per parameter of a saved training state: float32 weights and two moments

ROWS_ASSUMED = f"{TRAINING_TOKENS} tokens a training row, {PROMPT_TOKENS} a prompt, answers as long as their limit"
ASSUMPTIONS = f"A100 GPUs at 40 % of their bfloat16 rate, {ROWS_ASSUMED}, training state sharded over the GPUs of a job"
CORE_ASSUMPTIONS = f"one CPU core at {CORE_RATE / 1e9:.0f} GFLOP/s for a model, {ROWS_ASSUMED}"


@dataclass(frozen=True)
class Estimate:
    """The cost of one job.

    Attributes:
        seconds: wall seconds on one reference GPU, or on CPU cores for jobs without one; the fixed start not included.
        start: seconds before the work begins.
        gpu_bytes: memory on the GPUs that divides over them (`sharded`) or must fit on one; 0: the job needs none.
        local_bytes: memory that every GPU needs on top.
        host_bytes: peak host memory of one process.
        written: bytes that stay on disk when the job is done.
        working: further bytes on disk while it runs (saved states of training; outputs are moved into place, not copied).
        sharded: whether the job may spread over several GPUs.
        divides: largest number of processes into which a step's samples divide (for sharded jobs).
        threads: CPU threads of one process that the work can use.
    """

    seconds: float
    start: float
    gpu_bytes: float = 0.0
    local_bytes: float = 0.0
    host_bytes: float = PROCESS
    written: float = 0.0
    working: float = 0.0
    sharded: bool = False
    divides: int = 1
    threads: int = 1


@dataclass
class Estimates:
    """The estimates of a plan's jobs, each computed once."""

    plan: Plan
    _known: dict[tuple[Any, ...], Estimate] = field(default_factory=dict)

    def of(self, stage: str, **wildcards: str) -> Estimate:
        """The cost of a job of `stage`, named as in `plan.MODULES`; wildcards as in its rule (`group` for evaluate)."""
        relevant = {k: v for k, v in wildcards.items() if k in RELEVANT[stage]}
        if stage == "evaluate":  # all models of a base cost the same
            relevant["model"] = "merged" if wildcards["model"].startswith("merged_") else "other"
        key = (stage, *sorted(relevant.items()))
        if key not in self._known:
            made: Callable[..., Estimate] = getattr(self, f"_{stage}")
            self._known[key] = made(**relevant)
        return self._known[key]

    # -- sizes ---------------------------------------------------------------------------------------------

    def parameters(self, base: str) -> int:
        """Parameters of a base."""
        return int(catalogue.bases()[base]["parameters"])

    def tiny(self, base: str) -> bool:
        """Whether the models of a base are small enough for a CPU core."""
        return bool(catalogue.bases()[base]["size"] == "tiny")

    def weights(self, base: str) -> float:
        """Bytes of one model's weights: bfloat16, but float32 for the tiny twins."""
        return self.parameters(base) * (4 if self.tiny(base) else 2)

    def training_rows(self, dataset: str) -> int:
        """Rows of a training set: those generated, the catalogue's, or the paper's count."""
        data = self.plan.preset.data
        entry = catalogue.datasets()[dataset]
        if data.sources.get(dataset, data.source) == "tiny":
            return data.rows
        return int(entry["rows"] or sum(float(n) * 1000 for n in re.findall(r"([\d.]+)K", str(entry["paper"]))))

    def rows(self, benchmark: str) -> int:
        """Rows of a benchmark that are scored."""
        data = self.plan.preset.data
        limit = data.limits.get(benchmark, data.limit)
        rows = int(catalogue.benchmarks()[benchmark]["rows"])
        return min(rows, limit) if limit else rows

    def _rate(self, base: str, rate: float = MATRIX_RATE) -> float:
        return CORE_RATE if self.tiny(base) else rate

    def _model_job(self, base: str, seconds: float, **facts: Any) -> Estimate:
        """An estimate of a job that runs the model: on a GPU, or on one core for a tiny twin."""
        if self.tiny(base):
            facts |= {"gpu_bytes": 0.0, "local_bytes": 0.0, "threads": 1}
            return Estimate(seconds, CPU_START, **facts)
        return Estimate(seconds, GPU_START, **{"threads": 8, **facts})

    def _processing(self, base: str, seconds: float, **facts: Any) -> Estimate:
        """An estimate of a job that reads weights without running the model: on CPU cores."""
        return Estimate(seconds, CPU_START, threads=1 if self.tiny(base) else 8, **facts)

    # -- stages --------------------------------------------------------------------------------------------

    def _fetch_base(self, base: str) -> Estimate:
        size = self.weights(base)
        return Estimate(size / NETWORK_RATE, CPU_START, host_bytes=PROCESS + 1 * GB, written=size)

    def _prepare(self, dataset: str = "", training_set: str = "") -> Estimate:
        name = dataset or training_set
        rows = self.training_rows(name) if name.startswith("train_") else self.rows(name)
        return Estimate(rows / 5_000, CPU_START, host_bytes=PROCESS + 20_000 * rows, written=2_000 * rows)

    def _train(self, base: str, model: str) -> Estimate:
        parameters, weights = self.parameters(base), self.weights(base)
        reinforced = self.plan.initial(base, model) == "sft_math"
        flops, decoding, local, divides = self._reinforcement(base) if reinforced else self._supervision(base, model)
        return self._model_job(
            base,
            flops / self._rate(base) + decoding,
            gpu_bytes=TRAINED * parameters,
            local_bytes=local,
            host_bytes=PROCESS + (24 if self.tiny(base) else 5) * parameters + (0 if self.tiny(base) else 4 * GB),
            written=weights,
            working=2 * SAVED * parameters,
            sharded=not self.tiny(base),
            divides=divides,
        )

    def _supervision(self, base: str, model: str) -> tuple[float, float, float, int]:
        """FLOPs, seconds of decoding, bytes of activations, and the processes into which a step divides."""
        settings = self.plan.supervision(base, model)
        rows = sum(self.training_rows(f"train_{d}") for d in self.plan.training_domains(model))
        batch = settings["batch_size"]
        seen = settings["steps"] * batch if settings["steps"] else settings["epochs"] * rows
        micro = settings["micro_batch_size"] or batch
        flops = (6 if self.tiny(base) else 8) * self.parameters(base) * seen * min(TRAINING_TOKENS, settings["max_length"])
        return flops, 0.0, TOKEN_BYTES * micro * settings["max_length"], max(1, batch // micro)

    def _reinforcement(self, base: str) -> tuple[float, float, float, int]:
        """The same for GRPO: every step generates its completions, then trains on them."""
        assert self.plan.preset.training.grpo is not None
        settings = self.plan.preset.training.grpo.settings
        completions = settings.prompts * settings.generations
        micro = settings.micro_batch_size or completions
        length = settings.max_completion_length
        flops = 8 * self.parameters(base) * settings.steps * completions * (length + PROMPT_TOKENS)
        batches = math.ceil(completions / (BATCH_TOKENS // (length + PROMPT_TOKENS)))
        decoding = settings.steps * batches * length * self._decoding_step(base)
        return flops, decoding, TOKEN_BYTES * micro * length, max(1, completions // micro)

    def _vectors(self, base: str) -> Estimate:
        return self._processing(
            base, 2 * self.weights(base) / STREAM_RATE, host_bytes=PROCESS + 3 * self._largest(base), written=16_000_000
        )

    def _statistics(self, base: str, kind: str) -> Estimate:
        parameters = self.parameters(base)
        settings = self.plan.preset.statistics
        calibration = self.plan.preset.data.calibration_rows
        if kind == "fisher":  # one gradient per row; weights, gradient and sum in float32
            rows, passes, held, written = settings.fisher.rows or calibration, 6, 12.0, 4.0
        elif kind == "gram":  # forward passes; weights in float32, the sums as configured, the result in float32
            width = 8 if settings.gram.accumulate == "float64" else 4
            rows, passes, held, written = settings.gram.rows or calibration, 2, 4 + width * GRAM, 4 * GRAM
        else:  # a gradient per step; model, base, task vector, logits and gradient in float32
            rows, passes, held, written = settings.mask.steps * settings.mask.batch_size, 6, 20.0, 1.0
        return self._model_job(
            base,
            passes * parameters * rows * TRAINING_TOKENS / self._rate(base, FLOAT_RATE),
            gpu_bytes=held * parameters,
            local_bytes=4 * GB,
            host_bytes=PROCESS + (4 + written) * parameters + (held * parameters if self.tiny(base) else 2 * GB),
            written=written * parameters,
        )

    def _tune(self, base: str, method: str) -> Estimate:
        grid = self.plan.preset.merging.methods[method].grid
        points = math.prod(len(values) for values in grid.values())
        directions = math.prod(len(values) for name, values in grid.items() if name != SCALE)
        scoring = sum(self._scoring(base, s) for names in self.plan.surrogates.values() for s in names)
        return self._model_job(
            base,
            points * scoring + directions * self._merging(base, method),
            gpu_bytes=self._evaluated(base),
            local_bytes=CACHE,
            host_bytes=PROCESS + self._engine(base) + self.weights(base),
        )

    def _merge(self, base: str, method: str) -> Estimate:
        weights = self.weights(base)
        return self._processing(base, self._merging(base, method), host_bytes=PROCESS + self._engine(base), written=weights)

    def _evaluate(self, base: str, model: str, group: str) -> Estimate:
        benchmarks = next(g for g in self.plan.groups if g.name == group).benchmarks
        host = 1.5 * self.weights(base) + (0 if self.tiny(base) else 6 * GB)
        remade = model == "merged" and not self.plan.preset.storage.keep_merged  # a later rerun makes dropped weights again
        return self._model_job(
            base,
            sum(self._scoring(base, b) for b in benchmarks),
            gpu_bytes=self._evaluated(base),
            local_bytes=CACHE,
            host_bytes=PROCESS + max(host, self._engine(base) if remade else 0),
            written=200_000 * len(benchmarks),
        )

    def _drop(self) -> Estimate:
        return Estimate(1.0, 0.0, host_bytes=PROCESS / 5)

    def _admit(self) -> Estimate:
        return Estimate(0.0, 0.0, host_bytes=PROCESS / 5)

    def _all(self) -> Estimate:
        return Estimate(0.0, 0.0, host_bytes=0.0)

    def _analyse(self) -> Estimate:
        return Estimate(10 + 0.005 * len(self.plan.scores), CPU_START, host_bytes=2 * PROCESS, written=20_000_000)

    # -- parts ---------------------------------------------------------------------------------------------

    def _decoding_step(self, base: str) -> float:
        return CORE_STEP if self.tiny(base) else self.weights(base) / READ_RATE + STEP_OVERHEAD

    def _scoring(self, base: str, benchmark: str) -> float:
        """Seconds to read the prompts of a benchmark and to decode its answers, batch by batch."""
        entry, evaluation = catalogue.benchmarks()[benchmark], self.plan.preset.evaluation
        own = evaluation.benchmarks.get(benchmark)
        shots = next(s for s in (own.shots if own else None, evaluation.shots, entry["shots"]) if s is not None)
        rows = self.rows(benchmark) * ((own.samples if own else None) or 1)
        prompt = PROMPT_TOKENS + SHOT_TOKENS * shots
        if entry["generation"] is None:
            return 2 * self.parameters(base) * rows * (prompt + CHOICE_TOKENS) / self._rate(base)
        limits = [entry["generation"]["max_tokens"], evaluation.max_tokens, own.max_tokens if own else None]
        answer = min(limit for limit in limits if limit)  # a batch decodes until its longest answer ends
        batches = math.ceil(rows / max(1, BATCH_TOKENS // (prompt + answer)))
        return 2 * self.parameters(base) * rows * (prompt + answer) / self._rate(base) + batches * answer * self._decoding_step(base)

    def _merging(self, base: str, method: str) -> float:
        """Seconds of one direction: all inputs are read; solvers work several times as long."""
        solver = 5 if "gram" in declared()[method].statistics else 1
        return solver * (len(self.plan.domains) + 2) * self.weights(base) / STREAM_RATE

    def _largest(self, base: str) -> float:
        """Bytes of the largest tensor in float32; in a tiny twin, of all."""
        return 4 * self.parameters(base) * (1 if self.tiny(base) else LARGEST)

    def _engine(self, base: str) -> float:
        """Host memory of the merge engine: one parameter of every model in float32, and two results."""
        return (len(self.plan.domains) + 3) * self._largest(base)

    def _evaluated(self, base: str) -> float:
        return self.parameters(base) * (4 if self.plan.preset.evaluation.dtype == "float32" else 2)


# Which wildcards an estimate depends on.
RELEVANT: dict[str, frozenset[str]] = {
    stage: frozenset(names)
    for stage, names in {
        "fetch_base": ["base"],
        "prepare": ["dataset", "training_set"],
        "train": ["base", "model"],
        "vectors": ["base"],
        "statistics": ["base", "kind"],
        "tune": ["base", "method"],
        "merge": ["base", "method"],
        "evaluate": ["base", "model", "group"],
        "drop": [],
        "admit": [],
        "analyse": [],
        "all": [],
    }.items()
}
