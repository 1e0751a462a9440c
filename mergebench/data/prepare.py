"""The stage that makes a dataset's rows: read a source, check every row, sample, and split training sets."""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.artifacts import Job, sha256_file
from mergebench.data import support
from mergebench.data.convert.selection import check_counts, chosen
from mergebench.data.records import Row, same_text
from mergebench.data.sampling import distinct, sample, split_calibration
from mergebench.data.schema import check_count, check_rows
from mergebench.data.sources import hub, local, tiny
from mergebench.data.sources.loaded import Loaded
from mergebench.errors import MergebenchError


def run(job: Job) -> dict[str, Any]:
    """Make `rows` and `examples` (benchmarks, surrogates) or `train` and `calibration` (training sets) as JSON Lines.

    `examples` has the worked examples that prompts may show, the folder `support` files that scoring needs besides rows; both are
    empty for data sets without any.

    Spec:
        dataset, source ("hub" | "local" | "tiny"), seed; entry (the catalogue's, by default); filter (published training
        sets: a name of the entry's `filters`, the first by default);
        root (local: the data folder); limit (benchmarks: at most so many rows, spread over languages or
        subjects; null: all; tiny: as many are generated); rows (tiny training sets: how many are generated);
        calibration_rows (training sets: rows set aside that share no prompt with the training rows).

    Returns:
        The manifest's payload: source, files' hashes, revisions, counts, notes, the ids of the calibration rows, and the SHA-256 of
        each output.
    """
    spec = job.spec
    dataset = spec["dataset"]
    entry = spec.get("entry") or catalogue.datasets()[dataset]
    entry = {**entry, "filter": chosen(dataset, entry, spec.get("filter"))}
    loaded = load(spec, entry, job)
    check_rows(dataset, loaded.rows)
    total = len(loaded.rows)
    if loaded.tallies:
        _report(dataset, entry, spec["source"], loaded)
    elif spec["source"] == "hub" and entry.get("rows") is not None:
        check_count(dataset, total, entry["rows"])
    if spec["source"] == "local" and entry.get("rows") is not None and not loaded.tallies and total != entry["rows"]:
        loaded.notes.append(f"{total} of {entry['rows']} rows")
    if entry.get("exclude"):
        _exclude(dataset, entry["exclude"], spec, loaded, job)
    if entry["use"] in ("training", "reinforcement"):
        outputs = _training(dataset, loaded, spec)
    else:
        limit = spec.get("limit")
        outputs = {"rows": sample(dataset, loaded.rows, limit, spec["seed"]) if limit else loaded.rows}
        if "examples" in job.outputs:
            outputs["examples"] = _examples(spec, entry, loaded, job)
        if "support" in job.outputs:
            support.bring(entry.get("support", {}), spec, job.staging("support"), loaded)
    facts = {
        "dataset": dataset,
        "source": spec["source"],
        "source_files": loaded.files,
        "revisions": loaded.revisions,
        "source_rows": total,
        "notes": loaded.notes,
    }
    if loaded.tallies:
        facts |= {"filter": entry["filter"], "filtered": {part: tally.facts() for part, tally in loaded.tallies.items()}}
    sha256 = {name: _write(job.staging(name), rows) for name, rows in outputs.items() if name in job.outputs}
    counts = {name: len(rows) for name, rows in outputs.items()}
    if "calibration" in outputs:
        facts["calibration_ids"] = [str(row["id"]) for row in outputs["calibration"]]
    return {**facts, "rows": counts, "languages": _languages(outputs), "sha256": sha256}


def load(spec: dict[str, Any], entry: dict[str, Any], job: Job) -> Loaded:
    """All rows of a dataset from the source that the spec names, which need not be the job's own dataset."""
    dataset, source, seed = spec["dataset"], spec["source"], spec["seed"]
    if source == "tiny":
        wanted = spec.get("rows") or spec.get("limit")
        return tiny.load(dataset, wanted, spec.get("calibration_rows") or 0, seed)
    if source == "local":
        if not spec.get("root"):
            raise MergebenchError(f"{dataset}: source local needs data.root, the folder with the datasets' files.")
        return local.load(dataset, entry, Path(spec["root"]), seed)
    if source == "hub":
        return hub.load(dataset, entry, seed, job.hub_lock, job.progress)
    raise MergebenchError(f"{dataset}: the source is {source!r}; expected hub, local or tiny.")


def _examples(spec: dict[str, Any], entry: dict[str, Any], loaded: Loaded, job: Job) -> list[Row]:
    """Worked examples, where the source has them; they are never among the rows that are scored."""
    if "examples" not in entry or spec["source"] == "tiny":
        return []
    source = {**entry, **entry["examples"]}
    dataset = source["layout"]
    if spec["source"] == "local" and not local.present(dataset, source, Path(spec["root"])):
        loaded.notes.append("no worked examples: their files are absent")
        return []
    if spec["source"] == "hub":
        # At the commit that the rows are of.
        parts = {name: {**part, "revision": loaded.revisions[part["id"]]} for name, part in source["hub"]["parts"].items()}
        source["hub"] = {"parts": parts}
    found = load({**spec, "dataset": dataset, "limit": None}, source, job)
    check_rows(dataset, found.rows)
    loaded.files |= found.files
    loaded.revisions |= found.revisions
    return found.rows


def _report(dataset: str, entry: dict[str, Any], source: str, loaded: Loaded) -> None:
    """Say what a training set's filter has left, and compare it with what is known of the published set."""
    for part, tally in loaded.tallies.items():
        print(f"[prepare] {dataset}, filter {entry['filter']}, part {part}: {tally}", file=sys.stderr)
    if entry["filter"] is None:
        return
    for warning in check_counts(dataset, entry["filter"], entry, loaded.tallies, stop=source == "hub"):
        print(f"[prepare] {warning}", file=sys.stderr)
        loaded.notes.append(warning)


def _exclude(dataset: str, other: str, spec: dict[str, Any], loaded: Loaded, job: Job) -> None:
    """Take the prompts of another dataset out: tuning must not see a test set. The tiny world keeps them apart itself."""
    if spec["source"] == "tiny":
        return
    scored = load({**spec, "dataset": other}, catalogue.datasets()[other], job)
    loaded.files |= scored.files
    loaded.revisions |= scored.revisions
    known = {same_text(row["prompt"]) for row in scored.rows}
    kept = [row for row in loaded.rows if same_text(row["prompt"]) not in known]
    if len(kept) < len(loaded.rows):
        loaded.notes.append(f"{len(loaded.rows) - len(kept)} rows left out whose prompt is in {other}")
    if not kept:
        raise MergebenchError(f"{dataset} holds only prompts of {other}; expected data of its own.")
    loaded.rows = kept


def _training(dataset: str, loaded: Loaded, spec: dict[str, Any]) -> dict[str, list[Row]]:
    wanted = spec.get("calibration_rows") or 0
    rows = distinct(loaded.rows, lambda row: "\n".join(same_text(str(row[key])) for key in sorted(row) if key != "id"))
    if len(rows) < len(loaded.rows):
        loaded.notes.append(f"{len(loaded.rows) - len(rows)} repeated rows left out")
    if loaded.calibration is not None:
        check_rows(dataset, loaded.calibration)
        prompts = {same_text(row["prompt"]) for row in loaded.calibration}
        return {"train": [r for r in rows if same_text(r["prompt"]) not in prompts], "calibration": loaded.calibration}
    train, calibration = split_calibration(rows, wanted, spec["seed"])
    if len(calibration) < wanted or not train:
        raise MergebenchError(
            f"{dataset} has {len(rows)} rows, too few to set {wanted} aside for calibration; lower data.calibration_rows."
        )
    if spec.get("limit"):
        train = sample(dataset, train, spec["limit"], spec["seed"])
    return {"train": train, "calibration": calibration}


def _languages(outputs: dict[str, list[Row]]) -> dict[str, int]:
    """Rows per language, for datasets whose rows name theirs."""
    return dict(sorted(Counter(row["language"] for rows in outputs.values() for row in rows if "language" in row).items()))


def _write(path: Path, rows: Iterable[Row]) -> str:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return sha256_file(path)
