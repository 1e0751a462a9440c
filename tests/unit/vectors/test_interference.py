"""How task vectors relate, against sums over whole vectors in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file

from mergebench.artifacts import Job, execute, read_json
from mergebench.errors import MergebenchError
from mergebench.kernels.elect import elect_block
from mergebench.kernels.relate import count_contests, count_elected, count_pairs, mark
from mergebench.merging.signs import elect
from mergebench.vectors import interference, walk
from mergebench.vectors import run as vectors
from mergebench.vectors.modules import MODULES, layer_of, module_of
from tests.reference.pico import Family, family

Change = Callable[[dict[str, torch.Tensor]], None]


def measure(found: Family, folder: Path, *, spectra: bool = False, threads: int = 1, **spec: str) -> pd.DataFrame:
    """The stage's rows, with spectra of the vectors stage or with its own."""
    inputs = {"base": found.base_folder, "specialists": [*found.folders.values()]}
    if spectra:
        inputs["spectra"] = [spectrum(found, folder / domain, domain) for domain in found.folders]
    outputs = {"manifest": folder / "manifest.json", "interference": folder / "interference.parquet"}
    spec = {"base": "pico", "domains": [*found.folders], **spec}
    execute(interference, Job("interference", spec, inputs, outputs, folder / "state", threads))
    return pd.read_parquet(outputs["interference"])


def spectrum(found: Family, folder: Path, domain: str) -> Path:
    outputs = {"manifest": folder / "manifest.json", "spectrum": folder / "spectrum.npz"}
    inputs = {"base": found.base_folder, "specialist": found.folders[domain]}
    execute(vectors, Job("vectors", {"base": "pico", "domain": domain}, inputs, outputs, folder / "state"))
    return outputs["manifest"]


def changed(found: Family, domain: str, change: Change) -> None:
    change(found.specialists[domain])
    save_file(found.specialists[domain], found.folders[domain] / "model.safetensors")


def naive(found: Family) -> dict[tuple[str, str, str], dict[str, float]]:
    """The same sums from whole vectors, by tensor and pair."""
    domains = sorted(found.folders)
    taus = {d: {n: (found.specialists[d][n].float() - t.float()).double().flatten() for n, t in found.base.items()} for d in domains}
    limits = {}
    for domain, parts in taus.items():
        sizes = torch.cat([*parts.values()]).abs().sort(descending=True).values
        limits[domain] = max(float(sizes[round(0.2 * sizes.numel()) - 1]), 1e-300)
    result = {}
    for name, base in found.base.items():
        own = {d: taus[d][name] for d in domains}
        large = {d: torch.where(own[d].abs() >= limits[d], own[d], 0.0) for d in domains}
        sign = sum(large.values()).sign()
        both = {kind: torch.stack([each.sign() for each in parts.values()]) for kind, parts in (("", own), ("large_", large))}
        whole = {"entries": base.numel(), "base_squares": float(base.double().square().sum())}
        for kind, signs in both.items():
            whole[f"{kind}shared"] = int((signs.abs().sum(0) > 1).sum())
            whole[f"{kind}contested"] = int(((signs.amax(0) > 0) & (signs.amin(0) < 0)).sum())
        for a, first in enumerate(domains):
            for second in domains[a:]:
                row = {**whole, "product": float(own[first] @ own[second])}
                for kind, parts in (("", own), ("large_", large)):
                    row[f"{kind}agreements"] = int((parts[first] * parts[second] > 0).sum())
                    row[f"{kind}conflicts"] = int((parts[first] * parts[second] < 0).sum())
                row["elected"] = int((large[first] * sign > 0).sum()) if first == second else 0
                result[name, first, second] = row
    return result


def equal(frame: pd.DataFrame, found: Family) -> None:
    expected = naive(found)
    assert set(zip(frame["tensor"], frame["first"], frame["second"], strict=True)) == set(expected)
    for row in frame.to_dict("records"):
        wanted = expected[row["tensor"], row["first"], row["second"]]
        for column, value in wanted.items():
            assert row[column] == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value), (row, column)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spectra", [True, False])
def test_the_sums_are_those_of_whole_vectors(tmp_path: Path, dtype: torch.dtype, spectra: bool) -> None:
    found = family(tmp_path, n=4, dtype=dtype)
    equal(measure(found, tmp_path / "out", spectra=spectra), found)


def test_threads_and_the_order_of_the_domains_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = family(tmp_path, n=3)
    monkeypatch.setattr(walk, "CHUNK", 20)
    files = []
    for name, threads in (("a", 1), ("b", 4)):
        found.folders = dict(reversed(found.folders.items()))
        measure(found, tmp_path / name, threads=threads)
        files.append((tmp_path / name / "interference.parquet").read_bytes())
    assert files[0] == files[1]


def test_a_task_vector_of_zeros_has_nothing_in_common(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    changed(found, "math", lambda tensors: tensors.update(found.base))
    frame = measure(found, tmp_path / "out")
    mine = frame[frame["second"] == "math"]
    assert mine[["product", "agreements", "conflicts", "large_agreements", "large_conflicts", "elected", "shared"]].sum().sum() == 0
    assert read_json(tmp_path / "out/manifest.json")["thresholds"]["math"] is None


def test_opposite_task_vectors_conflict_everywhere(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    mirrored = {name: 2 * value - found.specialists["instruction"][name] for name, value in found.base.items()}
    changed(found, "math", lambda tensors: tensors.update(mirrored))
    total = measure(found, tmp_path / "out").groupby(["first", "second"])[["agreements", "conflicts", "product"]].sum()
    own, pair = total.loc["instruction", "instruction"], total.loc["instruction", "math"]
    assert pair["conflicts"] == own["agreements"]
    assert pair["agreements"] == 0
    assert pair["product"] == pytest.approx(-own["product"], rel=1e-5)


def test_one_domain_has_itself_alone(tmp_path: Path) -> None:
    found = family(tmp_path, n=1)
    frame = measure(found, tmp_path / "out")
    assert set(zip(frame["first"], frame["second"], strict=True)) == {("instruction", "instruction")}
    assert (frame["shared"] == 0).all()
    kept = (frame["large_agreements"]).sum()
    assert frame["elected"].sum() == kept  # nobody disagrees


def test_of_rows_that_the_base_lacks_nothing_counts(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    without = measure(found, tmp_path / "without")

    def extend(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = torch.cat([tensors[name], torch.ones(3, 6)])

    changed(found, "math", extend)
    with pytest.raises(MergebenchError, match="specialist_math has 14 rows"):
        measure(found, tmp_path / "refused")
    pd.testing.assert_frame_equal(measure(found, tmp_path / "dropped", vocabulary="base"), without)


def test_a_spectrum_of_other_weights_is_refused(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    inputs = {"base": found.base_folder, "specialists": [*found.folders.values()]}
    inputs["spectra"] = [spectrum(found, tmp_path / "spectra" / domain, domain) for domain in found.folders]
    changed(found, "math", lambda tensors: tensors["model.norm.weight"].add_(1))
    outputs = {"manifest": tmp_path / "manifest.json", "interference": tmp_path / "interference.parquet"}
    with pytest.raises(MergebenchError, match=r"The spectrum of math was measured on other weights than .*specialist_math"):
        execute(interference, Job("interference", {"base": "pico", "domains": [*found.folders]}, inputs, outputs, tmp_path / "state"))
    assert not outputs["interference"].exists()


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    found = family(tmp_path, n=2)
    changed(found, "math", lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(MergebenchError, match=r"'model\.norm\.weight' of .*specialist_math has values that are NaN or infinite"):
        measure(found, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "module", "layer"),
    [
        ("model.embed_tokens.weight", "embedding", None),
        ("lm_head.weight", "head", None),
        ("model.norm.weight", "norms", None),
        ("model.layers.0.input_layernorm.weight", "norms", 0),
        ("model.layers.11.pre_feedforward_layernorm.weight", "norms", 11),
        ("model.layers.41.self_attn.q_norm.weight", "norms", 41),
        ("model.layers.7.self_attn.k_proj.bias", "k", 7),
        ("model.layers.25.mlp.gate_proj.weight", "gate", 25),
        ("language_model.model.layers.3.mlp.down_proj.weight", "down", 3),
        ("transformer.h.3.attn.c_attn.weight", "other", 3),
    ],
)
def test_modules_and_layers_by_name(name: str, module: str, layer: int | None) -> None:
    assert (module_of(name), layer_of(name)) == (module, layer)
    assert module in MODULES


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 6), st.sampled_from([1, 63, 64, 65, 700])).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, -0.0, 1e-45, 0.5, -0.5, 2.0, -2.0]))
    ),
    st.sampled_from([1e-45, 0.5, 1.0, 3.0]),
)
def test_counts_of_a_block(taus: np.ndarray, limit: float) -> None:
    n, size = taus.shape
    limits = np.full(n, limit, np.float32).view(np.uint32)
    states = np.empty((n, size), np.uint8)
    mark(taus, limits, states)
    counts = [np.zeros((n, n), np.int64) for _ in range(4)]
    count_pairs(states, *counts)
    large = np.where(np.abs(taus) >= np.float32(limit), taus, 0)
    for place, kept in ((0, taus), (2, large)):
        products = np.sign(kept)[:, None] * np.sign(kept)[None]
        np.testing.assert_array_equal(counts[place], (products > 0).sum(-1))
        np.testing.assert_array_equal(counts[place + 1], (products < 0).sum(-1))
    contests = count_contests(states, *np.empty((3, size), np.uint8))
    expected = [
        number for kept in (taus, large) for number in (((kept != 0).sum(0) > 1).sum(), ((kept > 0).any(0) & (kept < 0).any(0)).sum())
    ]
    np.testing.assert_array_equal(contests, expected)
    signs, elected = np.empty(size, np.float32), np.zeros(n, np.int64)
    elect_block(large.astype(np.float32), signs, 0.0)
    count_elected(large.astype(np.float32), signs, elected)
    wanted = elect([torch.from_numpy(row.copy()) for row in large.astype(np.float32)]).numpy()
    np.testing.assert_array_equal(elected, (large * wanted > 0).sum(1))


def test_counts_of_a_long_block_do_not_overflow() -> None:
    states = np.full((2, 70_001), 5, np.uint8)
    counts = [np.zeros((2, 2), np.int64) for _ in range(4)]
    count_pairs(states, *counts)
    assert [each[0, 1] for each in counts] == [70_001, 0, 70_001, 0]
