"""`mergebench inspect`: can these models be merged, and how do their task vectors relate to each other?

The audit reads headers. With a base, all task vectors are read twice in pieces: once for their magnitudes, which give exact thresholds,
and once for what they have in common.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mergebench.checkpoints.audit import audit
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.models import Models
from mergebench.vectors.measure import measure
from mergebench.vectors.relations import Relations, relate


def inspect(options: argparse.Namespace) -> None:
    """Print the audit of some models and, with a base, how their task vectors relate.

    Raises:
        MergebenchError: A model cannot be read or cannot be compared with the base.
    """
    if not 0 < options.density <= 1:
        raise MergebenchError(f"--density is {options.density:g}; expected a fraction above 0, at most 1.")
    names = _names(options.models)
    models = {name: Checkpoint(path) for name, path in zip(names, options.models, strict=True)}
    record: dict[str, Any] = {"models": {name: _describe(model) for name, model in models.items()}}
    if options.base:
        base = Checkpoint(options.base)
        record["base"] = _describe(base)
        record["audit"] = {name: [note.record() for note in audit(base, model, name, vocabulary="base")] for name, model in models.items()}
        if not any(note["fatal"] for notes in record["audit"].values() for note in notes):
            record["task_vectors"] = compare(base, models, density=options.density, threads=options.threads)
    else:
        first, *others = models
        record["audit"] = {name: [note.record() for note in audit(models[first], models[name], name, vocabulary="base")] for name in others}
    print(json.dumps(record, indent=1) if options.json else _render(record))


def compare(base: Checkpoint, specialists: Mapping[str, Checkpoint], *, density: float, threads: int = 1) -> dict[str, Any]:
    """Norms, zero fractions, cosines, sign conflicts and overlaps of the task vectors, over all parameters and by kind of layer.

    Args:
        base: The base.
        specialists: Name -> fine-tune that can be merged with it.
        density: The fraction of each task vector, over the whole model, that counts as its largest entries; all equal to the smallest of
            them count. An overlap is what two have in common of these, as a fraction of the smaller set.
        threads: Threads; they change nothing.
    """
    models = Models(base, dict(sorted(specialists.items())))
    names = [name for name, info in base.tensors.items() if info.floating]
    order = list(models.specialists.values())
    spectra = measure(base, order, names, densities=[[density]] * len(order), threads=threads)
    cuts = [spectrum.cut(round(density * spectrum.total)) for spectrum in spectra]
    limits = np.array([cut.limit for cut in cuts], np.uint32)
    by_kind: dict[str, Relations] = {}
    whole = Relations.none(len(order))
    for name, part in relate(base, order, names, limits, threads=threads):
        whole.add(part)
        by_kind.setdefault(kind_of(name), Relations.none(len(order))).add(part)
    return {
        "density": density,
        "thresholds": {domain: cut.value if math.isfinite(cut.value) else None for domain, cut in zip(models.domains, cuts, strict=True)},
        **_record(whole, models.domains),
        "kinds": {kind: _record(part, models.domains) for kind, part in sorted(by_kind.items())},
    }


def kind_of(name: str) -> str:
    """The kind of layer that a tensor belongs to: its name without the model's prefix and the layer's number."""
    return re.sub(r"^.*?\.(layers|h|blocks)\.\d+\.", "", name).removeprefix("model.")


def _record(found: Relations, names: Sequence[str]) -> dict[str, Any]:
    """Norms and zero fractions by model; cosines, sign conflicts and overlaps by pair, null where a vector is zero."""
    norms, entries, overlaps = np.sqrt(np.diag(found.products)), max(found.entries, 1), found.overlaps
    pairs = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    return {
        "parameters": found.entries,
        "norms": dict(zip(names, norms.tolist(), strict=True)),
        "zero_fractions": {name: (found.entries - int(moved)) / entries for name, moved in zip(names, found.moved, strict=True)},
        "pairs": [
            {
                "models": [names[a], names[b]],
                "cosine": float(found.products[a, b] / (norms[a] * norms[b])) if norms[a] and norms[b] else None,
                "sign_conflicts": int(found.conflicts[a, b]) / entries,
                "overlap": _ratio(overlaps[a, b], min(overlaps[a, a], overlaps[b, b])),
            }
            for a, b in pairs
        ],
    }


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with a number where two are alike."""
    own = [path.resolve().name for path in paths]
    return [f"{name}#{own[:place].count(name) + 1}" if own.count(name) > 1 else name for place, name in enumerate(own)]


def _ratio(part: Any, whole: Any) -> float | None:
    return int(part) / int(whole) if whole else None


def _describe(model: Checkpoint) -> dict[str, Any]:
    floating = [info for info in model.tensors.values() if info.floating]
    architectures = model.config.get("architectures")
    return {
        "folder": str(model.folder),
        "architecture": ", ".join(map(str, architectures)) if isinstance(architectures, list) else None,
        "parameters": sum(info.size for info in floating),
        "tensors": len(model.tensors),
        "dtypes": sorted(model.dtypes),
        "tied_head": model.tied,
        "embedding_rows": model.embedding_rows,
        "tokens": len(model.vocabulary) if model.vocabulary is not None else None,
    }


def _render(record: Mapping[str, Any]) -> str:
    models = {**({"(base)": record["base"]} if "base" in record else {}), **record["models"]}
    rows = [
        [
            name,
            f"{facts['parameters']:,}",
            " ".join(facts["dtypes"]),
            "tied" if facts["tied_head"] else "own",
            _number(facts["embedding_rows"], ","),
            _number(facts["tokens"], ","),
            facts["architecture"] or "-",
        ]
        for name, facts in models.items()
    ]
    parts = [_columns(["model", "parameters", "stored in", "head", "rows", "tokens", "architecture"], rows)]
    said = [f"{'cannot be merged: ' if note['fatal'] else ''}{note['message']}" for found in record["audit"].values() for note in found]
    notes = list(dict.fromkeys(said))  # what is said of the base is said once
    parts.append("\n".join(["audit", *(f"  {note}" for note in notes)] if notes else ["audit: nothing to note"]))
    if "task_vectors" in record:
        parts += _render_vectors(record["task_vectors"])
    return "\n\n".join(parts)


def _render_vectors(found: Mapping[str, Any]) -> list[str]:
    vectors = [[name, f"{norm:.4g}", f"{found['zero_fractions'][name]:.1%}"] for name, norm in found["norms"].items()]
    parts = [_columns(["task vector", "norm", "zero"], vectors)]
    if found["pairs"]:
        pairs = [_pair(pair) for pair in found["pairs"]]
        parts.append(_columns(["pair", "cosine", "opposite signs", f"overlap of the largest {found['density']:.0%}"], pairs))
    domains = list(found["norms"])
    kinds = [
        [kind, f"{part['parameters']:,}", *(f"{part['norms'][domain]:.3g}" for domain in domains), *_means(part["pairs"])]
        for kind, part in found["kinds"].items()
    ]
    titles = ["kind of layer", "parameters", *(f"norm {domain}" for domain in domains)]
    return [*parts, _columns([*titles, *(["mean cosine", "mean overlap"] if found["pairs"] else [])], kinds)]


def _pair(pair: Mapping[str, Any]) -> list[str]:
    return [" - ".join(pair["models"]), _number(pair["cosine"], ".3f"), f"{pair['sign_conflicts']:.1%}", _number(pair["overlap"], ".1%")]


def _means(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    if not pairs:
        return []
    found = [[pair[key] for pair in pairs if pair[key] is not None] for key in ("cosine", "overlap")]
    means = [sum(values) / len(values) if values else None for values in found]
    return [_number(means[0], ".3f"), _number(means[1], ".1%")]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in [titles, *rows]) for place in range(len(titles))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [titles, *rows])
