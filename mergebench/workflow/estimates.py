"""What a job costs, from the parameters of its base and the settings of its stage: time, memory, bytes on disk.

Nothing here is a measurement of this machine or site: every number follows from a parameter count, the sizes of the data and the
assumptions named below, which `mergebench plan` prints and, where finished jobs have left cost records, corrects.
Requests of resources are made from these estimates in `mergebench.workflow.resources`.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mergebench import catalogue
from mergebench.merging.declarations import declared
from mergebench.training.mixture import epoch_rows
from mergebench.workflow.plan import Plan
from mergebench.workflow.questions import Questions, questions, scored_rows
from mergebench.workflow.searches import Search, search, searches
from mergebench.workflow.statistics_cost import GB, LARGEST, Cost, cost, propagation
from mergebench.workflow.training_memory import memory

# The reference GPU: an A100 (312 TFLOP/s in bfloat16, 19.5 in float32, 2.0 TB/s, 80 GB), and what of it such jobs reach.
MATRIX_RATE = 0.4 * 312e12  # FLOP/s: training and reading prompts in bfloat16
FLOAT_RATE = 0.6 * 19.5e12  # FLOP/s: calibration statistics, in float32
READ_RATE = 0.6 * 2.0e12  # bytes/s: a decoding step reads the weights once
LINK_RATE = 8e9  # bytes/s between host and GPU, from memory that is not pinned
STEP_OVERHEAD = 0.025  # seconds that a decoding step costs whatever the model
# One CPU core, and a shared file system.
CORE_RATE = 4e10  # FLOP/s of a tiny twin in float32
CORE_STEP = 0.004  # seconds of one decoding step of a tiny twin
STREAM_RATE = 5e8  # bytes/s that merging and spectra read, compute and write
INSTALL_SECONDS = 3.0  # for each billion parameters of a candidate that one thread writes into a live model and proves
OUTCOME_BYTES = 40  # that a search keeps of every scored item
NETWORK_RATE = 1e8  # bytes/s of a download
TOKENISED_ROWS, COMPARED_ROWS = 1_000, 2_000  # training rows per second that one core tokenises, and compares with the benchmarks
GPU_START, CPU_START = 60.0, 5.0  # seconds until a job works: imports, loading, the first kernels

TRAINING_TOKENS = 400  # tokens of a training row
UNKNOWN_ROWS = 50_000  # of a training set of your own that does not say how many it has
PROMPT_TOKENS = 200  # of a prompt of GRPO
LABEL_TOKENS, INSTRUCTION_TOKENS = 32, 350  # that a judge writes, and of its instruction, which all prompts share
PROGRAM_SECONDS = 0.5  # of a model-written program and its tests, on one core
BATCH_TOKENS = 65_536  # tokens of one batch on a GPU
SEQUENCES = 256  # answers that vLLM decodes at once
CACHE = 0.3e6 * BATCH_TOKENS + 4 * GB  # GPU memory of a batch: keys and values of its tokens, and its logits
PROCESS = 0.7 * GB  # of a process that has imported torch and transformers
SAVED = 12  # bytes per parameter of a saved training state: float32 weights and two moments

ROWS_ASSUMED = f"{TRAINING_TOKENS} tokens a training row, prompts of usual length, answers as long as their limit"
ASSUMPTIONS = f"A100 GPUs at 40 % of their bfloat16 rate, {ROWS_ASSUMED}, training states as `sharding` divides them"
CORE_ASSUMPTIONS = f"one CPU core at {CORE_RATE / 1e9:.0f} GFLOP/s for a model, {ROWS_ASSUMED}"


def judge_parameters(plan: Plan) -> int:
    """Parameters of the preset's judge, which is a model."""
    return int(catalogue.judges()[plan.preset.evaluation.judge]["parameters"])


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
        working: further bytes on disk while it runs (saved states of training, parts and sums of statistics; outputs are moved into
            place, not copied).
        sharded: whether the job may spread over as many GPUs as hold it together.
        gpus: GPUs of a job that does not, each of which needs all of its memory.
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
    gpus: int = 1
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
        if "method" in relevant:  # all seeds of a method cost the same
            relevant["method"] = self.plan.merged[relevant["method"]].method
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
        """Rows of a training set: those generated, those that its filter leaves of the published ones, or the paper's count."""
        data = self.plan.preset.data
        entry = catalogue.datasets()[dataset]
        if data.sources.get(dataset, data.source) == "tiny":
            return data.rows
        if data.sources.get(dataset, data.source) == "hub" and (filters := entry.get("filters")):
            counts = filters[data.filters.get(dataset, next(iter(filters)))].get("counts", {})
            if counts and all("kept" in part or "records" in part for part in counts.values()):
                return sum(_kept({name: number for name, (number, _) in part.items()}) for part in counts.values())
        return int(entry["rows"] or sum(float(n) * 1000 for n in re.findall(r"([\d.]+)K", str(entry["paper"]))) or UNKNOWN_ROWS)

    def rows(self, benchmark: str) -> int:
        """Rows of a benchmark that are scored."""
        return scored_rows(self.plan.preset, benchmark)

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

    def _decontaminate(self, training_set: str) -> Estimate:
        rows = self.training_rows(training_set) + sum(map(self.rows, self.plan.benchmark_datasets))
        return Estimate(rows / COMPARED_ROWS, CPU_START, host_bytes=PROCESS + 2 * GB * (rows > 10_000), written=1_000_000)

    def _tokenise(self, key: str, training_set: str) -> Estimate:
        rows, small = self.training_rows(training_set), self.tiny(self.plan.token_maker(key))
        threads = 1 if small else 8
        host = PROCESS * (1 if small else threads)
        return Estimate(rows / (TOKENISED_ROWS * threads), CPU_START, host_bytes=host, written=4 * TRAINING_TOKENS * rows, threads=threads)

    def _import(self, base: str) -> Estimate:
        size = self.weights(base)
        seconds = size / NETWORK_RATE + 2 * size / STREAM_RATE
        return Estimate(seconds, CPU_START, host_bytes=PROCESS + 2 * self._largest(base), written=size)

    def _train(self, base: str, model: str) -> Estimate:
        parameters, weights = self.parameters(base), self.weights(base)
        reinforced = self.plan.initial(base, model) == "sft_math"
        flops, decoding, tokens, divides = self._reinforcement(base) if reinforced else self._supervision(base, model)
        need = memory(self.training_settings(base, model), parameters, tokens)
        return self._model_job(
            base,
            flops / self._rate(base) + decoding,
            gpu_bytes=need.shared,
            local_bytes=need.each,
            host_bytes=PROCESS + (24 if self.tiny(base) else 5) * parameters + (0 if self.tiny(base) else 4 * GB + need.host),
            written=weights,
            working=2 * SAVED * parameters,
            sharded=not self.tiny(base),
            divides=divides,
        )

    def training_settings(self, base: str, model: str) -> dict[str, Any]:
        """Settings of SFT or of GRPO, as in the job's spec."""
        if self.plan.initial(base, model) == "sft_math":
            assert self.plan.preset.training.grpo is not None
            return self.plan.preset.training.grpo.settings.model_dump(mode="json")
        return self.plan.supervision(base, model)

    def schedule(self, base: str, model: str) -> tuple[int, float, float]:
        """Optimizer steps, rows seen and tokens seen of a training job."""
        settings = self.training_settings(base, model)
        if self.plan.initial(base, model) == "sft_math":
            seen = settings["steps"] * settings["prompts"] * settings["generations"]
            return settings["steps"], seen, seen * (settings["max_completion_length"] + PROMPT_TOKENS)
        rows = [self.training_rows(f"train_{d}") for d in self.plan.training_domains(model)]
        length = min(TRAINING_TOKENS, settings["max_length"])
        batch = settings["batch_size"] * (settings["max_length"] / length if settings["batch_unit"] == "packs" else 1)  # in rows
        epoch = sum(epoch_rows(rows, settings["mixture"]))
        steps = settings["steps"] or max(1, round(settings["epochs"] * epoch / batch))
        return steps, steps * batch, steps * batch * length

    def _supervision(self, base: str, model: str) -> tuple[float, float, int, int]:
        """FLOPs, seconds of decoding, tokens of a forward pass, and the processes into which a step divides."""
        settings = self.plan.supervision(base, model)
        _, _, tokens = self.schedule(base, model)
        batch = settings["batch_size"]
        micro = settings["micro_batch_size"] or (1 if settings["packing"] else batch)
        again = 0 if self.tiny(base) or settings["activation_checkpointing"] == "none" else 2  # the forward pass, once more
        flops = (6 + again) * self.parameters(base) * tokens
        return flops, 0.0, micro * settings["max_length"], max(1, batch // micro)

    def _reinforcement(self, base: str) -> tuple[float, float, int, int]:
        """The same for GRPO: every step generates its completions, then trains on them."""
        assert self.plan.preset.training.grpo is not None
        settings = self.plan.preset.training.grpo.settings
        completions = settings.prompts * settings.generations
        micro = settings.micro_batch_size or completions
        length = settings.max_completion_length
        flops = 8 * self.parameters(base) * settings.steps * completions * (length + PROMPT_TOKENS)
        batches = math.ceil(completions / (BATCH_TOKENS // (length + PROMPT_TOKENS)))
        decoding = settings.steps * batches * length * self._decoding_step(base)
        return flops, decoding, micro * length, max(1, completions // micro)

    def _vectors(self, base: str) -> Estimate:
        return self._processing(
            base, 2 * self.weights(base) / STREAM_RATE, host_bytes=PROCESS + 3 * self._largest(base), written=16_000_000
        )

    def _interference(self, base: str) -> Estimate:
        """All models are read once, and once more where nothing else measures spectra; a block of each is in memory for every thread."""
        walks = 1 if self.plan.measured_spectra else 2
        read = walks * (1 + len(self.plan.domains)) * self.weights(base)
        return self._processing(base, read / STREAM_RATE, host_bytes=PROCESS + 3 * self._largest(base), written=2_000_000)

    def _statistics(self, base: str, kind: str) -> Estimate:
        parameters, tiny = self.parameters(base), self.tiny(base)
        settings = getattr(self.plan.preset.statistics, kind)
        calibration = self.plan.preset.data.calibration_rows
        rows = min(settings.rows or calibration, calibration)
        need = cost(settings, parameters, 4 if tiny else 2, rows, TRAINING_TOKENS, small=tiny)
        rate = self._rate(base, MATRIX_RATE if need.half else FLOAT_RATE)
        shared = {name: size for name, size in need.device.items() if name != "activations"}
        return self._model_job(
            base,
            need.flops / rate + need.streamed / STREAM_RATE + (0 if tiny else need.copied / LINK_RATE),
            gpu_bytes=sum(shared.values()),
            gpus=self.plan.preset.statistics.execution.gpus,
            local_bytes=need.device["activations"],
            host_bytes=PROCESS + sum(need.host.values()) + (sum(shared.values()) if tiny else 2 * GB),
            written=need.written,
            working=need.working,
        )

    def _tune(self, base: str, method: str) -> Estimate:
        return self._searching(base, [search(self.plan, method)])

    def _tune_base(self, base: str) -> Estimate:
        return self._searching(base, searches(self.plan))

    def _searching(self, base: str, found: list[Search]) -> Estimate:
        """The full searches of some methods in one process; racing and budgets only make them shorter."""
        names = [s for group in self.plan.surrogates.values() for s in group]
        judged = [self._questions(s) for s in names if self.plan.deferred(s) == "safety"]
        passes, rows = sum(s.passes for s in found), sum(map(self.rows, names))
        seconds = passes * (sum(self._scoring(base, s) for s in names) + judging_seconds(self.plan, judged))
        seconds += sum(s.builds * self.merging(base, s.method) for s in found)
        seconds += sum(s.evaluations for s in found) * self.installing(base)
        needs = [self._propagation(base, s.method) for s in found if s.method in self.plan.calibrated]  # while nothing is scored
        return self._model_job(
            base,
            seconds,
            gpu_bytes=self._evaluated(base) + (2 * judge_parameters(self.plan) if self.plan.tuning_judge("weights") else 0),
            local_bytes=max([CACHE, *(sum(need.device.values()) for need in needs)]),
            host_bytes=PROCESS + self._engine(base) + self.held(base) + (0 if self.tiny(base) else 6 * GB),
            written=OUTCOME_BYTES * passes * rows,
            working=max((need.working for need in needs), default=0.0),
        )

    def installing(self, base: str) -> float:
        """Seconds to write base + scale * direction into a live model, and to prove it."""
        return INSTALL_SECONDS * self.parameters(base) / 1e9

    def held(self, base: str) -> float:
        """Bytes of a direction, in float32."""
        return 4.0 * self.parameters(base)

    def read_by_merge(self, base: str, method: str) -> float:
        """Bytes of the weights of all inputs of a merge and of its statistics."""
        statistics = sum(self.of("statistics", base=base, kind=kind).written for kind in declared()[method].statistics)
        return self.weights(base) + len(self.plan.domains) * (self.weights(base) + statistics)

    def _merge(self, base: str, method: str) -> Estimate:
        weights, seconds, host = self.weights(base), self.merging(base, method), PROCESS + self._engine(base)
        if method not in self.plan.calibrated:
            return self._processing(base, seconds, host_bytes=host, written=weights)
        need = self._propagation(base, method)
        shared = {name: size for name, size in need.device.items() if name != "activations"}
        return self._model_job(
            base,
            seconds,
            gpu_bytes=sum(shared.values()),
            local_bytes=need.device["activations"],
            host_bytes=host + sum(need.host.values()) + (sum(shared.values()) if self.tiny(base) else 2 * GB),
            written=weights,
            working=need.working,
        )

    def _propagation(self, base: str, method: str) -> Cost:
        settings = getattr(self.plan.preset.statistics, method)
        rows = min(settings.rows or self.plan.preset.data.calibration_rows, self.plan.preset.data.calibration_rows)
        domains = len(self.plan.domains)
        return propagation(settings, self.parameters(base), domains, rows, TRAINING_TOKENS, small=self.tiny(base))

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

    def _fetch_judge(self, judge: str) -> Estimate:
        size = 2 * int(catalogue.judges()[judge]["parameters"])
        return Estimate(size / NETWORK_RATE, CPU_START, host_bytes=PROCESS + 1 * GB, written=size)

    def _judge(self, group: str) -> Estimate:
        chosen = self.plan.settled_by(group)
        asked = [self._questions(b) for b in chosen.benchmarks]
        models = len(chosen.models) if chosen.together else 1
        answers = models * sum(q.answers for q in asked)
        written = 200 * answers
        if self.plan.judge is None:  # phrases are looked up
            return Estimate(answers / 10_000, CPU_START, written=written)
        read = models * sum(q.rows * q.prompt + q.most for q in asked) + LABEL_TOKENS * answers
        batches = math.ceil(answers * (INSTRUCTION_TOKENS + LABEL_TOKENS) / BATCH_TOKENS)
        weights = 2 * judge_parameters(self.plan)
        return Estimate(
            weights * read / MATRIX_RATE + batches * LABEL_TOKENS * (weights / READ_RATE + STEP_OVERHEAD),
            GPU_START,
            gpu_bytes=weights,
            local_bytes=CACHE,
            host_bytes=PROCESS + 1.5 * weights,
            written=written,
            threads=8,
        )

    def _settle(self, group: str) -> Estimate:
        chosen = self.plan.settled_by(group)
        models = len(chosen.models) if chosen.together else 1
        answers = models * sum(self._questions(b).answers for b in chosen.benchmarks)
        written = 1_000 * answers
        if chosen.kind == "safety":
            return Estimate(answers / 2_000, CPU_START, written=written)
        threads = 1 if all(map(self.tiny, self.plan.bases)) else 8
        return Estimate(
            PROGRAM_SECONDS * answers / threads, CPU_START, host_bytes=PROCESS + threads * 1 * GB, written=written, threads=threads
        )

    def _official(self) -> Estimate:
        return Estimate(0.01 * len(self.plan.scores), CPU_START, written=20_000 * len(self.plan.scores))

    def _drop(self) -> Estimate:
        return Estimate(1.0, 0.0, host_bytes=PROCESS / 5)

    def _admit(self) -> Estimate:
        return Estimate(0.0, 0.0, host_bytes=PROCESS / 5)

    def _all(self) -> Estimate:
        return Estimate(0.0, 0.0, host_bytes=0.0)

    def _analyse(self) -> Estimate:
        return Estimate(10 + 0.005 * len(self.plan.scores), CPU_START, host_bytes=2 * PROCESS, written=20_000_000)

    def _report(self) -> Estimate:
        return Estimate(5 + 0.005 * len(self.plan.scores), CPU_START, host_bytes=PROCESS, written=10_000_000)

    # -- parts ---------------------------------------------------------------------------------------------

    def _decoding_step(self, base: str) -> float:
        return CORE_STEP if self.tiny(base) else self.weights(base) / READ_RATE + STEP_OVERHEAD

    def _scoring(self, base: str, benchmark: str) -> float:
        """Seconds to read the prompts of a benchmark and to decode its answers, batch by batch."""
        return answering_seconds(self._questions(benchmark), self.parameters(base), rate=self._rate(base), step=self._decoding_step(base))

    def _questions(self, benchmark: str) -> Questions:
        return questions(self.plan.preset, benchmark)

    def merging(self, base: str, method: str) -> float:
        """Seconds of one direction: all inputs are read; solvers work several times as long; calibration rows may pass the models."""
        solver = 5 if "gram" in declared()[method].statistics else 1
        walks = 2 if declared()[method].control else 1  # norms must be known before a random direction is written
        streaming = walks * solver * (len(self.plan.domains) + 2) * self.weights(base) / STREAM_RATE
        if method not in self.plan.calibrated:
            return streaming
        need = self._propagation(base, method)
        link = 0 if self.tiny(base) else need.copied / LINK_RATE
        return streaming + need.flops / self._rate(base, FLOAT_RATE) + need.streamed / STREAM_RATE + link

    def _largest(self, base: str) -> float:
        """Bytes of the largest tensor in float32; in a tiny twin, of all."""
        return 4 * self.parameters(base) * (1 if self.tiny(base) else LARGEST)

    def _engine(self, base: str) -> float:
        """Host memory of the merge engine: one parameter of every model in float32, and two results."""
        return (len(self.plan.domains) + 3) * self._largest(base)

    def _evaluated(self, base: str) -> float:
        return self.parameters(base) * (4 if self.plan.preset.evaluation.dtype == "float32" else 2)


def answering_seconds(asked: Questions, parameters: int, *, rate: float = MATRIX_RATE, step: float | None = None) -> float:
    """Seconds to read prompts and to decode answers as long as their limit, batch by batch.

    Args:
        asked: the questions.
        parameters: of the model, in bfloat16 on the reference GPU by default.
        rate: FLOP/s.
        step: seconds of one decoding step of a batch.
    """
    step = 2 * parameters / READ_RATE + STEP_OVERHEAD if step is None else step
    batches = math.ceil(asked.answers / max(1, BATCH_TOKENS // (asked.prompt + asked.limit)))  # each decodes until its longest answer ends
    return 2 * parameters * (asked.read + asked.most) / rate + batches * asked.limit * step


def judging_seconds(plan: Plan, asked: Iterable[Questions]) -> float:
    """Seconds in which the preset's judge labels the answers, in an engine that fills places as they come free; 0 without a model."""
    if plan.judge is None:
        return 0.0
    asked = list(asked)
    read = sum(found.rows * found.prompt + found.expected for found in asked)
    labels = LABEL_TOKENS * sum(found.answers for found in asked)
    weights = 2 * judge_parameters(plan)
    step = weights / READ_RATE + STEP_OVERHEAD
    return weights * (read + labels) / MATRIX_RATE + labels * step / SEQUENCES


def engine_seconds(asked: Questions, parameters: int) -> float:
    """Seconds of an engine that fills places in its batch as answers end (vLLM), on the reference GPU; answers of usual length."""
    step = 2 * parameters / READ_RATE + STEP_OVERHEAD
    return 2 * parameters * (asked.read_shared + asked.expected) / MATRIX_RATE + asked.expected * step / SEQUENCES


def _kept(counts: dict[str, int]) -> int:
    """Rows of a part that its filter leaves: as counted, or the records without those that are known to be dropped."""
    if "kept" in counts:
        return counts["kept"]
    return counts["records"] - sum(number for name, number in counts.items() if name != "records" and not name.startswith("kept"))


# Which wildcards an estimate depends on.
RELEVANT: dict[str, frozenset[str]] = {
    stage: frozenset(names)
    for stage, names in {
        "fetch_base": ["base"],
        "prepare": ["dataset", "training_set"],
        "decontaminate": ["training_set"],
        "tokenise": ["key", "training_set"],
        "import": ["base"],
        "train": ["base", "model"],
        "vectors": ["base"],
        "interference": ["base"],
        "statistics": ["base", "kind"],
        "tune": ["base", "method"],
        "tune_base": ["base"],
        "merge": ["base", "method"],
        "evaluate": ["base", "model", "group"],
        "fetch_judge": ["judge"],
        "judge": ["group"],
        "settle": ["group"],
        "official": [],
        "drop": [],
        "admit": [],
        "analyse": [],
        "report": [],
        "all": [],
    }.items()
}
