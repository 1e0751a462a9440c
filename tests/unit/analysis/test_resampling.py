"""Item files and scores on resampled items, against evaluation's own aggregates on items that are really repeated."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mergebench.analysis.items import AGGREGATES, Outcomes, item_files, read_outcomes
from mergebench.analysis.resampling import bleu, replicate, resampled_scores, scores, weights
from mergebench.errors import MergebenchError
from mergebench.evaluation import aggregate as evaluation
from mergebench.evaluation import bleu as evaluation_bleu
from mergebench.evaluation.aggregate import Item
from tests.unit.analysis.synthetic import Campaign, write_items

LLAMA = "tiny-llama-strong"
N = 40
Make = Callable[..., list[Item]]


def plain(generator: np.random.Generator) -> list[Item]:
    return [Item(f"i{k:03d}", "", float(generator.random() < 0.6), "") for k in range(N)]


def translated(generator: np.random.Generator) -> list[Item]:
    """Thirteen questions in three languages, one of which lacks some of them."""
    rows = [(language, k) for language in ("de", "es", "fr") for k in range(13) if language != "es" or k % 3]
    return [Item(f"{language}/q{k}", language, float(generator.random()), "") for language, k in rows]


def translations(generator: np.random.Generator) -> list[Item]:
    items = []
    for k in range(N):
        matches = generator.integers(0, 6, 4)
        items.append(Item(f"i{k}", "", 0.5, "", {"counts": [10, int(generator.integers(8, 12)), *map(int, matches), 10, 9, 8, 7]}))
    return items


def spans(generator: np.random.Generator) -> list[Item]:
    items = [
        Item(f"i{k}", "", float(generator.random() * known), "x" if generator.random() < 0.9 else "", {"answerable": known})
        for k, known in enumerate((generator.random(N) < 0.5).tolist())
    ]
    for item in items:
        item.extra["no_answer_probability"] = float(generator.random())
    evaluation.best_f1(items)  # adds the F1 to `extra` and moves the outcome to the best threshold
    return items


MAKERS: dict[str, Make] = {
    "mean": plain,
    "mean_over_groups": translated,
    "corpus_bleu": translations,
    "smoothed_bleu": translations,
    "best_f1": spans,
}


def written(path: Path, items: list[Item]) -> Path:
    columns = [item.id for item in items], [item.outcome for item in items], [item.group for item in items]
    return write_items(path, *columns, extra=[item.extra for item in items], responses=[item.response for item in items])


def again(items: list[Item], aggregate: str) -> float:
    """The score as evaluation computes it."""
    fresh = [Item(i.id, i.group, float(i.extra.get("f1", i.outcome)), i.response, dict(i.extra)) for i in items]
    return evaluation.AGGREGATES[aggregate](fresh).value


def outcomes(folder: Path, aggregate: str, models: int = 3) -> tuple[Outcomes, dict[str, list[Item]]]:
    made = {f"m{number}": MAKERS[aggregate](np.random.default_rng(number)) for number in range(models)}
    files = {("base", model): written(folder / model / "some.items.parquet", items) for model, items in made.items()}
    return read_outcomes("some", aggregate, files), made


def test_every_aggregate_of_evaluation_is_known() -> None:
    assert set(AGGREGATES) == set(evaluation.AGGREGATES)


@pytest.mark.parametrize("aggregate", MAKERS)
def test_the_items_as_they_are_give_evaluations_score(tmp_path: Path, aggregate: str) -> None:
    read, made = outcomes(tmp_path, aggregate)
    found = scores(read, np.ones((1, len(read.strata))))[0]
    assert found == pytest.approx([again(items, aggregate) for items in made.values()], abs=1e-12)


@pytest.mark.parametrize("aggregate", MAKERS)
def test_a_draw_gives_evaluations_score_of_the_items_repeated_as_drawn(tmp_path: Path, aggregate: str) -> None:
    read, made = outcomes(tmp_path, aggregate)
    names = sorted({item.id.removeprefix(f"{item.group}/") for item in made["m0"]})
    drawn = weights("some", read.strata, range(5))
    found = replicate(read, 5)
    for draw in range(5):
        times = dict(zip(names, drawn[draw].astype(int), strict=True))
        for row, items in enumerate(made.values()):
            repeated = [item for item in items for _ in range(times[item.id.removeprefix(f"{item.group}/")])]
            assert found[row, draw] == pytest.approx(again(repeated, aggregate), abs=1e-12)


@pytest.mark.parametrize("smooth", ["exp", "add-one"])
def test_bleu_of_arrays_is_evaluations(smooth: str) -> None:
    counts = np.random.default_rng(0).integers(0, 3, (200, 10)).astype(float)
    expected = [evaluation_bleu.score(row, smooth) for row in counts]  # type: ignore[arg-type]
    assert bleu(counts, smooth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("aggregate", MAKERS)
def test_the_order_of_rows_and_models_changes_nothing(tmp_path: Path, aggregate: str) -> None:
    read, made = outcomes(tmp_path / "one", aggregate)
    shuffled = {model: [items[k] for k in np.random.default_rng(7).permutation(len(items))] for model, items in made.items()}
    files = {("base", model): written(tmp_path / "other" / model / "some.items.parquet", items) for model, items in shuffled.items()}
    other = read_outcomes("some", aggregate, dict(reversed(files.items())))
    assert replicate(other, 20) == pytest.approx(replicate(read, 20), abs=1e-12)


def test_the_cut_into_blocks_changes_nothing(tmp_path: Path) -> None:
    read, _ = outcomes(tmp_path, "mean_over_groups")
    assert replicate(read, 30, block=7) == pytest.approx(replicate(read, 30, block=30), abs=1e-12)


def test_each_model_is_resampled_as_if_it_were_alone(tmp_path: Path) -> None:
    read, _ = outcomes(tmp_path, "mean")
    alone = read_outcomes("some", "mean", {("base", "m1"): tmp_path / "m1" / "some.items.parquet"})
    assert replicate(alone, 20)[0] == pytest.approx(replicate(read, 20)[1], abs=1e-12)


def test_benchmarks_are_drawn_independently() -> None:
    strata = np.zeros(500, dtype=np.int64)
    one, other = (weights(name, strata, range(50)).ravel() for name in ("gsm8k", "math"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03


def test_every_stratum_keeps_its_size() -> None:
    strata = np.array([0, 1, 1, 0, 2, 1, 0])
    drawn = weights("some", strata, range(40))
    for stratum in range(3):
        assert (drawn[:, strata == stratum].sum(axis=1) == (strata == stratum).sum()).all()


def test_languages_of_a_question_are_drawn_together(tmp_path: Path) -> None:
    """Four copies of the same outcomes tell no more than one."""
    right = (np.random.default_rng(3).random(400) < 0.5).astype(float)
    items = [Item(f"{language}/{k}", language, value, "") for language in ("de", "es", "fr", "ru") for k, value in enumerate(right)]
    read = read_outcomes("some", "mean_over_groups", {("base", "m"): written(tmp_path / "m" / "some.items.parquet", items)})
    assert len(read.strata) == 400
    assert replicate(read)[0].std() == pytest.approx(stats.sem(right), rel=0.05)


def test_items_of_a_cluster_are_drawn_together(tmp_path: Path) -> None:
    """Ten questions that a text answers alike tell no more than one."""
    right = (np.random.default_rng(5).random(300) < 0.5).astype(float)
    names, texts = [f"i{k}" for k in range(3000)], [f"text{k // 10}" for k in range(3000)]
    path = write_items(tmp_path / "m" / "some.items.parquet", names, np.repeat(right, 10), clusters=texts)
    read = read_outcomes("some", "mean", {("base", "m"): path})
    assert len(read.strata) == 300
    assert replicate(read)[0].std() == pytest.approx(stats.sem(right), rel=0.05)


def test_translations_whose_ids_differ_are_drawn_together_by_their_cluster(tmp_path: Path) -> None:
    right = (np.random.default_rng(6).random(300) < 0.5).astype(float)
    rows = [(language, k) for language in ("de", "es", "fr") for k in range(300) if language != "es" or k % 4]
    order = {language: iter(range(300)) for language in ("de", "es", "fr")}
    columns = [f"{language}/{next(order[language]):05d}" for language, _ in rows], [right[k] for _, k in rows]
    path = write_items(
        tmp_path / "m" / "some.items.parquet", *columns, [language for language, _ in rows], clusters=[str(k) for _, k in rows]
    )
    read = read_outcomes("some", "mean_over_groups", {("base", "m"): path})
    assert sorted(np.bincount(read.strata)) == [75, 225]  # without and with Spanish
    assert replicate(read)[0].std() == pytest.approx(stats.sem(right), rel=0.1)


def test_an_item_without_a_cluster_stands_for_itself(tmp_path: Path) -> None:
    path = write_items(tmp_path / "m" / "some.items.parquet", list("abcd"), [1.0] * 4, clusters=["x", "x", "", ""])
    assert len(read_outcomes("some", "mean", {("base", "m"): path}).strata) == 3


def test_files_from_before_take_the_clusters_of_the_others(tmp_path: Path) -> None:
    """Otherwise the same question would be drawn for one model and not for the other."""
    names, outcomes, texts = list("abcdef"), [1.0, 0.0, 1.0, 1.0, 0.0, 0.0], list("xxyyzz")
    older, newer = (write_items(tmp_path / m / "some.items.parquet", names, outcomes, clusters=c) for m, c in (("a", None), ("b", texts)))
    read = read_outcomes("some", "mean", {("base", "a"): older, ("base", "b"): newer})
    first, second = replicate(read, 30)
    assert len(read.strata) == 3
    assert (first == second).all()


def test_intervals_of_clustered_items_cover_the_truth(tmp_path: Path) -> None:
    """Scores of 60 texts with 8 questions each, half of whose variance is the text's: by texts 95 %, one by one far less."""
    generator = np.random.default_rng(8)
    texts, size, truth, campaigns = 60, 8, 0.5, 120
    own = generator.normal(0, 0.1, (campaigns, texts, 1)) + generator.normal(0, 0.1, (campaigns, texts, size)) + truth
    covered, widths = {}, {}
    for name, clusters in (("together", [f"t{k // size}" for k in range(texts * size)]), ("alone", [""] * texts * size)):
        names = [f"i{k}" for k in range(texts * size)]
        files = {
            ("base", f"m{n:03d}"): write_items(tmp_path / name / f"{n}.parquet", names, own[n].ravel(), clusters=clusters)
            for n in range(campaigns)
        }
        low, high = np.quantile(replicate(read_outcomes("some", "mean", files), 1000), [0.025, 0.975], axis=1)
        covered[name], widths[name] = np.mean((low < truth) & (truth < high)), np.mean(high - low)
    assert 0.89 <= covered["together"] <= 0.99
    assert covered["alone"] < 0.8
    # Kish's design effect: 1 + (size - 1) * intra-cluster correlation.
    assert widths["together"] / widths["alone"] == pytest.approx(np.sqrt(1 + (size - 1) * 0.5), rel=0.05)


def test_the_spread_of_a_mean_is_its_standard_error(tmp_path: Path) -> None:
    values = np.random.default_rng(4).random(300)
    path = write_items(tmp_path / "m" / "some.items.parquet", [f"i{k}" for k in range(300)], values)
    assert replicate(read_outcomes("some", "mean", {("base", "m"): path}))[0].std() == pytest.approx(stats.sem(values), rel=0.05)


def test_an_item_without_outcome_or_row_is_left_out_not_wrong(tmp_path: Path) -> None:
    """One model lacks what the other got right: its score is that of the items that it has."""
    names = [f"i{k}" for k in range(10)]
    whole = write_items(tmp_path / "a" / "some.items.parquet", names, [1.0] * 10)
    unscorable = write_items(tmp_path / "b" / "some.items.parquet", names, [np.nan] * 4 + [1.0] * 6)
    shorter = write_items(tmp_path / "c" / "some.items.parquet", names[:6], [1.0] * 6)
    read = read_outcomes("some", "mean", {("base", "a"): whole, ("base", "b"): unscorable, ("base", "c"): shorter})
    assert (replicate(read, 50) == 1.0).all()


def test_one_item_cannot_be_resampled(tmp_path: Path) -> None:
    path = write_items(tmp_path / "m" / "some.items.parquet", ["i0"], [1.0])
    assert np.isnan(replicate(read_outcomes("some", "mean", {("base", "m"): path}), 5)).all()


@pytest.mark.parametrize("content", [b"", b"PAR1 no"], ids=["empty", "rubbish"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.items.parquet"
    path.write_bytes(content)
    with pytest.raises(MergebenchError, match=r"some\.items\.parquet cannot be read .* delete it"):
        read_outcomes("some", "mean", {("base", "m"): path})


def test_bleu_without_counts_is_named(tmp_path: Path) -> None:
    path = write_items(tmp_path / "some.items.parquet", ["a", "b"], [0.1, 0.2])
    with pytest.raises(MergebenchError, match="cannot be read as the items of a score"):
        read_outcomes("some", "corpus_bleu", {("base", "m"): path})


def test_an_unknown_aggregate_is_refused() -> None:
    with pytest.raises(MergebenchError, match="aggregate 'median'; the analysis knows mean"):
        read_outcomes("some", "median", {})


def test_items_that_contradict_their_record_are_refused(campaign: Campaign) -> None:
    campaign.write_items(LLAMA, "base", "gsm8k", [1.0, 0.0, 1.0])
    campaign.write_score(LLAMA, "base", "gsm8k", 0.7)
    with pytest.raises(MergebenchError, match=r"gsm8k\.items\.parquet gives a score of 0\.666667, but the record beside it says 0\.700000"):
        _ = campaign.evidence().resampled


def test_items_without_a_record_and_records_without_items_are_left_out(campaign: Campaign) -> None:
    campaign.write_items(LLAMA, "base", "gsm8k", [1.0, 0.0])
    campaign.write_items(LLAMA, "base", "math", [1.0, 0.0])
    campaign.score_path(LLAMA, "base", "math").unlink()
    campaign.write_score(LLAMA, "base", "ifeval", 0.5)
    evidence = campaign.evidence()
    assert set(resampled_scores(evidence.scores, evidence.scope, evidence.items, 3).scores) == {(LLAMA, "base", "gsm8k")}


def test_progress_counts_the_bytes_of_the_items_that_are_read(campaign: Campaign) -> None:
    for benchmark, outcomes in (("gsm8k", [1.0, 0.0]), ("math", [1.0] * 100)):
        campaign.write_items(LLAMA, "base", benchmark, outcomes)
    campaign.write_items(LLAMA, "base", "ifeval", [1.0])
    campaign.score_path(LLAMA, "base", "ifeval").unlink()
    evidence, told = campaign.evidence(), []
    resampled_scores(evidence.scores, evidence.scope, evidence.items, 3, progress=lambda *now: told.append(now))
    sizes = [evidence.items[LLAMA, "base", name].stat().st_size for name in ("gsm8k", "math")]
    assert told == [(sizes[0], sum(sizes)), (sum(sizes), sum(sizes))]


def test_files_are_told_apart_by_their_paths() -> None:
    path = Path("results/x/scores/llama-3.1-8b/merged_ties/gsm8k.items.parquet")
    assert item_files([path]) == {("llama-3.1-8b", "merged_ties", "gsm8k"): path}
