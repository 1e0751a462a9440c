"""Tokenise a training set for one tokenizer, template and length, and say in a card what came of it.

Spec: ``training_set``, ``tokenizer`` (a name, for the record), ``template``, ``max_length``, and ``batch_size`` for the
card (128). Inputs: ``data`` (manifest of the training set; its rows lie beside it), ``weights`` (folder of a base
with this tokenizer), and optionally ``hits`` (JSONL of the decontamination stage: rows with these ids are left out). Outputs:
``shards`` (folder, see `shards.files`), ``card`` (JSON), ``manifest``.

Work is cut into shards of `ROWS` rows, which `job.threads` processes make. A finished shard stays in the state folder, so that a
killed job goes on behind it. The bytes do not depend on the number of processes.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mergebench.artifacts import Job, identity, read_json, remove, sha256_file, sha256_json, write_json
from mergebench.data.decontamination.hits import contaminated
from mergebench.data.lines import Span, spans
from mergebench.data.workers import shared
from mergebench.errors import MergebenchError
from mergebench.training.encoding import Encoder
from mergebench.training.shards.card import lengths_card, packing_card
from mergebench.training.shards.files import FATES, PARTS, counted, part, write_shard
from mergebench.training.shards.identity import load_tokenizer, tokenizer_sha256
from mergebench.training.templates import template_facts, use_template

ROWS = 8192
_worker: dict[str, Any] = {}  # what the processes of the pool inherit


def run(job: Job) -> dict[str, Any]:
    """Make the shards and the card; returns the facts for the manifest."""
    spec = job.spec
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # whole processes share the work
    with job.timing("load"):
        tokenizer = use_template(load_tokenizer(job.path("weights")), spec["template"])
        facts = {
            **template_facts(tokenizer, spec["template"], instruction_tuned=spec.get("instruction_tuned")),
            "tokenizer": spec["tokenizer"],
            "tokenizer_sha256": tokenizer_sha256(tokenizer),
            "max_length": spec["max_length"],
        }
        rows = job.path("data").with_name("train.jsonl")
        pieces = spans(rows, spec.get("shard_rows", ROWS)) if rows.is_file() else []
        if not pieces:
            raise MergebenchError(f"{rows} has no rows; at least one is needed.")
        removed = contaminated(job.path("hits")) if job.paths("hits") else set()
    with job.timing("tokenise"):
        folder = _resumed(job, facts)
        counts = _make(job, rows, pieces, Encoder(tokenizer, spec["max_length"]), removed, folder)
    fates = counted(counts)
    if not fates["out"]:
        raise MergebenchError(
            f"none of the {fates['in']} rows of {spec['training_set']} can be trained on ({fates['dropped']}); "
            "raise max_length or check the data."
        )
    with job.timing("publish"):
        for piece in pieces:
            for name in PARTS:
                _published(part(folder / str(piece.number), name, piece.number), part(job.staging("shards"), name, piece.number))
    lengths, prompts = _lengths(job.staging("shards"), len(pieces))
    tokens = {"tokens": int(lengths.sum()), "response_tokens": int((lengths - prompts).sum())}
    card = {
        "training_set": spec["training_set"],
        "rows": {name: fates[name] for name in ("in", "out", "dropped")},
        "responses_cut": {"rows": fates["cut"], "tokens": fates["cut_tokens"]},
        **tokens,
        "lengths": {
            "sample": lengths_card(lengths),
            "without loss": lengths_card(prompts),
            "with loss": lengths_card(lengths - prompts),
        },
        "packing": packing_card(lengths, spec["max_length"], spec.get("batch_size", 128)),
        **facts,
        "rows_sha256": sha256_file(rows),
        "source": _source(job.path("data")),
    }
    write_json(job.staging("card"), card)
    return {
        **facts,
        "training_set": spec["training_set"],
        "rows": fates["out"],
        "dropped": fates["dropped"],
        **tokens,
        "shards": [{"rows": one["out"]} for one in counts],
    }


def _resumed(job: Job, facts: dict[str, Any]) -> Path:
    """The folder of finished shards, emptied of those that other rows, or another tokenizer, gave."""
    inputs = {name: [identity(path) for path in job.paths(name)] for name in ("data", "hits")}
    folder = job.state / f"shards-{sha256_json({'spec': job.spec, 'inputs': inputs, 'facts': facts})[:16]}"
    for other in job.state.glob("shards-*"):
        if other != folder:
            remove(other)
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.glob(".*.tmp-*"):
        remove(abandoned)
    return folder


def _make(job: Job, rows: Path, pieces: list[Span], encoder: Encoder, removed: set[str], folder: Path) -> list[dict[str, Any]]:
    """Make the shards that are missing; returns the counts of every shard, in order."""
    counts = {piece.number: read_json(folder / str(piece.number) / FATES) for piece in pieces if (folder / str(piece.number)).is_dir()}
    if counts:
        job.progress(0, 0, f"going on behind {len(counts)} of {len(pieces)} shards")
    _worker.update(path=rows, encoder=encoder, removed=removed, folder=folder)
    for number, made in shared(_shard, [piece for piece in pieces if piece.number not in counts], job.threads):
        counts[number] = made
        job.progress(len(counts), len(pieces), "shards")
    return [counts[piece.number] for piece in pieces]


def _shard(span: Span) -> tuple[int, dict[str, Any]]:
    folder = _worker["folder"] / str(span.number)
    return span.number, write_shard(_worker["path"], span, _worker["encoder"], _worker["removed"], folder)


def _published(finished: Path, final: Path) -> None:
    """The same file under a second name: a job that is killed here still finds its shards in the state folder."""
    try:
        os.link(finished, final)
    except OSError:  # a file system without hard links
        shutil.copyfile(finished, final)


def _lengths(folder: Path, shards: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of every row, and those of them that have no loss."""
    lengths = np.concatenate([np.diff(np.load(part(folder, "offsets", number))) for number in range(shards)])
    prompts = np.concatenate([np.load(part(folder, "prompts", number)).astype(np.int64) for number in range(shards)])
    return lengths, prompts


def _source(manifest: Path) -> dict[str, Any]:
    """Where the rows come from, as the data stage recorded it."""
    recorded = read_json(manifest)
    return {key: recorded[key] for key in ("source", "revisions", "source_rows", "filter", "filtered", "rows", "notes") if key in recorded}
