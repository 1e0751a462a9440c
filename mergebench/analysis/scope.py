"""What a campaign compares: its bases, methods, domains and benchmarks, in the order of every table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mergebench.analysis.labels import (
    BASE,
    MERGED_PREFIX,
    MULTITASK,
    SPECIALIST_PREFIX,
    UNTOUCHED_BASE,
)
from mergebench.errors import MergebenchError

IN_DOMAIN = "in_domain"
FORGETTING = "forgetting"
SURROGATE = "surrogate"
_KEYS = ("bases", "methods", "domains", "benchmarks", "tuned", "statistics")
ROLES = (IN_DOMAIN, FORGETTING, SURROGATE)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: the domain whose specialist it is compared with, what it is for, and how outcomes of items become its score."""

    name: str
    domain: str
    role: str
    title: str
    aggregate: str


@dataclass(frozen=True)
class Scope:
    """The closed lists of a campaign. Tables have a cell for each combination, filled or missing."""

    bases: tuple[str, ...]
    methods: tuple[str, ...]
    domains: tuple[str, ...]
    benchmarks: tuple[Benchmark, ...]
    tuned: tuple[str, ...]
    statistics: Mapping[str, tuple[str, ...]]
    multitask: bool = True
    surrogates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    lineage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, Any] | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    seeds: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Scope:
        """Read the worker's spec.

        Keys: `bases`, `methods`, `domains` (lists, in table order); `benchmarks` ({name: {domain, role, title, aggregate}}; how
        items become a score, see `items.AGGREGATES`, a mean if absent); `tuned` (methods that have a grid and so a tune job);
        `statistics` ({method: kinds of statistics that it reads}); `multitask` (whether a multitask model is trained; true if
        absent); `lineage` ({base: {family, size, parameters, instruction_tuned}}, for the paper's claims; none if absent); `surrogates`
        ({domain: names}; none if absent); `data` ({method: "nothing", "training" or "validation"}; not known if absent); `prices`
        ({gpu_hour, cpu_hour, kwh, currency}; nothing is priced if absent); `settings` (what the campaign was set up with, for the
        tables of settings; see `workflow.settings`; none if absent); `warnings` (sentences that stand in every table and figure;
        none if absent); `controls` (merges that methods are compared with, and that are none; none if absent); `seeds` ({method or
        control that draws random numbers: {model: seed}}, the model of the first seed first; none if absent).

        Raises:
            MergebenchError: a key is absent, or a benchmark has an unknown role or domain.
        """
        absent = [key for key in _KEYS if key not in spec]
        if absent:
            raise MergebenchError(f"The analysis spec has no {', '.join(absent)}; it needs {', '.join(_KEYS)}.")
        domains = tuple(spec["domains"])
        benchmarks = []
        for name, entry in spec["benchmarks"].items():
            role, domain = entry["role"], entry["domain"]
            if role not in ROLES:
                raise MergebenchError(f"Benchmark '{name}' of the analysis spec has role {role!r}; expected one of {', '.join(ROLES)}.")
            if role == IN_DOMAIN and domain not in domains:
                raise MergebenchError(
                    f"Benchmark '{name}' of the analysis spec has domain {domain!r}; expected one of {', '.join(domains)}."
                )
            benchmarks.append(Benchmark(name, domain, role, entry.get("title", name), entry.get("aggregate", "mean")))
        return cls(
            bases=tuple(spec["bases"]),
            methods=tuple(spec["methods"]),
            domains=domains,
            benchmarks=tuple(benchmarks),
            tuned=tuple(spec["tuned"]),
            statistics={method: tuple(kinds) for method, kinds in spec["statistics"].items()},
            multitask=spec.get("multitask", True),
            surrogates={domain: tuple(names) for domain, names in spec.get("surrogates", {}).items()},
            warnings=tuple(spec.get("warnings", ())),
            lineage=spec.get("lineage", {}),
            data=spec.get("data", {}),
            prices=spec.get("prices"),
            settings=spec.get("settings", {}),
            controls=tuple(spec.get("controls", ())),
            # JSON does not keep the order of a map's keys.
            seeds={name: dict(sorted(models.items(), key=lambda each: each[1])) for name, models in spec.get("seeds", {}).items()},
        )

    @property
    def specialists(self) -> tuple[str, ...]:
        """Model names of the specialists, in domain order."""
        return tuple(SPECIALIST_PREFIX + domain for domain in self.domains)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model of one base that is compared; of a method with several seeds, the first one's stands for the mean of all."""
        multitask = (MULTITASK,) if self.multitask else ()
        return (BASE, *self.specialists, *multitask, *(MERGED_PREFIX + name for name in (*self.methods, *self.controls)))

    @property
    def several(self) -> dict[str, tuple[str, ...]]:
        """Of every method and control with several seeds, the model of the first seed -> the models of all."""
        return {next(iter(models)): tuple(models) for models in self.seeds.values() if len(models) > 1}

    @property
    def other_seeds(self) -> tuple[str, ...]:
        """Models of seeds that are not the first of their method."""
        return tuple(model for models in self.several.values() for model in models[1:])

    @property
    def scored(self) -> tuple[str, ...]:
        """Every model of one base that is scored."""
        return (*self.models, *self.other_seeds)

    def apart(self) -> Scope:
        """The same campaign with every seed's model a method of its own, and none a mean over seeds."""
        return replace(self, methods=(*self.methods, *(model.removeprefix(MERGED_PREFIX) for model in self.other_seeds)), seeds={})

    @property
    def compared(self) -> tuple[str, ...]:
        """Columns of the result tables: the untouched base, controls, the methods, the multitask model if there is one."""
        return (UNTOUCHED_BASE, *self.controls, *self.methods, *((MULTITASK,) if self.multitask else ()))

    def expects(self, model: str, benchmark: Benchmark) -> bool:
        """Whether a campaign scores this model on this benchmark: specialists are not asked what they forgot, and surrogates
        belong to tuning."""
        return benchmark.role == IN_DOMAIN or (benchmark.role == FORGETTING and model not in self.specialists)

    def of_role(self, role: str) -> tuple[Benchmark, ...]:
        """The benchmarks of one role, in order of domain and then as configured."""
        chosen = [benchmark for benchmark in self.benchmarks if benchmark.role == role]
        rank = {domain: position for position, domain in enumerate(self.domains)}
        return tuple(sorted(chosen, key=lambda benchmark: rank.get(benchmark.domain, len(rank))))
