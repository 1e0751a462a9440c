"""``safety_eval.json`` of safety-eval a173993: rates of successful attacks per benchmark, and XSTest's accuracy.

The blocks are made where answers are scored (`mergebench.evaluation.safety.report`), from the labels. Our files have one more
key, ``config``, which says who judged and under which protocol the answers were made.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import reduce
from math import lcm
from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.evaluation.official.scores import OfficialScore, document
from mergebench.evaluation.scoring import Record

# The names of safety-eval's tasks; the surrogate has one of another name than ours.
TASKS = {
    "wildguardtest": "wildguardtest",
    "harmbench": "harmbench",
    "xstest": "xstest",
    "do_anything_now": "do_anything_now",
    "wildjailbreak": "wildjailbreak:harmful",
}
MOST = 5000
"""Items that `item_counts` looks for at most."""


def write(records: Sequence[Record]) -> dict[str, Any]:
    """The file of one model's safety scores; empty where there is none."""
    judged = {record.benchmark: record.summary for record in records if record.benchmark in TASKS and record.summary.get("judge")}
    if not judged:
        return {}
    blocks = {task: judged[name]["judge"]["official"] for name, task in TASKS.items() if name in judged}
    return {**blocks, "config": {TASKS[name]: _config(summary) for name, summary in judged.items()}}


def _config(summary: Mapping[str, Any]) -> dict[str, Any]:
    judge = summary["judge"]
    return {
        "judge": judge["name"],
        "fallback": judge["fallback"],
        "protocol": judge["counted"],
        "n": judge["answers"],
        "parse_errors": judge["parse_errors"],
    }


def read(path: Path) -> list[OfficialScore]:
    """Every number of a file; the numbers of subgroups are parts of the number of the whole.

    Raises:
        MergebenchError: the file is not laid out as safety-eval lays it out.
    """
    report = document(path)
    config = report.get("config", {})
    scores: list[OfficialScore] = []
    for task, block in report.items():
        if task == "config":
            continue
        if not isinstance(block, dict):
            raise MergebenchError(f"{path}: {task} is a {type(block).__name__}; safety-eval writes an object per task.")
        scores += _scores(path, task, block, config.get(task, {}).get("n"))
    return scores


def _scores(path: Path, task: str, block: Mapping[str, Any], n: int | None) -> Iterable[OfficialScore]:
    headline = next((key for key in ("micro harm (lower)", "micro ASR (lower)", "overall_accuracy", "macro ASR") if key in block), None)
    if headline is None:
        raise MergebenchError(f"{path}: {task} has none of safety-eval's metrics; it has {', '.join(block) or 'nothing'}.")
    groups = {key: value for key, value in block.items() if isinstance(value, dict)}
    single = {key: _number(path, task, key, value) for key, value in block.items() if key not in groups}
    yield OfficialScore(task, headline, single.pop(headline), n, single)
    for key, values in groups.items():
        parts = {name: _number(path, task, f"{key}, {name}", value) for name, value in values.items()}
        yield OfficialScore(task, key, single.get(key, block[headline]), None, parts)


def _number(path: Path, task: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MergebenchError(f"{path}: {task}, {key} is a {type(value).__name__}; safety-eval writes numbers.")
    return float(value)


def item_counts(*reports: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """How many items files of the same benchmarks were made from, by task, as far as their numbers tell.

    A rate over n items is a multiple of 1/n. The answer is the smallest n of which every rate over all items is one, and that
    disjoint subgroups, each with a size that its own rates allow, can make up. More files make it more certain.
    """
    return {task: _count([report[task] for report in reports]) for task in reports[0] if task != "config"}


def _count(blocks: Sequence[Mapping[str, Any]]) -> int:
    headlines = ("micro harm (lower)", "micro ASR (lower)", "overall_accuracy", "macro ASR")
    unit = _unit([block[key] for block in blocks for key in headlines if key in block])
    reachable = [_sums(units) for units in _partitions(blocks)]
    for n in range(unit, MOST + 1, unit):
        if all(sums >> n & 1 for sums in reachable):
            return n
    raise MergebenchError(f"no number of items up to {MOST} fits all rates of these files; they are not of one benchmark.")


def _partitions(blocks: Sequence[Mapping[str, Any]]) -> Iterable[list[int]]:
    """For each way in which a report divides the items, the numbers of which each subgroup's size is a multiple."""
    first = blocks[0]
    pairs = [("adversarial harm (lower)", "vanilla harm (lower)"), ("inverted_rta_all_safe", "inverted_rta_all_contrast")]
    for keys in pairs:
        if keys[0] in first:
            yield [_unit([block[key] for block in blocks]) for key in keys]
    for key, value in first.items():
        if isinstance(value, dict) and key != "refusal_prf":
            yield [_unit([block[key][name] for block in blocks]) for name in value]
    flat = [key for key in first if key.startswith("inverted_rta_") and "_all_" not in key]
    flat += [key for key in first if key.endswith(" ASR") and key != "macro ASR"]
    if flat:
        yield [_unit([block[key] for block in blocks]) for key in flat]


def _unit(rates: Iterable[float]) -> int:
    """The number of which the count behind all of these rates is a multiple."""
    return reduce(lcm, (_denominator(rate) for rate in rates), 1)


def _denominator(rate: float) -> int:
    """The smallest d for which a rate is k / d, or 1 - k / d, to the last bits."""
    for limit in (10, 100, 1000, MOST):
        found = Fraction(rate).limit_denominator(limit)
        if abs(float(found) - rate) <= 4e-16:
            return found.denominator
    raise MergebenchError(f"{rate} is not a rate over at most {MOST} items.")


def _sums(units: Sequence[int]) -> int:
    """Bit n is set where n is a sum of positive multiples of the units, one of each."""
    mask = (1 << (MOST + 1)) - 1
    sums = 1
    for unit in units:
        added = sums << unit & mask
        step = unit
        while step <= MOST:
            added |= added << step & mask
            step *= 2
        sums = added
    return sums
