"""Weights of merged models that were dropped to save space, and made again where they are needed.

Dropping leaves everything but the shards, and a record in the folder. Who reads the weights holds a shared lock; who finds them
dropped makes them again from the manifest's recipe, and the last reader drops them once more.
"""

import contextlib
import fcntl
import importlib
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mergebench.artifacts import DROPPED, MANIFEST, Job, identity, read_json, remove, remove_abandoned, sha256_file, write_json
from mergebench.errors import MergebenchError


def drop(weights: Path, state: Path) -> dict[str, Any]:
    """Delete the shards of a merged model once nobody reads them; returns the record that stays in `weights`.

    Args:
        weights: the model's folder; its manifest lies beside it.
        state: folder of the campaign's locks.
    """
    manifest = read_json(weights.parent / MANIFEST)
    shards = {name: facts for name, facts in manifest["files"].items() if name.endswith(".safetensors")}
    record = {"files": shards, "bytes": sum(facts["bytes"] for facts in shards.values())}
    with _lock(weights, state) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        write_json(weights / DROPPED, record)
        _delete(weights)
    return record


@contextlib.contextmanager
def held(job: Job) -> Iterator[None]:
    """Keep the merged models among a job's inputs whole while it runs; dropped ones are made again for that time."""
    with contextlib.ExitStack() as stack:
        for path in sorted({p for name in job.inputs for p in job.paths(name)}):
            if job.stage != "drop" and path.is_dir() and _is_merged(path):
                stack.enter_context(_held(path, job))
        yield


@contextlib.contextmanager
def _held(weights: Path, job: Job) -> Iterator[None]:
    with _lock(weights, job.state.parent) as stream:
        while True:
            fcntl.flock(stream, fcntl.LOCK_SH)
            if not _missing(weights):
                break
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another job is making them, or about to; who waited for it exclusively would wait for its end
                fcntl.flock(stream, fcntl.LOCK_UN)
                time.sleep(random.uniform(0.05, 0.2))
                continue
            with job.timing("merging again"):
                make_again(weights, job.threads, job.state)
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):  # another reader is left, and will drop them
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete(weights)


def make_again(weights: Path, threads: int, state: Path) -> None:
    """Carry out the recipe of a merged model's manifest, and put the shards back that were dropped.

    Raises:
        MergebenchError: an input has changed since, or the shards differ from the manifest's SHA-256.
    """
    place = weights.parent / MANIFEST
    manifest = read_json(place)
    recipe = manifest["spec"]
    job = Job("merge", recipe, _inputs(place.parents[3], recipe, manifest["inputs"]), {"weights": weights}, state, threads)
    changed = [n for n, digests in manifest["inputs"].items() if [*filter(None, map(identity, job.paths(n)))] != digests]
    if changed:
        raise MergebenchError(
            f"{weights} was dropped, and its inputs ({', '.join(changed)}) have changed since it was merged; "
            f"delete {place} and run snakemake again, which merges anew."
        )
    print(f"[merge] {weights} was dropped; making it again", file=sys.stderr, flush=True)
    remove_abandoned(job)
    importlib.import_module("mergebench.merging.run").run(job)
    made = job.staging("weights")
    for name, facts in _dropped(weights).items():
        if sha256_file(made / Path(name).relative_to(weights.name)) != facts["sha256"]:
            remove(made)
            raise MergebenchError(
                f"{weights.parent / name} was made again but differs from what {place} records; "
                "delete that manifest and run snakemake again, which merges anew."
            )
    for name in _dropped(weights):
        os.replace(made / Path(name).relative_to(weights.name), weights.parent / name)
    remove(made)


def _inputs(results: Path, recipe: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a merge by the places that the workflow gives them; only those that the manifest names."""
    from mergebench.merging.declarations import declared

    base, method, domains = recipe["base"], recipe["method"], recipe["domains"]
    kinds = declared()[method].statistics
    places = {
        "base": [results / "models" / base / "base/weights"],
        "specialists": [results / "models" / base / f"specialist_{d}/weights" for d in domains],
        "spectra": [results / "vectors" / base / d / MANIFEST for d in domains],
        "statistics": [results / "statistics" / base / d / k / MANIFEST for d in domains for k in kinds],
        "calibration": [results / "data" / f"train_{d}" / MANIFEST for d in domains],
        "hits": [results / "decontamination" / f"train_{d}" / "hits.jsonl" for d in domains],
        "best": [results / "tuning" / base / method / "best.yaml"],
    }
    return {name: places[name] for name in recorded}


@contextlib.contextmanager
def _lock(weights: Path, state: Path) -> Iterator[IO[str]]:
    path = state / "weights" / f"{weights.parent.parent.name}-{weights.parent.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        yield stream


def _is_merged(weights: Path) -> bool:
    manifest = weights.parent / MANIFEST
    return weights.parent.name.startswith("merged_") and manifest.is_file()


def _dropped(weights: Path) -> dict[str, Any]:
    """The shards that were dropped, by name from the manifest's folder; empty if none were."""
    record = weights / DROPPED
    return dict(read_json(record)["files"]) if record.is_file() else {}


def _missing(weights: Path) -> bool:
    files = {weights.parent / name: facts["bytes"] for name, facts in _dropped(weights).items()}
    return any(not path.is_file() or path.stat().st_size != size for path, size in files.items())


def _delete(weights: Path) -> None:
    for name in _dropped(weights):
        (weights.parent / name).unlink(missing_ok=True)
