"""Where every number comes from: the record of each score, the weights, rows, settings and software behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mergebench.analysis.labels import BASE, MERGED_PREFIX, model_title
from mergebench.analysis.records import Record
from mergebench.artifacts import sha256_file, sha256_json
from mergebench.report.grids import ABSENT, Cell, Grid, number
from mergebench.report.material import Material

SHOWN = 12  # digits of a digest in a cell; its title and the CSV have all
SETTINGS = ("task_hash", "task_version", "metric", "settings", "chat_template_sha256", "bos")
_LISTED = 6
_TOLERANCE = 0.051  # points: tables show one decimal


@dataclass(frozen=True)
class Score:
    """A score record: its path below the results and its content."""

    path: str
    content: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        """Base, model and benchmark, from the path."""
        base, model, name = self.path.split("/")[-3:]
        return base, model, name.removesuffix(".json")

    @property
    def anchor(self) -> str:
        """Of its row."""
        return "score-" + "-".join(self.key)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """How the benchmark was asked and scored."""
        judge, sandbox = (self.content.get(name) for name in ("judge", "sandbox"))
        found = {name: self.content[name] for name in SETTINGS if self.content.get(name) is not None}
        found |= {"judge": judge.get("name")} if isinstance(judge, dict) else {}
        return found | ({"sandbox": sandbox} if sandbox else {})

    @cached_property
    def software(self) -> dict[str, Any]:
        """The engine and the versions of the libraries."""
        backend = {name: value for name, value in _mapping(self.content, "backend").items() if name != "versions"}
        return {**backend, "versions": {**_mapping(_mapping(self.content, "backend"), "versions"), **_mapping(self.content, "versions")}}


class Provenance:
    """The records of a campaign and how they hang together."""

    def __init__(self, material: Material) -> None:
        scope = material.scope
        order = {name: place for place, name in enumerate((*scope.bases, *material.models, *(b.name for b in scope.benchmarks)))}
        self._scope, self._order = scope, material.models
        read = [Score("/".join(path.parts[-4:]), Record(path).content) for path in material.paths("scores")]
        mine = [score for score in read if score.key[0] in scope.bases and score.key[1] in material.models]
        self.scores = sorted(mine, key=lambda score: ([order.get(part, len(order)) for part in score.key], score.key))
        self._by_key = {score.key: score for score in self.scores}
        self._manifests = {path.parts[-3:-1]: path for path in material.paths("models") if path.parts[-3] in scope.bases}
        used = {score.key[2] for score in self.scores}
        self._datasets = {path.parent.name: path for path in material.paths("datasets") if path.parent.name in used or _is_training(path)}
        titles = {benchmark.title: benchmark.name for benchmark in scope.benchmarks}
        self._benchmarks = titles | {benchmark.name: benchmark.name for benchmark in scope.benchmarks}
        self._models = {model_title(model): model for model in material.models} | {model: model for model in material.models}

    # -- links from other tables ---------------------------------------------------------------------------

    def linked(self, grid: Grid) -> Grid:
        """A table whose cells lead to the records that they rest on.

        A table with a base and a benchmark per row leads to scores; one with a base and a model leads to models. Models are columns,
        or the column called Method or Model.
        """
        headings = [column.heading for column in grid.columns]
        if "Base" not in headings or not any(name in headings for name in ("Method", "Model", *self._models)):
            return grid
        rows = [[self._linked(headings, row, place) for place in range(len(row))] for row in grid.rows]
        return Grid(grid.columns, rows)

    def _linked(self, headings: list[str], row: list[Cell], place: int) -> Cell:
        named = dict(zip(headings, row, strict=True))
        cell, heading = row[place], headings[place]
        base = named["Base"].text
        wide = self._models.get(heading)
        model = wide or (self._models.get(cell.text) if heading in ("Method", "Model") else None)
        if model is None or (wide and cell.absent):
            return cell
        benchmark = self._benchmarks.get(named["Benchmark"].text) if "Benchmark" in named else None
        score = self._by_key.get((base, model, benchmark)) if benchmark else None
        if score is not None and wide:
            return Cell(cell.text, href=f"#{score.anchor}", title=score.path)
        return Cell(cell.text, href=f"#{_model_anchor(base, model)}") if (base, model) in self._manifests else cell

    def stale(self, grid: Grid) -> list[str]:
        """Records that say another number than the table of raw scores: it is older than they are, or somebody has edited one."""
        headings = [column.heading for column in grid.columns]
        found = []
        for row in grid.rows:
            named = dict(zip(headings, row, strict=True))
            base, benchmark = (named[name].text if name in named else "" for name in ("Base", "Benchmark"))
            for heading, cell in named.items():
                score = self._by_key.get((base, self._models.get(heading, ""), self._benchmarks.get(benchmark, "")))
                shown = number(cell.text)
                if score is not None and (
                    cell.text in ABSENT or shown is None or abs(shown - 100 * float(score.content["value"])) > _TOLERANCE
                ):
                    found.append(score.path)
        return found

    # -- tables ---------------------------------------------------------------------------------------------

    def score_grid(self) -> Grid:
        """A row per score."""
        rows: list[list[Cell | str]] = []
        for score in self.scores:
            base, model, benchmark = score.key
            content, data = score.content, _mapping(score.content, "data")
            weights = str(content.get("weights_digest") or "")
            rows.append(
                [
                    Cell(base, anchor=score.anchor),
                    Cell(
                        model_title(model), href=f"#{_model_anchor(base, model)}" if (base, model) in self._manifests else "", title=model
                    ),
                    benchmark,
                    _points(content.get("value")),
                    _points(content.get("standard_error"), absent="n/a"),
                    str(content.get("n", "n/a")),
                    _digest(weights),
                    _digest(str(data.get("rows_sha256") or ""), f"#data-{benchmark}" if benchmark in self._datasets else ""),
                    _digest(sha256_json(score.settings), f"#settings-{sha256_json(score.settings)[:SHOWN]}"),
                    _digest(sha256_json(score.software), f"#software-{sha256_json(score.software)[:SHOWN]}"),
                    Cell(score.path, code=True),
                ]
            )
        headings = ["Base", "Model", "Benchmark", "Score", "± s.e.", "Items", "Weights", "Rows", "Settings", "Software", "Record"]
        return Grid.of(headings, rows)

    def model_grid(self) -> Grid:
        """A row per model: what its weights are and what they were made from."""
        rows: list[list[Cell | str]] = []
        for base in self._scope.bases:
            known = [model for where, model in self._manifests if where == base]
            order = [*(m for m in self._order if m in known), *sorted(set(known) - set(self._order))]
            for model in order:
                path = self._manifests[base, model]
                content = Record(path).content
                spec = _mapping(content, "spec")
                scored = sum(score.key[:2] == (base, model) for score in self.scores)
                rows.append(
                    [
                        Cell(base, anchor=_model_anchor(base, model)),
                        Cell(model_title(model), title=model),
                        _origin(model, content),
                        str(spec.get("seed", "n/a")),
                        _digest(str(content.get("weights_digest") or "")),
                        _digest(str(spec.get("code") or "")),
                        str(scored),
                        _digest(sha256_file(path)),
                        Cell("/".join(path.parts[-4:]), code=True),
                    ]
                )
        headings = ["Base", "Model", "Made from", "Seed", "Weights", "Code", "Scores", "SHA-256 of the manifest", "Manifest"]
        return Grid.of(headings, rows)

    def data_grid(self) -> Grid:
        """A row per dataset: its source, revision and rows."""
        rows: list[list[Cell | str]] = []
        for name, path in sorted(self._datasets.items()):
            content = Record(path).content
            counts, sums = _mapping(content, "rows"), _mapping(content, "sha256")
            revisions = ", ".join(f"{part} {revision}" for part, revision in sorted(_mapping(content, "revisions").items()))
            rows.append(
                [
                    Cell(name, anchor=f"data-{name}"),
                    str(content.get("source") or "n/a"),
                    Cell(revisions or "n/a", code=bool(revisions)),
                    ", ".join(f"{count} {part}" for part, count in sorted(counts.items()) if count),
                    Cell(", ".join(f"{part} {str(value)[:SHOWN]}" for part, value in sorted(sums.items())) or "n/a", code=True),
                    Cell("/".join(path.parts[-3:]), code=True),
                ]
            )
        return Grid.of(["Dataset", "Source", "Revision", "Rows", "SHA-256", "Manifest"], rows)

    def settings(self) -> list[tuple[str, str, str]]:
        """How benchmarks were asked and scored: digest, benchmarks, and the settings as JSON, in the order of the scores."""
        return self._grouped("settings")

    def software(self) -> list[tuple[str, str, str]]:
        """Engines and libraries: digest, how many scores rest on them, and versions as JSON."""
        return self._grouped("software")

    def _grouped(self, what: str) -> list[tuple[str, str, str]]:
        found: dict[str, tuple[dict[str, Any], list[Score]]] = {}
        for score in self.scores:
            value = getattr(score, what)
            found.setdefault(sha256_json(value)[:SHOWN], (value, []))[1].append(score)
        said = []
        for digest, (value, scores) in found.items():
            names = list(dict.fromkeys(score.key[2] for score in scores))
            bases = list(dict.fromkeys(score.key[0] for score in scores))
            what = ", ".join(names) if len(names) <= _LISTED else f"{len(names)} benchmarks"
            where = "" if len(bases) == len(self._scope.bases) else f" of {', '.join(bases)}"
            said.append((digest, f"{what}{where} ({len(scores)} scores)", json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)))
        return said

    def rows(self) -> list[dict[str, Any]]:
        """A row per score for CSV, digests in full."""
        found = []
        for score in self.scores:
            base, model, benchmark = score.key
            content, data = score.content, _mapping(score.content, "data")
            manifest = self._manifests.get((base, model))
            found.append(
                {
                    "base": base,
                    "model": model,
                    "benchmark": benchmark,
                    "value": content.get("value"),
                    "standard_error": "n/a" if content.get("standard_error") is None else content["standard_error"],
                    "n": content.get("n"),
                    "record": score.path,
                    "weights_digest": content.get("weights_digest") or "n/a",
                    "manifest": "/".join(manifest.parts[-4:]) if manifest else "missing",
                    "manifest_sha256": sha256_file(manifest) if manifest else "missing",
                    "data_source": data.get("source") or "n/a",
                    "data_revisions": json.dumps(data.get("revisions"), sort_keys=True) if data.get("revisions") else "n/a",
                    "rows_sha256": data.get("rows_sha256") or "n/a",
                    "settings_sha256": sha256_json(score.settings),
                    "software_sha256": sha256_json(score.software),
                }
            )
        return found


def _is_training(path: Path) -> bool:
    return path.parent.name.startswith("train_")


def _model_anchor(base: str, model: str) -> str:
    return f"model-{base}-{model}"


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def _digest(value: str, href: str = "") -> Cell:
    return Cell(value[:SHOWN] or "n/a", href=href, title=value if len(value) > SHOWN else "", code=bool(value))


def _points(value: Any, absent: str = "missing") -> str:
    return absent if value is None else f"{100 * float(value):.2f}"


def _origin(model: str, content: Mapping[str, Any]) -> str:
    """In a few words what a model was made from."""
    if model == BASE:
        revision = content.get("revision")
        return f"source {content.get('source', 'n/a')}" + (f", revision {revision}" if revision else "")
    if model.startswith(MERGED_PREFIX):
        parameters = _mapping(_mapping(content, "recipe"), "parameters")
        said = ", ".join(f"{name} {value}" for name, value in sorted(parameters.items()) if not isinstance(value, dict))
        return f"base and {len(_mapping(content, 'recipe').get('domains', []))} specialists; {said}"
    if imported := _mapping(content, "imported"):
        return f"imported from {imported.get('from', 'n/a')}" + (f", revision {content['revision']}" if content.get("revision") else "")
    rows = ", ".join(f"{count} rows of {domain}" for domain, count in sorted(_mapping(content, "rows").items()))
    return ", ".join(filter(None, [str(content.get("algorithm") or ""), rows])) or "n/a"
