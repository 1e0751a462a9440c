"""How task vectors interfere: measures of layers, modules and models against those of vectors that are put together."""

from __future__ import annotations

import io
import json
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from mergebench.analysis import run
from mergebench.analysis.figures import FIGURES, draw
from mergebench.analysis.interference_tables import interference, rows
from mergebench.analysis.render import to_csv, to_markdown
from mergebench.artifacts import execute
from mergebench.errors import MergebenchError
from mergebench.vectors.modules import layer_of, module_of
from tests.unit.analysis.synthetic import DOMAINS, Campaign, cut_off
from tests.unit.analysis.task_vectors import Taus, model, written

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
HEAT_MAPS = [name for name in FIGURES if name.startswith("interference")]


def write(campaign: Campaign, base: str, taus: Taus, limit: float = 1.0) -> Path:
    """The file of a base of the campaign."""
    return written(campaign.root, base, taus, limit)


def joined(taus: Taus, domain: str, *, layer: int | None = None, module: str = "") -> np.ndarray:
    """A task vector, or the part of a layer or of a kind of module."""
    names = [n for n in taus if (layer is None or layer_of(n) == layer) and module in ("", module_of(n))]
    return np.concatenate([taus[name][domain] for name in names])


def csv(campaign: Campaign) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(to_csv(interference(campaign.evidence()))), keep_default_na=False, dtype=str)


def row(table: pd.DataFrame, **chosen: str) -> pd.Series:
    found = table[(table[list(chosen)] == pd.Series(chosen)).all(axis=1)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("cut", [{}, {"layer": 1}, {"module": "q"}], ids=["whole", "layer", "module"])
def test_measures_are_those_of_vectors_put_together(campaign: Campaign, cut: dict) -> None:
    taus = model()
    write(campaign, LLAMA, taus)
    place = {"base": LLAMA, "layer": str(cut.get("layer", "all")), "module": cut.get("module", "all")}
    table = csv(campaign)
    for first, second in combinations(DOMAINS, 2):
        one, two = (joined(taus, domain, **cut) for domain in (first, second))
        found = row(table, **place, first=first, second=second)
        large = [np.abs(each) >= 1 for each in (one, two)]
        common, count = (large[0] & large[1]).sum(), len(one)
        expected = {
            "cosine": one @ two / np.linalg.norm(one) / np.linalg.norm(two),
            "sign_conflict_percent": 100 * (one * two < 0).mean(),
            "largest_sign_conflict_percent": 100 * ((one * two < 0) & large[0] & large[1]).sum() / common,
            "overlap_percent": 100 * common / min(each.sum() for each in large),
            "overlap_by_chance_percent": 100 * max(each.mean() for each in large),
            "jaccard_percent": 100 * common / (large[0] | large[1]).sum(),
            "times_chance": common * count / large[0].sum() / large[1].sum(),
        }
        assert {name: float(found[name]) for name in expected} == pytest.approx(expected, abs=6e-5)
    for domain in DOMAINS:
        one = joined(taus, domain, **cut)
        found = row(table, **place, first=domain, second="")
        assert float(found["norm"]) == pytest.approx(np.linalg.norm(one), abs=6e-5)
        assert float(found["relative_norm_percent"]) == pytest.approx(100 * np.linalg.norm(one) / np.sqrt(4 * len(one)), abs=6e-5)
        assert float(found["largest_percent"]) == pytest.approx(100 * (np.abs(one) >= 1).mean(), abs=6e-5)


def test_a_cell_is_the_mean_over_its_pairs(campaign: Campaign) -> None:
    taus = model()
    write(campaign, LLAMA, taus)
    found = row(csv(campaign), base=LLAMA, layer="1", module="q")
    parts = [taus["model.layers.1.self_attn.q_proj.weight"][domain] for domain in DOMAINS]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(parts, 2)]
    assert (found["first"], found["second"], found["norm"]) == ("all", "all", "n/a")
    assert float(found["cosine"]) == pytest.approx(np.mean(cosines), abs=6e-5)
    stacked = np.stack(parts)
    assert float(found["contested_percent"]) == pytest.approx(100 * ((stacked > 0).any(0) & (stacked < 0).any(0)).mean(), abs=6e-5)


def test_by_chance_is_what_independent_vectors_give(campaign: Campaign) -> None:
    generator = np.random.default_rng(1)
    write(campaign, LLAMA, {"model.embed_tokens.weight": {d: generator.normal(size=200_000) for d in DOMAINS}}, limit=1.28155)
    found = row(csv(campaign), base=LLAMA, layer="all", module="all", first="all")
    assert abs(float(found["cosine"])) < 0.01
    assert float(found["sign_conflict_percent"]) == pytest.approx(50, abs=0.3)
    assert float(found["times_chance"]) == pytest.approx(1, abs=0.02)
    assert float(found["jaccard_percent"]) == pytest.approx(float(found["jaccard_by_chance_percent"]), abs=0.3)


def test_equal_task_vectors_do_not_interfere(campaign: Campaign) -> None:
    same = np.random.default_rng(2).normal(size=500)
    write(campaign, LLAMA, {"model.embed_tokens.weight": dict.fromkeys(DOMAINS, same)})
    found = row(csv(campaign), base=LLAMA, layer="all", module="all", first="all")
    wanted = {"cosine": 1, "sign_conflict_percent": 0, "overlap_percent": 100, "jaccard_percent": 100, "elected_percent": 100}
    assert {name: float(found[name]) for name in wanted} == wanted
    assert float(found["contested_percent"]) == 0


def test_what_is_missing_is_missing_and_nothing_to_divide_by_is_not(campaign: Campaign) -> None:
    taus = model()
    write(campaign, LLAMA, {name: {**parts, "math": np.zeros_like(parts["math"])} for name, parts in taus.items()})
    table = csv(campaign)
    absent = row(table, base=GEMMA)
    assert set(absent.drop(["base", "layer", "module", "first", "second"])) == {"missing"}
    still = row(table, base=LLAMA, layer="all", module="all", first="instruction", second="math")
    assert {still[name] for name in ("cosine", "sign_conflict_percent", "overlap_percent", "times_chance")} == {"n/a"}
    assert float(row(table, base=LLAMA, layer="all", module="all", first="math", second="")["norm"]) == 0
    assert not (table[table["base"] == LLAMA] == "missing").any().any()
    text = to_markdown(interference(campaign.evidence()))
    assert f"Missing until these are made: `vectors/{GEMMA}/interference.parquet`" in text
    assert text.count("missing") == 5 * 6  # of every task vector its norm, its four others, and what is elected


def test_the_order_of_rows_changes_nothing(campaign: Campaign) -> None:
    path = write(campaign, LLAMA, model())
    before = to_csv(interference(campaign.evidence()))
    pd.read_parquet(path).sample(frac=1, random_state=0).to_parquet(path, index=False)
    after = [line.split(",") for line in to_csv(interference(campaign.evidence())).splitlines()]
    for one, two in zip([line.split(",") for line in before.splitlines()], after, strict=True):
        assert one[:5] == two[:5]
        assert all(a == b or float(a) == pytest.approx(float(b), abs=1.1e-4) for a, b in zip(one[5:], two[5:], strict=True))


def test_other_bases_and_domains_are_left_out(campaign: Campaign) -> None:
    taus = model()
    write(campaign, LLAMA, {name: {**parts, "law": parts["math"]} for name, parts in taus.items()})
    write(campaign, "llama-3.1-8b", taus)
    with_others = rows(campaign.evidence().interference, campaign.scope)
    assert set(with_others["base"]) == {LLAMA, GEMMA}
    assert "law" not in {*with_others["first"], *with_others["second"]}


@pytest.mark.parametrize("content", [b"", b"PAR1", json.dumps({}).encode()])
def test_a_broken_file_is_named(campaign: Campaign, content: bytes) -> None:
    write(campaign, LLAMA, model()).write_bytes(content)
    with pytest.raises(MergebenchError, match=rf"{LLAMA}/interference\.parquet cannot be read as sums over task vectors .* delete it"):
        _ = campaign.evidence().interference


def test_a_file_without_a_column_is_named(campaign: Campaign) -> None:
    path = write(campaign, LLAMA, model())
    pd.read_parquet(path).drop(columns="elected").to_parquet(path)
    with pytest.raises(MergebenchError, match="cannot be read as sums over task vectors"):
        _ = campaign.evidence().interference


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("name", HEAT_MAPS)
def test_a_heat_map_fits_and_says_what_is_missing(campaign: Campaign, name: str) -> None:
    write(campaign, LLAMA, model(layers=42))
    figure = draw(name, campaign.evidence())
    assert not cut_off(figure)
    assert texts(figure).count("missing") == 2
    assert [axes.get_title("left") for axes in figure.axes][:3:2] == [LLAMA, GEMMA]
    layers = next(axes for axes in figure.axes if axes.get_xlabel() == "Layer")
    assert layers.images[0].get_array().shape == (3, 44)  # embedding, q, norms; 42 layers, what stands before and after them


def test_the_matrix_shows_the_numbers_of_the_table(campaign: Campaign) -> None:
    taus = model()
    write(campaign, LLAMA, taus)
    one, two = (joined(taus, domain) for domain in DOMAINS[:2])
    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
    matrix = draw("interference_cosine", campaign.evidence()).axes[0].images[0].get_array()
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(cosine)
    assert matrix[0, 0] is np.ma.masked


@pytest.mark.parametrize("name", HEAT_MAPS)
def test_with_no_base_measured_all_is_missing(campaign: Campaign, name: str) -> None:
    assert texts(draw(name, campaign.evidence())) == ["missing"] * 4


@pytest.mark.parametrize("name", HEAT_MAPS)
def test_one_domain_has_no_pairs_and_heat_maps_are_drawn(campaign: Campaign, name: str) -> None:
    write(campaign, LLAMA, {tensor: {"math": parts["math"]} for tensor, parts in model().items()})
    with matplotlib.rc_context():
        draw(name, campaign.evidence()).canvas.draw()
    assert interference(campaign.evidence()).display is not None


def test_the_job_writes_them(campaign: Campaign) -> None:
    write(campaign, LLAMA, model())
    names = ["interference.csv", "interference.md", "interference_norms.svg"]
    execute(run, campaign.job(names, "a"))
    execute(run, campaign.job(names, "b"))
    for name in names:
        assert (campaign.root / "a" / name).read_bytes() == (campaign.root / "b" / name).read_bytes() != b""
