"""What the pages say is so: commands work, links lead somewhere, tables agree with the code."""

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from mergebench import catalogue, cli, config
from mergebench.merging.declarations import declared
from mergebench.tiny import cli as tiny_cli
from mergebench.tiny.pretrain import TWINS
from mergebench.workflow.plan import Plan
from tests.docs.conftest import Copy
from tests.docs.pages import COMMANDS, PAGES, ROOT, Command, anchors, blocks, commands, links, rows
from tests.docs.schema import keys

ALL = commands()
ASKING = {"-n", "--rulegraph"}


def cheap(command: Command) -> bool:
    """Whether a command only asks, or makes an example in seconds: it is then run as printed."""
    program, *rest = command.words
    if program == "snakemake":
        return bool(ASKING & set(rest))
    if program == "mergebench" and rest[0] == "doctor":
        return "tiny" in rest
    if program == "mergebench" and rest[0] == "guideline":
        return "--published" in rest
    return program == "mergebench" and (rest[0] in ("methods", "plan", "config", "run", "status") or rest[:2] == ["verify", "example"])


def works(done: subprocess.CompletedProcess[str], command: str) -> bool:
    """Whether a command did its work. That of `doctor` is to tell, whatever it finds on this machine."""
    told = re.search(r"^\d+ ok, .*\d+ FAILED", done.stdout, re.MULTILINE)
    return done.returncode == 0 or ("doctor" in command and done.returncode == 1 and told is not None)


def of(program: str) -> list[Command]:
    """The expensive commands of a program, those behind ``mergebench warm --`` included."""
    found = [c for c in ALL if c.words[0] == program and not cheap(c)]
    if program == "snakemake":
        warm = [c for c in ALL if c.words[:2] == ["mergebench", "warm"]]
        found += [Command(c.page, c.text.partition(" -- ")[2]) for c in warm]
    return found


def test_every_page_of_docs_has_a_command():
    without = [page.name for page in PAGES if page.parent.name == "docs" and "sh" not in {block.language for block in blocks(page)}]
    assert without == []


def test_every_command_is_of_a_kind_that_is_checked_here():
    assert [c for c in ALL if c.words[0] not in COMMANDS] == []


@pytest.mark.long
def test_cheap_commands_work_as_printed(copy: Copy):
    printed = dict.fromkeys(c.text for c in ALL if cheap(c) and c.page != "CONTRIBUTING.md")
    # Other examples read the base that docs/models.md makes.
    order = sorted(printed, key=lambda text: "mergebench run fetch_base" not in text)
    failed = [f"{text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}" for text in order if not works(done := copy.shell(text), text)]
    assert failed == [], "\n\n".join(failed)


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for c in of("make") for word in c.words[1:]} <= targets


def test_exported_variables_are_read():
    names = {c.words[1].partition("=")[0] for c in of("export")}
    assert [name for name in names if f"${name}" not in (ROOT / "config.yaml").read_text()] == []


@pytest.mark.parametrize("command", of("mergebench"), ids=lambda c: c.text)
def test_commands_of_mergebench_parse(command: Command):
    _, verb, *rest = command.words
    cli.parser().parse_args(command.words[1:])
    if verb == "tiny":
        parser = argparse.ArgumentParser()
        tiny_cli.add_arguments(parser.add_subparsers().add_parser("pretrain"))
        parser.parse_args(rest)


@pytest.mark.parametrize("command", of("snakemake"), ids=lambda c: c.text)
def test_commands_of_snakemake_parse(command: Command):
    from snakemake.cli import get_argument_parser

    options = get_argument_parser().parse_args(command.words[1:])
    presets = yaml.safe_load((ROOT / "config.yaml").read_text())["presets"]
    chosen = [word.partition("=")[2] for word in options.config or [] if word.startswith("preset=")]
    assert set(chosen) <= set(presets)
    assert [profile for profile in options.profile or [] if not (ROOT / profile / "config.yaml").is_file()] == []
    assert set(options.until or []) <= set(Plan(config.load(ROOT / "config.yaml")).job_counts())


def test_targets_of_snakemake_can_be_made(copy: Copy):
    printed = [c.words for c in of("snakemake") if "--" in c.words]
    targets = sorted({target for words in printed for target in words[words.index("--") + 1 :]})
    assert targets
    assert {tuple(words[: words.index("--")]) for words in printed} == {("snakemake", "--profile", "profiles/tiny")}
    planned = copy.output(f"snakemake -n --profile profiles/tiny -- {' '.join(targets)}")
    assert [target for target in targets if target not in planned] == []


@pytest.mark.parametrize("command", of("python"), ids=lambda c: c.text)
def test_files_given_to_pytest_exist(command: Command):
    made_there = (ROOT / "CONTRIBUTING.md").read_text()
    paths = [word for word in command.words if word.startswith("tests/")]
    assert [path for path in paths if not (ROOT / path).exists() and f"New file `{path}`" not in made_there] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    broken = []
    for link in links(page, pictures=False):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_picture_is_there():
    assert [link for page in PAGES for link in links(page, pictures=True) if not (page.parent / link).is_file()] == []


def tree() -> set[str]:
    """The paths in the README's file tree; folders without their slash."""
    text = next(block.text for block in blocks(ROOT / "README.md") if block.language == "text")
    found, folder = set(), ""
    for line in text.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith("  ") else name
        found.add((f"{folder}{name}" if line.startswith("  ") else name).rstrip("/"))
    return found


def test_the_tree_in_the_readme_has_no_entry_too_many():
    assert [path for path in sorted(tree()) if not (ROOT / path).exists()] == []


def test_the_tree_in_the_readme_lacks_nothing():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the repository cannot be told from what lies about")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    top = {path.partition("/")[0] for path in listed}
    below = {"/".join(path.split("/")[:2]) for path in listed if path.startswith(("rules/", "profiles/", "mergebench/"))}
    below |= {"/".join(path.split("/")[:2]) for path in listed if path.startswith("tests/") and path.count("/") > 1}
    assert sorted((top | {path for path in below if "/__" not in path}) - tree()) == []


def test_the_rule_graph_in_the_readme_is_snakemakes(copy: Copy):
    drawn = copy.output("snakemake --config preset=tiny --rulegraph mermaid-js")
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", drawn))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", drawn)}
    shown = next(block.text for block in blocks(ROOT / "README.md") if block.language == "mermaid")
    assert set(re.findall(r"(\w+) --> (\w+)", shown)) == {edge for edge in edges if edge[1] != "all"}


def test_configuration_names_every_key_with_its_values_and_default():
    text = (ROOT / "docs/configuration.md").read_text()
    wanted = [f"| `{key}` | {kind} | {default} | " for key, kind, default in keys(config.schema())]
    assert [line for line in wanted if line not in text] == []
    assert sum(line.startswith("| `") for line in text.splitlines()) == len(wanted)


def test_every_preset_is_explained():
    assert rows(ROOT / "docs/workflow.md").keys() >= yaml.safe_load((ROOT / "config.yaml").read_text())["presets"].keys()


def test_data_names_every_dataset_and_every_local_file():
    text, named = (ROOT / "docs/data.md").read_text(), rows(ROOT / "docs/data.md")
    for dataset, entry in catalogue.datasets().items():
        local = entry.get("local", {})
        parts = [names if isinstance(names, list) else [names] for names in local.get("parts", {}).values()]
        files = [name for names in parts for name in names] + ([local["glob"]] if "glob" in local else [])
        assert dataset in named
        assert [file for file in files if f"`{file}`" not in text] == []


def test_training_data_states_every_known_count():
    lines = (ROOT / "docs/training-data.md").read_text().splitlines()
    for dataset, entry in catalogue.datasets().items():
        for name, described in entry.get("filters", {}).items():
            (line,) = [line for line in lines if line.startswith(f"| `{dataset}` | `{name}`")]
            counts = [f"{count:,}" for part in described["counts"].values() for count, _ in part.values()]
            assert "the same" in line or [count for count in counts if count not in line] == []


def test_evaluation_states_the_protocol_of_every_benchmark():
    named = rows(ROOT / "docs/evaluation.md")
    for benchmark, entry in catalogue.benchmarks().items():
        cells = [cell.strip() for cell in named[benchmark].strip("|").split(" | ")]
        tokens = str(entry["generation"]["max_tokens"]) if entry["generation"] else "—"
        count = f"{entry['rows']:,}" + (f" ({entry['rows_in_paper']:,})" if "rows_in_paper" in entry else "")
        assert cells[2] == entry["metric"]
        assert cells[4:7] == [str(entry["shots"]), tokens, count]


def test_merging_names_every_method_and_parameter():
    named = rows(ROOT / "docs/merging.md")
    for method, declaration in declared().items():
        assert [p for p in declaration.parameters if f"`{p}`" not in named[method]] == []


def test_tiny_states_how_every_twin_was_made():
    text, named = (ROOT / "docs/tiny.md").read_text(), rows(ROOT / "docs/tiny.md")
    for base, twin in TWINS.items():
        assert f"{twin.mixture.wanted:g} {base.rpartition('-')[2]}" in text
        assert f" | {catalogue.bases()[base]['parameters']:,} | {twin.steps:,} |" in named[base]
