"""Checks of Python and its packages, here and on the nodes: the same, and those of the lock."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mergebench.workflow.doctor.facts import Facts
from mergebench.workflow.doctor.finding import Finding, failed, ok, skipped, warning

PLUGIN = "snakemake-executor-plugin-slurm"
_SHOWN = 5


def python(facts: Facts) -> Iterator[Finding]:
    """Is this Python new enough?"""
    mine, least = facts.here["python"]["version"], facts.pins.python
    if least and _numbers(mine) < _numbers(least):
        yield failed("Python", f"{mine}; the package needs {least} or newer", "make the environment with a newer Python.")
    else:
        yield ok("Python", f"{mine}, {facts.here['python']['executable']}")


def packages(facts: Facts) -> Iterator[Finding]:
    """Are the packages those of the lock?"""
    installed, asked = facts.here["packages"], facts.pins
    if not asked.locked:
        yield skipped("packages", "no envs/*.lock in this folder")
        return
    wrong = _differences(asked.direct, installed)
    wrong = {name: pair for name, pair in wrong.items() if name != PLUGIN}
    drifted = {name: pair for name, pair in _differences(asked.locked, installed).items() if name not in asked.direct}
    if wrong:
        yield failed("packages", _listed(wrong), f"install envs/{asked.lock} anew: results are those of the pinned versions.")
    elif drifted:
        todo = f"install envs/{asked.lock} anew if results shall be comparable."
        yield warning("packages", f"{len(drifted)} differ from envs/{asked.lock}: {_listed(drifted)}", todo)
    else:
        yield ok("packages", f"all {len(asked.locked)} of envs/{asked.lock}")
    yield (
        ok("snakemake", installed["snakemake"])
        if "snakemake" in installed
        else failed("snakemake", "is not installed", "activate the environment of the workflow.")
    )


def plugin(facts: Facts) -> Iterator[Finding]:
    """Is the executor plugin there, at the version whose behaviour the workflow corrects?"""
    if not facts.submits:
        yield skipped("executor plugin", facts.without_slurm)
        return
    found, wanted = facts.here["packages"].get(PLUGIN), facts.pins.direct.get(PLUGIN)
    if found is None and facts.slurm is None:
        yield skipped("executor plugin", "not installed, and no Slurm here")
    elif found is None:
        yield failed(
            "executor plugin", f"{PLUGIN} is not installed", f"pip install {PLUGIN}=={wanted}" if wanted else f"pip install {PLUGIN}"
        )
    elif wanted and found != wanted:
        yield failed("executor plugin", f"{found}; expected {wanted}", f"pip install {PLUGIN}=={wanted}")
    else:
        yield ok("executor plugin", found)


def same_on_nodes(facts: Facts) -> Iterator[Finding]:
    """Do jobs find the same Python, packages and source?"""
    if not facts.nodes:
        yield skipped("environment on a node", facts.without_nodes)
    for node in facts.nodes:
        name = f"environment on {node.partition}"
        if node.problem:
            todo = "jobs would fail in the same way: the folder and the environment must be on a file system that the nodes share."
            yield failed(name, node.problem, todo)
            continue
        there, here = node.facts, facts.here
        if there["python"]["version"] != here["python"]["version"]:
            found = f"Python {there['python']['version']} on {there['host']}, {here['python']['version']} here"
            yield failed(name, found, "use an environment that brings its own Python, on the shared file system.")
        elif different := _differences(here["packages"], there["packages"]):
            yield failed(name, f"on {there['host']}: {_listed(different)}", "put the environment on the shared file system.")
        elif there["source"]["digest"] != here["source"]["digest"]:
            found = f"jobs import another mergebench: {there['source']['folder'] or 'none'} on {there['host']}"
            yield failed(name, found, "install the package in the shared environment (`pip install -e .`), or unset PYTHONPATH.")
        else:
            yield ok(name, f"{there['host']}: same Python, {len(there['packages'])} packages and source")


def _differences(wanted: dict[str, str], found: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Name -> (wanted, found); local labels such as ``+cpu`` do not count."""
    pairs = {name: (version, found.get(name, "not installed")) for name, version in wanted.items()}
    return {name: (a, b) for name, (a, b) in pairs.items() if a.partition("+")[0] != b.partition("+")[0]}


def _listed(different: dict[str, tuple[str, str]]) -> str:
    shown = [f"{name} {found} (expected {wanted})" for name, (wanted, found) in list(different.items())[:_SHOWN]]
    more = len(different) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
