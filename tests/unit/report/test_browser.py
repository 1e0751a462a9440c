"""The report in headless Chromium, opened from disk.

`MERGEBENCH_CHROMIUM` names the browser, `MERGEBENCH_SCREENSHOTS` a folder for pictures to look at.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mergebench.report.material import Job, Material
from mergebench.report.outputs import PAGE
from mergebench.report.page import compose
from tests.unit.report.conftest import HOSTILE, Reported

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: `make test` installs it")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("MERGEBENCH_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed; MERGEBENCH_CHROMIUM may name one")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 812}
ABSENT = {"missing", "n/a", "", "-", "—"}

# Sorts every table by every heading and returns the texts of that column: as they came, ascending, descending, and after a third click.
SORTED = """() => [...document.querySelectorAll('table.sortable')].flatMap((table) =>
  [...table.tHead.rows[0].cells].filter((heading) => heading.querySelector('button')).map((heading) => {
    const read = () => [...table.tBodies[0].rows].map((row) => row.cells[heading.cellIndex].textContent.trim());
    const found = { heading: heading.textContent, numeric: heading.classList.contains('n'), states: [], columns: [read()] };
    for (let click = 0; click < 3; click += 1) {
      heading.querySelector('button').click();
      found.states.push(heading.getAttribute('aria-sort'));
      found.columns.push(read());
    }
    return found;
  }))"""
# Texts whose colour does not stand out from what is behind them (WCAG 2: 4.5 to 1, or 3 to 1 for large type).
FAINT = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let part = element; part; part = part.parentElement) {
      const [r, g, b, alpha = 1] = channels(getComputedStyle(part).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  let checked = 0;
  for (const element of document.body.querySelectorAll('*:not(script):not(style)')) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.textContent.trim()).join('');
    if (!text || !element.checkVisibility()) continue;
    checked += 1;
    const style = getComputedStyle(element);
    const [first, second] = [light(channels(style.color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (first + 0.05) / (second + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className} ${text.slice(0, 40)}`);
  }
  return { checked, found };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Without its own sandbox, which needs rights that containers lack; it opens nothing but our file.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class Visit:
    """The report in a tab, with all that the tab has said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        self.tab = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("requestfailed", lambda request: self.said.append(f"failed: {request.url[:100]}"))
        self.address = path.as_uri()
        self.tab.goto(self.address)


@pytest.fixture
def visit(browser: Any, finished: Reported) -> Iterator[Any]:
    """Opens the report, once or with several options."""
    visits: list[Visit] = []

    def opened(**options: Any) -> Visit:
        visits.append(Visit(browser, finished.root / "report" / PAGE, **options))
        return visits[-1]

    yield opened
    for each in visits:
        each.context.close()


def screenshot(tab: Any, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("MERGEBENCH_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    assert tab.screenshot(path=folder / f"{name}.png").startswith(b"\x89PNG")


def key(cell: str, numeric: bool) -> Any:
    """By what Python sorts a cell; written independently of the page's script."""
    if not numeric:
        return [int(piece) if piece.isdecimal() else piece.lower() for piece in re.split(r"([0-9]+)", cell)]
    first = cell.lstrip("<>≈~ ").split()[0].replace(",", "")
    times = {"K": 1000.0, "M": 1e6, "B": 1e9}.get(first[-1], 1.0)
    try:
        return times * float(first.rstrip("KMB"))
    except ValueError:
        return float("-inf")


def ordered(column: list[str], numeric: bool, reverse: bool) -> list[str]:
    there = [cell for cell in column if cell not in ABSENT]
    return sorted(there, key=lambda cell: key(cell, numeric), reverse=reverse) + [cell for cell in column if cell in ABSENT]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_complaint_and_asks_for_nothing(visit: Any, tmp_path: Path, scheme: str) -> None:
    opened = visit(color_scheme=scheme)
    assert opened.said == []
    assert {url.partition(":")[0] for url in opened.asked} <= {"file", "data"}
    assert [url for url in opened.asked if url.startswith("file:")] == [opened.address]
    widths = opened.tab.evaluate("[...document.images].map((image) => image.complete ? image.naturalWidth : 0)")
    assert widths
    assert min(widths) > 0
    screenshot(opened.tab, scheme, tmp_path)
    for anchor in ("table-uncertainty", "figure-performance_forgetting", "searches", "provenance"):
        opened.tab.evaluate("(name) => document.getElementById(name).scrollIntoView()", anchor)
        screenshot(opened.tab, f"{scheme}-{anchor}", tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(visit: Any, scheme: str) -> None:
    tab = visit(color_scheme=scheme).tab
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = tab.evaluate(FAINT)
    assert found["checked"] > 1000
    assert found["found"] == []


def test_every_table_sorts_by_every_column_as_python_does(visit: Any) -> None:
    found = visit().tab.evaluate(SORTED)
    assert sum(each["numeric"] for each in found) > 20
    for each in found:
        came, up, down, again = each["columns"]
        assert each["states"] == ["ascending", "descending", "none"]
        assert up == ordered(came, each["numeric"], reverse=False), each["heading"]
        assert down == ordered(came, each["numeric"], reverse=True), each["heading"]
        assert again == came


def test_a_click_and_the_keyboard_sort(visit: Any) -> None:
    tab = visit().tab
    table = tab.locator("#table-headline table")
    heading = table.get_by_role("columnheader", name="Normalised performance")
    button = heading.get_by_role("button")
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    clicked = table.locator("tbody tr").all_inner_texts()
    button.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert table.locator("tbody tr").all_inner_texts() != clicked
    button.press("Tab")  # on to the next heading, which then sorts instead
    tab.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "none"
    assert table.locator("[aria-sort=ascending]").inner_text().startswith("Recovery")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_filter_leaves_the_rows_with_all_words(visit: Any) -> None:
    tab = visit().tab
    section = tab.locator("#provenance")
    rows = section.locator("table").first.locator("tbody tr")
    count = rows.count()
    section.get_by_role("searchbox").first.fill("TIES gsm8k")
    assert section.locator("table").first.locator("tbody tr:visible").count() == 2  # one per base
    assert section.get_by_role("status").first.inner_text() == f"2 of {count} rows"


def test_a_link_opens_and_shows_what_it_leads_to(visit: Any) -> None:
    tab = visit().tab
    tab.locator("#provenance").get_by_role("searchbox").first.fill("nothing has this")
    tab.locator('#table-scores td a[href^="#score-"]').last.click()
    row = tab.locator(":target")
    assert row.is_visible()
    row.locator('a[href^="#settings-"]').click()
    assert tab.locator(":target").evaluate("(part) => part.open")


def test_the_theme_is_remembered(visit: Any) -> None:
    tab = visit(color_scheme="light").tab
    ground = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(ground)
    tab.get_by_role("button", name="Dark colours").click()
    after = tab.evaluate(ground)
    assert after != before
    tab.reload()
    assert tab.evaluate(ground) == after
    assert tab.get_by_role("button", name="Dark colours").get_attribute("aria-pressed") == "true"


def test_a_phone_scrolls_tables_and_not_the_page(visit: Any, tmp_path: Path) -> None:
    opened = visit(viewport=PHONE, device_scale_factor=2)
    tab = opened.tab
    assert opened.said == []
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert tab.evaluate("[...document.querySelectorAll('.box')].some((box) => box.scrollWidth > box.clientWidth)")
    tab.reload()
    screenshot(tab, "phone", tmp_path)
    for anchor in ("table-headline", "figure-performance_forgetting"):
        tab.evaluate("(name) => document.getElementById(name).scrollIntoView()", anchor)
        screenshot(tab, f"phone-{anchor}", tmp_path)


def test_a_download_is_the_file(visit: Any, finished: Reported, tmp_path: Path) -> None:
    tab = visit().tab
    with tab.expect_download() as waiting:
        tab.locator('#table-headline a[download="headline.csv"]').click()
    waiting.value.save_as(tmp_path / "saved.csv")
    assert (tmp_path / "saved.csv").read_bytes() == (finished.root / "tables/headline.csv").read_bytes()


def test_what_files_say_is_not_run(browser: Any, finished: Reported, tmp_path: Path) -> None:
    spec = {**finished.spec, "preset": HOSTILE, "warnings": [HOSTILE], "configuration": {HOSTILE: HOSTILE}}
    path = tmp_path / "index.html"
    path.write_text(
        compose(Material(spec, finished.files, (Job(HOSTILE, "failed", HOSTILE, (HOSTILE,), HOSTILE),)))[PAGE], encoding="utf-8"
    )
    opened = Visit(browser, path)
    assert opened.tab.evaluate("window.pwned") is None
    assert opened.said == []
    assert opened.tab.title() == f"MergeBench: {HOSTILE}"
    opened.context.close()


def test_without_a_script_everything_is_there(visit: Any) -> None:
    opened = visit(java_script_enabled=False)
    assert opened.tab.locator("#table-headline tbody tr").count() == 6 * 3  # four methods and two controls, on two bases and overall
    assert opened.tab.locator("table button").count() == 0
    assert opened.tab.get_by_role("button").count() == 0
    assert opened.tab.locator("summary", has_text="Contents").is_visible()


def test_it_prints_on_pages_with_everything_open(visit: Any, tmp_path: Path) -> None:
    tab = visit(color_scheme="dark").tab
    closed = "document.querySelectorAll('details:not([open])').length"
    assert tab.evaluate(closed) > 0
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(closed) == 0
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    folder = Path(os.environ.get("MERGEBENCH_SCREENSHOTS") or tmp_path)
    printed = tab.pdf(path=folder / "report.pdf", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 5
