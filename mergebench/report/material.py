"""What a report is made from: the spec of the campaign and the files that are there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mergebench.analysis.scope import Scope
from mergebench.errors import MergebenchError


@dataclass(frozen=True)
class Job:
    """A job that is not done: what happened to it and the last lines of its log."""

    title: str
    state: str
    reason: str
    lines: tuple[str, ...] = ()
    log: str = ""


@dataclass(frozen=True)
class Material:
    """The campaign and its files.

    Attributes:
        spec: of the stage: `Scope.from_spec`'s keys, `results` (the folder of the preset), `preset`, `command` (Snakemake with the profile
            and preset that make it) and `configuration` (the preset, as it decides results).
        files: paths by the names of `outputs.INPUTS`; any may be absent.
        unfinished: jobs that run or have failed, where somebody has looked.
    """

    spec: Mapping[str, Any]
    files: Mapping[str, list[Path]]
    unfinished: tuple[Job, ...] = field(default=())

    @cached_property
    def scope(self) -> Scope:
        """The lists of the campaign."""
        absent = [key for key in ("results", "preset", "command", "configuration") if key not in self.spec]
        if absent:
            raise MergebenchError(f"The spec of the report has no {', '.join(absent)}; start it with snakemake or `mergebench report`.")
        return Scope.from_spec(self.spec)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model of one base that is scored."""
        return self.scope.scored

    @property
    def results(self) -> str:
        """The folder of the preset's results, as its commands name it."""
        return str(self.spec["results"])

    def paths(self, name: str) -> list[Path]:
        """The files of one name in the order of their paths."""
        return sorted(self.files.get(name, []))

    def of(self, name: str, stem: str) -> dict[str, Path]:
        """The files of a table or figure by suffix."""
        return {path.suffix[1:]: path for path in self.paths(name) if path.stem == stem}

    def make(self, *targets: str, again: bool = False) -> str:
        """The command that makes files of the results, or makes tables and figures again."""
        forced = " --forcerun analyse" if again else ""
        return f"{self.spec['command']}{forced} -- {shlex.join(f'{self.results}/{target}' for target in targets)}"
