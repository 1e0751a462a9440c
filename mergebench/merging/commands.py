"""`mergebench merge`: carry out a recipe for a person with a base and some fine-tunes, without a workflow."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mergebench import __version__
from mergebench.artifacts import MANIFEST, lease, read_json, remove, sha256_json, write_json
from mergebench.checkpoints.layout import Layout
from mergebench.costs import gpu_peak_bytes, own_peak_bytes
from mergebench.errors import MergebenchError
from mergebench.merging.engine import merge_many
from mergebench.merging.estimate import Estimate, estimate, size
from mergebench.merging.models import Models
from mergebench.merging.progress import Progress
from mergebench.merging.provenance import describe_inputs, describe_outputs
from mergebench.merging.recipe import Instructions, read
from mergebench.merging.sidecars import load_spectra, save_spectra

GRID, COST = "grid.json", "run.json"


def merge(options: argparse.Namespace) -> None:
    """Write what a recipe asks for; OUT appears, complete, at the end.

    Until then everything is kept in a folder beside it. The same command goes on there after it was stopped.

    Raises:
        MergebenchError: The recipe or an input is wrong, OUT holds something else, there is too little room, or a file cannot be used.
    """
    try:
        _merge(options)
    except OSError as error:
        raise MergebenchError(f"{error.strerror or error}: {error.filename or options.out}.") from error


def _merge(options: argparse.Namespace) -> None:
    started = time.monotonic()
    instructions = read(options.recipe, seed=options.seed)
    out = options.out.resolve()
    _check_device(options.device)
    models = Models.open(
        instructions.base,
        instructions.specialists,
        spectra=instructions.spectra,
        statistics=instructions.statistics,
        vocabulary=instructions.vocabulary,
    )
    shard_bytes = parse_size(options.max_shard_size)
    identity = _identity(instructions, models, options.device, shard_bytes)
    staging = out.with_name(f"{out.name}.partial")
    if _finished(out, identity):
        remove(staging)
        _say(options, f"{out} holds this very merge already; nothing was done.")
        _print_result(options, out)
        return
    _check_place(out, staging, identity)
    layout = Layout.of(models.base, dtype=instructions.dtype, max_shard_bytes=shard_bytes, shapes=models.rows.shapes)
    if options.spectra:
        load_spectra(options.spectra, models, instructions.scope)
    recipes = list(instructions.merges.values())
    place = next(folder for folder in out.parents if folder.is_dir())
    expected = estimate(models, recipes, layout, scope=instructions.scope, threads=options.threads, trial=place)
    _introduce(options, instructions, models, expected)
    if options.dry_run:
        if options.json:
            print(json.dumps({"estimate": expected.record(), "merges": [*instructions.merges], "notes": [*instructions.notes]}, indent=1))
        return
    _check_room(place, expected.bytes_to_write, staging)
    staging.mkdir(parents=True, exist_ok=True)
    with lease(staging / "lease") as waited:
        if waited and _finished(out, identity):
            _print_result(options, out)
            return
        write_json(staging / "recipe.json", {"identity": identity})
        _carry_out(options, instructions, models, shard_bytes, staging)
        write_json(staging / "out" / COST, {"identity": identity, **_cost(options, expected, time.monotonic() - started)})
        _publish(staging / "out", out)
    remove(staging)
    if options.spectra:
        save_spectra(options.spectra, models)
    _print_result(options, out)


def _carry_out(options: argparse.Namespace, instructions: Instructions, models: Models, shard_bytes: int, staging: Path) -> None:
    """Write all outputs and their manifests into staging/out."""
    remove(staging / "out")  # of a process that was killed; the finished files of weights are kept elsewhere
    folders = {slug: staging / "out" / slug for slug in instructions.merges}
    everything = {"base": models.base, **models.specialists}
    stop = threading.Event()
    with ThreadPoolExecutor(2) as aside:
        described = aside.submit(describe_inputs, everything, recorded=options.recorded_hashes, stop=stop)
        try:
            outcomes = _write_outputs(options, instructions, models, shard_bytes, staging, folders)
        except BaseException:
            stop.set()
            raise
        written = aside.submit(_flush, staging / "out")
        files = {slug: describe_outputs(folder, threads=options.threads) for slug, folder in folders.items()}
        inputs = described.result()
        written.result()
    shared = {
        "mergebench": __version__,
        "recipe": dict(instructions.asked),
        "notes": [*instructions.notes],
        "inputs": inputs,
        "audit": {domain: [note.record() for note in notes] for domain, notes in models.findings.items()},
    }
    points: list[dict[str, Any]] = []
    for slug, outcome in zip(folders, outcomes, strict=True):
        manifest = {**shared, "merge": outcome.pop("recipe"), **outcome}
        write_json(folders[slug] / MANIFEST, {**manifest, "files": files[slug]})
        twin = next((point["name"] for point in points if point["realised_digest"] == outcome["realised_digest"]), None)
        points.append({"name": slug, **manifest["merge"], "realised_digest": outcome["realised_digest"], "same_weights_as": twin})
    if [*folders] != [""]:
        write_json(staging / "out" / GRID, {"merges": points})


def _write_outputs(
    options: argparse.Namespace,
    instructions: Instructions,
    models: Models,
    shard_bytes: int,
    staging: Path,
    folders: Mapping[str, Path],
) -> list[dict[str, Any]]:
    """Write all outputs, without their manifests; what the engine says of them."""
    with Progress("merging") as progress:
        outcomes = merge_many(
            models,
            [(recipe, folders[slug]) for slug, recipe in instructions.merges.items()],
            scope=instructions.scope,
            dtype=instructions.dtype,
            max_shard_bytes=shard_bytes,
            threads=options.threads,
            device=options.device,
            arithmetic=instructions.arithmetic,
            state=staging / "state",
            progress=None if options.quiet else progress,
        )
    if instructions.chat_template is not None:
        for folder in folders.values():
            _set_chat_template(folder, instructions.chat_template)
    return outcomes


def _identity(instructions: Instructions, models: Models, device: str, shard_bytes: int) -> str:
    """A digest of all that decides the bytes of the outputs."""
    merges = {slug: [recipe.method, dict(recipe.parameters), recipe.seed] for slug, recipe in instructions.merges.items()}
    settings = [instructions.scope, instructions.dtype, instructions.vocabulary, instructions.arithmetic, instructions.chat_template]
    files = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in instructions.statistics]
    return sha256_json([merges, settings, models.identity(), files, device, shard_bytes, __version__])


def _finished(out: Path, identity: str) -> bool:
    """Whether `out` is what this command makes."""
    if not (out / COST).is_file():
        return False
    try:
        found = read_json(out / COST)
    except MergebenchError:
        return False
    return isinstance(found, dict) and found.get("identity") == identity


def _check_place(out: Path, staging: Path, identity: str) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MergebenchError(f"{out} exists and is not empty; name a new folder, or remove it first.")
    begun = staging / "recipe.json"
    if begun.is_file() and read_json(begun).get("identity") != identity:
        raise MergebenchError(
            f"{staging} holds unfinished work of another recipe or of other inputs; finish that with its own command, or remove the folder."
        )
    if staging.exists() and not begun.is_file() and any(path.name != "lease" for path in staging.iterdir()):
        raise MergebenchError(f"{staging}, where the unfinished merge would be kept, exists already and is something else; move it away.")


def _check_device(device: str) -> None:
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise MergebenchError(f"There is no device {device}: torch finds no CUDA device on this machine; use --device cpu.")


def _check_room(folder: Path, needed: int, staging: Path) -> None:
    written = sum(path.stat().st_blocks * 512 for path in staging.rglob("*.safetensors") if path.is_file()) if staging.exists() else 0
    free = shutil.disk_usage(folder).free
    if free + written < needed:
        raise MergebenchError(f"The outputs need {size(needed)} and {folder} has {size(free)} free; make room or name another place.")


def _publish(staged: Path, out: Path) -> None:
    """Move the finished folder, whose files are on the disk, to its name."""
    try:
        os.rename(staged, out)  # an empty folder at its place is replaced
    except OSError as error:
        raise MergebenchError(f"Cannot move the finished merge from {staged} to {out}: {error.strerror}.") from error


def _flush(folder: Path) -> None:
    """Have all files below a folder on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def _set_chat_template(folder: Path, template: str) -> None:
    """Give the merged model's tokenizer another chat template, in the one place where transformers looks first."""
    for path in (folder / "chat_template.jinja", folder / "chat_template.json"):
        path.unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        content = read_json(settings)
        if isinstance(content, dict) and content.pop("chat_template", None) is not None:
            write_json(settings, content)


def _cost(options: argparse.Namespace, expected: Estimate, seconds: float) -> dict[str, Any]:
    """What the command cost; it differs from run to run, and is therefore not in the manifest."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_seconds": round(seconds, 3),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "peak_rss_bytes": own_peak_bytes(),
        "gpu_peak_bytes": gpu_peak_bytes(),
        "threads": options.threads,
        "device": options.device,
        "estimate": expected.record(),
        "machine": platform.node(),
        "python": platform.python_version(),
    }


def _introduce(options: argparse.Namespace, instructions: Instructions, models: Models, expected: Estimate) -> None:
    first = next(iter(instructions.merges.values()))
    outputs = f"{len(instructions.merges)} outputs" if len(instructions.merges) > 1 else "one output"
    _say(options, f"{first.method} of {', '.join(models.domains)} onto {models.base.folder}: {outputs}; {expected.sentence()}")
    for domain, findings in models.findings.items():
        for finding in findings:
            _say(options, f"{domain}: {finding.message}")
    for note in instructions.notes:
        _say(options, note)


def _print_result(options: argparse.Namespace, out: Path) -> None:
    record: Mapping[str, Any] = read_json(out / (GRID if (out / GRID).is_file() else MANIFEST))
    if options.json:
        summary = record if "merges" in record else {key: record[key] for key in ("merge", "realised_digest")}
        print(json.dumps({"out": str(out), **summary}, indent=1, sort_keys=True))
    elif not options.quiet:
        print(out)


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet and not (options.json and options.dry_run):
        print(text, file=sys.stderr, flush=True)


def parse_size(text: str) -> int:
    """Bytes of a size such as "5GB" or "512MiB".

    Raises:
        MergebenchError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not match or not float(match[1]):
        raise MergebenchError(f"--max-shard-size is {text!r}; expected a size such as 5GB or 512MiB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))
