"""The campaign as plain Python: which models, scores and tables exist, and the spec of every job.

No Snakemake and no torch here: every job parses the Snakefile and with it this module. The rules turn it into jobs.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.analysis.outputs import FIGURES, TABLES
from mergebench.artifacts import sha256_json
from mergebench.config import Configuration
from mergebench.errors import MergebenchError
from mergebench.fingerprint import ROOT, fingerprint
from mergebench.merging.declarations import declared
from mergebench.tiny.shipped import shipped

# The module whose `run` executes a stage; its import closure is the code that makes the stage's outputs stale.
MODULES = {
    "fetch_base": "mergebench.checkpoints.fetch",
    "prepare": "mergebench.data.prepare",
    "train": "mergebench.training.run",
    "vectors": "mergebench.vectors.run",
    "statistics": "mergebench.merging.statistics.run",
    "tune": "mergebench.tuning.run",
    "merge": "mergebench.merging.run",
    "evaluate": "mergebench.evaluation.run",
    "drop": "mergebench.storage.drop",
    "analyse": "mergebench.analysis.run",
}
GRPO_DATA = "train_math_grpo"
SPECTRUM = "spectrum"  # as `analysis.costs` calls what the vectors stage measures


@dataclass(frozen=True)
class Group:
    """Benchmarks that one evaluation process scores, for the models named."""

    name: str
    benchmarks: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True)
class Reported:
    """A table or figure: path, caption file, and its place in the report."""

    path: str
    caption: str
    category: str
    labels: dict[str, str]


def alternatives(names: Iterable[str]) -> str:
    """A regular expression that matches exactly these names (nothing, if there are none)."""
    return "|".join(map(re.escape, names)) or "(?!)"


class Plan:
    """Names, paths and specs of everything that the selected preset makes."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.name = configuration.preset
        self.preset = configuration.selected
        self.results = f"{configuration.results}/{self.name}"
        self.bases = list(self.preset.bases)
        self.domains = list(self.preset.domains)
        self.methods = list(self.preset.merging.methods)
        self._evaluations: dict[tuple[str, ...], dict[str, Any]] = {}

    def check_runnable(self) -> None:
        """Refuse, before the first job, what would stop after days of training.

        Raises:
            MergebenchError: the configuration asks for a part that this version does not have.
        """
        if self.preset.evaluation.judge == "wildguard":
            raise MergebenchError(
                "config: evaluation.judge is wildguard, which this version cannot run yet; set it to keyword "
                "(marked as such in every score), or wait with this preset."
            )

    def check_data(self) -> None:
        """Refuse, before planning, a data folder that is not there.

        Raises:
            MergebenchError: a dataset comes from local files, and `data.root` names no folder.
        """
        data = self.preset.data
        if any(data.sources.get(d, data.source) == "local" for d in (*self.benchmark_datasets, *self.training_sets)):
            self._root()

    # -- names ---------------------------------------------------------------------------------------------

    @cached_property
    def tuned(self) -> list[str]:
        """Methods whose grid is searched on the surrogates."""
        return [m for m in self.methods if self.preset.merging.methods[m].grid]

    @cached_property
    def statistics_kinds(self) -> list[str]:
        """Kinds of calibration statistics that the methods need."""
        return sorted({kind for m in self.methods for kind in declared()[m].statistics})

    @cached_property
    def grpo_bases(self) -> list[str]:
        """Bases whose mathematics specialist is trained further with GRPO."""
        return list(self.preset.training.grpo.bases) if self.preset.training.grpo else []

    @cached_property
    def specialists(self) -> list[str]:
        """The specialists of one base, in domain order."""
        return [f"specialist_{d}" for d in self.domains]

    @cached_property
    def general_models(self) -> list[str]:
        """Models of one base that are scored on everything: base, multitask model and merged models."""
        multitask = ["multitask"] if self.preset.training.multitask else []
        return ["base", *multitask, *(f"merged_{m}" for m in self.methods)]

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
    def benchmark_datasets(self) -> list[str]:
        """Datasets that hold the rows of benchmarks and surrogates."""
        return [*self.in_domain, *self.preset.evaluation.forgetting, *(s for names in self.surrogates.values() for s in names)]

    @cached_property
    def training_sets(self) -> list[str]:
        """Datasets to train on, one per domain, and one for GRPO where it is used."""
        return [f"train_{d}" for d in self.domains] + ([GRPO_DATA] if self.grpo_bases else [])

    @cached_property
    def groups(self) -> list[Group]:
        """How benchmarks share processes (`evaluation.jobs`)."""
        general, specialists = tuple(self.general_models), tuple(self.specialists)
        every = general + specialists
        forgetting = tuple(self.preset.evaluation.forgetting)
        surrogates = tuple(s for names in self.surrogates.values() for s in names)
        entries = catalogue.benchmarks()
        jobs = self.preset.evaluation.jobs
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
            + [Group(b, (b,), specialists) for b in surrogates]
        )

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

    def training_data(self, model: str) -> list[str]:
        """Manifests of the training sets of a supervised model."""
        return [self.data(f"train_{d}") for d in self.training_domains(model)]

    def training_domains(self, model: str) -> list[str]:
        """Domains that a model is trained on."""
        return self.domains if model == "multitask" else [model.partition("_")[2]]

    def score(self, base: str, model: str, benchmark: str) -> str:
        """Score record of a model on a benchmark."""
        return f"{self.results}/scores/{base}/{model}/{benchmark}.json"

    @property
    def targets(self) -> list[str]:
        """What `all` asks for.

        Tables alone would do for a first run. Models, search logs and scores are named too, because Snakemake does not
        make a lost intermediate file again while everything after it is there.
        """
        dropped = [] if self.preset.storage.keep_merged else [self.dropped(b, m) for b in self.bases for m in self.methods]
        return [*self.tables, *self.models, *self.searches, *self.scores, *dropped]

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
        return [f"{self.results}/tuning/{b}/{m}/search.parquet" for b in self.bases for m in self.tuned]

    @cached_property
    def costs(self) -> list[str]:
        """The cost records that the run-time table reads: spectra, statistics, tuning and merging."""
        folder = f"{self.results}/costs"
        spectra = any(declared()[m].spectra for m in self.methods)
        return [
            *(f"{folder}/vectors/{b}/{d}.json" for b in self.bases for d in self.domains if spectra),
            *(f"{folder}/statistics/{b}/{d}/{k}.json" for b in self.bases for d in self.domains for k in self.statistics_kinds),
            *(f"{folder}/tune/{b}/{m}.json" for b in self.bases for m in self.tuned),
            *(f"{folder}/merge/{b}/{m}.json" for b in self.bases for m in self.methods),
        ]

    def model_scores(self, base: str, model: str) -> list[str]:
        """Every score record of one model."""
        return [self.score(base, model, b) for g in self.groups if model in g.models for b in g.benchmarks]

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

    def spectra(self, base: str, method: str) -> list[str]:
        """Manifests of the task vectors' spectra, for a method that needs them."""
        wanted = declared()[method].spectra
        return [f"{self.results}/vectors/{base}/{d}/manifest.json" for d in self.domains] if wanted else []

    def best(self, base: str, method: str) -> list[str]:
        """The tuned parameters of a method that has a grid."""
        return [f"{self.results}/tuning/{base}/{method}/best.yaml"] if method in self.tuned else []

    # -- tables and figures --------------------------------------------------------------------------------

    @cached_property
    def reported(self) -> list[Reported]:
        """Every file that the analysis writes, with where it stands in Snakemake's report."""
        tables = [
            Reported(f"{self.results}/tables/{name}", table.stem, table.section, {"table": table.title, "format": name.rpartition(".")[2]})
            for table in TABLES
            for name in table.filenames()
        ]
        figures = [
            Reported(
                f"{self.results}/figures/{name}", figure.stem, figure.section, {"figure": figure.title, "format": name.rpartition(".")[2]}
            )
            for figure in FIGURES
            for name in figure.filenames()
        ]
        return tables + figures

    @property
    def tables(self) -> list[str]:
        """The final targets: all tables and figures."""
        return [r.path for r in self.reported]

    # -- specs ---------------------------------------------------------------------------------------------

    def spec(self, stage: str, **wildcards: str) -> dict[str, Any]:
        """All that decides the result of one job, the code included, and nothing that does not."""
        details: dict[str, Any] = getattr(self, f"_spec_{stage}")(**wildcards)
        return {"stage": stage, "code": self._code(stage, **wildcards), "seed": self.preset.seed, **details}

    def _code(self, stage: str, *, method: str | None = None, **_: str) -> str:
        modules = [MODULES[stage]]
        if method is not None and stage != "drop":
            modules.append(f"mergebench.merging.methods.{method}")
        return fingerprint(*modules)

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
        spec: dict[str, Any] = {"dataset": dataset, "source": source, "entry": catalogue.datasets()[dataset]}
        if source == "local":
            spec["root"] = self._root()
        if dataset.startswith("train_"):
            return {**spec, "rows": data.rows, "calibration_rows": data.calibration_rows}
        return {**spec, "limit": data.limits.get(dataset, data.limit)}

    def local_files(self, dataset: str) -> list[str]:
        """The files on this machine that a dataset is made from, so that a changed one makes it stale."""
        data = self.preset.data
        if data.sources.get(dataset, data.source) != "local":
            return []
        from mergebench.data.sources.local import files

        found, _ = files(dataset, catalogue.datasets()[dataset], Path(self._root()))
        return sorted(str(path) for path in found.values())

    def _root(self) -> str:
        """The folder of the data files, with its environment variables filled in."""
        wanted = self.preset.data.root or ""
        root = os.path.expandvars(wanted)
        if not root or root.startswith("$") or not Path(root).is_dir():
            found = "is not set" if not root or root.startswith("$") else f"says {root}, which is not a folder"
            raise MergebenchError(f"config: data.root is {wanted}, and that {found}; set it to the folder with the datasets' files.")
        return root

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
        settings = training.supervised[size].model_dump(mode="json")
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

    def _spec_statistics(self, base: str, domain: str, kind: str) -> dict[str, Any]:
        size = catalogue.bases()[base]["size"]
        supervised = self.preset.training.supervised[size]
        settings = getattr(self.preset.statistics, kind).model_dump(mode="json")
        return {
            "base": base,
            "domain": domain,
            "kinds": [kind],
            "settings": {kind: settings},
            "calibration": {"rows": self.preset.data.calibration_rows, "max_length": supervised.max_length},
            "template": supervised.template,
            **({"scope": self.preset.merging.scope} if kind == "mask" else {}),
        }

    def _spec_merge(self, base: str, method: str) -> dict[str, Any]:
        chosen = self.preset.merging.methods[method]
        return {
            "base": base,
            "model": f"merged_{method}",
            "method": method,
            "domains": self.domains,
            "parameters": chosen.parameters,
            "scope": self.preset.merging.scope,
            "vocabulary": self.preset.merging.vocabulary,
        }

    def _spec_drop(self, base: str, method: str) -> dict[str, Any]:
        return {"base": base, "model": f"merged_{method}", "method": method}

    def _spec_tune(self, base: str, method: str) -> dict[str, Any]:
        return {
            **self._spec_merge(base, method),
            "grid": self.preset.merging.methods[method].grid,
            "surrogates": self.surrogates,
            "evaluation": self._evaluation([s for names in self.surrogates.values() for s in names]),
        }

    def _spec_evaluate(self, base: str, model: str, group: str) -> dict[str, Any]:
        benchmarks = next(g for g in self.groups if g.name == group).benchmarks
        return {"base": base, "model": model, **self._evaluation(list(benchmarks))}

    def _evaluation(self, benchmarks: list[str]) -> dict[str, Any]:
        """What the evaluations of all models share; thousands of jobs ask for it, so it is made once."""
        key = tuple(benchmarks)
        if key not in self._evaluations:
            evaluation = self.preset.evaluation
            shared = (f"evaluation/tasks/{p.name}" for p in sorted((ROOT / "evaluation/tasks").glob("_*.yaml")))
            tasks = (*(f"evaluation/tasks/{b}.yaml" for b in benchmarks), *shared)
            entries = catalogue.benchmarks()
            self._evaluations[key] = {
                "backend": evaluation.backend,
                "dtype": evaluation.dtype,
                "tasks": fingerprint(files=tasks),
                "catalogue": sha256_json({b: entries[b] for b in benchmarks})[:16],
                "benchmarks": {b: self._setting(b) for b in benchmarks},
            }
        return self._evaluations[key]

    def _setting(self, benchmark: str) -> dict[str, Any]:
        """Settings of one benchmark: those of the preset, and its own where it has any."""
        evaluation = self.preset.evaluation
        own = evaluation.benchmarks.get(benchmark)
        return {
            "formulation": evaluation.formulation,
            "apply_chat_template": evaluation.apply_chat_template,
            "shots": evaluation.shots,
            "max_tokens": evaluation.max_tokens,
            "judge": evaluation.judge,
            "allow_weak_sandbox": evaluation.allow_weak_sandbox,
            **(own.model_dump(exclude_none=True) if own else {}),
        }

    def _spec_analyse(self) -> dict[str, Any]:
        entries = catalogue.benchmarks()
        shown = [*self.in_domain, *self.preset.evaluation.forgetting]
        return {
            "bases": self.bases,
            "methods": self.methods,
            "tuned": self.tuned,
            "multitask": self.preset.training.multitask is not None,
            "domains": self.domains,
            "statistics": {m: [*declared()[m].statistics, *([SPECTRUM] if declared()[m].spectra else [])] for m in self.methods},
            "benchmarks": {b: {"domain": entries[b]["domain"], "role": self._role(b), "title": entries[b]["title"]} for b in shown},
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
        for base in bases:
            reinforced = base in self.grpo_bases
            names = ["sft_math" if name == "specialist_math" and reinforced else name for name in self.specialists]
            yield from (("train_specialist", "train", {"base": base, "model": name}) for name in names)
        yield from (("train_grpo", "train", {"base": b, "model": "specialist_math"}) for b in self.grpo_bases)
        if self.preset.training.multitask:
            yield from (("train_multitask", "train", {"base": b, "model": "multitask"}) for b in bases)
        if any(declared()[m].spectra for m in self.methods):
            yield from (("vectors", "vectors", {"base": b, "domain": d}) for b in bases for d in domains)
        kinds = self.statistics_kinds
        yield from (("statistics", "statistics", {"base": b, "domain": d, "kind": k}) for b in bases for d in domains for k in kinds)
        yield from (("tune", "tune", {"base": b, "method": m}) for b in bases for m in self.tuned)
        yield from (("admit", "admit", {"base": b}) for b in bases)
        yield from (("merge", "merge", {"base": b, "method": m}) for b in bases for m in self.methods)
        for group in self.groups:
            if group.benchmarks:
                rule = f"evaluate_{group.name}"
                yield from ((rule, "evaluate", {"base": b, "model": m, "group": group.name}) for b in bases for m in group.models)
        if not self.preset.storage.keep_merged:
            yield from (("drop_weights", "drop", {"base": b, "method": m}) for b in bases for m in self.methods)
        yield ("analyse", "analyse", {})

    def stage(self, rule: str, wildcards: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """The stage of a job by the name of its rule, and the wildcards by which `jobs` names it."""
        if rule.startswith("evaluate_"):
            return "evaluate", {**wildcards, "group": rule.removeprefix("evaluate_")}
        if rule.startswith("train_"):
            return "train", dict(wildcards)
        return {"fetch_data": "prepare", "fetch_training_data": "prepare", "drop_weights": "drop"}.get(rule, rule), dict(wildcards)

    def job_counts(self) -> dict[str, int]:
        """Jobs per rule when nothing has been made yet, in the order of the data's way."""
        return {**Counter(rule for rule, _, _ in self.jobs()), "all": 1}
