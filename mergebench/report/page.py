"""The page: sections of tables and figures, then what they rest on, in one file without anything outside it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from mergebench.analysis.losses import COLUMNS as LOSS_COLUMNS
from mergebench.analysis.outputs import FIGURES, TABLES, WARNING, Output
from mergebench.report import failures, losses, searches
from mergebench.report.advice import advice
from mergebench.report.captions import caption
from mergebench.report.gaps import Gap, gaps
from mergebench.report.markdown import Block, blocks
from mergebench.report.material import Material
from mergebench.report.outputs import FAILURES, LOSSES, PAGE, PROVENANCE, SEARCHES
from mergebench.report.pictures import TYPES, data_uri, picture
from mergebench.report.provenance import Provenance

HEADLINE, RAW_SCORES = "headline", "scores"
# The table that has a figure's numbers, where its name is not that of the figure or the beginning of it.
DATA_OF = {
    "multitask_performance": "normalised_performance",
    "multitask_groups": "normalised_performance",
    "performance_forgetting": "headline",
    "performance_runtime": "headline",
    "critical_difference": "ranks",
}
LOGGED = "training"  # the figure whose numbers are the losses
FIRST_SECTIONS = ("Decisions", "Tables", "Figures", "Statistics")
"""Sections in the order of the page; others follow as they come."""
RELATED = ("guideline", "pareto", "uncertainty", "ranks")
"""Tables to which the first sentences lead, as far as there are such."""
MOST_BYTES = {"csv": 2_000_000}
"""What a download inside the page may weigh; other formats `OTHER_BYTES`. What is larger is named with its path."""
OTHER_BYTES = 100_000
FILTERED = 12
"""Rows from which on a table gets a box to filter it."""


@dataclass(frozen=True)
class Download:
    """A file that the page holds, or, without an address, the path of one that is too large for it."""

    name: str
    address: str
    size: str
    path: str


@dataclass(frozen=True)
class Item:
    """A table or figure as the page shows it: with the first paragraph of its caption above, the others below."""

    output: Output
    kind: str  # table or figure
    lead: Markup
    caption: Markup
    blocks: list[Block]
    picture: str
    downloads: list[Download]
    command: str

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return f"{self.kind}-{self.output.stem}"

    @property
    def there(self) -> bool:
        """Whether it was made."""
        return bool(self.blocks or self.picture)


def compose(material: Material) -> dict[str, str]:
    """The report's files by name.

    Raises:
        MergebenchError: a record that the report reads is malformed.
    """
    return _Composition(material).files()


class _Composition:
    def __init__(self, material: Material) -> None:
        self.material = material
        self.warnings = material.scope.warnings

    @cached_property
    def provenance(self) -> Provenance:
        return Provenance(self.material)

    @cached_property
    def searches(self) -> list[searches.Search]:
        return searches.searches(self.material)

    @cached_property
    def failed(self) -> list[dict[str, Any]]:
        return failures.failed_attempts(self.material)

    @cached_property
    def losses(self) -> pd.DataFrame:
        return losses.logged(self.material)

    @cached_property
    def tables(self) -> list[Item]:
        return [self._item(output, "table") for output in TABLES]

    @cached_property
    def figures(self) -> list[Item]:
        return [self._item(output, "figure") for output in FIGURES]

    @cached_property
    def data(self) -> dict[str, str]:
        """The CSV files of the report itself."""
        return {
            PROVENANCE: _csv(self.provenance.rows(), PROVENANCE_COLUMNS, self.warnings),
            SEARCHES: _csv(searches.rows(self.searches), SEARCH_COLUMNS, self.warnings),
            LOSSES: _csv(losses.rows(self.losses), LOSS_COLUMNS, ()),
            FAILURES: _csv(self.failed, FAILURE_COLUMNS, ()),
        }

    def files(self) -> dict[str, str]:
        return {PAGE: self._page(), **self.data}

    def _page(self) -> str:
        material = self.material
        style, script = (_part(name) for name in ("style.css", "script.js"))
        absent = gaps(material)
        return _template().render(
            preset=material.spec["preset"],
            scope=material.scope,
            results=material.results,
            warnings=self.warnings,
            introduction=caption("workflow", warnings=self.warnings, preset=material.spec["preset"]),
            advice=advice(material.of("tables", HEADLINE).get("csv"), material.scope),
            related=[item for stem in RELATED for item in self.tables if item.output.stem == stem],
            headline=next(item for item in self.tables if item.output.stem == HEADLINE),
            sections=self._sections(),
            searches=self.searches,
            search_summary=searches.summary(self.searches),
            losses=losses.grid(self.losses, material.scope.bases),
            provenance=self.provenance,
            stale=self._stale(),
            failed=failures.grid(self.failed),
            unfinished=material.unfinished,
            gaps=absent,
            missing=_count(absent),
            everything=material.spec["command"],
            configuration=yaml.safe_dump(material.spec["configuration"], sort_keys=False, allow_unicode=True, width=110),
            downloads={name: self._held(name, text.encode(), f"report/{name}") for name, text in self.data.items()},
            filtered=FILTERED,
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script),
        )

    def _sections(self) -> list[tuple[str, list[Item]]]:
        """Tables and figures by section; the headline table stands above all."""
        items = [item for item in (*self.tables, *self.figures) if (item.kind, item.output.stem) != ("table", HEADLINE)]
        names = dict.fromkeys([*FIRST_SECTIONS, *(item.output.section for item in items)])
        found = {name: [item for item in items if item.output.section == name] for name in names}
        return [(name, those) for name, those in found.items() if those]

    def _item(self, output: Output, kind: str) -> Item:
        folder = f"{kind}s"
        formats = self.material.of(folder, output.stem)
        shown: list[Block] = []
        if kind == "table" and "md" in formats:
            shown = blocks(formats["md"].read_text(encoding="utf-8"))
            shown = [Block(grid=self.provenance.linked(block.grid)) if block.grid else block for block in shown]
        files = dict(formats)
        if kind == "figure":
            for drawn in ("png", "svg"):
                files.pop(drawn, None)
        downloads = [self._download(path, folder) for suffix, path in sorted(files.items()) if suffix in TYPES and suffix != "md"]
        if kind == "figure":
            downloads = [*self._numbers(output.stem), *downloads]
        target = f"{folder}/{output.stem}.{'csv' if kind == 'table' else 'svg'}"
        return Item(
            output,
            kind,
            *_parted(caption(output.stem)),
            shown,
            picture(formats) if kind == "figure" else "",
            downloads,
            self.material.make(target, again=True),
        )

    def _numbers(self, figure: str) -> list[Download]:
        """The data of a figure: losses, or the CSV of the table that has its numbers."""
        if figure == LOGGED:
            return [self._held(LOSSES, self.data[LOSSES].encode(), f"report/{LOSSES}")]
        beginnings = [table.stem for table in TABLES if figure == table.stem or figure.startswith(f"{table.stem}_")]
        table = DATA_OF.get(figure) or max(beginnings, key=len, default="")
        path = self.material.of("tables", table).get("csv")
        return [self._download(path, "tables")] if path else []

    def _download(self, path: Path, folder: str) -> Download:
        return self._held(path.name, path.read_bytes(), f"{folder}/{path.name}")

    def _held(self, name: str, content: bytes, place: str) -> Download:
        suffix = name.rpartition(".")[2]
        fits = len(content) <= MOST_BYTES.get(suffix, OTHER_BYTES)
        address = data_uri(content, suffix) if fits else ""
        return Download(name, address, _size(len(content)), f"{self.material.results}/{place}")

    def _stale(self) -> list[str]:
        """Records that the table of raw scores does not agree with."""
        grids = [block.grid for item in self.tables if item.output.stem == RAW_SCORES for block in item.blocks if block.grid]
        return [path for grid in grids for path in self.provenance.stale(grid)]


PROVENANCE_COLUMNS = (
    "base", "model", "benchmark", "value", "standard_error", "n", "record", "weights_digest", "manifest", "manifest_sha256",
    "data_source", "data_revisions", "rows_sha256", "settings_sha256", "software_sha256",
)  # fmt: skip
SEARCH_COLUMNS = ("base", "method", "candidate", "stage", "parameters", "objective", "seeds", "blocks", "seconds", searches.CHOSEN)
FAILURE_COLUMNS = ("job", "stage", "attempt", "reason", "seconds", "gpus", "slurm_job")


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], warnings: Sequence[str]) -> str:
    """CSV with a last column of warnings, where there are any, as the tables have it."""
    said = " ".join(warnings)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *([WARNING] if said else [])])
    for row in rows:
        writer.writerow([*(row[name] for name in columns), *([said] if said else [])])
    return text.getvalue()


def _parted(text: Markup) -> tuple[Markup, Markup]:
    """The first paragraph of a caption, and the rest."""
    first, end, rest = str(text).partition("</p>")
    return Markup(first + end), Markup(rest.strip())  # of text that docutils has escaped


def _count(absent: list[Gap]) -> int:
    return sum(len(gap.targets) for gap in absent)


def _size(count: int) -> str:
    return f"{max(1, round(count / 1000))} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hashed(text: str) -> str:
    """The source of a content security policy that allows this very text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _policy(style: str, script: str) -> str:
    """The content security policy of the page: nothing from outside, and no style or script but its own."""
    allowed = {"default-src": "'none'", "img-src": "data:", "style-src": _hashed(style), "script-src": _hashed(script)}
    return "; ".join(f"{kind} {source}" for kind, source in {**allowed, "base-uri": "'none'", "form-action": "'none'"}.items())


def _template() -> jinja2.Template:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.jinja"))
