"""Calibration rows: the right domain's, unchanged since they were prepared, and a uniform subset of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergebench.artifacts import MANIFEST, read_json, sha256_file
from mergebench.data.decontamination.hits import contaminated
from mergebench.data.sampling import fraction
from mergebench.errors import MergebenchError
from mergebench.training.examples import Example, encode, read_rows

FILE = "calibration.jsonl"


def check_pairing(spec: dict[str, Any], specialist: Path, data: Path) -> None:
    """Refuse a specialist, or calibration rows, of another domain or base than the spec names.

    Raises:
        MergebenchError: with what was given and what was expected.
    """
    domain, base = spec["domain"], spec["base"]
    if data.parent.name != f"train_{domain}":
        raise MergebenchError(f"statistics for domain {domain} were given rows of {data.parent}; expected train_{domain}.")
    model = specialist.parent
    if model.name != f"specialist_{domain}" or model.parent.name != base:
        raise MergebenchError(f"statistics for domain {domain} of {base} were given {specialist}; expected {base}/specialist_{domain}.")
    manifest = model / MANIFEST
    trained_on = read_json(manifest).get("domains") if manifest.is_file() else None
    if trained_on not in (None, [domain]):
        raise MergebenchError(f"{manifest} says that the model was trained on {trained_on}; expected [{domain!r}].")


def calibration_digest(domain: str, manifest: Path) -> str:
    """The SHA-256 of a domain's calibration rows, checked against the manifest of the training set that they were taken from.

    Args:
        domain: The domain whose rows they must be.
        manifest: Of the training set; the rows lie beside it.

    Raises:
        MergebenchError: the manifest is of another data set or does not list the rows, or they have changed since.
    """
    record, rows = read_json(manifest), manifest.with_name(FILE)
    if record.get("dataset") != f"train_{domain}":
        raise MergebenchError(f"{manifest} is of {record.get('dataset')!r}; statistics of {domain} expect 'train_{domain}'.")
    listed = record.get("files", {}).get(FILE, {}).get("sha256")
    if listed is None or not rows.is_file():
        raise MergebenchError(f"{manifest} comes with no calibration rows ({FILE}); prepare the data with calibration_rows.")
    if (found := sha256_file(rows)) != listed:
        raise MergebenchError(f"{rows} has SHA-256 {found[:12]}..., {manifest.name} records {listed[:12]}...: make the data again.")
    return found


def calibration_examples(
    tokenizer: Any, manifest: Path, rows: int | None, max_length: int, seed: int, hits: Path | None = None
) -> list[Example]:
    """The calibration rows of a training set, encoded: a seeded subset of at most `rows`.

    Args:
        tokenizer: With its template set.
        manifest: Of the training set.
        rows: None: all.
        max_length: In tokens; a response is cut there.
        seed: Of the subset.
        hits: Rows to leave out, as the decontamination lists them.

    Raises:
        MergebenchError: no row is left.
    """
    path = manifest.with_name(FILE)
    left_out = contaminated(hits) if hits else set()
    read = [row for row in read_rows(path, ("id", "prompt", "response")) if str(row["id"]) not in left_out]
    if not read:
        raise MergebenchError(f"{path}: every row shares text with a benchmark ({hits}); raise data.calibration_rows.")
    return encode(tokenizer, subset(read, rows, seed), max_length)


def subset(rows: Sequence[Any], size: int | None, seed: int) -> list[Any]:
    """`size` of the rows, uniformly chosen: those whose ids have the least seeded hash, in the order of `rows`.

    It depends on ids alone, not on the order of rows, and a smaller subset is part of a larger one of the same seed.

    Args:
        rows: Rows (mappings with an "id") or examples (with an `id`).
        size: None, or as many as there are: all rows.
    """
    if size is None or size >= len(rows):
        return list(rows)
    names = [str(row["id"] if isinstance(row, dict) else row.id) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (fraction(f"{seed}:calibration subset:{names[i]}"), names[i]))
    return [rows[i] for i in sorted(order[:size])]
