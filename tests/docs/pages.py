"""The pages as data: fenced blocks, commands, links and headings."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
COMMANDS = ("make", "mergebench", "snakemake", "python", "export")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the paragraph before it on one line."""

    language: str
    text: str
    before: str


@dataclass(frozen=True)
class Command:
    """One line of a ``sh`` block."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], " ".join(text[: m.start()].rstrip().rpartition("\n\n")[2].split())) for m in FENCE.finditer(text)]


def commands() -> list[Command]:
    """Every command of every page, in the order of the pages."""
    shells = [(page.relative_to(ROOT).as_posix(), block) for page in PAGES for block in blocks(page) if block.language == "sh"]
    return [Command(page, line) for page, block in shells for line in block.text.splitlines() if line.strip()]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path, *, pictures: bool) -> list[str]:
    """Relative links of a page, or its pictures."""
    found = [(bool(mark), target) for mark, target in LINK.findall(prose(page))]
    return [target for picture, target in found if picture is pictures and "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get on GitHub."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path) -> dict[str, str]:
    """Lines of a page's tables by the names in backquotes in their first cell."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return {name: line for line in lines for name in re.findall(r"`([^`]+)`", line.split(" | ")[0])}
