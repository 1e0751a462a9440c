"""The campaign as plain Python: which models, scores and tables exist, and the spec of every job.

No Snakemake and no torch here: every job parses the Snakefile and with it this module. The rules turn it into jobs.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.analysis.outputs import FIGURES, REPORT_FORMATS, TABLES
from mergebench.artifacts import sha256_json
from mergebench.config import Configuration
from mergebench.errors import MergebenchError
from mergebench.fingerprint import ROOT, fingerprint
from mergebench.merging.declarations import declared
from mergebench.report.outputs import FILENAMES as REPORT
from mergebench.tiny.shipped import shipped
from mergebench.training import recipes, specialists
from mergebench.training.tokens_key import tokens_key
from mergebench.workflow.questions import REFERENCE, names_of, questions, similar
from mergebench.workflow.task_files import aggregate, deferred

# The module whose `run` executes a stage; its import closure is the code that makes the stage's outputs stale.
MODULES = {
    "fetch_base": "mergebench.checkpoints.fetch",
    "prepare": "mergebench.data.prepare",
    "decontaminate": "mergebench.data.decontamination.run",
    "tokenise": "mergebench.training.shards.run",
    "import": "mergebench.training.imports.run",
    "train": "mergebench.training.run",
    "vectors": "mergebench.vectors.run",
    "interference": "mergebench.vectors.interference",
    "statistics": "mergebench.merging.statistics.run",
    "tune": "mergebench.tuning.run",
    "tune_base": "mergebench.tuning.fused",
    "merge": "mergebench.merging.run",
    "evaluate": "mergebench.evaluation.run",
    "fetch_judge": "mergebench.checkpoints.fetch",
    "judge": "mergebench.evaluation.safety.run",
    "settle": "mergebench.evaluation.settle",
    "official": "mergebench.evaluation.official.run",
    "drop": "mergebench.storage.drop",
    "analyse": "mergebench.analysis.run",
    "report": "mergebench.report.run",
}
# What a stage reads of the package besides modules.
FILES = {
    "train": ("training/deepspeed/zero2.json", "training/deepspeed/zero3.json"),
    "analyse": (
        "catalogue/published/settings.yaml",
        "catalogue/published/table7_multitask_normalised_percent.csv",
        "catalogue/published/table8_generalisation_percent_of_base.csv",
    ),
    "report": (
        *("report/page.html.jinja", "report/style.css", "report/script.js"),
        *(f"../rules/captions/{path.name}" for path in sorted((ROOT.parent / "rules/captions").glob("*.rst"))),
    ),
}
# Keys of a preset that lay out jobs and change no result: who changes them needs no new report.
LAYOUT: dict[str, Any] = {"evaluation": {"jobs", "judging"}, "statistics": {"execution"}, "storage": True, "tuning": {"fused"}}
# What Snakemake's report calls a section that has the name of one of its own pages.
CATEGORIES = {"Statistics": "Intervals and tests", "Workflow": "The workflow"}
PROFILES = {"paper": "--profile profiles/slurm", "tiny": "--profile profiles/tiny"}  # those of the others take any preset
GRPO_DATA = "train_math_grpo"
APART = "_apart"  # ends the names of rules for scores that were asked for alone
SETTLED = ("judge", "allow_weak_sandbox", "timeout_seconds")  # settings that decide a score, but no answer
LINEAGE = ("family", "size", "parameters", "instruction_tuned")  # what the paper's claims tell bases apart by
SPECTRUM = "spectrum"  # as `analysis.costs` calls what the vectors stage measures
SEARCHED = ("search.parquet", "outcomes.parquet", "curve.parquet", "best.yaml")  # what the search of a method leaves


@dataclass(frozen=True)
class Group:
    """Benchmarks that one evaluation process scores, for the models named."""

    name: str
    benchmarks: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class Merge:
    """A merged model of a base: a method or a control, with a seed."""

    method: str
    seed: int


@dataclass(frozen=True)
class Settled:
    """Benchmarks whose answers one job settles: of one model, or, where `together`, of all these models of a base."""

    name: str
    kind: str  # code or safety
    benchmarks: tuple[str, ...]
    models: tuple[str, ...]
    together: bool

    @property
    def judge_rule(self) -> str:
        """The rule that labels these answers."""
        return f"judge{self.name.removeprefix('safety')}"

    def covers(self, model: str) -> tuple[str, ...]:
        """The models that the job of `model` settles."""
        return self.models if self.together else (model,)


@dataclass(frozen=True)
class Reported:
    """A table or figure in one format: path, caption file, and its place in the report."""

    path: str
    caption: str
    category: str
    labels: dict[str, str]

    @property
    def shown(self) -> bool:
        """Whether Snakemake's report holds it; formats for print would only repeat the others there."""
        return self.labels["format"] in REPORT_FORMATS


@dataclass(frozen=True)
class Tokens:
    """How a base wants training rows: bases that agree share them.

    Attributes:
        key: the folder of all of them.
        base: the base whose tokenizer makes them.
        spec: what decides them besides the training set.
    """

    key: str
    base: str
    spec: dict[str, Any]


def pairs(found: Iterable[tuple[str, str]]) -> str:
    """A regular expression for the wildcard `base` that matches where it stands before exactly one of these models."""
    return "|".join(f"{re.escape(base)}(?=/{re.escape(model)}[/.])" for base, model in found) or "(?!)"


def alternatives(names: Iterable[str]) -> str:
    """A regular expression that matches exactly these names (nothing, if there are none)."""
    return "|".join(map(re.escape, names)) or "(?!)"


class Plan:
    """Names, paths and specs of everything that the selected preset makes."""

    def __init__(self, configuration: Configuration, apart: Iterable[tuple[str, str]] = (), *, searches_apart: bool = False) -> None:
        """Plan the selected preset.

        Args:
            configuration: validated.
            apart: models and benchmarks that get jobs of their own in this run, because a user asked for these scores alone.
            searches_apart: whether every method is tuned in a job of its own even where `tuning.fused` says otherwise, because a
                user asked for searches alone.
        """
        self.configuration = configuration
        self.apart = frozenset(apart)
        self.searches_apart = searches_apart
        self.name = configuration.preset
        self.preset = configuration.selected
        self.results = f"{configuration.results}/{self.name}"
        self.bases = list(self.preset.bases)
        self.domains = list(self.preset.domains)
        self.methods = list(self.preset.merging.methods)
        self.controls = list(self.preset.merging.controls)
        self._evaluations: dict[tuple[str, ...], dict[str, Any]] = {}

    def check_data(self) -> None:
        """Refuse, before planning, a folder of data or of a specialist that is not there.

        Raises:
            MergebenchError: a dataset comes from local files, and `data.root` names no folder; or an imported specialist has none.
        """
        data = self.preset.data
        if any(data.sources.get(d, data.source) == "local" for d in (*self.benchmark_datasets, *self.training_sets)):
            self._root()
        for (base, model), source in self.imports.items():
            if source.path is not None and not Path(source.path).is_dir():
                raise MergebenchError(f"config: training.specialists: {source.path}, for {base}/{model}, is not a folder; correct it.")

    # -- names ---------------------------------------------------------------------------------------------

    @cached_property
    def tuned(self) -> list[str]:
        """Methods whose grid is searched on the surrogates."""
        return [m for m in self.methods if self.preset.merging.methods[m].grid]

    @cached_property
    def merged(self) -> dict[str, Merge]:
        """The merged models of one base, by what follows `merged_` in their names: the methods, then their other seeds, then controls.

        The model of a method's first seed, which is `seed`, has the method's name; that of another seed, say 1, is `<method>-seed1`.
        """
        first = self.preset.seed
        named = {m: Merge(m, first) for m in self.methods}
        named |= {f"{m}-seed{k}": Merge(m, k) for m in self.methods for k in self.seeds(m)[1:]}
        for m in self.controls:
            named |= {m if k == first else f"{m}-seed{k}": Merge(m, k) for k in self.seeds(m)}
        return named

    def seeds(self, method: str) -> list[int]:
        """The seeds with which a method or a control is merged and scored."""
        controls = self.preset.merging.controls
        count = controls[method].seeds if method in controls else self.search_seeds(method)
        return [self.preset.seed + number for number in range(count)]

    @cached_property
    def seeded(self) -> dict[str, dict[str, int]]:
        """The models and their seeds of every method and control that draws random numbers, in the order of the seeds."""
        drawn = [m for m in (*self.methods, *self.controls) if declared()[m].random]
        return {m: {f"merged_{n}": found.seed for n, found in self.merged.items() if found.method == m} for m in drawn}

    @property
    def fused(self) -> bool:
        """Whether one job tunes all methods of a base."""
        return self.preset.tuning.fused and bool(self.tuned) and not self.searches_apart

    @cached_property
    def statistics_kinds(self) -> list[str]:
        """Kinds of calibration statistics that the methods need."""
        return sorted({kind for m in (*self.methods, *self.controls) for kind in declared()[m].statistics})

    @cached_property
    def calibrated(self) -> list[str]:
        """Methods that pass calibration rows through the models themselves."""
        return [m for m in self.methods if declared()[m].calibration]

    @cached_property
    def grpo_bases(self) -> list[str]:
        """Bases whose mathematics specialist is trained further with GRPO; an imported one is taken as it is."""
        wanted = self.preset.training.grpo.bases if self.preset.training.grpo else []
        return [base for base in wanted if (base, "specialist_math") not in self.imports]

    @cached_property
    def imports(self) -> dict[tuple[str, str], specialists.Source]:
        """The specialists that are imported, by base and model."""
        found = specialists.sources(self.preset.training.specialists, self.bases, self.domains)
        return {(base, f"specialist_{domain}"): source for (base, domain), source in found.items()}

    @cached_property
    def supervised(self) -> list[tuple[str, str]]:
        """Base and model of every specialist that supervised training makes."""
        named = {b: ["sft_math" if m == "specialist_math" and b in self.grpo_bases else m for m in self.specialists] for b in self.bases}
        return [(base, model) for base in self.bases for model in named[base] if (base, model) not in self.imports]

    @cached_property
    def specialists(self) -> list[str]:
        """The specialists of one base, in domain order."""
        return [f"specialist_{d}" for d in self.domains]

    @cached_property
    def general_models(self) -> list[str]:
        """Models of one base that are scored on everything: base, multitask model and merged models."""
        multitask = ["multitask"] if self.preset.training.multitask else []
        return ["base", *multitask, *(f"merged_{m}" for m in self.merged)]

    @cached_property
    def in_domain(self) -> list[str]:
        """Benchmarks of the domains that take part."""
        entries = catalogue.benchmarks()
        return [b for b in self.preset.evaluation.in_domain if entries[b]["domain"] in self.domains]

    @cached_property
    def surrogates(self) -> dict[str, list[str]]:
        """Surrogate tasks by domain."""
        entries = catalogue.benchmarks()
        return {d: [s for s in self.preset.evaluation.surrogates if entries[s]["domain"] == d] for d in self.domains}

    @cached_property
    def warnings(self) -> list[str]:
        """Sentences without which nothing that this campaign makes may be read: surrogates that are a benchmark's test set."""
        entries = catalogue.datasets()
        names = [s for group in self.surrogates.values() for s in group if self.tuned and self._dataset(s) != entries[s]]
        titles = {name: entries[entries[name]["released"]]["title"] for name in names}
        return [
            f"methods were tuned on a test set. Under protocol released the surrogate {name} is {title} itself, so scores on it, and every "
            "mean over them, are not honest."
            for name, title in titles.items()
        ]

    @cached_property
    def benchmark_datasets(self) -> list[str]:
        """Datasets that hold the rows of benchmarks and surrogates."""
        return [*self.in_domain, *self.preset.evaluation.forgetting, *(s for names in self.surrogates.values() for s in names)]

    @cached_property
    def training_sets(self) -> list[str]:
        """Datasets to train on or to calibrate with, one per domain, and one for GRPO where it is used."""
        everything = self.preset.training.multitask or self.statistics_kinds or self.calibrated
        needed = self.domains if everything else self.trained_domains
        return [f"train_{d}" for d in needed] + ([GRPO_DATA] if self.grpo_bases else [])

    @cached_property
    def trained_domains(self) -> list[str]:
        """Domains for which some base trains a model."""
        if self.preset.training.multitask:
            return self.domains
        return [d for d in self.domains if any(d in self.training_domains(model) for _, model in self.supervised)]

    @cached_property
    def decontaminated(self) -> list[str]:
        """Training sets that are compared with the benchmarks."""
        return [] if self.preset.data.decontaminate == "none" else self.training_sets

    def tokens(self, base: str) -> Tokens:
        """How a base wants training rows: its tokenizer, template and length."""
        settings = self.supervision(base, "specialist")
        entry = catalogue.bases()[base]
        name = entry.get("tokenizer") or base
        key = tokens_key(name, settings["template"], settings["max_length"])
        return Tokens(
            key,
            base,
            {
                "tokenizer": name,
                "template": settings["template"],
                "max_length": settings["max_length"],
                "batch_size": settings["batch_size"],
                "instruction_tuned": entry["instruction_tuned"],
            },
        )

    @cached_property
    def tokenised(self) -> dict[tuple[str, str], Tokens]:
        """What is tokenised, by key and training set; the first base of a key makes it."""
        made: dict[tuple[str, str], Tokens] = {}
        for base, model in [*self.supervised, *((b, "multitask") for b in self.bases if self.preset.training.multitask)]:
            tokens = self.tokens(base)
            for domain in self.training_domains(model):
                made.setdefault((tokens.key, f"train_{domain}"), tokens)
        return made

    def token_maker(self, key: str) -> str:
        """The base whose tokenizer makes the tokens of a key."""
        return next(tokens.base for (other, _), tokens in self.tokenised.items() if other == key)

    @cached_property
    def groups(self) -> list[Group]:
        """How benchmarks share processes (`evaluation.jobs`)."""
        apart = []
        for group in self._groups:
            models, benchmarks = self._apart(group.models, group.benchmarks)
            if benchmarks and len(benchmarks) < len(group.benchmarks):
                apart.append(Group(f"{group.name}{APART}", benchmarks, models))
        return [*self._groups, *apart]

    def _apart(self, models: Sequence[str], benchmarks: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Those of these models and benchmarks that a user has asked for alone."""
        asked = [(model, benchmark) for model, benchmark in self.apart if model in models and benchmark in benchmarks]
        return tuple(m for m in models if m in {a[0] for a in asked}), tuple(b for b in benchmarks if b in {a[1] for a in asked})

    @cached_property
    def preferred(self) -> list[tuple[str, str]]:
        """Pairs of rules that make the same files; the first one shall."""
        names = [f"evaluate_{g.name}" for g in self.groups]
        for chosen in self.settled:
            names += [f"settle_{chosen.name}", *([chosen.judge_rule] if chosen.kind == "safety" else [])]
        return [(name, name.removesuffix(APART)) for name in names if name.endswith(APART)]

    @cached_property
    def _groups(self) -> list[Group]:
        general, specialists = tuple(self.general_models), tuple(self.specialists)
        every = general + specialists
        forgetting = tuple(self.preset.evaluation.forgetting)
        surrogates = tuple(s for names in self.surrogates.values() for s in names)
        entries = catalogue.benchmarks()
        jobs = self.preset.evaluation.jobs
        if jobs == "length":
            # Surrogates apart: the tuning of every method waits for them.
            sets = {"general": ((*self.in_domain, *forgetting), general), "specialist": (self.in_domain, specialists)}
            found = []
            for name, (benchmarks, models) in {**sets, "surrogates": (surrogates, None)}.items():
                parts = similar({b: self.reference_seconds(b) for b in benchmarks})
                named = zip(names_of(parts, name), parts, strict=True)
                found += [Group(n, tuple(part), self.compared_on(part) if models is None else models) for n, part in named]
            return found
        if jobs == "model":
            return [
                Group("general", (*self.in_domain, *forgetting), general),
                Group("specialist", (*self.in_domain, *surrogates), specialists),
            ]
        if jobs == "domain":
            in_domain = [Group(d, tuple(b for b in self.in_domain if entries[b]["domain"] == d), every) for d in self.domains]
            return [*in_domain, Group("forgetting", forgetting, general), Group("surrogates", surrogates, specialists)]
        return (
            [Group(b, (b,), every) for b in self.in_domain]
            + [Group(b, (b,), general) for b in forgetting]
            + [Group(b, (b,), self.compared_on((b,))) for b in surrogates]
        )

    def compared_on(self, surrogates: Iterable[str]) -> tuple[str, ...]:
        """The specialists whose scores on some of these surrogates tuning needs: those of their domains."""
        wanted = set(surrogates)
        return tuple(f"specialist_{d}" for d, names in self.surrogates.items() if wanted & set(names))

    def reference_seconds(self, benchmark: str) -> float:
        """Run time of a benchmark on the reference GPU for a model of the reference size: decides which ones share a job."""
        from mergebench.workflow.estimates import engine_seconds

        return engine_seconds(questions(self.preset, benchmark), REFERENCE)

    def deferred(self, benchmark: str) -> str | None:
        """What scores the answers to a benchmark: ``code``, ``safety``, or None, the job that asks."""
        return deferred(benchmark)

    @cached_property
    def settled(self) -> list[Settled]:
        """How answers are judged and run: programs per model, answers to safety prompts as `evaluation.judging` says.

        Surrogates come apart, because tuning needs them before there is any merged model.
        """
        general, specialists = tuple(self.general_models), tuple(self.specialists)
        surrogates = tuple(s for names in self.surrogates.values() for s in names)
        sets = {
            "": (tuple(self.in_domain), general + specialists),
            "_forgetting": (tuple(self.preset.evaluation.forgetting), general),
            "_surrogates": (surrogates, specialists),
        }
        together = self.preset.evaluation.judging == "base"
        found = []
        for suffix, (benchmarks, models) in sets.items():
            for kind in ("code", "safety"):
                ours = tuple(b for b in benchmarks if deferred(b) == kind)
                those = tuple(m for m in models if any(m in g.models and set(g.benchmarks) & set(ours) for g in self._groups))
                chosen = Settled(f"{kind}{suffix}", kind, ours, those, together and kind == "safety")
                alone, asked = self._apart(those, ours)
                found += [chosen] if ours else []
                found += [Settled(f"{kind}{suffix}{APART}", kind, asked, alone, False)] if asked and chosen.together else []
        return found

    def runs_here(self, stage: str, wildcards: Mapping[str, str]) -> bool:
        """Whether a judge or a settling job is so small that it runs where the workflow runs."""
        return (stage == "judge" and self.judge is None) or (stage == "settle" and self.settled_by(wildcards["group"]).kind == "safety")

    def settled_by(self, name: str) -> Settled:
        """The settling job group of this name."""
        return next(s for s in self.settled if s.name == name)

    # -- paths ---------------------------------------------------------------------------------------------

    def model(self, base: str, model: str) -> str:
        """Folder of a model."""
        return f"{self.results}/models/{base}/{model}"

    def initial(self, base: str, model: str) -> str:
        """The model from which the training of `model` starts."""
        return "sft_math" if model == "specialist_math" and base in self.grpo_bases else "base"

    def data(self, dataset: str) -> str:
        """Manifest of a dataset."""
        return f"{self.results}/data/{dataset}/manifest.json"

    def training_tokens(self, base: str, model: str) -> list[str]:
        """Manifests of the tokens that a supervised model is trained on, in the order of its domains."""
        key = self.tokens(base).key
        return [f"{self.results}/tokens/{key}/train_{d}/manifest.json" for d in self.training_domains(model)]

    def hits(self, training_set: str) -> list[str]:
        """The list of rows to leave out of a training set, where the configuration wants that."""
        removed = self.preset.data.decontaminate == "remove" and training_set in self.decontaminated
        return [f"{self.results}/decontamination/{training_set}/hits.jsonl"] if removed else []

    @cached_property
    def overlaps(self) -> list[str]:
        """The reports on text that training sets share with benchmarks."""
        return [f"{self.results}/decontamination/{t}/report.csv" for t in self.decontaminated]

    def training_domains(self, model: str) -> list[str]:
        """Domains that a model is trained on."""
        return self.domains if model == "multitask" else [model.partition("_")[2]]

    def score(self, base: str, model: str, benchmark: str) -> str:
        """Score record of a model on a benchmark."""
        return f"{self.results}/scores/{base}/{model}/{benchmark}.json"

    def answers(self, base: str, model: str, benchmark: str) -> str:
        """Record of the answers of a model to a deferred benchmark."""
        return f"{self.results}/answers/{base}/{model}/{benchmark}.json"

    def labels(self, base: str, model: str, benchmark: str) -> str:
        """The judge's labels of the answers of a model."""
        return f"{self.results}/labels/{base}/{model}/{benchmark}.parquet"

    def asked(self, base: str, model: str, benchmark: str) -> list[str]:
        """What the job that asks a model a benchmark writes: its score and items, or its answers."""
        if deferred(benchmark):
            record = self.answers(base, model, benchmark)
            return [record, f"{record.removesuffix('.json')}.responses.parquet"]
        record = self.score(base, model, benchmark)
        return [record, f"{record.removesuffix('.json')}.items.parquet"]

    @property
    def judge(self) -> str | None:
        """Folder of the judge's model; None for a judge without one."""
        name = self.preset.evaluation.judge
        return None if name == "keyword" else f"{self.results}/judges/{name}"

    def tuning_judge(self, part: str) -> list[str]:
        """A part of the judge's folder, where tuning labels answers with a model."""
        surrogates = (s for names in self.surrogates.values() for s in names)
        return [f"{self.judge}/{part}"] if self.judge and any(deferred(s) == "safety" for s in surrogates) else []

    def official(self, base: str, model: str) -> list[str]:
        """A model's results in the schemas of lm-eval and of the authors' scripts."""
        domains = {catalogue.benchmarks()[b]["domain"] for b in self.in_domain}
        wanted = {"lm_eval": True, "code_eval": "coding" in domains, "safety_eval": "safety" in domains}
        return [f"{self.results}/official/{base}/{model}/{name}.json" for name, there in wanted.items() if there]

    @property
    def report(self) -> list[str]:
        """The HTML report, and what it is made from as CSV."""
        return [f"{self.results}/report/{name}" for name in REPORT]

    @property
    def targets(self) -> list[str]:
        """What `all` asks for.

        Tables alone would do for a first run. Models, search logs and scores are named too, because Snakemake does not
        make a lost intermediate file again while everything after it is there.
        """
        dropped = [] if self.preset.storage.keep_merged else [self.dropped(b, m) for b in self.bases for m in self.merged]
        official = [path for b in self.bases for m in (*self.general_models, *self.specialists) for path in self.official(b, m)]
        return [*self.tables, *self.report, *self.models, *self.searches, *self.scores, *official, *self.overlaps, *dropped]

    @cached_property
    def models(self) -> list[str]:
        """The manifest of every model."""
        return [f"{self.model(b, m)}/manifest.json" for b in self.bases for m in (*self.general_models, *self.specialists)]

    @cached_property
    def scores(self) -> list[str]:
        """Every score record that the tables read."""
        everything = [*self.in_domain, *self.preset.evaluation.forgetting]
        return [self.score(b, m, k) for b in self.bases for m in self.general_models for k in everything] + [
            self.score(b, m, k) for b in self.bases for m in self.specialists for k in self.in_domain
        ]

    @cached_property
    def searches(self) -> list[str]:
        """Every search log."""
        return [self.searched(b, m)[0] for b in self.bases for m in self.tuned]

    def searched(self, base: str, method: str) -> list[str]:
        """What the search of a method leaves."""
        return [f"{self.results}/tuning/{base}/{method}/{name}" for name in SEARCHED]

    def search_costs(self, base: str) -> list[str]:
        """What the search of each method has cost, where one job has done them all."""
        return [f"{self.results}/costs/tune/{base}/{m}.json" for m in self.tuned]

    @cached_property
    def merges(self) -> list[str]:
        """The manifest of every merged model: its digest finds the model among the candidates of the searches."""
        return [f"{self.model(b, f'merged_{m}')}/manifest.json" for b in self.bases for m in self.merged]

    @cached_property
    def losses(self) -> list[str]:
        """The losses of every model that is trained here."""
        trained = [*self.supervised, *((b, "multitask") for b in self.bases if self.preset.training.multitask)]
        return [f"{self.model(b, m)}/losses.jsonl" for b, m in trained]

    @cached_property
    def costs(self) -> list[str]:
        """The cost records that the run-time table reads: spectra, statistics, tuning and merging."""
        folder = f"{self.results}/costs"
        return [
            *(f"{folder}/vectors/{b}/{d}.json" for b in self.bases for d in self.domains if self.measured_spectra),
            *(f"{folder}/statistics/{b}/{d}/{k}.json" for b in self.bases for d in self.domains for k in self.statistics_kinds),
            *(f"{folder}/tune/{b}/{m}.json" for b in self.bases for m in self.tuned),
            *(f"{folder}/merge/{b}/{m}.json" for b in self.bases for m in self.merged),
        ]

    def model_asked(self, base: str, model: str) -> list[str]:
        """Every record for which the weights of a model are needed: its scores, and its answers to what is settled later."""
        return [self.asked(base, model, b)[0] for g in self.groups if model in g.models for b in g.benchmarks]

    def dropped(self, base: str, method: str) -> str:
        """The record of a merged model whose weights were dropped."""
        return f"{self.model(base, f'merged_{method}')}/dropped.json"

    def admitted(self, base: str) -> str:
        """The file that lets the merges of a base begin."""
        return f"{self.results}/admitted/{base}"

    def surrogate_references(self, base: str) -> list[str]:
        """Scores of each specialist on its own surrogates, by which candidates are normalised."""
        return [self.score(base, f"specialist_{d}", s) for d, names in self.surrogates.items() for s in names]

    def statistics(self, base: str, method: str) -> list[str]:
        """Manifests of the statistics that a method needs, by domain and kind."""
        kinds = declared()[method].statistics
        return [f"{self.results}/statistics/{base}/{d}/{k}/manifest.json" for d in self.domains for k in kinds]

    def calibration(self, method: str) -> list[str]:
        """Manifests of the training sets whose calibration rows a method reads itself."""
        return [self.data(f"train_{d}") for d in self.domains] if method in self.calibrated else []

    def calibration_hits(self, method: str) -> list[str]:
        """The lists of those of these rows to leave out."""
        return [hits for d in self.domains for hits in self.uncalibrated(f"train_{d}")] if method in self.calibrated else []

    def uncalibrated(self, training_set: str) -> list[str]:
        """The list of rows that no calibration may use, since they share text with a benchmark, whatever training does with them.

        There is none where nothing is compared; and none for generated rows, which have items of their own, unless it is asked for.
        """
        data = self.preset.data
        generated = data.sources.get(training_set, data.source) == "tiny"
        compared = training_set in self.decontaminated and (data.decontaminate == "remove" or not generated)
        return [f"{self.results}/decontamination/{training_set}/hits.jsonl"] if compared else []

    def spectra(self, base: str, method: str) -> list[str]:
        """Manifests of the task vectors' spectra, for a method that needs them."""
        return self.measured(base) if declared()[method].spectra else []

    def measured(self, base: str) -> list[str]:
        """Manifests of the spectra of a base's task vectors, where there are jobs that measure them."""
        return [f"{self.results}/vectors/{base}/{d}/manifest.json" for d in self.domains] if self.measured_spectra else []

    def interference(self, base: str) -> list[str]:
        """The manifest and the sums of how the task vectors of a base relate."""
        return [f"{self.results}/vectors/{base}/{name}" for name in ("manifest.json", "interference.parquet")]

    @property
    def measured_spectra(self) -> bool:
        """Whether some method needs spectra, so that there are jobs that measure them."""
        return any(declared()[m].spectra for m in self.methods)

    def best(self, base: str, method: str) -> list[str]:
        """The tuned parameters of a method that has a grid."""
        return [f"{self.results}/tuning/{base}/{method}/best.yaml"] if method in self.tuned else []

    # -- tables and figures --------------------------------------------------------------------------------

    @cached_property
    def written(self) -> list[Reported]:
        """Every file that the analysis writes, with where it would stand in Snakemake's report."""
        tables = [
            Reported(
                f"{self.results}/tables/{name}",
                table.stem,
                CATEGORIES.get(table.section, table.section),
                {"table": table.title, "format": name.rpartition(".")[2]},
            )
            for table in TABLES
            for name in table.filenames()
        ]
        figures = [
            Reported(
                f"{self.results}/figures/{name}",
                figure.stem,
                CATEGORIES.get(figure.section, figure.section),
                {"figure": figure.title, "format": name.rpartition(".")[2]},
            )
            for figure in FIGURES
            for name in figure.filenames()
        ]
        return tables + figures

    @property
    def reported(self) -> list[Reported]:
        """Those that Snakemake's report holds."""
        return [each for each in self.written if each.shown]

    @property
    def printed(self) -> list[str]:
        """The others: LaTeX and PDF."""
        return [each.path for each in self.written if not each.shown]

    @property
    def tables(self) -> list[str]:
        """The final targets: all tables and figures."""
        return [each.path for each in self.written]

    # -- specs ---------------------------------------------------------------------------------------------

    def spec(self, stage: str, **wildcards: str) -> dict[str, Any]:
        """All that decides the result of one job, the code included, and nothing that does not."""
        details: dict[str, Any] = getattr(self, f"_spec_{stage}")(**wildcards)
        return {"stage": stage, "code": self._code(stage, **wildcards), "seed": self.preset.seed, **details}

    def _code(self, stage: str, *, method: str | None = None, **_: str) -> str:
        modules = [MODULES[stage]]
        if method is not None and stage != "drop":
            modules.append(f"mergebench.merging.methods.{self.merged[method].method}")
        if stage == "tune_base":
            modules += [f"mergebench.merging.methods.{m}" for m in self.tuned]
        return fingerprint(*modules, files=FILES.get(stage, ()))

    def _spec_fetch_base(self, base: str) -> dict[str, Any]:
        entry = catalogue.bases()[base]
        keys = ("hub", "revision", "path")
        given = {k: entry[k] for k in keys if k in entry}
        if entry.get("tiny"):
            shipped(base)
            return {"base": base, "source": "tiny", "shipped": fingerprint(files=(f"tiny/weights/{base}/model.safetensors",))}
        return {"base": base, "source": "local" if "path" in entry else "hub", **given}

    def _spec_prepare(self, dataset: str = "", training_set: str = "") -> dict[str, Any]:
        data = self.preset.data
        dataset = dataset or training_set
        source = data.sources.get(dataset, data.source)
        spec: dict[str, Any] = {"dataset": dataset, "source": source, "entry": self._dataset(dataset)}
        if source == "local":
            spec["root"] = self._root()
        if dataset in data.filters:
            spec["filter"] = data.filters[dataset]
        if dataset.startswith("train_"):
            return {**spec, "rows": data.rows, "calibration_rows": data.calibration_rows}
        return {**spec, "limit": data.limits.get(dataset, data.limit)}

    def local_files(self, dataset: str) -> list[str]:
        """The files on this machine that a dataset is made from, so that a changed one makes it stale."""
        data = self.preset.data
        if data.sources.get(dataset, data.source) != "local":
            return []
        from mergebench.data.sources.local import everything

        return [str(path) for path in everything(dataset, self._dataset(dataset), Path(self._root()))]

    def _dataset(self, name: str) -> dict[str, Any]:
        """The entry of a dataset; under the released protocol a surrogate may be another one, as in the authors' scripts."""
        entry = catalogue.datasets()[name]
        if self.preset.evaluation.protocol == "released" and "released" in entry:
            return {**catalogue.datasets()[entry["released"]], "use": "surrogate"}
        return entry

    def _root(self) -> str:
        """The folder of the data files, with its environment variables filled in."""
        wanted = self.preset.data.root or ""
        root = os.path.expandvars(wanted)
        if not root or root.startswith("$") or not Path(root).is_dir():
            found = "is not set" if not root or root.startswith("$") else f"says {root}, which is not a folder"
            raise MergebenchError(f"config: data.root is {wanted}, and that {found}; set it to the folder with the datasets' files.")
        return root

    def _spec_decontaminate(self, training_set: str) -> dict[str, Any]:
        return {"training_set": training_set, "ngram": self.preset.data.ngram}

    def _spec_tokenise(self, key: str, training_set: str) -> dict[str, Any]:
        return {"training_set": training_set, **self.tokenised[key, training_set].spec}

    def _spec_import(self, base: str, model: str) -> dict[str, Any]:
        common = {"base": base, "model": model, "domains": self.training_domains(model), "vocabulary": self.preset.merging.vocabulary}
        return {**common, **self.imports[base, model].spec()}

    def _spec_train(self, base: str, model: str) -> dict[str, Any]:
        training = self.preset.training
        common = {"base": base, "model": model, "domains": self.training_domains(model)}
        if model == "specialist_math" and base in self.grpo_bases:
            assert training.grpo is not None
            return {**common, "algorithm": "grpo", "grpo": training.grpo.settings.model_dump(mode="json")}
        return {**common, "algorithm": "sft", "settings": self.supervision(base, model)}

    def supervision(self, base: str, model: str) -> dict[str, Any]:
        """Settings of the supervised training of a model."""
        training = self.preset.training
        size = catalogue.bases()[base]["size"]
        settings = recipes.under(training.recipe, training.supervised[size].model_dump(mode="json"))
        if model == "sft_math" and training.grpo is not None and training.grpo.supervised_steps:
            settings |= {"steps": training.grpo.supervised_steps}
        if model == "multitask":
            assert training.multitask is not None
            settings["mixture"] = training.multitask.mixture
            if size in training.multitask.steps:
                settings |= {"steps": training.multitask.steps[size]}
        return settings

    def _spec_vectors(self, base: str, domain: str) -> dict[str, Any]:
        return {"base": base, "domain": domain, "vocabulary": self.preset.merging.vocabulary}

    def _spec_interference(self, base: str) -> dict[str, Any]:
        return {"base": base, "domains": self.domains, "vocabulary": self.preset.merging.vocabulary}

    def _spec_statistics(self, base: str, domain: str, kind: str) -> dict[str, Any]:
        supervised = self.supervision(base, "specialist")
        settings = getattr(self.preset.statistics, kind).model_dump(mode="json")
        return {
            "base": base,
            "domain": domain,
            "kinds": [kind],
            "settings": {kind: settings},
            "calibration": {"rows": self.preset.data.calibration_rows, "max_length": supervised["max_length"]},
            "template": supervised["template"],
            **({"scope": self.preset.merging.scope} if kind == "mask" else {}),
        }

    def _spec_merge(self, base: str, method: str) -> dict[str, Any]:
        name, merge = method, self.merged[method]
        method = merge.method
        chosen = self.preset.merging.methods.get(method)
        return {
            "base": base,
            "model": f"merged_{name}",
            "method": method,
            "seed": merge.seed,
            "domains": self.domains,
            "parameters": chosen.parameters if chosen else {},
            "scope": self.preset.merging.scope,
            "vocabulary": self.preset.merging.vocabulary,
            **({"calibration": self._calibration(base, method)} if method in self.calibrated else {}),
        }

    def _calibration(self, base: str, method: str) -> dict[str, Any]:
        """How a method gets its calibration rows: as the statistics' jobs do."""
        supervised = self.supervision(base, "specialist")
        return {
            "rows": self.preset.data.calibration_rows,
            "max_length": supervised["max_length"],
            "template": supervised["template"],
            "settings": getattr(self.preset.statistics, method).model_dump(mode="json"),
        }

    def _spec_drop(self, base: str, method: str) -> dict[str, Any]:
        return {"base": base, "model": f"merged_{method}", "method": self.merged[method].method}

    def _spec_tune(self, base: str, method: str) -> dict[str, Any]:
        grid = self.preset.merging.methods[method].grid
        return {**self._spec_merge(base, method), "grid": grid, **self._searching(method), **self._tuned_on()}

    def _spec_tune_base(self, base: str) -> dict[str, Any]:
        calibrations = [self._calibration(base, m) for m in self.tuned if m in self.calibrated]
        return {
            "base": base,
            "domains": self.domains,
            "vocabulary": self.preset.merging.vocabulary,
            **({"calibration": calibrations[0]} if calibrations else {}),
            **self._tuned_on(),
            "methods": {
                m: {
                    "grid": self.preset.merging.methods[m].grid,
                    "parameters": self.preset.merging.methods[m].parameters,
                    "scope": self.preset.merging.scope,
                    **self._searching(m),
                }
                for m in self.tuned
            },
        }

    def _searching(self, method: str) -> dict[str, Any]:
        """How the grid of a method is searched, where that differs from the paper's way."""
        tuning = self.preset.tuning
        found: dict[str, Any] = {} if tuning.search == "grid" else {"search": tuning.search}
        if tuning.search == "halving":
            halving = tuning.halving.model_dump()
            found |= {"blocks": halving.pop("blocks"), "halving": halving}
        if tuning.budget:
            found["budget"] = tuning.budget.model_dump(exclude_none=True)
        if self.search_seeds(method) > 1:
            found["seeds"] = self.seeds(method)
        return found

    def search_seeds(self, method: str) -> int:
        """With how many seeds a method is tuned, merged and scored: more than one where it draws random numbers."""
        return self.preset.tuning.seeds if declared()[method].random else 1

    def _tuned_on(self) -> dict[str, Any]:
        """The surrogates, and the engine that scores candidates on them."""
        evaluation = self.preset.evaluation
        longest = {"max_length": evaluation.max_length} if evaluation.max_length else {}
        shared = {**self._evaluation([s for names in self.surrogates.values() for s in names]), "backend": self.tuning_backend}
        return {"surrogates": self.surrogates, "evaluation": {**shared, **longest}}

    @property
    def tuning_backend(self) -> str:
        """The backend that holds the live model of a search."""
        return self.preset.tuning.backend or self.preset.evaluation.backend

    def _spec_evaluate(self, base: str, model: str, group: str) -> dict[str, Any]:
        benchmarks = next(g for g in self.groups if g.name == group).benchmarks
        shared = self._evaluation(list(benchmarks))
        settings = {b: {k: v for k, v in values.items() if k not in SETTLED} for b, values in shared["benchmarks"].items()}
        most_cut = self.preset.evaluation.most_cut
        longest = {"max_length": self.preset.evaluation.max_length} if self.preset.evaluation.max_length else {}
        return {"base": base, "model": model, **shared, "benchmarks": settings, "most_cut": most_cut, **longest}

    def _spec_fetch_judge(self, judge: str) -> dict[str, Any]:
        entry = catalogue.judges()[judge]
        given = {k: entry[k] for k in ("hub", "revision", "path") if entry.get(k)}
        return {"base": judge, "source": "local" if "path" in given else "hub", **given}

    def _spec_judge(self, base: str, group: str, model: str = "") -> dict[str, Any]:
        evaluation = self.preset.evaluation
        return {
            "base": base,
            **({"model": model} if model else {}),
            "benchmarks": list(self.settled_by(group).benchmarks),
            "judge": evaluation.judge,
            "max_parse_errors": evaluation.judge_parse_errors,
            **({} if evaluation.judge == "keyword" else {"backend": evaluation.backend, "dtype": evaluation.dtype}),
        }

    def _spec_settle(self, base: str, group: str, model: str = "") -> dict[str, Any]:
        chosen = self.settled_by(group)
        shared = self._evaluation(list(chosen.benchmarks))
        unused = SETTLED if chosen.kind == "safety" else ("judge",)
        settings = {b: {k: v for k, v in values.items() if k not in unused} for b, values in shared["benchmarks"].items()}
        return {
            "base": base,
            **({"model": model} if model else {}),
            "kind": chosen.kind,
            "tasks": shared["tasks"],
            "catalogue": shared["catalogue"],
            **({"added": shared["added"]} if "added" in shared else {}),
            "benchmarks": settings,
        }

    def _spec_official(self) -> dict[str, Any]:
        return {"bases": self.bases, "models": [*self.general_models, *self.specialists]}

    def _evaluation(self, benchmarks: list[str]) -> dict[str, Any]:
        """What the evaluations of all models share; thousands of jobs ask for it, so it is made once."""
        key = tuple(benchmarks)
        if key not in self._evaluations:
            evaluation = self.preset.evaluation
            shared = (f"evaluation/tasks/{p.name}" for p in sorted((ROOT / "evaluation/tasks").glob("_*.yaml")))
            tasks = (*(f"evaluation/tasks/{b}.yaml" for b in benchmarks), *shared)
            entries = catalogue.benchmarks()
            added = {b: e for b, e in catalogue.added("benchmarks").items() if b in benchmarks}
            self._evaluations[key] = {
                "backend": evaluation.backend,
                "dtype": evaluation.dtype,
                "tasks": fingerprint(files=tasks),
                "catalogue": sha256_json({b: entries[b] for b in benchmarks})[:16],
                **({"added": added} if added else {}),
                "benchmarks": {b: self.setting(b) for b in benchmarks},
            }
        return self._evaluations[key]

    def setting(self, benchmark: str) -> dict[str, Any]:
        """Settings of one benchmark: those of the preset, and its own where it has any."""
        evaluation = self.preset.evaluation
        own = evaluation.benchmarks.get(benchmark)
        return {
            "protocol": evaluation.protocol,
            "formulation": evaluation.formulation,
            "apply_chat_template": evaluation.apply_chat_template,
            "shots": evaluation.shots,
            "max_tokens": evaluation.max_tokens,
            **({"judge": evaluation.judge} if deferred(benchmark) == "safety" else {}),
            **({"allow_weak_sandbox": evaluation.allow_weak_sandbox} if deferred(benchmark) == "code" else {}),
            **(own.model_dump(exclude_none=True) if own else {}),
        }

    def _spec_analyse(self) -> dict[str, Any]:
        from mergebench.workflow.settings import settings

        entries = catalogue.benchmarks()
        shown = [*self.in_domain, *self.preset.evaluation.forgetting]
        return {
            "bases": self.bases,
            "methods": self.methods,
            "controls": self.controls,
            "seeds": self.seeded,
            "tuned": self.tuned,
            "multitask": self.preset.training.multitask is not None,
            "domains": self.domains,
            "statistics": {m: [*declared()[m].statistics, *([SPECTRUM] if declared()[m].spectra else [])] for m in self.methods},
            "benchmarks": {
                b: {"domain": entries[b]["domain"], "role": self._role(b), "title": entries[b]["title"], "aggregate": aggregate(b)}
                for b in shown
            },
            "lineage": {b: {"family": b, **{k: v for k, v in catalogue.bases()[b].items() if k in LINEAGE}} for b in self.bases},
            "surrogates": self.surrogates,
            "data": {m: declared()[m].data for m in self.methods},
            "prices": self.preset.analysis.prices.model_dump(),
            "settings": settings(self),
            **({"warnings": self.warnings} if self.warnings else {}),
        }

    def _spec_report(self) -> dict[str, Any]:
        chosen = PROFILES.get(self.name, f"--profile profiles/local --config preset={self.name}")
        return {
            **self._spec_analyse(),
            "preset": self.name,
            "results": self.results,
            "command": f"snakemake {chosen}",
            "configuration": self.preset.model_dump(mode="json", exclude=LAYOUT),
        }

    def _role(self, benchmark: str) -> str:
        return "in_domain" if benchmark in self.in_domain else "forgetting"

    # -- jobs ----------------------------------------------------------------------------------------------

    def jobs(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        """Rule, stage and wildcards of every job when nothing has been made yet, in the order of the data's way."""
        bases, domains = self.bases, self.domains
        yield from (("fetch_base", "fetch_base", {"base": b}) for b in bases)
        yield from (("fetch_data", "prepare", {"dataset": d}) for d in self.benchmark_datasets)
        yield from (("fetch_training_data", "prepare", {"training_set": t}) for t in self.training_sets)
        yield from (("decontaminate", "decontaminate", {"training_set": t}) for t in self.decontaminated)
        yield from (("tokenise", "tokenise", {"key": k, "training_set": t}) for k, t in self.tokenised)
        yield from (("import_specialist", "import", {"base": b, "model": m}) for b, m in self.imports)
        yield from (("train_specialist", "train", {"base": b, "model": m}) for b, m in self.supervised)
        yield from (("train_grpo", "train", {"base": b, "model": "specialist_math"}) for b in self.grpo_bases)
        if self.preset.training.multitask:
            yield from (("train_multitask", "train", {"base": b, "model": "multitask"}) for b in bases)
        if self.measured_spectra:
            yield from (("vectors", "vectors", {"base": b, "domain": d}) for b in bases for d in domains)
        yield from (("interference", "interference", {"base": b}) for b in bases)
        kinds = self.statistics_kinds
        yield from (("statistics", "statistics", {"base": b, "domain": d, "kind": k}) for b in bases for d in domains for k in kinds)
        if self.fused:
            yield from (("tune_base", "tune_base", {"base": b}) for b in bases)
        else:
            yield from (("tune", "tune", {"base": b, "method": m}) for b in bases for m in self.tuned)
        yield from (("admit", "admit", {"base": b}) for b in bases)
        yield from (("merge", "merge", {"base": b, "method": m}) for b in bases for m in self.merged)
        for group in self.groups:
            if group.benchmarks:
                rule = f"evaluate_{group.name}"
                yield from ((rule, "evaluate", {"base": b, "model": m, "group": group.name}) for b in bases for m in group.models)
        safety = [s for s in self.settled if s.kind == "safety"]
        if safety and self.judge:
            yield ("fetch_judge", "fetch_judge", {"judge": self.preset.evaluation.judge})
        for chosen in safety:
            yield from ((chosen.judge_rule, "judge", where) for where in self._settling(chosen))
        for chosen in self.settled:
            yield from ((f"settle_{chosen.name}", "settle", where) for where in self._settling(chosen))
        if not self.preset.storage.keep_merged:
            yield from (("drop_weights", "drop", {"base": b, "method": m}) for b in bases for m in self.merged)
        yield ("analyse", "analyse", {})
        yield ("report", "report", {})
        yield ("official", "official", {})

    def _settling(self, chosen: Settled) -> Iterator[dict[str, str]]:
        """The wildcards of the jobs that settle a group of benchmarks."""
        for base in self.bases:
            if chosen.together:
                yield {"base": base, "group": chosen.name}
            else:
                yield from ({"base": base, "model": model, "group": chosen.name} for model in chosen.models)

    def stage(self, rule: str, wildcards: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The stage of a job by the name of its rule, and the wildcards by which `jobs` names it."""
        if rule.startswith("evaluate_"):
            return "evaluate", {**wildcards, "group": rule.removeprefix("evaluate_")}
        if rule.startswith("judge"):
            return "judge", {**wildcards, "group": f"safety{rule.removeprefix('judge')}"}
        if rule.startswith("settle_"):
            return "settle", {**wildcards, "group": rule.removeprefix("settle_")}
        if rule.startswith("train_"):
            return "train", dict(wildcards)
        stages = {"fetch_data": "prepare", "fetch_training_data": "prepare", "import_specialist": "import", "drop_weights": "drop"}
        return stages.get(rule, rule), dict(wildcards)

    def job_counts(self) -> dict[str, int]:
        """Jobs per rule when nothing has been made yet, in the order of the data's way."""
        return {**Counter(rule for rule, _, _ in self.jobs()), "all": 1}
