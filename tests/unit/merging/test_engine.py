"""The engine's promises: the same bytes however the work is cut, and nothing that is not finite."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergebench.checkpoints.digest import realised_digest, values_digest
from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.merging.engine import directions, merge
from mergebench.merging.models import Models
from mergebench.merging.registry import get, methods
from tests.reference.pico import Family, family, write_checkpoint
from tests.unit.merging.engines import set_pieces, weights

# Methods of scope "layer" run the model, which a pico checkpoint is not.
METHODS = [name for name in methods() if get(name).scope != "layer"]
ELEMENTWISE = [name for name in METHODS if get(name).scope == "element"]
every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("five"), dtype=torch.bfloat16)


@every_method
def test_threads_change_no_byte(name: str, five: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_pieces(monkeypatch, 8, 16)
    made = [merge(five.open(), name, folder=tmp_path / str(threads), threads=threads, max_shard_bytes=300) for threads in (1, 2, 8)]
    files = [weights(tmp_path / str(threads)) for threads in (1, 2, 8)]
    assert len(files[0]) > 2
    assert files[0] == files[1] == files[2]
    assert made[0] == made[1] == made[2]


@every_method
@pytest.mark.parametrize(("block", "chunk"), [(1, 1), (7, 14), (64, 128)])
def test_pieces_change_no_byte(name: str, five: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, chunk: int) -> None:
    merge(five.open(), name, folder=tmp_path / "whole", seed=4)
    set_pieces(monkeypatch, block, chunk)
    merge(five.open(), name, folder=tmp_path / "pieces", seed=4)
    assert weights(tmp_path / "whole") == weights(tmp_path / "pieces")


@every_method
def test_input_shards_and_the_order_of_specialists_change_no_byte(name: str, five: Family, tmp_path: Path) -> None:
    split = family(tmp_path / "split", shards=8, dtype=torch.bfloat16)
    merge(five.open(), name, folder=tmp_path / "one", seed=1)
    merge(split.open(tuple(split.folders)[::-1]), name, folder=tmp_path / "eight", seed=1)
    assert weights(tmp_path / "one") == weights(tmp_path / "eight")


@every_method
def test_the_digest_is_that_of_the_weights(name: str, five: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_pieces(monkeypatch, 8, 16)
    one = merge(five.open(), name, folder=tmp_path / "one")["realised_digest"]
    many = merge(five.open(), name, folder=tmp_path / "many", max_shard_bytes=200)["realised_digest"]
    stored = Checkpoint(tmp_path / "many")
    assert one == many == realised_digest({n: values_digest(stored.values(n), stored.size(n)) for n in stored.names})


@pytest.mark.parametrize("name", ["ties", "dataless_localize_and_stitch"])
@pytest.mark.parametrize("among", ["global", "tensor"])
def test_exact_thresholds_keep_what_was_asked_for(name: str, among: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 many magnitudes are equal: only their order can tell which ones are kept."""
    set_pieces(monkeypatch, 5, 10)
    found = family(tmp_path, dtype=torch.bfloat16, n=3)
    for threads in (1, 3):
        parameters = {"density": 0.3, "ties": "exact", "threshold_scope": among}
        facts = merge(found.open(), name, parameters, folder=tmp_path / str(threads), threads=threads)["realised"]
        tensors = found.base
        wanted = sum(round(0.3 * t.numel()) for t in tensors.values()) if among == "tensor" else round(0.3 * facts["parameters"])
        for domain, density in facts["densities"].items():
            vectors = [found.specialists[domain][n].float() - t.float() for n, t in tensors.items()]
            if among == "tensor":
                wanted = sum(min(round(0.3 * v.numel()), int(v.count_nonzero())) for v in vectors)
            assert density * facts["parameters"] == pytest.approx(wanted)
    assert weights(tmp_path / "1") == weights(tmp_path / "3")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("culprit", ["base", "math"])
@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "regmean"])
def test_values_that_are_not_finite_are_named(name: str, culprit: str, value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    found = family(tmp_path, n=2, dtype=dtype)
    tensors = dict(found.base if culprit == "base" else found.specialists[culprit])
    broken = "model.layers.1.mlp.up_proj.weight"
    tensors[broken] = tensors[broken].clone()
    tensors[broken][-1, -1] = value
    folder = found.base_folder if culprit == "base" else found.folders[culprit]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MergebenchError, match=rf"'model\.layers\.1\.mlp\.up_proj\.weight' of {folder} has values that are NaN or inf"):
        merge(found.open(), name, folder=tmp_path / "merged", threads=2)
    assert not (tmp_path / "merged/config.json").exists()


def test_a_result_that_overflows_is_refused(tmp_path: Path) -> None:
    base = {"a": torch.full((4,), 60000.0, dtype=torch.float16)}
    write_checkpoint(tmp_path / "base", base)
    write_checkpoint(tmp_path / "math", {"a": torch.full((4,), 65000.0, dtype=torch.float16)})
    models = Models.open(tmp_path / "base", {"math": tmp_path / "math"})
    with pytest.raises(MergebenchError, match="'a' of the merge is not finite in F16: use a smaller scale"):
        merge(models, "task_arithmetic", {"scale": 2.0}, folder=tmp_path / "merged")
    merge(models, "task_arithmetic", {"scale": 1.0}, folder=tmp_path / "merged")
    assert (tmp_path / "merged/model.safetensors").exists()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_mixed_dtypes_buffers_and_empty_tensors(name: str, tmp_path: Path) -> None:
    found = family(tmp_path, n=2, dtype=torch.bfloat16)
    for folder, tensors, dtype in [
        (found.base_folder, found.base, torch.bfloat16),
        (found.folders["math"], found.specialists["math"], torch.float32),
        (found.folders["instruction"], found.specialists["instruction"], torch.float16),
    ]:
        extra = {"position_ids": torch.arange(7), "flags": torch.tensor([True, False, True]), "none": torch.zeros(0, 3, dtype=dtype)}
        save_file({n: t.to(dtype) for n, t in tensors.items()} | extra, folder / "model.safetensors", metadata={"format": "pt"})
    needed = get(name).statistics
    merge(found.open(), name, folder=tmp_path / "merged", **({"scope": "regex:layers"} if needed else {}))
    merged = Checkpoint(tmp_path / "merged")
    assert merged.dtypes == {"BF16"}
    assert merged.tensor("position_ids").tolist() == list(range(7))
    assert merged.tensor("flags").tolist() == [True, False, True]
    assert merged.tensor("none").shape == (0, 3)


def test_another_output_dtype_rounds_once(five: Family, tmp_path: Path) -> None:
    merge(five.open(), "task_arithmetic", folder=tmp_path / "merged", dtype="float32", scope="no-embeddings")
    merged = Checkpoint(tmp_path / "merged")
    for name, direction in directions(five.open(), "task_arithmetic", scope="no-embeddings"):
        assert torch.equal(merged.tensor(name), five.base[name].float() + direction * 0.4)
    assert torch.equal(merged.tensor("lm_head.weight"), five.base["lm_head.weight"].float())
    assert merged.config["dtype"] == "float32"


FUSED = """
import sys
from pathlib import Path
from mergebench.merging.engine import merge
from mergebench.merging.models import Models

root = Path(sys.argv[1])
models = Models.open(root / "base", {name: root / f"specialist_{name}" for name in ("math", "instruction")})
merge(models, sys.argv[2], folder=root / sys.argv[2], threads=2)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if get(name).kernel and not get(name).statistics])
def test_fused_methods_do_without_torch(name: str, tmp_path: Path) -> None:
    """Importing it takes longer than merging a small model."""
    family(tmp_path, n=2)
    assert subprocess.run([sys.executable, "-c", FUSED, str(tmp_path), name], check=False).returncode == 0


def peak(size: int, folder: Path, method: str, threads: int) -> int:
    """Bytes that a merge of two models of one tensor of `size` entries has in memory at most, besides mapped files."""
    if not folder.exists():
        for place, name in enumerate(("base", "math", "coding")):
            write_checkpoint(folder / name, {"w": (torch.arange(size) % 1000 * (1 + 0.01 * place)).bfloat16()})
    models = Models.open(folder / "base", {name: folder / name for name in ("math", "coding")})
    tracemalloc.start()
    merge(models, method, folder=folder / f"out_{method}", threads=threads)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "dare", "consensus_ta", "dataless_localize_and_stitch"])
def test_memory_does_not_grow_with_the_model(name: str, tmp_path: Path) -> None:
    peak(10, tmp_path / "first", name, 2)  # compiled code counts once
    small, large = (peak(size, tmp_path / str(size), name, 2) for size in (3_000_000, 12_000_000))
    assert large < 1.2 * small + 2e6
    assert large < 4 * 12_000_000  # one tensor in float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@every_method
def test_the_gpu_gives_the_same_within_a_rounding(name: str, five: Family) -> None:
    expected = dict(directions(five.open(), name, seed=2))
    for tensor, direction in directions(five.open(), name, seed=2, device="cuda"):
        torch.testing.assert_close(direction, expected[tensor], rtol=2e-6, atol=1e-6)
