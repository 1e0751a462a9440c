"""The typed configuration: one source for validation, defaults, the JSON schema and the error messages."""

import contextlib
import json
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mergebench import catalogue
from mergebench.catalogue.additions import Additions
from mergebench.errors import MergebenchError, nearest
from mergebench.merging.declarations import declared
from mergebench.merging.statistics.settings import Execution, FisherSettings, GramSettings, MaskSettings, RegmeanPlusPlusSettings
from mergebench.training import specialists as imports
from mergebench.training.mixture import Mixture
from mergebench.training.recipes import Recipe
from mergebench.training.settings import GrpoSettings, SftSettings

SCOPES = ("all", "no-embeddings", "backbone")
PATTERN = "regex:"
Source = Literal["hub", "local", "tiny"]
Size = Literal["tiny", "small", "large"]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A map of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Data(Section):
    """Where rows come from (`source`, and per dataset in `sources`) and how many are used."""

    source: Source = "hub"
    sources: dict[str, Source] = {}
    root: str | None = Field(None, description="folder with the datasets' files as their authors publish them, for source local")
    limit: Positive | None = Field(None, description="score at most this many rows per benchmark; null: all")
    limits: dict[str, Positive] = Field({}, description="the same for single benchmarks and surrogates")
    calibration_rows: Positive = Field(1000, description="training rows set aside per domain for Fisher, RegMean and Localize-and-Stitch")
    rows: Positive = Field(1000, description="training rows that the tiny source generates per domain")
    filters: dict[str, str] = Field({}, description="training set -> the named filter of its records; default: the catalogue's first")
    decontaminate: Literal["none", "report", "remove"] = Field(
        "report", description="training rows that share text with a benchmark: not looked for, reported, or left out"
    )
    ngram: Annotated[int, Field(ge=2)] = Field(13, description="words in a row that count as shared text")


class Multitask(Section):
    """The multitask baseline: the same training on the mixture of all domains."""

    mixture: Mixture = "proportional"
    steps: dict[Size, Positive] = Field({}, description="optimiser steps by size class; default: as for a specialist")


class Reinforcement(Section):
    """GRPO on top of the supervised mathematics specialist, for the bases named here."""

    bases: list[str]
    supervised_steps: Positive | None = Field(
        None, description="optimiser steps of the supervised stage before it; null: as for a specialist"
    )
    settings: GrpoSettings


class Training(Section):
    recipe: Recipe = Field("paper", description="settings of SFT as configured, or those of the authors' released file")
    specialists: imports.Setting = Field("train", description="train, hub (the published ones), or a list or map: some imported")
    supervised: dict[Size, SftSettings]
    multitask: Multitask | None = Multitask()
    grpo: Reinforcement | None = None


class MethodConfig(Section):
    """One merging method: the grid tuned on the surrogates, and fixed parameters."""

    grid: dict[str, list[float]] = {}
    parameters: dict[str, Any] = {}


class ControlConfig(Section):
    """One merge that methods are compared with."""

    seeds: Positive = Field(1, description="how many are drawn, from `seed` on")


class Merging(Section):
    scope: str = Field("all", description="all | no-embeddings | backbone | regex:PATTERN over tensor names")
    vocabulary: Literal["refuse", "base"] = Field("refuse", description="embedding rows that the base lacks: an error, or dropped")
    methods: dict[str, MethodConfig]
    controls: dict[str, ControlConfig] = Field({}, description="merges that are no methods, scored beside them: random_direction")


class StatisticsExecution(Execution):
    """How statistics are computed, which does not change them: no change here makes one again."""

    gpus: Positive = Field(1, description="GPUs of a job, which share its rows; on machines with GPUs")


class Statistics(Section):
    execution: StatisticsExecution = StatisticsExecution()
    fisher: FisherSettings = FisherSettings()
    gram: GramSettings = GramSettings()
    mask: MaskSettings = MaskSettings()
    regmean_plus_plus: RegmeanPlusPlusSettings = RegmeanPlusPlusSettings()


class BenchmarkOverride(Section):
    """Settings of one benchmark that differ from the catalogue."""

    shots: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    samples: Positive | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] | None = Field(None, description="wall seconds of one model-written program")


class Evaluation(Section):
    in_domain: list[str]
    forgetting: list[str]
    surrogates: list[str]
    protocol: Literal["corrected", "paper", "released"] = Field(
        "corrected", description="whose prompts, settings and scoring, where they differ"
    )
    jobs: Literal["length", "model", "domain", "benchmark"] = Field("length", description="which benchmarks share one process")
    backend: Literal["transformers", "vllm"] = "transformers"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    formulation: Literal["mcf", "cloze"] = Field("mcf", description="multiple choice by letter, or by the text of the choice")
    apply_chat_template: bool = False
    max_tokens: Positive | None = Field(None, description="upper limit on generated tokens for every benchmark")
    max_length: Positive | None = Field(None, description="tokens of a prompt and its answer together; null: as many as the model can read")
    shots: Annotated[int, Field(ge=0)] | None = Field(None, description="examples in the prompt of every benchmark; null: as published")
    judge: Literal["keyword", "wildguard", "harmbench", "harmbench-mistral"] = "wildguard"
    judging: Literal["base", "model"] = Field("base", description="whether the models of a base share one process of the judge")
    judge_parse_errors: Fraction = Field(0.1, description="stop where more of the judge's answers than this share cannot be read")
    most_cut: Fraction = Field(0.5, description="refuse a benchmark if more than this share of its prompts is too long for the model")
    allow_weak_sandbox: bool = False
    benchmarks: dict[str, BenchmarkOverride] = {}


class Halving(Section):
    """Successive halving over blocks of items."""

    blocks: Annotated[int, Field(ge=2)] = Field(8, description="into which the items of every surrogate are dealt")
    keep: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="share of the candidates that stay after a block")
    confidence: Annotated[float, Field(ge=0)] = Field(
        2.0, description="those stay too whose paired difference from the leader is within this many standard errors"
    )


class TuningBudget(Section):
    """What the search of every method may spend."""

    evaluations: Annotated[float, Field(gt=0)] | None = Field(None, description="candidates scored on all items, each seed counted")
    gpu_minutes: Annotated[float, Field(gt=0)] | None = Field(None, description="wall minutes times GPUs; on a CPU minutes")

    @model_validator(mode="after")
    def _one_limit(self) -> "TuningBudget":
        if self.evaluations is None and self.gpu_minutes is None:
            raise ValueError("evaluations: is null, and so is gpu_minutes; give one of them, or leave the budget out")
        return self


class Tuning(Section):
    """How the grids are searched on the surrogates."""

    search: Literal["grid", "halving", "golden"] = Field(
        "grid", description="every candidate, successive halving, or golden section along the scale"
    )
    backend: Literal["transformers", "vllm"] | None = Field(None, description="holds the live model; null: as evaluation.backend")
    fused: bool = Field(False, description="one job and one engine start for all methods of a base")
    seeds: Positive = Field(1, description="with which methods that draw random numbers are tuned, merged and scored, from `seed` on")
    halving: Halving = Halving()
    budget: TuningBudget | None = Field(None, description="the same for every method; null: no limit")


class Storage(Section):
    """Space on disk."""

    budget_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="refuse a run whose peak is above this; null: no limit")
    keep_merged: bool = Field(True, description="false: drop the weights of a merged model after it has been asked everything")


Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(Section):
    """What a site asks for its machines. The defaults are assumptions, not anybody's price list."""

    gpu_hour: Price = Field(2.0, description="of one GPU for an hour")
    cpu_hour: Price = Field(0.04, description="of an hour of CPU time")
    kwh: Price | None = Field(None, description="of a measured kilowatt-hour, on top; null: in the hours")
    currency: Annotated[str, Field(pattern=r"^\S{1,8}$")] = "USD"


class Analysis(Section):
    """What tables and figures reckon with."""

    prices: Prices = Prices()


class Preset(Section):
    """One complete campaign."""

    bases: Annotated[list[str], Field(min_length=1)]
    domains: Annotated[list[str], Field(min_length=2)]
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data
    training: Training
    merging: Merging
    statistics: Statistics = Statistics()
    evaluation: Evaluation
    tuning: Tuning = Tuning()
    storage: Storage = Storage()
    analysis: Analysis = Analysis()

    @model_validator(mode="after")
    def _names(self) -> "Preset":
        domains = catalogue.domains()
        check_names("domains", self.domains, domains)
        check_names("bases", self.bases, catalogue.bases())
        if self.domains != [d for d in domains if d in self.domains]:
            raise ValueError(f"domains: write them in the paper's order, {', '.join(d for d in domains if d in self.domains)}")
        if self.evaluation.protocol == "released" and self.evaluation.apply_chat_template:
            raise ValueError(
                "evaluation.apply_chat_template: is true, but protocol released sends prompts without template; set it to false"
            )
        entries = self._benchmarks()
        for key, role in (("in_domain", "in_domain"), ("forgetting", "forgetting"), ("surrogates", "surrogate")):
            check_names(f"evaluation.{key}", getattr(self.evaluation, key), {n: e for n, e in entries.items() if e["role"] == role})
        check_names("evaluation.benchmarks", list(self.evaluation.benchmarks), entries)
        check_names("data.sources", list(self.data.sources), catalogue.datasets())
        check_names("data.limits", list(self.data.limits), entries)
        for dataset, chosen in self.data.filters.items():
            check_names("data.filters", [dataset], {n: e for n, e in catalogue.datasets().items() if e.get("filters")})
            check_names(f"data.filters.{dataset}", [chosen], dict.fromkeys(catalogue.datasets()[dataset]["filters"]))
        for kind, names in (("in-domain benchmark", self.evaluation.in_domain), ("surrogate", self.evaluation.surrogates)):
            covered = [entries[name]["domain"] for name in names]
            lacking = [d for d in self.domains if d not in covered]
            if lacking:
                raise ValueError(f"evaluation: domain {lacking[0]} has no {kind}; add one, or take the domain out of `domains`")
        judge = self.evaluation.judge
        if "xstest" in self.evaluation.in_domain and judge in catalogue.judges() and "refusal" not in catalogue.judges()[judge]["labels"]:
            raise ValueError(
                f"evaluation.judge: {judge} labels harm alone, and xstest is about refusals; take wildguard, or leave xstest out"
            )
        if self.training.grpo:
            check_names("training.grpo.bases", self.training.grpo.bases, {b: {} for b in self.bases})
            if "math" not in self.domains:
                raise ValueError("training.grpo: needs the domain math")
        try:
            imports.sources(self.training.specialists, self.bases, self.domains)
        except ValueError as error:
            raise ValueError(f"training.specialists: {error}") from None
        for base in self.bases:
            size = catalogue.bases()[base]["size"]
            if size not in self.training.supervised:
                raise ValueError(f"training.supervised: has no settings for size {size!r}, which base {base} needs")
        if self.data.root is None and "local" in (self.data.source, *self.data.sources.values()):
            raise ValueError("data.root: is null, but source local needs the folder with the datasets' files")
        scope = self.merging.scope
        if scope not in SCOPES and not scope.startswith(PATTERN):
            raise ValueError(f"merging.scope: {scope!r} is not known; {nearest(scope, [*SCOPES, PATTERN + 'PATTERN'])}")
        self._methods()
        return self

    def _benchmarks(self) -> dict[str, dict[str, Any]]:
        """Benchmarks as this preset sees them: those that an added domain claims keep their own where it does not take part."""
        shipped = catalogue.shipped("benchmarks")
        return {n: e if e["domain"] in self.domains else shipped[n] for n, e in catalogue.benchmarks().items()}

    def _methods(self) -> None:
        known = {name: each for name, each in declared().items() if not each.control}
        controls = {name: each for name, each in declared().items() if each.control}
        for name in self.merging.methods:
            if name in controls:
                raise ValueError(f"merging.methods: {name} is a control, not a method; write it under merging.controls")
        check_names("merging.controls", list(self.merging.controls), controls)
        check_names("merging.methods", list(self.merging.methods), known)
        for name, method in self.merging.methods.items():
            parameters = known[name].grid_parameters
            check_names(f"merging.methods.{name}.grid", list(method.grid), parameters)
            check_names(f"merging.methods.{name}.parameters", list(method.parameters), dict.fromkeys(known[name].parameters))
            for parameter, values in method.grid.items():
                low, high = parameters[parameter]
                for value in values:
                    if not low <= value <= high:
                        raise ValueError(f"merging.methods.{name}.grid.{parameter}: {value:g} is outside [{low:g}, {high:g}]")
                if len(set(values)) != len(values) or not values:
                    raise ValueError(f"merging.methods.{name}.grid.{parameter}: {values} is empty or names a value twice")


class Configuration(Section):
    """``config.yaml``: named presets and the one that is run."""

    preset: str = "paper"
    results: str = Field("results", description="folder of all outputs; each preset has its own below it")
    catalogue: Additions = Field(Additions(), description="bases and domains beyond those of mergebench/catalogue")
    presets: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")], Preset]

    @model_validator(mode="before")
    @classmethod
    def _extend(cls, raw: Any) -> Any:
        """Let the catalogue have the additions before presets are checked against it."""
        given = raw.get("catalogue", {}) if isinstance(raw, dict) else {}
        catalogue.extend({})
        with contextlib.suppress(ValidationError):  # reported, with its place, when the field itself is checked
            catalogue.extend((given if isinstance(given, Additions) else Additions.model_validate(given or {})).entries())
        return raw

    @model_validator(mode="after")
    def _preset(self) -> "Configuration":
        check_names("preset", [self.preset], {p: {} for p in self.presets})
        catalogue.extend(self.catalogue.entries(self.selected.domains))
        return self

    @property
    def selected(self) -> Preset:
        """The preset that is run."""
        return self.presets[self.preset]


def check_names(where: str, names: list[str], known: typing.Mapping[str, Any]) -> None:
    """Refuse unknown and repeated names; the error names the nearest valid one."""
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is not known; {nearest(name, list(known))}")
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise ValueError(f"{where}: {twice!r} is named twice")


def parse(raw: dict[str, Any]) -> Configuration:
    """Validate a configuration as read from YAML; `MergebenchError` names key, value, and what is allowed."""
    try:
        return Configuration.model_validate(_numbers(raw))
    except ValidationError as error:
        raise MergebenchError(explain(error)) from None


def load(path: Path, **overrides: Any) -> Configuration:
    """Read and validate a configuration file; keyword arguments replace top-level keys."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MergebenchError(f"{path} does not exist; run this in the folder that has config.yaml.") from None
    except yaml.YAMLError as error:
        raise MergebenchError(f"{path} is not valid YAML: {error}".replace("\n", " ")) from None
    return parse({**raw, **overrides})


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-5`` as text; turn such text into the number that its writer meant."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    if isinstance(value, str) and "e" in value.lower() and value[:1].isdigit():
        try:
            return float(value)
        except ValueError:
            return value
    return value


def explain(error: ValidationError) -> str:
    """The first problem of a validation as one sentence."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the configuration"
    found = json.dumps(problem["input"], default=str)
    found = found if len(found) <= 80 else f"{found[:77]}..."
    kind = problem["type"]
    if kind == "extra_forbidden":
        return f"config: {where} is not a key; {nearest(str(problem['loc'][-1]), _keys(problem['loc'][:-1]))}."
    if kind == "missing":
        return f"config: {where} is missing; add it."
    if kind == "value_error":
        prefix = f"{where}." if problem["loc"] else ""
        return f"config: {prefix}{problem['ctx']['error']}."
    if kind == "literal_error":
        valid = [part.strip().strip("'") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"config: {where} is {found}; {nearest(str(problem['input']), valid)}."
    return f"config: {where} is {found}; {problem['msg'][0].lower()}{problem['msg'][1:]}."


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `location` may have."""
    kind: Any = Configuration
    for part in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        options = [a for a in typing.get_args(kind) if isinstance(a, type) and issubclass(a, BaseModel)]
        if typing.get_origin(kind) is not dict and options:
            kind = options[0]
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of ``config.yaml``, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Configuration.model_json_schema()}
