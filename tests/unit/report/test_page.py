"""The page as a file: complete, deterministic, closed to the outside, and honest about what is missing."""

from __future__ import annotations

import base64
import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mergebench.analysis.outputs import FIGURES, TABLES
from mergebench.errors import MergebenchError
from mergebench.report.material import Job, Material
from mergebench.report.outputs import PAGE
from mergebench.report.page import compose
from mergebench.report.pictures import MOST_SVG_BYTES
from tests.unit.report.conftest import GEMMA, HOSTILE, LLAMA, Reported


class Elements(HTMLParser):
    """Every start tag with its attributes, and the identifiers and links of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]

    def values(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


@pytest.fixture(scope="session")
def page(finished: Reported) -> str:
    return (finished.root / "report" / PAGE).read_text(encoding="utf-8")


def test_every_table_and_figure_is_there_with_its_caption_and_command(page: str, finished: Reported) -> None:
    for output in TABLES:
        assert f'id="table-{output.stem}"' in page
        assert html.escape(f"-- {finished.root}/tables/{output.stem}.csv") in page
    for output in FIGURES:
        assert f'id="figure-{output.stem}"' in page
        assert html.escape(f"--forcerun analyse -- {finished.root}/figures/{output.stem}.svg") in page
    assert page.count('<img alt="') == len(FIGURES)
    assert "dagger marks methods that cannot be separated" in " ".join(page.split())


def test_every_figure_has_its_data(page: str) -> None:
    for output in FIGURES:
        figure = page.partition(f'id="figure-{output.stem}"')[2].partition("</section>")[0]
        assert re.search(r'<a download="\w+\.csv"', figure), output.stem


def test_identifiers_are_unique_and_links_lead_to_them(page: str) -> None:
    elements = Elements(page)
    assert len(elements.ids) == len(set(elements.ids))
    inner = {link[1:] for link in elements.values("href") if link.startswith("#")}
    assert inner
    assert inner - set(elements.ids) == set()


def test_nothing_comes_from_outside(page: str) -> None:
    elements = Elements(page)
    addresses = [*elements.values("src"), *(link for link in elements.values("href") if not link.startswith("#"))]
    assert addresses
    assert {address.partition(":")[0] for address in addresses} == {"data"}
    assert not re.search(r"@import|url\(", re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1])


def test_the_same_inputs_give_the_same_bytes(finished: Reported, page: str) -> None:
    assert compose(Material(finished.spec, {name: paths[::-1] for name, paths in finished.files.items()}))[PAGE] == page


def test_downloads_are_the_files(page: str, finished: Reported) -> None:
    held = {
        attributes["download"]: base64.b64decode((attributes["href"] or "").partition(",")[2])
        for tag, attributes in Elements(page).tags
        if tag == "a" and "download" in attributes
    }
    assert held["scores.csv"] == (finished.root / "tables/scores.csv").read_bytes()
    assert held["provenance.csv"] == (finished.root / "report/provenance.csv").read_bytes()
    assert {f"{output.stem}.csv" for output in TABLES} <= set(held)


def test_every_raw_score_leads_to_its_record(page: str, finished: Reported) -> None:
    with (finished.root / "tables/scores.csv").open() as lines:
        wanted = {f"#score-{row['base']}-{row['model']}-{row['benchmark']}" for row in csv.DictReader(lines) if row["role"] != "surrogate"}
    table = page.partition('id="table-scores"')[2].partition("</section>")[0]
    assert wanted == {link for link in Elements(table).values("href") if link.startswith("#score-")}


def test_provenance_has_a_row_per_record_with_full_digests(finished: Reported) -> None:
    with (finished.root / "report/provenance.csv").open() as lines:
        rows = {row["record"]: row for row in csv.DictReader(lines)}
    records = {path.relative_to(finished.root).as_posix(): json.loads(path.read_text()) for path in finished.root.glob("scores/*/*/*.json")}
    assert rows.keys() == records.keys()
    assert all(rows[name]["rows_sha256"] == record["data"]["rows_sha256"] for name, record in records.items())
    assert all(float(rows[name]["value"]) == record["value"] for name, record in records.items())
    assert all(len(row["manifest_sha256"]) == 64 for row in rows.values())


def test_the_chosen_candidate_is_named_once_per_search(finished: Reported) -> None:
    with (finished.root / "report/searches.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    chosen = [row for row in rows if row["chosen"] == "yes"]
    assert len(chosen) == len({(row["base"], row["method"]) for row in rows}) == 2 * len(finished.campaign.scope.tuned)
    assert {(row["candidate"], row["objective"]) for row in chosen} == {("1", "0.6")}


def test_losses_are_those_that_training_has_logged(finished: Reported) -> None:
    with (finished.root / "report/losses.csv").open() as lines:
        found = {(row["base"], row["model"], int(row["step"])): float(row["loss"]) for row in csv.DictReader(lines)}
    logged = {
        (path.parts[-3], path.parts[-2], line["step"]): line["loss"]
        for path in finished.root.glob("models/*/*/losses.jsonl")
        for line in map(json.loads, path.read_text().splitlines())
    }
    assert found == logged


def test_a_failed_attempt_is_shown(finished: Reported, page: str) -> None:
    text = (finished.root / "report/failures.csv").read_text()
    assert text.splitlines()[1] == f"merge/{LLAMA}/ties,merge,1,SIGTERM,12.5,1,17"
    assert "SIGTERM" in page.partition('id="failures"')[2]


def test_a_missing_score_is_missing_and_its_command_is_given(reported: Reported) -> None:
    (reported.root / f"scores/{GEMMA}/merged_ties/gsm8k.json").unlink()
    (reported.root / f"scores/{GEMMA}/merged_ties/gsm8k.items.parquet").unlink()
    (reported.root / f"tuning/{LLAMA}/ties/search.parquet").unlink()
    reported.analyse(("headline.csv", "headline.md"))
    page = reported.make()
    missing = page.partition('id="missing"')[2]
    assert f"snakemake --profile profiles/tiny -- {reported.root}/scores/{GEMMA}/merged_ties/gsm8k.json" in missing
    assert f"{reported.root}/tuning/{LLAMA}/ties/search.parquet" in missing
    assert "unfinished campaign: 2 files are missing" in page
    row = page.partition('id="table-headline"')[2].partition("</table>")[0].partition("TIES")[2]
    assert 'class="n absent">missing' in row or 'class="n l absent">missing' in row


def test_a_campaign_without_anything_still_has_a_report(finished: Reported) -> None:
    page = compose(Material(finished.spec, {}))[PAGE]
    assert "cannot say which one to use" in page
    assert page.count('<p class="absent">missing</p>') == len(TABLES) + len(FIGURES)


def test_a_record_that_differs_from_the_table_of_raw_scores_is_named(reported: Reported) -> None:
    path = reported.root / f"scores/{LLAMA}/merged_ties/gsm8k.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"value": record["value"] / 2}))
    page = compose(Material(reported.spec, reported.files))[PAGE]
    assert f"does not agree with 1 record: <code>scores/{LLAMA}/merged_ties/gsm8k.json</code>" in page


def test_equal_records_are_not_called_stale(page: str) -> None:
    assert "does not agree" not in page


def test_a_warning_stands_on_top_and_in_every_file(finished: Reported) -> None:
    spec = {**finished.spec, "warnings": ["methods were tuned on a test set."]}
    files = compose(Material(spec, finished.files))
    top = files[PAGE].partition('class="advice"')[0]
    assert "<strong>Warning:</strong> methods were tuned on a test set." in top
    assert all(line.endswith("methods were tuned on a test set.") for line in files["provenance.csv"].splitlines()[1:])


def test_what_files_say_is_text(reported: Reported) -> None:
    path = reported.root / f"scores/{LLAMA}/merged_ties/gsm8k.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"weights_digest": HOSTILE, "settings": {HOSTILE: HOSTILE}, "metric": HOSTILE}))
    cost = next(reported.root.glob(f"costs/merge/{LLAMA}/ties.json"))
    cost.write_text(cost.read_text().replace("SIGTERM", "</script><script>window.pwned=1</script>"))
    table = reported.root / "tables/claims.md"
    table.write_text(table.read_text() + f"\n| a | {HOSTILE} |\n| - | - |\n| {HOSTILE} | b |\n\n- {HOSTILE}\n\n# {HOSTILE}\n")
    material = Material(
        {**reported.spec, "preset": HOSTILE, "warnings": [HOSTILE], "configuration": {HOSTILE: HOSTILE}},
        reported.files,
        (Job(HOSTILE, "failed", HOSTILE, (HOSTILE,), HOSTILE),),
    )
    tags = Elements(compose(material)[PAGE]).tags
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert [attributes for _, attributes in tags if any(name.startswith("on") for name in attributes)] == []
    assert [attributes for tag, attributes in tags if tag == "img" and not (attributes["src"] or "").startswith("data:")] == []


def test_a_large_svg_gives_way_to_its_png(reported: Reported) -> None:
    svg = reported.root / "figures/training.svg"
    svg.write_text(svg.read_text() + "<!--" + "x" * MOST_SVG_BYTES + "-->")
    page = compose(Material(reported.spec, reported.files))[PAGE]
    figure = page.partition('id="figure-training"')[2].partition("</figure>")[0]
    assert "data:image/png;base64," in figure


def test_other_formats_are_offered_if_they_are_small(reported: Reported) -> None:
    (reported.root / "tables/headline.tex").write_text("small")
    (reported.root / "figures/training.pdf").write_bytes(b"x" * 200_000)
    page = compose(Material(reported.spec, reported.files))[PAGE]
    assert 'download="headline.tex"' in page
    assert f"<code>{reported.root}/figures/training.pdf</code> (200 kB, too large for this page)" in page


def test_commands_quote_what_a_shell_would_part(finished: Reported) -> None:
    material = Material({**finished.spec, "results": "my results/tiny"}, {})
    assert material.make("tables/a.csv").endswith(" -- 'my results/tiny/tables/a.csv'")


def test_a_spec_without_its_keys_is_refused(finished: Reported) -> None:
    with pytest.raises(MergebenchError, match="no results, preset, command, configuration"):
        compose(Material(finished.campaign.spec, {}))


def test_style_script_and_template_are_in_the_wheel() -> None:
    root = Path(__file__).parents[3]
    patterns = re.search(r"^mergebench = \[(.*)\]$", (root / "pyproject.toml").read_text(), re.MULTILINE)[1]
    ends = {path.suffix for path in (root / "mergebench/report").iterdir() if path.is_file() and path.suffix != ".py"}
    assert ends == {".css", ".js", ".jinja"}
    assert all(f'"**/*{end}"' in patterns for end in ends)
