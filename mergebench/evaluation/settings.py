"""How one benchmark is scored: the task's defaults and what a preset changes."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mergebench import catalogue
from mergebench.errors import MergebenchError, nearest

TASKS = Path(__file__).resolve().parent / "tasks"
PROTOCOLS = ("paper", "released", "corrected")


@dataclass(frozen=True)
class BenchmarkSetting:
    """Settings of one benchmark; ``None`` keeps the default of its task file.

    Attributes:
        benchmark: name in the catalogue.
        protocol: ``corrected``, ``paper`` (what the paper prints, and our assumption where it prints nothing) or ``released`` (what
            the authors' scripts do). They differ only where the task file's ``protocols`` say so.
        shots: worked examples before the question; they come from the task file, or from the data set's ``examples.jsonl``.
        formulation: multiple choice by letter (``mcf``) or by the text of the choice (``cloze``); has no effect on
            benchmarks that know one form only.
        apply_chat_template: whether prompts go through the tokenizer's chat template.
        limit: score this many rows, spread evenly over groups such as languages.
        max_tokens: upper limit of generated tokens.
        samples: generations per prompt (more than one needs a temperature above 0).
        temperature: 0 is greedy.
        top_p: nucleus of the sampled generations.
        timeout_seconds: wall seconds that one model-written program may run.
        judge: who labels answers to safety prompts.
        allow_weak_sandbox: run model-written programs even where neither network nor files can be shut off.
    """

    benchmark: str
    protocol: Literal["paper", "released", "corrected"] = "corrected"
    shots: int | None = None
    formulation: Literal["mcf", "cloze"] = "mcf"
    apply_chat_template: bool = False
    limit: int | None = None
    max_tokens: int | None = None
    samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    timeout_seconds: float | None = None
    judge: str = "keyword"
    allow_weak_sandbox: bool = False

    def __post_init__(self) -> None:
        known = catalogue.benchmarks()
        if self.benchmark not in known:
            raise MergebenchError(f"benchmark {self.benchmark!r} is not known; {nearest(self.benchmark, list(known))}.")
        if self.formulation not in ("mcf", "cloze"):
            raise MergebenchError(f"{self.benchmark}: formulation is {self.formulation!r}; allowed: mcf, cloze.")
        if self.protocol not in PROTOCOLS:
            raise MergebenchError(f"{self.benchmark}: protocol is {self.protocol!r}; allowed: {', '.join(PROTOCOLS)}.")
        if self.protocol == "released" and self.apply_chat_template:
            raise MergebenchError(
                f"{self.benchmark}: protocol released sends the prompts of the authors' scripts, which use no chat template; "
                "set apply_chat_template to false, or take protocol corrected."
            )
        for name, least in (("shots", 0), ("limit", 1), ("max_tokens", 1), ("samples", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise MergebenchError(f"{self.benchmark}: {name} is {value}; it must be at least {least}.")
        if (self.samples or 1) > 1 and self.temperature == 0:
            raise MergebenchError(f"{self.benchmark}: {self.samples} samples at temperature 0 are all the same; raise one.")

    @classmethod
    def parse(cls, benchmark: str, values: dict[str, Any]) -> "BenchmarkSetting":
        """From the fields of a job's spec; an unknown field is an error that names the nearest known one."""
        known = [f.name for f in fields(cls) if f.name != "benchmark"]
        for name in values:
            if name not in known:
                raise MergebenchError(f"benchmark {benchmark}: {name!r} is not a setting; {nearest(name, known)}.")
        return cls(benchmark, **values)

    @property
    def task_file(self) -> Path:
        """The lm-eval task of the benchmark."""
        return TASKS / f"{self.benchmark}.yaml"

    @property
    def entry(self) -> dict[str, Any]:
        """The benchmark's entry in the catalogue."""
        return catalogue.benchmarks()[self.benchmark]

    def as_dict(self) -> dict[str, Any]:
        """All fields but the name, for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "benchmark"}
