"""Base models from the hub through its own client: the lock, resumption, verification, and every way in which the hub says no."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mergebench.artifacts import Job, execute, read_json
from mergebench.checkpoints import fetch
from mergebench.errors import MergebenchError
from mergebench.hub import download, lock
from mergebench.hub.commands import main as hub_command
from tests.hub_server import Hub
from tests.unit.hub.models import model

ROOT = Path(__file__).parents[3]
NAME = "maker/model"


def job(tmp_path: Path, folder: str = "base", **spec: Any) -> Job:
    outputs = {"manifest": tmp_path / folder / "manifest.json", "weights": tmp_path / folder / "weights"}
    made = Job("fetch_base", {"base": "some-base", "source": "hub", "hub": NAME, **spec}, {}, outputs, tmp_path / f"state-{folder}")
    made.hub_lock = tmp_path / "hub.lock.json"
    return made


def fetched(tmp_path: Path, folder: str = "base", **spec: Any) -> dict[str, Any]:
    made = job(tmp_path, folder, **spec)
    execute(fetch, made)
    return dict(read_json(made.outputs["manifest"]))


def large(hub: Hub) -> list[tuple[str, str, str | None]]:
    return [(method, path, given) for method, path, given in hub.requests if path.startswith("/cdn") and method == "GET"]


def test_weights_configuration_and_tokenizer_are_fetched_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    files = model()
    commit = hub.add(NAME, files)
    manifest = fetched(tmp_path)
    folder = tmp_path / "base/weights"
    names = {path.name for path in folder.iterdir()}
    assert names == set(files) - {"pytorch_model.bin", "README.md", "original/consolidated.safetensors"}
    assert all((folder / name).read_bytes() == files[name] for name in names)
    assert manifest["revision"] == commit
    assert not (tmp_path / "state-base").exists(), "the download's state is dropped when the job is done"


def test_the_first_fetch_locks_the_commit_and_later_ones_honour_it(hub: Hub, tmp_path: Path) -> None:
    first = hub.add(NAME, model())
    fetched(tmp_path)
    assert read_json(tmp_path / "hub.lock.json") == {"dataset": {}, "model": {NAME: first}}
    second = hub.add(NAME, model(width=2048))
    assert fetched(tmp_path, "again")["revision"] == first
    hub_command(["--file", str(tmp_path / "hub.lock.json"), "update", NAME])
    assert fetched(tmp_path, "moved")["revision"] == second


def test_a_pinned_commit_goes_before_the_lock_and_a_tag_has_an_entry_of_its_own(hub: Hub, tmp_path: Path) -> None:
    old = hub.add(NAME, model(), tags=("v1",))
    new = hub.add(NAME, model(width=2048))
    assert fetched(tmp_path)["revision"] == new
    assert fetched(tmp_path, "pinned", revision=old)["revision"] == old
    assert fetched(tmp_path, "tagged", revision="v1")["revision"] == old
    assert lock.read(tmp_path / "hub.lock.json")["model"] == {NAME: new, f"{NAME}@v1": old}


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, model())
    hub.cut = [20_480]
    fetched(tmp_path)
    assert "bytes=20480-" in [given for _, _, given in large(hub)]


def test_a_wrong_byte_is_noticed_and_the_file_fetched_again(hub: Hub, tmp_path: Path) -> None:
    files = model()
    hub.add(NAME, files)
    hub.altered = 1
    fetched(tmp_path)
    assert (tmp_path / "base/weights/model-00001-of-00002.safetensors").read_bytes() == files["model-00001-of-00002.safetensors"]


def test_a_file_that_stays_wrong_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, model())
    hub.altered = 100
    with pytest.raises(MergebenchError, match=r"model-0000\d-of-00002\.safetensors of maker/model arrived twice with content that differs"):
        fetched(tmp_path)
    assert not any((tmp_path / "base").iterdir())


def test_a_killed_job_goes_on_where_it_was(tmp_path: Path) -> None:
    hub = Hub()
    files = model(width=65_536)
    hub.add(NAME, files)
    hub.bytes_per_second = 400_000
    spec = f'{{"base": "some-base", "source": "hub", "hub": "{NAME}"}}'
    small = "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 16384; from mergebench.cli import main; main()"
    words = ["run", "fetch_base", "--online", "--state", "state", "--spec", spec, "--output", "manifest=base/manifest.json"]
    command = [sys.executable, "-c", small, *words, "weights=base/weights"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf")}
    environment.pop("HF_HUB_OFFLINE", None)
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    while hub.sent < 300_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    hub.bytes_per_second, before = None, hub.sent
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    total = sum(len(content) for name, content in files.items() if name.startswith("model-"))
    assert hub.sent - before < total - 200_000
    assert all((tmp_path / "base/weights" / name).read_bytes() == files[name] for name in files if name.startswith("model-"))
    assert read_json(tmp_path / "hub.lock.json")["model"].keys() == {NAME}
    hub.close()


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, model())
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("", (), {"free": 1000})())
    with pytest.raises(MergebenchError, match=r"maker/model needs 0\.07 MB more in .*, where 0\.00 MB are free; make room"):
        fetched(tmp_path)
    assert large(hub) == []


def only(*kept: str) -> dict[str, bytes]:
    return {name: content for name, content in model().items() if name in kept}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            only("config.json", "tokenizer.json", "pytorch_model.bin"),
            r"has its weights only as pytorch_model\.bin, a format that can run code",
        ),
        (only("config.json", "README.md"), "has no weights in safetensors; check that it is the model that you want"),
        ({**model(), "config.json": b"{"}, r"config\.json is not valid JSON"),
        ({n: c for n, c in model().items() if n != "tokenizer.json"}, "has no tokenizer"),
        ({n: c for n, c in model().items() if "00002-of" not in n}, "lacks model-00002-of-00002.safetensors"),
    ],
)
def test_an_unusable_repository_is_refused(hub: Hub, tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    hub.add(NAME, files)
    with pytest.raises(MergebenchError, match=message):
        fetched(tmp_path)
    assert not any((tmp_path / "base").iterdir())


def test_a_gated_model_without_a_token(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, model(), gated=True)
    with pytest.raises(MergebenchError, match=r"is gated: accept its licence at https://huggingface\.co/maker/model and log in"):
        fetched(tmp_path)


def test_a_gated_model_with_a_token_of_somebody_else(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, model(), gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(MergebenchError, match="is gated: accept its licence"):
        fetched(tmp_path)


def test_a_gated_model_with_the_right_token(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, model(), gated=True)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    fetched(tmp_path)
    assert not hub.leaked
    assert hub.token not in (tmp_path / "base/manifest.json").read_text() + (tmp_path / "hub.lock.json").read_text()


def test_a_model_that_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="The hub has no model maker/model that you may read; check its name"):
        fetched(tmp_path)


def test_a_revision_that_does_not_exist(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, model())
    with pytest.raises(MergebenchError, match="The model maker/model has not got the revision that was asked for"):
        fetched(tmp_path, revision="v9")
    assert not (tmp_path / "hub.lock.json").exists()


def test_a_locked_commit_that_the_hub_no_longer_has(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, model())
    (tmp_path / "hub.lock.json").write_text(f'{{"model": {{"{NAME}": "{"a" * 40}"}}}}')
    with pytest.raises(MergebenchError, match=r"has not got the revision .* `mergebench hub update maker/model`"):
        fetched(tmp_path)


def test_a_hub_that_cannot_be_reached(hub: Hub, tmp_path: Path) -> None:
    hub.close()
    with pytest.raises(MergebenchError, match=r"could not be fetched from the hub \(Connect\w*\); check that this machine reaches it"):
        fetched(tmp_path)
