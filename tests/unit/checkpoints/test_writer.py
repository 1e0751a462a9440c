"""What is written is what transformers and safetensors read, and nothing is there before all of it is."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mergebench.checkpoints.reader import Checkpoint
from mergebench.checkpoints.writer import CheckpointWriter
from mergebench.errors import MergebenchError
from tests.reference.pico import family, write_checkpoint

dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.float64])
tensors = st.dictionaries(
    st.sampled_from([f"t{n}.weight" for n in range(8)]), st.tuples(dtypes, st.lists(st.integers(0, 4), max_size=3)), min_size=1
)


@settings(max_examples=60)
@given(layout=tensors, shard=st.integers(1, 200), data=st.data())
def test_any_layout_survives_a_round_trip(layout: dict, shard: int, data) -> None:
    with tempfile.TemporaryDirectory() as folder:
        values = {name: torch.randn(shape).to(dtype) for name, (dtype, shape) in layout.items()}
        base = Checkpoint(write_checkpoint(Path(folder) / "base", values))
        with CheckpointWriter(base, Path(folder) / "copy", max_shard_bytes=shard) as writer:
            for name in data.draw(st.permutations(sorted(values))):
                writer.copy(name)
        copy = Checkpoint(Path(folder) / "copy")
        stored = {n: t for path in copy.folder.glob("*.safetensors") for n, t in load_file(path).items()}
        assert stored.keys() == values.keys()
        for name, value in values.items():
            assert torch.equal(copy.tensor(name), value)
            assert torch.equal(stored[name], value)
            assert stored[name].dtype == value.dtype


def test_other_files_are_copied_byte_for_byte(tmp_path: Path) -> None:
    base = family(tmp_path, n=1).base_folder
    files = {
        "generation_config.json": b'{ "eos_token_id":  2 }',
        "tokenizer_config.json": b"{}\r\n",
        "chat_template.jinja": "{{ é }}".encode(),
        "special_tokens_map.json": b"{}",
        "additional_chat_templates/tools.jinja": b"x",
        "README.md": b"not of the model",
        "pytorch_model.bin": b"not of the model",
    }
    for name, content in files.items():
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_bytes(content)
    checkpoint = Checkpoint(base)
    with CheckpointWriter(checkpoint, tmp_path / "copy") as writer:
        for name in checkpoint.names:
            writer.copy(name)
    for name, content in files.items():
        copied = tmp_path / "copy" / name
        assert copied.exists() == (content != b"not of the model"), name
        assert not copied.exists() or copied.read_bytes() == content
    assert (tmp_path / "copy/config.json").read_bytes() == (base / "config.json").read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_another_dtype_is_used_and_stated(tmp_path: Path, dtype: str) -> None:
    found = family(tmp_path, n=1)
    base = Checkpoint(found.base_folder)
    with CheckpointWriter(base, tmp_path / "copy", dtype=dtype) as writer:
        for name in base.names:
            writer.copy(name)
    copy = Checkpoint(tmp_path / "copy")
    assert copy.config["dtype"] == dtype
    for name, value in found.base.items():
        assert torch.equal(copy.tensor(name), value.to(getattr(torch, dtype)))


def test_rounding_is_once_and_to_nearest_even(tmp_path: Path) -> None:
    base = Checkpoint(write_checkpoint(tmp_path / "base", {"a": torch.zeros(3, dtype=torch.bfloat16)}))
    with CheckpointWriter(base, tmp_path / "copy") as writer:
        writer.write("a", torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20]))
    assert Checkpoint(tmp_path / "copy").tensor("a").tolist() == [1.0, 1 + 2**-6, 1 + 2**-7]


def test_nothing_is_readable_before_the_end(tmp_path: Path) -> None:
    base = Checkpoint(family(tmp_path, n=1).base_folder)
    with contextlib.suppress(KeyboardInterrupt), CheckpointWriter(base, tmp_path / "copy") as writer:
        for name in base.names:
            writer.copy(name)
        raise KeyboardInterrupt
    assert not list((tmp_path / "copy").glob("*.safetensors"))
    with pytest.raises(MergebenchError):
        Checkpoint(tmp_path / "copy")


def test_a_tensor_that_was_not_written_is_named(tmp_path: Path) -> None:
    base = Checkpoint(family(tmp_path, n=1).base_folder)

    def write_some() -> None:
        with CheckpointWriter(base, tmp_path / "copy") as writer:
            for name in base.names[1:]:
                writer.copy(name)

    with pytest.raises(MergebenchError, match=f"1 tensors were not written, '{base.names[0]}' first"):
        write_some()
    assert not list((tmp_path / "copy").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("b", torch.ones(2), "the base .* has none of that name"),
        ("a", torch.ones(3), r"of shape \[3\]: the base has \[2\]"),
        ("a", torch.tensor([1.0, float("nan")]), "not finite"),
        ("a", torch.tensor([1.0, 1e6]), "not finite in F16: use a smaller scale or a wider dtype"),
    ],
)
def test_a_wrong_tensor_is_refused(tmp_path: Path, name: str, tensor: torch.Tensor, message: str) -> None:
    base = Checkpoint(write_checkpoint(tmp_path / "base", {"a": torch.ones(2, dtype=torch.float16)}))
    with pytest.raises(MergebenchError, match=message), CheckpointWriter(base, tmp_path / "copy") as writer:
        writer.write(name, tensor)


def test_the_index_lists_every_tensor(tmp_path: Path) -> None:
    base = Checkpoint(family(tmp_path, n=1).base_folder)
    with CheckpointWriter(base, tmp_path / "copy", max_shard_bytes=500) as writer:
        for name in base.names:
            writer.copy(name)
    index = json.loads((tmp_path / "copy/model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "copy").glob("*.safetensors"))
    assert set(index["weight_map"]) == set(base.names)
    assert sorted(set(index["weight_map"].values())) == files
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(4 * info.size for info in base.tensors.values())
