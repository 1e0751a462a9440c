"""Which rows of a training set overlap which benchmark: n-grams that both have.

Spec: ``training_set``, ``ngram`` (words in a row; 13), ``shortest`` (a shorter text is looked for as a whole from so many words
on; 8, or `ngram` if that is less). Inputs: ``data`` (manifest of the training set), ``benchmarks`` (manifests of benchmarks and
surrogates; their rows lie beside them). Searched are the training rows and, where there are any, the calibration rows set aside from
them. Outputs: ``report`` (CSV), ``summary`` (Markdown), ``hits`` (JSONL: the rows that
overlap, by id, with the items), ``manifest``. Rows are read in spans by `job.threads` processes, so memory holds the benchmarks
and no training set.
"""

import json
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.artifacts import Job
from mergebench.data.decontamination.index import Builder
from mergebench.data.decontamination.report import EXAMPLES, Overlap, as_csv, as_markdown
from mergebench.data.decontamination.words import item_texts, training_texts
from mergebench.data.lines import Span, numbered, spans
from mergebench.data.workers import shared
from mergebench.errors import MergebenchError

NGRAM, SHORTEST = 13, 8
ROWS = 2048  # rows that are searched at once
ITEMS = 20  # items that a hit names at most
Hits = list[tuple[str, list[int]]]  # id of a row, segments that it overlaps
_worker: dict[str, Any] = {}  # what the processes of the pool inherit


def run(job: Job) -> dict[str, Any]:
    """Make the report; returns the counts for the manifest."""
    spec = job.spec
    ngram = spec.get("ngram", NGRAM)
    shortest = spec.get("shortest", min(SHORTEST, ngram))
    if not 1 <= shortest <= ngram:
        raise MergebenchError(f"shortest is {shortest} and ngram {ngram}; expected 1 <= shortest <= ngram.")
    with job.timing("index"):
        items, overlaps, builder = _read(job.paths("benchmarks"), ngram, shortest)
        index = builder.index()
    rows = job.path("data").with_name("train.jsonl")
    aside = rows.with_name("calibration.jsonl")
    pieces = [(path, span) for path in (rows, aside) if path == rows or path.is_file() for span in spans(path, ROWS)]
    total = hit = 0
    with job.timing("search"), job.staging("hits").open("w", encoding="utf-8") as stream:
        _worker.update(index=index)
        for done, (count, hits) in enumerate(shared(_search, pieces, job.threads), start=1):
            total, hit = total + count, hit + len(hits)
            for identifier, segments in hits:
                overlapping = _count(identifier, segments, items, overlaps, builder.items_of)
                stream.write(json.dumps({"id": identifier, "overlaps": overlapping}, ensure_ascii=False) + "\n")
            job.progress(done, len(pieces), f"spans of {ROWS} rows")
    if not total:
        raise MergebenchError(f"{rows} has no rows; at least one is needed.")
    found = list(overlaps.values())
    job.staging("report").write_text(as_csv(spec["training_set"], total, found), encoding="utf-8")
    job.staging("summary").write_text(as_markdown(spec["training_set"], total, hit, ngram, shortest, found), encoding="utf-8")
    return {
        "training_set": spec["training_set"],
        "ngram": ngram,
        "shortest": shortest,
        "rows": total,
        "rows_hit": hit,
        "benchmarks": {o.benchmark: {"items": o.items, "searched": o.searched, "rows_hit": o.rows, "items_hit": len(o.hit)} for o in found},
    }


def _read(manifests: list[Path], ngram: int, shortest: int) -> tuple[list[tuple[str, str]], dict[str, Overlap], Builder]:
    """All items of the benchmarks (name, id), an empty count for each benchmark, and their n-grams."""
    builder = Builder(ngram, shortest)
    items: list[tuple[str, str]] = []
    overlaps: dict[str, Overlap] = {}
    for manifest in manifests:
        dataset, path = manifest.parent.name, manifest.with_name("rows.jsonl")
        overlap = overlaps[dataset] = Overlap(dataset, catalogue.datasets().get(dataset, {}).get("use", "benchmark"))
        for span in spans(path, ROWS):
            for number, content in numbered(path, span):
                row = _row(content, path, number)
                overlap.items += 1
                overlap.searched += builder.add(dataset, len(items), item_texts(dataset, row))
                items.append((dataset, str(row["id"])))
    return items, overlaps, builder


def _count(
    identifier: str, segments: list[int], items: list[tuple[str, str]], overlaps: dict[str, Overlap], items_of: list[list[int]]
) -> dict[str, list[str]]:
    """Enter one row's hits into the counts; returns the items that it overlaps, by benchmark."""
    found: dict[str, list[int]] = {}
    for item in sorted({item for segment in segments for item in items_of[segment]}):
        found.setdefault(items[item][0], []).append(item)
    for dataset, numbers in found.items():
        overlap = overlaps[dataset]
        overlap.rows += 1
        overlap.hit.update(numbers)
        if len(overlap.examples) < EXAMPLES:
            overlap.examples.append((identifier, items[numbers[0]][1]))
    return {dataset: [items[number][1] for number in numbers[:ITEMS]] for dataset, numbers in found.items()}


def _search(piece: tuple[Path, Span]) -> tuple[int, Hits]:
    path, span = piece
    rows = [_row(content, path, number) for number, content in numbered(path, span)]
    hits: dict[int, list[int]] = {}
    for match in _worker["index"].search([training_texts(row) for row in rows]):
        hits.setdefault(match.row, []).append(match.segment)
    return len(rows), [(str(rows[number]["id"]), segments) for number, segments in sorted(hits.items())]


def _row(content: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(content)
        row["id"]
    except (ValueError, KeyError, TypeError):
        raise MergebenchError(f"{path}, line {number}: not a row with an id; make the data again.") from None
    return dict(row)
