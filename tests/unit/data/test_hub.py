"""The hub source against a stand-in for the hub: small files on disk, behind the functions that use the network."""

import hashlib
import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from mergebench import catalogue
from mergebench.data import readers
from mergebench.data.sources import hub
from mergebench.errors import MergebenchError
from mergebench.hub.dataset_files import Split
from mergebench.hub.download import Remote
from tests.unit.data import published

COMMIT = "c0ffee" + "0" * 34


class StandIn:
    """A folder in the place of the hub: <folder>/<dataset>/<config>/<split>.parquet, other files by their names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []

    def add(self, identifier: str, name: str, records: list[dict[str, Any]]) -> None:
        path = self.folder / identifier / name
        (published.parquet if path.suffix == ".parquet" else published.jsonl)(path, records)

    def dataset_commit(self, identifier: str, revision: str | None) -> str:
        self.asked.append((identifier, revision or "newest"))
        return revision or COMMIT

    def listing(self, kind: str, identifier: str, revision: str) -> list[Remote]:
        root = self.folder / identifier
        return [Remote(path.relative_to(root).as_posix(), path.stat().st_size, None, None) for path in root.rglob("*") if path.is_file()]

    def fetch_files(self, identifier: str, revision: str, files: list[Remote], progress: object) -> dict[str, Path]:
        return {file.name: self.folder / identifier / file.name for file in files}

    def find_split(self, identifier: str, config: str | None, name: str, revision: str) -> Split:
        file = f"{config or 'default'}/{name}.parquet"
        if not (self.folder / identifier / file).is_file():
            raise ValueError(f"Unknown split {name!r}.\nSecond line.")
        return Split((file,), "parquet", {}, None)

    def read_split(self, split: Split, name: str, paths: list[Path]) -> list[dict[str, Any]]:
        return [dict(record) for path in paths for record in readers.read(path)]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn(tmp_path / "hub")
    for name in ("dataset_commit", "listing", "fetch_files", "find_split", "read_split"):
        monkeypatch.setattr(hub, name, getattr(stand_in, name))
    return stand_in


def load(dataset: str, **change: Any) -> hub.Loaded:
    return hub.load(dataset, {**catalogue.datasets()[dataset], **change}, seed=0)


def test_a_split_becomes_rows_and_its_commit_is_recorded(stand_in: StandIn) -> None:
    stand_in.add("openai/gsm8k", "main/test.parquet", [{"question": "q", "answer": "#### 1"}])
    loaded = load("gsm8k")
    assert loaded.rows == [{"id": "0000", "question": "q", "answer": "#### 1"}]
    assert loaded.revisions == {"openai/gsm8k": COMMIT}


def test_a_pinned_revision_is_the_one_that_is_asked_for(stand_in: StandIn) -> None:
    stand_in.add("openai/gsm8k", "main/test.parquet", [{"question": "q", "answer": "#### 1"}])
    part = catalogue.datasets()["gsm8k"]["hub"]["parts"]["rows"]
    pinned = {"parts": {"rows": {**part, "revision": "a" * 40}}}
    assert load("gsm8k", hub=pinned).revisions == {"openai/gsm8k": "a" * 40}


def test_the_commit_is_looked_up_once_for_all_parts(stand_in: StandIn) -> None:
    record = {"id": "x", "instruction": "q", "answer": "A", **{f"option_{c}": c for c in "abcd"}}
    for language in ("fr", "es", "de", "ru"):
        stand_in.add("alexandrainst/m_mmlu", f"{language}/test.parquet", [record])
    assert [row["language"] for row in load("m_mmlu").rows] == ["fr", "es", "de", "ru"]
    assert stand_in.asked == [("alexandrainst/m_mmlu", "newest")]


def test_files_are_found_by_pattern_and_hashed(stand_in: StandIn) -> None:
    for shard in ("00000-of-00002", "00001-of-00002"):
        stand_in.add("wmt/wmt14", f"fr-en/test-{shard}.parquet", [{"translation": {"fr": f"fr {shard}", "en": "en"}}])
    stand_in.add("wmt/wmt14", "fr-en/train-00000.parquet", [{"translation": {"fr": "not this", "en": "en"}}])
    loaded = load("wmt14")
    assert [row["source"] for row in loaded.rows] == ["fr 00000-of-00002", "fr 00001-of-00002"]
    assert sorted(loaded.files) == [f"wmt/wmt14/fr-en/test-0000{i}-of-00002.parquet" for i in (0, 1)]


def test_a_renamed_file_is_an_error_that_lists_what_is_there(stand_in: StandIn) -> None:
    stand_in.add("wmt/wmt14", "data/test.parquet", [{"translation": {"fr": "un", "en": "one"}}])
    with pytest.raises(MergebenchError, match=r"wmt/wmt14 at c0ffee000000 has no file fr-en/test-\*\.parquet; it has data/test\.parquet"):
        load("wmt14")


def test_an_unknown_split_names_the_dataset_and_the_commit(stand_in: StandIn) -> None:
    with pytest.raises(MergebenchError, match=r"openai/gsm8k/main/test at c0ffee000000 could not be read: Unknown split 'test'\.$"):
        load("gsm8k")


def test_an_empty_split_is_an_error(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.add("openai/gsm8k", "main/test.parquet", [{"question": "q", "answer": "#### 1"}])
    monkeypatch.setattr(hub, "read_split", lambda *_: [])
    with pytest.raises(MergebenchError, match="openai/gsm8k/main/test at c0ffee000000 holds no records"):
        load("gsm8k")


def test_changed_columns_name_the_row(stand_in: StandIn) -> None:
    stand_in.add("openai/gsm8k", "main/test.parquet", [{"query": "q", "answer": "#### 1"}])
    with pytest.raises(MergebenchError, match=r"openai/gsm8k/main/test, row 1 has no column 'question'; it has 'query', 'answer'"):
        load("gsm8k")


def test_a_gated_dataset_needs_a_token(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(MergebenchError, match=r"allenai/wildguardmix is gated: accept its licence at https://huggingface\.co/datasets/"):
        load("wildguardtest")
    assert stand_in.asked == []


def test_with_a_token_a_gated_dataset_is_fetched(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    record = {"prompt": "p", "adversarial": True, "prompt_harm_label": "harmful", "response_harm_label": "harmful", "subcategory": "s"}
    stand_in.add("allenai/wildguardmix", "wildguardtest/test.parquet", [record])
    assert len(load("wildguardtest").rows) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "is gated: accept its licence"),
        ("RepositoryNotFoundError", "The hub has no dataset openai/gsm8k"),
        ("HfHubHTTPError", r"The hub refuses the dataset openai/gsm8k to your token \(403\)"),
    ],
)
def test_the_hubs_refusals_become_sentences(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, error: str, message: str) -> None:
    import httpx
    from huggingface_hub import errors

    def refuse(*_: object) -> str:
        raise getattr(errors, error)("no", response=httpx.Response(403, request=httpx.Request("GET", "https://hub")))

    monkeypatch.setattr(hub, "dataset_commit", refuse)
    with pytest.raises(MergebenchError, match=message):
        load("gsm8k")


def test_a_hub_out_of_reach_is_a_sentence(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    def fail(*_: object) -> list[Remote]:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr(hub, "listing", fail)
    with pytest.raises(MergebenchError, match=r"The dataset wmt/wmt14 could not be fetched from the hub \(ConnectError\)"):
        load("wmt14")


def test_a_switched_off_hub_says_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    def refuse(*_: object) -> str:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(hub, "dataset_commit", refuse)
    with pytest.raises(MergebenchError, match="HF_HUB_OFFLINE"):
        load("gsm8k")


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes) -> dict[str, Any]:
    monkeypatch.setattr(hub, "open_url", lambda url: content)
    part = {"url": "https://host/repository/commit/harmful.jsonl", "sha256": hashlib.sha256(content).hexdigest()}
    return {"parts": {"rows": part}}


def test_a_pinned_address_is_read_and_its_hash_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    source = serve(monkeypatch, json.dumps({"vanilla": "v", "adversarial": "a"}).encode())
    loaded = load("wildjailbreak", hub=source)
    assert loaded.rows == [{"id": "0000", "adversarial": "a", "vanilla": "v"}]
    assert loaded.files == {source["parts"]["rows"]["url"]: source["parts"]["rows"]["sha256"]}


def test_changed_content_at_a_pinned_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = serve(monkeypatch, b'{"vanilla": "v", "adversarial": "a"}')
    monkeypatch.setattr(hub, "open_url", lambda url: b"something else")
    with pytest.raises(MergebenchError, match=r"harmful\.jsonl has SHA-256 .*, the catalogue expects"):
        load("wildjailbreak", hub=source)


def test_an_address_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> bytes:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(hub, "open_url", fail)
    with pytest.raises(MergebenchError, match=r"https://raw\.githubusercontent\.com/.*harmful\.jsonl could not be fetched .*no route"):
        load("wildjailbreak")


def test_a_dataset_that_is_not_on_the_hub_says_where_to_get_it() -> None:
    with pytest.raises(MergebenchError, match=r"pud_prose \(PUD prose\) is not on the hub; set data\.sources\.pud_prose to local or tiny"):
        load("pud_prose")


@pytest.mark.parametrize("dataset", [name for name, entry in catalogue.datasets().items() if "hub" in entry])
def test_every_entry_says_completely_where_it_is(dataset: str) -> None:
    for part in catalogue.datasets()[dataset]["hub"]["parts"].values():
        assert {*part} - {"revision"} in ({"url", "sha256"}, {"id", "file"}, {"id", "split"}, {"id", "config", "split"})
        if "url" in part:
            assert len(part["sha256"]) == 64
            assert len(part["url"].split("/")[5]) == 40, "the address must name a commit"
