"""What the workflow needs to know of lm-eval's task files, without lm-eval."""

from functools import cache
from typing import Any

import yaml

from mergebench import catalogue
from mergebench.fingerprint import ROOT


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads task files; the functions that they name are not imported."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


@cache
def _task(benchmark: str) -> dict[str, Any]:
    path = ROOT / "evaluation/tasks" / catalogue.benchmarks()[benchmark]["task"]
    task: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    return task


def deferred(benchmark: str) -> str | None:
    """What scores the answers to a benchmark later (`metadata.defer`): ``code``, ``safety``, or None."""
    kind: str | None = _task(benchmark)["metadata"].get("defer")
    return kind


def aggregate(benchmark: str) -> str:
    """How outcomes of items become the benchmark's score (`metadata.aggregate`)."""
    name: str = _task(benchmark)["metadata"]["aggregate"]
    return name


def generation(benchmark: str, protocol: str) -> tuple[int, int | None]:
    """Answers per prompt and the limit of tokens of each under a protocol; None: nothing is generated, or the include says."""
    task = _task(benchmark)
    changed = task["metadata"].get("protocols", {}).get(protocol, {})
    limits = {**task.get("generation_kwargs", {}), **changed.get("generation_kwargs", {})}
    return int(changed.get("repeats", task.get("repeats", 1))), limits.get("max_gen_toks")
