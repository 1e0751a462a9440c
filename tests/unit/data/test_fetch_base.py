"""Fetching a base: the folder's files, and every way in which a folder can be unusable."""

import json
from pathlib import Path
from typing import Any

import pytest

from mergebench.artifacts import Job, execute, read_json
from mergebench.checkpoints import fetch
from mergebench.errors import MergebenchError
from mergebench.tiny.shipped import WEIGHTS
from tests.unit.hub.models import safetensors


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder as the hub has it, with files that a base does not need."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True, "vocab_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {str(i): i for i in range(8)}}, "added_tokens": []}))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors({"model.embed_tokens.weight": (8, 4), "model.norm.weight": (4,)}))
    for name in ("pytorch_model.bin", "README.md", "consolidated.safetensors", "manifest.json"):
        (folder / name).write_text("not needed")
    return folder


def job(tmp_path: Path, **spec: Any) -> Job:
    outputs = {"manifest": tmp_path / "base/manifest.json", "weights": tmp_path / "base/weights"}
    return Job("fetch_base", {"base": "some-base", **spec}, {}, outputs, tmp_path / "state")


def fetch_local(tmp_path: Path, model: Path) -> dict[str, Any]:
    made = job(tmp_path, source="local", path=str(model))
    execute(fetch, made)
    return dict(read_json(made.outputs["manifest"]))


def test_only_weights_configuration_and_tokenizer_are_taken(tmp_path: Path, model: Path) -> None:
    manifest = fetch_local(tmp_path, model)
    names = {path.name for path in (tmp_path / "base/weights").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(manifest["files"]) == {f"weights/{name}" for name in names}


def test_the_manifest_describes_the_model(tmp_path: Path, model: Path) -> None:
    manifest = fetch_local(tmp_path, model)
    assert (manifest["parameters"], manifest["dtypes"]) == (36, {"BF16": 2})
    assert (manifest["vocabulary"], manifest["tokens"], manifest["tied_embeddings"]) == (8, 8, True)
    assert len(manifest["weights_digest"]) == 64


def test_a_file_that_is_rewritten_at_the_source_does_not_change_the_base(tmp_path: Path, model: Path) -> None:
    fetch_local(tmp_path, model)
    (model / "config.json").write_text("{}")
    assert "LlamaForCausalLM" in (tmp_path / "base/weights/config.json").read_text()


def test_symbolic_links_as_in_the_hubs_cache_are_followed(tmp_path: Path, model: Path) -> None:
    blob = tmp_path / "blob"
    (model / "model.safetensors").rename(blob)
    (model / "model.safetensors").symlink_to(blob)
    fetch_local(tmp_path, model)
    assert not (tmp_path / "base/weights/model.safetensors").is_symlink()


@pytest.mark.parametrize("shipped", sorted(path.name for path in WEIGHTS.glob("tiny-*")))
def test_the_shipped_twins_are_sound(tmp_path: Path, shipped: str) -> None:
    made = job(tmp_path, source="tiny")
    made.spec["base"] = shipped
    execute(fetch, made)
    manifest = read_json(made.outputs["manifest"])
    assert manifest["parameters"] < 1_000_000
    assert manifest["tied_embeddings"] == ("gemma" in shipped)


def truncate(model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:-10])


def lose_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def lose_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()


def lose_config(model: Path) -> None:
    (model / "config.json").unlink()


def break_config(model: Path) -> None:
    (model / "config.json").write_text('{"architectures": [')


def swap_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {str(i): i for i in range(9)}}}))


def lose_embedding(model: Path) -> None:
    (model / "model.safetensors").write_bytes(safetensors({"model.norm.weight": (4,)}))


def lose_shard(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"model\.safetensors is not a sound safetensors file: it is truncated"),
        (lose_weights, r"has neither model\.safetensors nor model\.safetensors\.index\.json"),
        (lose_tokenizer, r"has no tokenizer; expected tokenizer\.json or tokenizer\.model"),
        (lose_config, r"Cannot read .*config\.json"),
        (break_config, r"config\.json is not valid JSON"),
        (swap_tokenizer, r"the tokenizer has 9 tokens, but the embedding only 8 rows"),
        (lose_embedding, r"has no input embedding"),
        (lose_shard, r"lacks model-00002-of-00002\.safetensors"),
    ],
)
def test_an_unusable_folder_is_refused_and_leaves_nothing_behind(tmp_path: Path, model: Path, damage: Any, message: str) -> None:
    damage(model)
    with pytest.raises(MergebenchError, match=message):
        fetch_local(tmp_path, model)
    assert not any((tmp_path / "base").iterdir())


def test_a_missing_folder_names_the_base(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match=r"Base some-base: there is no folder .*gone"):
        fetch.run(job(tmp_path, source="local", path=str(tmp_path / "gone")))


def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MergebenchError, match="the source is 'web'; expected tiny, local or hub"):
        fetch.run(job(tmp_path, source="web"))
