"""What `catalogue` in a configuration may hold: bases and domains beyond the shipped ones, checked and brought into the form of the files.

A domain brings its training set and names the benchmarks and surrogates that measure it, so that a new domain is one entry.
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mergebench import catalogue
from mergebench.errors import nearest

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]  # part of file names; no underscore: `specialist_<domain>`


class Entry(BaseModel):
    """A map of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Base(Entry):
    """A base model: a repository of the hub or a folder on this machine."""

    title: str | None = Field(None, description="in tables and figures; null: its name")
    size: Literal["tiny", "small", "large"] = Field(description="which settings of `training.supervised` it takes")
    parameters: Annotated[int, Field(ge=1)] = Field(description="tied embeddings once; requests of resources follow from it")
    hub: str | None = Field(None, description="owner/name")
    revision: str | None = Field(None, description="commit, branch or tag; null: the locked one")
    path: str | None = Field(None, description="folder on this machine")
    gated: bool = False
    instruction_tuned: bool = False
    tokenizer: str | None = Field(None, description="bases with the same value share tokens; null: its name")
    specialists: str | None = Field(None, description="published specialists: owner/name_{domain}")

    @model_validator(mode="after")
    def _somewhere(self) -> "Base":
        if (self.hub is None) == (self.path is None):
            raise ValueError("hub and path: give one of the two")
        return self


class TrainingData(Entry):
    """The training set of a domain: columns of a hub dataset or of local files."""

    id: str | None = Field(None, description="dataset of the hub")
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    gated: bool = False
    file: str | None = Field(None, description="JSON, JSON Lines, CSV or Parquet below data.root, or an absolute path; for source local")
    prompt: str = Field("prompt", description="column of the prompt")
    response: str = Field("response", description="column of the response")
    rows: Annotated[int, Field(ge=1)] | None = Field(None, description="rows that a complete copy has; null: not checked")

    @model_validator(mode="after")
    def _somewhere(self) -> "TrainingData":
        if self.id is None and self.file is None:
            raise ValueError("id and file: give id for source hub, file for source local, or both")
        return self


class Domain(Entry):
    """A domain: its training set, and the benchmarks and surrogates that measure it."""

    title: str | None = None
    training: TrainingData
    in_domain: list[str] = Field(description="benchmarks of the catalogue that are this domain's now")
    surrogates: list[str] = Field(description="likewise, for tuning")


class Additions(Entry):
    """What a configuration adds to the catalogue."""

    bases: dict[Name, Base] = {}
    domains: dict[Name, Domain] = {}

    def entries(self, domains: Collection[str] | None = None) -> dict[str, catalogue.Entries]:
        """The additions as entries of the catalogue's files.

        Args:
            domains: leave out the domains that are not among these; None: all are taken.

        Raises:
            ValueError: a shipped name is taken again, or a benchmark is unknown.
        """
        made: dict[str, catalogue.Entries] = {"bases": {}, "domains": {}, "datasets": {}, "benchmarks": {}}
        for name, base in self.bases.items():
            if name in catalogue.shipped("bases"):
                raise ValueError(f"catalogue.bases: {name!r} is in the catalogue already; choose another name")
            made["bases"][name] = {"title": name, **base.model_dump(exclude_none=True)}
        for name, domain in self.domains.items():
            if name in catalogue.shipped("domains"):
                raise ValueError(f"catalogue.domains: {name!r} is in the catalogue already; choose another name")
            if domains is not None and name not in domains:
                continue
            title = domain.title or name
            made["domains"][name] = {"title": title}
            made["datasets"][f"train_{name}"] = _training_set(name, title, domain.training)
            for role, benchmarks in (("in_domain", domain.in_domain), ("surrogate", domain.surrogates)):
                for benchmark in benchmarks:
                    if benchmark not in catalogue.shipped("benchmarks"):
                        known = nearest(benchmark, list(catalogue.shipped("benchmarks")))
                        raise ValueError(f"catalogue.domains.{name}: {benchmark!r} is not a benchmark; {known}")
                    if benchmark in made["benchmarks"]:
                        raise ValueError(f"catalogue.domains.{name}: {benchmark!r} already measures another domain or role")
                    made["benchmarks"][benchmark] = {"domain": name, "role": role}
        return made


def _training_set(domain: str, title: str, data: TrainingData) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "title": f"{title} (training)",
        "use": "training",
        "domain": domain,
        "rows": data.rows,
        "paper": "",
        "licence": "not stated",
        "gated": data.gated,
        "columns": [data.prompt, data.response],
        "fields": {"prompt": data.prompt, "response": data.response},
    }
    if data.id is not None:
        optional = {"config": data.config, "revision": data.revision}
        entry["hub"] = {"parts": {"rows": {"id": data.id, "split": data.split, **{k: v for k, v in optional.items() if v}}}}
    if data.file is not None:
        entry["local"] = {"published": {"rows": data.file}}
    return entry
