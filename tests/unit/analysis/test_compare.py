"""`mergebench compare`: paired differences of two runs, or of two models."""

import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mergebench.analysis import compare as module
from mergebench.analysis.compare import COLUMNS, Comparison, Options, compare_runs
from mergebench.analysis.compare_text import to_json, to_markdown, to_table, to_terminal
from mergebench.analysis.comparisons import difference, holm
from mergebench.analysis.opened import open_run
from mergebench.analysis.resampling import RESAMPLES, weights
from mergebench.analysis.terminal import coloured
from mergebench.cli import main
from mergebench.errors import MergebenchError
from mergebench.workflow.task_files import aggregate
from tests.unit.analysis.synthetic import Campaign, write_items

LLAMA, GEMMA = "tiny-llama-strong", "tiny-gemma-2-strong"
BENCHMARKS = {"gsm8k": "math", "math": "math", "ifeval": "instruction", "mmlu": "", "triviaqa": ""}
MODELS = ("base", "specialist_instruction", "specialist_math", "merged_ties", "merged_dare")
N = 60
Items = dict[tuple[str, str, str], np.ndarray]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 300)


def outcomes(bases: tuple[str, ...] = (LLAMA,), seed: int = 0) -> Items:
    """Random outcomes of every model, better for the own specialist."""
    generator, found = np.random.default_rng(seed), {}
    for base in bases:
        for model in MODELS:
            for name, domain in BENCHMARKS.items():
                if domain or not model.startswith("specialist"):
                    p = 0.85 if model == f"specialist_{domain}" else 0.6 if model.startswith("merged") else 0.35
                    found[base, model, name] = (generator.random(N) < p).astype(float)
    return found


def write(folder: Path, items: Items, **changes: Any) -> Path:
    campaign = Campaign(folder)
    for key, values in items.items():
        campaign.write_items(*key, values)
        if changes:
            campaign.write_score(*key, float(np.nanmean(values)), n=int(np.isfinite(values).sum()), **changes)
    return folder


def compared(a: object, b: object, **options: Any) -> Comparison:
    return compare_runs(open_run(str(a)), open_run(str(b)), Options(**options), aggregate)


def row_of(found: Comparison, model: str = "merged_ties", **where: str) -> pd.Series:
    frame = found.frame[found.frame["model_b"] == model]
    for column, value in {"base": LLAMA, **where}.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs with the same items and independent outcomes."""
    bases = (LLAMA, GEMMA)
    return write(tmp_path / "a", outcomes(bases, 1)), write(tmp_path / "b", outcomes(bases, 2))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal runs on one base; tests alter the second."""
    return write(tmp_path / "a", outcomes()), write(tmp_path / "b", outcomes())


def test_a_run_does_not_differ_from_a_copy_of_itself(pair: tuple[Path, Path]) -> None:
    found = compared(*pair)
    assert (found.frame[["difference", "low", "high"]] == 0).all(axis=None)
    assert set(found.frame["verdict"]) == {"no difference"}
    assert "No difference: every score is the same" in to_terminal(found)


def test_sums_that_are_rounded_otherwise_are_no_difference() -> None:
    values = np.random.default_rng(0).random(301)
    assert difference(values + 1e-13, values) == (0.0, 0.0, 0.0, 1.0)


def test_what_a_handful_of_items_changes_is_undecided(pair: tuple[Path, Path]) -> None:
    """Four items lost and none gained: a coin does that once in eight times, whatever the draws say."""
    items = outcomes()
    right = np.flatnonzero(items[LLAMA, "merged_ties", "gsm8k"])
    items[LLAMA, "merged_ties", "gsm8k"][right[:4]] = 0.0
    found = compared(*(pair[0], write(pair[1], items)))
    row = row_of(found, benchmark="gsm8k")
    assert (row["gained"], row["lost"], row["verdict"]) == (0, 4, "undecided")
    assert 0.125 <= row["p"] < 0.15
    assert row_of(found, measure="performance", domain="all")["p"] >= 0.125
    assert row_of(found, measure="performance", domain="all")["high"] < 0


def test_swapping_the_runs_mirrors_everything(runs: tuple[Path, Path]) -> None:
    one, other = compared(*runs).frame, compared(*reversed(runs)).frame
    assert one["difference"].to_numpy() == pytest.approx(-other["difference"].to_numpy(), abs=1e-9)
    assert one["low"].to_numpy() == pytest.approx(-other["high"].to_numpy(), abs=1e-9)
    assert one["p_holm"].to_numpy() == pytest.approx(other["p_holm"].to_numpy())
    assert one["gained"].equals(other["lost"])
    turned = {"better": "worse", "worse": "better"}
    assert one["verdict"].tolist() == [turned.get(verdict, verdict) for verdict in other["verdict"]]


def test_the_order_of_rows_does_not_matter(runs: tuple[Path, Path]) -> None:
    before = compared(*runs).frame
    for number, path in enumerate(sorted(runs[1].glob("scores/*/*/*.parquet"))):
        pd.read_parquet(path).sample(frac=1, random_state=number).to_parquet(path, index=False)
    pd.testing.assert_frame_equal(compared(*runs).frame, before)


def test_an_improvement_is_found_and_what_is_equal_stays_equal(pair: tuple[Path, Path]) -> None:
    items = outcomes()
    items[LLAMA, "merged_ties", "gsm8k"] = np.ones(N)
    found = compared(pair[0], write(pair[1], items))
    missed = int(N - outcomes()[LLAMA, "merged_ties", "gsm8k"].sum())
    better = row_of(found, benchmark="gsm8k")
    assert (better["verdict"], better["gained"], better["lost"]) == ("better", missed, 0)
    assert better["difference"] == pytest.approx(100 * missed / N)
    assert row_of(found, measure="performance", domain="all")["verdict"] == "better"
    assert set(found.frame.loc[found.frame["model_b"] == "merged_dare", "verdict"]) == {"no difference"}


def test_only_items_that_both_have_are_compared(pair: tuple[Path, Path]) -> None:
    items = outcomes()
    campaign, values = Campaign(pair[1]), items[LLAMA, "merged_ties", "gsm8k"]
    names = [f"gsm8k/{number:04d}" for number in range(10, N)] + ["of B alone"]
    campaign.write_score(LLAMA, "merged_ties", "gsm8k", float(np.append(values[10:], 1.0).mean()))
    write_items(campaign.score_path(LLAMA, "merged_ties", "gsm8k").with_suffix(".items.parquet"), names, np.append(values[10:], 1.0))
    found = compared(*pair)
    row = row_of(found, benchmark="gsm8k")
    assert (row["items"], row["items_a"], row["items_b"]) == (50, 60, 51)
    assert row["a"] == row["b"] == pytest.approx(100 * values[10:].mean())
    assert row["verdict"] == "no difference"
    assert "In 1 of 21 pairs of scores the items are not the same" in to_terminal(found)
    assert set(found.frame["verdict"]) == {"no difference"}


def test_an_item_that_one_run_could_not_score_is_not_compared(pair: tuple[Path, Path]) -> None:
    items = outcomes()
    items[LLAMA, "merged_ties", "gsm8k"][:5] = np.nan
    row = row_of(compared(pair[0], write(pair[1], items)), benchmark="gsm8k")
    assert (row["items"], row["items_a"], row["items_b"], row["difference"]) == (55, 60, 55, 0)


def test_a_missing_score_is_missing_with_its_file_and_never_zero(runs: tuple[Path, Path]) -> None:
    path = runs[1] / f"scores/{LLAMA}/merged_ties/math.json"
    path.unlink()
    found = compared(*runs)
    for base in (LLAMA, "Overall"):
        row = row_of(found, base=base, measure="performance", domain="all")
        assert np.isfinite(row["a"])
        assert np.isnan(row["b"])
        assert row["verdict"] == "missing"
    assert row_of(found, base=GEMMA, measure="performance", domain="all")["verdict"] != "missing"
    assert f"Missing in B, and with it the means: {path}." in found.notes
    assert found.only_a == [f"scores/{LLAMA}/merged_ties/math.json"]


def test_a_score_without_items_has_a_difference_and_no_interval(pair: tuple[Path, Path]) -> None:
    gone = pair[0] / f"scores/{LLAMA}/merged_ties/gsm8k.items.parquet"
    gone.unlink()
    row = row_of(found := compared(*pair), benchmark="gsm8k")
    assert (row["difference"], row["verdict"]) == (0, "no interval")
    assert np.isnan(row["p_holm"])
    assert any(str(gone) in note for note in found.notes)


def test_few_items_have_no_interval(tmp_path: Path) -> None:
    items = {key: values[:9] for key, values in outcomes().items()}
    found = compared(write(tmp_path / "a", items), write(tmp_path / "b", items))
    assert set(found.frame.loc[found.frame["level"] == "benchmark", "verdict"]) == {"no interval"}


def test_what_only_one_run_has_is_named(pair: tuple[Path, Path]) -> None:
    shutil.rmtree(pair[1] / f"scores/{LLAMA}/merged_dare")
    for path in pair[0].glob("scores/*/*/triviaqa.*"):
        path.unlink()
    write(pair[1], outcomes((GEMMA,)))
    found = compared(*pair)
    assert found.only_a == ["model merged_dare"]
    assert found.only_b == [f"base {GEMMA}", "benchmark triviaqa"]
    assert set(found.frame["base"]) == {LLAMA}


def test_two_methods_of_a_run_differ_as_they_do_in_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", RESAMPLES)
    items = outcomes()
    campaign = Campaign(write(tmp_path / "a", items), bases=[LLAMA], methods=["ties", "dare"], multitask=False)
    spec = campaign.spec
    spec["benchmarks"] = {name: entry for name, entry in spec["benchmarks"].items() if name in BENCHMARKS}
    spec["domains"] = ["instruction", "math"]
    evidence = type("Narrow", (Campaign,), {"spec": property(lambda self: spec)})(**vars(campaign)).evidence()
    found = compared(f"{campaign.root}:ties", f"{campaign.root}:dare")
    for measure in ("performance", "retention"):
        expected = evidence.comparisons[measure, LLAMA].iloc[0]
        row = row_of(found, "merged_dare", measure=measure, domain="all")
        sign = 1 if expected["better"] == "dare" else -1
        assert row["difference"] == pytest.approx(sign * expected["difference"], abs=1e-9)
        assert sorted(abs(row[["low", "high"]])) == pytest.approx(sorted(abs(expected[["low", "high"]])))
        assert row["p"] == pytest.approx(expected["p"])


def test_two_methods_are_compared_in_every_domain_and_benchmark(runs: tuple[Path, Path]) -> None:
    found = compared(f"{runs[0]}:ties", f"{runs[0]}:dare")
    assert found.one_pair
    assert set(found.frame["model_a"]) == {"merged_ties"}
    assert set(found.frame["model_b"]) == {"merged_dare"}
    rows = found.frame[(found.frame["base"] == GEMMA) & (found.frame["level"] != "benchmark")]
    assert rows["domain"].tolist() == ["all", "instruction", "math", "all"]
    assert set(found.frame.loc[found.frame["level"] == "benchmark", "benchmark"]) == set(BENCHMARKS)


def test_a_model_against_the_base_of_another_run(runs: tuple[Path, Path]) -> None:
    found = compared(f"{runs[0]}:untouched_base", f"{runs[1]}:specialist_math")
    assert row_of(found, "specialist_math", benchmark="gsm8k")["verdict"] == "better"
    assert "triviaqa" not in set(found.frame["benchmark"])


def test_better_specialists_make_methods_look_worse_unless_both_are_normalised_by_the_first(pair: tuple[Path, Path]) -> None:
    items = outcomes()
    for name, domain in BENCHMARKS.items():
        if domain:
            items[LLAMA, f"specialist_{domain}", name] = np.ones(N)
    write(pair[1], items)
    assert row_of(compared(*pair), measure="performance", domain="all")["verdict"] == "worse"
    by_first = compared(*pair, by_first=True)
    assert row_of(by_first, measure="performance", domain="all")["verdict"] == "no difference"
    before = 100 * outcomes()[LLAMA, "specialist_math", "gsm8k"].mean()
    assert row_of(by_first, "specialist_math", benchmark="gsm8k")["difference"] == pytest.approx(100 - before)


def test_normalising_by_the_first_needs_no_specialists_of_the_second(pair: tuple[Path, Path]) -> None:
    for folder in (pair[1] / f"scores/{LLAMA}").glob("specialist_*"):
        shutil.rmtree(folder)
    assert row_of(compared(*pair), measure="performance", domain="all")["verdict"] == "missing"
    assert row_of(compared(*pair, by_first=True), measure="performance", domain="all")["verdict"] == "no difference"


def test_a_benchmark_that_does_not_count_in_one_run_counts_in_neither(pair: tuple[Path, Path]) -> None:
    items = outcomes()
    items[LLAMA, "specialist_math", "math"] = np.zeros(N)
    found = compared(pair[0], write(pair[1], items))
    assert row_of(found, measure="performance", domain="math")["verdict"] == "no difference"
    assert any("Not in the means of performance" in note and f"math on {LLAMA}" in note for note in found.notes)


def test_each_level_is_one_family_of_holm(runs: tuple[Path, Path]) -> None:
    for _, rows in compared(*runs).frame.groupby("level"):
        assert rows["p_holm"].tolist() == pytest.approx(holm(rows["p"].tolist()))


RECORD: dict[str, Any] = {
    "task_version": 1.0,
    "task_hash": "0" * 64,
    "settings": {"protocol": "corrected", "shots": 0, "samples": 1, "limit": None, "apply_chat_template": True, "generation": None},
    "chat_template_sha256": "a" * 64,
    "judge": {"name": "keyword", "window": 200, "compliance_rate": 0.2},
    "data": {"rows_sha256": "b" * 64, "revisions": None},
    "backend": {"backend": "transformers"},
    "versions": {"torch": "2.13.0"},
}
OTHER_PROMPT = {"task_hash": "1" * 64}
CHANGES: dict[str, dict[str, Any]] = {
    "metric": {"metric": "f1"},
    "task": {"task_version": 2.0},
    "protocol": {"settings": {**RECORD["settings"], "protocol": "paper"}},
    "prompt": OTHER_PROMPT,
    "generation": {"settings": {**RECORD["settings"], "samples": 4}},
    "judge": {"judge": {"name": "wildguard", "window": 200, "compliance_rate": 0.2}},
    "data": {**OTHER_PROMPT, "data": {"rows_sha256": "c" * 64, "revisions": None}},
}
ALIKE: dict[str, dict[str, Any]] = {
    "rates of the judge": {"judge": {"name": "keyword", "window": 200, "compliance_rate": 0.9}},
    "a rows file with the same questions": {"data": {"rows_sha256": "c" * 64, "revisions": None}},
    "another number of the same rows": {**OTHER_PROMPT, "settings": {**RECORD["settings"], "limit": 30}},
    "backend": {"backend": {"backend": "vllm"}},
    "versions": {"versions": {"torch": "2.14.0"}},
    "nothing recorded": dict.fromkeys(RECORD),
}


def few() -> Items:
    return {key: values for key, values in outcomes().items() if key[2] in ("gsm8k", "triviaqa")}


@pytest.mark.parametrize("kind", CHANGES)
def test_scores_that_measure_something_else_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    a = write(tmp_path / "a", few(), **RECORD)
    b = write(tmp_path / "b", few(), **RECORD)
    changed = Campaign(b)
    for model in MODELS:
        value = float(few()[LLAMA, model, "gsm8k"].mean())
        changed.write_score(LLAMA, model, "gsm8k", value, **{**RECORD, **CHANGES[kind]})
    with pytest.raises(MergebenchError, match=rf"differ in .* of gsm8k \(.*--allow {kind} compares"):
        compared(a, b)
    allowed = compared(a, b, allowed=frozenset({kind}))
    assert row_of(allowed, benchmark="gsm8k")["verdict"] == "no difference"
    assert any(note.startswith("Compared although") and "gsm8k" in note for note in allowed.notes)
    rest = compared(a, b, leave_out=True)
    assert "gsm8k" not in set(rest.frame["benchmark"])
    assert any(note.startswith("Left out") and note.endswith(": gsm8k.") for note in rest.notes)


@pytest.mark.parametrize("what", ALIKE)
def test_what_does_not_change_the_question_is_compared(tmp_path: Path, what: str) -> None:
    a = write(tmp_path / "a", few(), **RECORD)
    found = compared(a, write(tmp_path / "b", few(), **{**RECORD, **ALIKE[what]}))
    assert row_of(found, benchmark="gsm8k")["verdict"] == "no difference"
    noted = [note for note in found.notes if note.startswith("The runs also differ in")]
    assert bool(noted) == (what in ("backend", "versions", "another number of the same rows"))


def test_scores_without_a_common_item_are_not_compared(pair: tuple[Path, Path]) -> None:
    for path in pair[1].glob("scores/*/*/gsm8k.items.parquet"):
        frame = pd.read_parquet(path)
        frame.assign(item="other/" + frame["item"]).to_parquet(path, index=False)
    with pytest.raises(MergebenchError, match=r"gsm8k \(no item in common\)"):
        compared(*pair)
    for options in ({"leave_out": True}, {"allowed": frozenset({"data"})}):
        found = compared(*pair, **options)
        assert "gsm8k" not in set(found.frame["benchmark"])
        assert any(note.startswith("Left out") and "gsm8k" in note for note in found.notes)


def test_wrong_runs_are_refused_in_a_sentence(pair: tuple[Path, Path]) -> None:
    a, b = pair
    other = write(a.parent / "other", {(GEMMA, "merged_fisher", "gsm8k"): np.ones(N)})
    wrong = {
        (a.parent / "nowhere", a): "is not a folder",
        (f"{a.parent / 'nowhere'}:ties", a): "is not a folder",
        (a / "scores", a): "holds no scores/",
        (a.parent, a): rf"did you mean {re.escape(str(a))}\?",
        (f"{a}:tie", f"{b}:ties"): "has no scores of 'tie'; did you mean 'ties'",
        (f"{a}:", f"{b}:ties"): "has no scores of ''",
        (f"{a}:ties", b): "give RUN RUN to compare all models",
        (a, other): "no base in common",
        (f"{a}:ties", f"{other}:fisher"): "no base in common",
    }
    for (one, two), message in wrong.items():
        with pytest.raises(MergebenchError, match=message):
            compared(one, two)


def test_damaged_files_are_refused_in_a_sentence(pair: tuple[Path, Path]) -> None:
    record = pair[1] / f"scores/{LLAMA}/merged_ties/gsm8k.json"
    items = record.with_suffix(".items.parquet")
    sound = items.read_bytes()
    items.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(MergebenchError, match="cannot be read as the items of a score"):
        compared(*pair)
    items.write_bytes(sound)
    Campaign(pair[1]).write_score(LLAMA, "merged_ties", "gsm8k", 0.123)
    with pytest.raises(MergebenchError, match=r"but the record beside it says 0\.123"):
        compared(*pair)
    Campaign(pair[1]).write_score(LLAMA, "merged_ties", "gsm8k", 0.123, domain="coding")
    with pytest.raises(MergebenchError, match="role and domain in_domain coding"):
        compared(*pair)
    record.write_text("{")
    with pytest.raises(MergebenchError, match="is not valid JSON"):
        compared(*pair)


def test_a_folder_with_a_colon_in_its_name_is_a_folder(pair: tuple[Path, Path]) -> None:
    moved = pair[1].rename(pair[1].with_name("run:2"))
    assert compared(pair[0], moved).b.model is None
    assert compared(f"{pair[0]}:ties", f"{moved}:ties").b.model == "merged_ties"


def test_a_benchmark_that_this_catalogue_lacks_is_aggregated_as_its_record_says(tmp_path: Path) -> None:
    values, groups = np.array([1.0] * 10 + [0.0] * 30), ["one"] * 10 + ["other"] * 30
    for name, folder in (("a", tmp_path / "a"), ("b", tmp_path / "b")):
        campaign = Campaign(write(folder, outcomes()))
        campaign.write_score(LLAMA, "merged_ties", "novel", 0.5, role="forgetting", domain="forgetting")
        path = campaign.score_path(LLAMA, "merged_ties", "novel").with_suffix(".items.parquet")
        write_items(path, [f"{group}/{k}" for k, group in enumerate(groups)], values, groups)
        assert name
    assert row_of(compared(tmp_path / "a", tmp_path / "b"), benchmark="novel")["a"] == 50


def test_the_interval_of_a_benchmark_is_that_of_scipy(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", RESAMPLES)
    row = row_of(compared(*runs), benchmark="gsm8k")
    one, other = (outcomes((LLAMA, GEMMA), seed)[LLAMA, "merged_ties", "gsm8k"] for seed in (1, 2))
    expected = stats.bootstrap(
        (other, one), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval  # fmt: skip
    assert [row["low"], row["high"]] == pytest.approx([100 * expected.low, 100 * expected.high], abs=2)
    assert row["p"] == pytest.approx(stats.ttest_rel(other, one).pvalue, abs=0.05)


def test_intervals_cover_the_true_difference_as_often_as_they_say() -> None:
    """400 pairs of models on items that are harder or easier for both; the true difference is 8 points."""
    generator, n = np.random.default_rng(3), 150
    drawn = weights("some", np.zeros(n, dtype=np.int64), range(400)) / n
    covered = []
    for _ in range(400):
        ease = generator.uniform(-0.3, 0.3, n)
        one, other = ((generator.random(n) < p + ease).astype(float) for p in (0.5, 0.58))
        found = difference(*(100 * np.append(values.mean(), drawn @ values) for values in (other, one)))
        covered.append(found.low <= 8 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.975


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["compare", *map(str, words)])
    return status, *capsys.readouterr()


def test_the_exit_status_says_whether_something_is_worse_by_more_than_allowed(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    items = outcomes()
    items[LLAMA, "merged_ties", "gsm8k"] = np.zeros(N)
    write(pair[1], items)
    assert command(capsys, *pair)[0] == 0
    status, _, said = command(capsys, *pair, "--fail-if-worse", 5)
    assert status == 3
    assert re.fullmatch(rf"worse: performance of TIES \({LLAMA}\) is \d+\.\d points lower in B\n", said)
    assert command(capsys, *pair, "--fail-if-worse", 60)[0] == 0
    assert command(capsys, *reversed(pair), "--fail-if-worse", 0)[0] == 0


def test_a_mean_that_got_lost_fails_too(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (pair[1] / f"scores/{LLAMA}/merged_ties/gsm8k.json").unlink()
    status, _, said = command(capsys, *pair, "--fail-if-worse", 5)
    assert (status, said) == (3, f"worse: performance of TIES ({LLAMA}) is missing in B\n")


def test_a_model_that_got_lost_fails_too(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(runs[1] / f"scores/{LLAMA}/merged_dare")
    assert compared(*runs).only_a == [f"model merged_dare on {LLAMA}"]
    status, _, said = command(capsys, *runs, "--fail-if-worse", 99)
    assert status == 3
    assert f"worse: model merged_dare on {LLAMA} is only in A\n" in said


def test_wrong_options_are_refused(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--allow", "prompts"], "did you mean 'prompt'"),
        (["--fail-if-worse", "-1"], "0 or more"),
        (["--fail-if-worse", "nan"], "0 or more"),
        (["--csv", pair[0] / "none" / "x.csv"], "there is no folder"),
    ):
        status, _, said = command(capsys, *pair, *words)
        assert status == 1
        assert message in said


def test_csv_has_every_difference(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (runs[0] / f"scores/{LLAMA}/merged_ties/gsm8k.items.parquet").unlink()
    (runs[1] / f"scores/{LLAMA}/merged_ties/ifeval.json").unlink()
    assert command(capsys, *runs, "--csv", tmp_path / "all.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    frame = compared(*runs).frame
    assert list(rows[0]) == COLUMNS
    assert len(rows) == len(frame)
    assert [row["difference"] for row in rows] == [
        "missing" if np.isnan(d) else f"{d:.4f}".replace("-0.0000", "0.0000") for d in frame["difference"]
    ]
    assert {row["low"] for row in rows if row["verdict"] in ("missing", "no interval")} == {"n/a"}
    assert {row["items"] for row in rows if row["benchmark"] == "math"} == {str(N)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "all.csv", "b"]


def test_json_has_every_difference_and_no_nan(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (runs[1] / f"scores/{LLAMA}/merged_ties/ifeval.json").unlink()
    found = compared(*runs)
    record = json.loads(command(capsys, *runs, "--json")[1], parse_constant=pytest.fail)
    assert record == json.loads(to_json(found))
    assert len(record["differences"]) == len(found.frame)
    assert sum(record["summary"]["benchmark"].values()) == (found.frame["level"] == "benchmark").sum()
    assert record["only_a"] == [f"scores/{LLAMA}/merged_ties/ifeval.json"]


def test_markdown_has_the_same_rows_as_the_terminal(runs: tuple[Path, Path]) -> None:
    found = compared(*runs)
    for everything in (False, True):
        page, shown = (
            re.findall(r"^.*[]\d|] +(better|worse|undecided|same)(?: \|)?$", text(found, everything=everything), re.MULTILINE)
            for text in (to_markdown, to_terminal)
        )
        assert page == shown
        assert len(page) >= 12


def test_lines_fit_a_terminal_of_100_columns(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs[0].parent)
    for words in (("a", "b", "--all"), ("a:ties", "b:dare", "--all"), ("a", "b")):
        assert max(map(len, command(capsys, *words)[1].splitlines())) <= 100


def test_colour_is_for_terminals_that_want_it(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured(Terminal())
    assert not coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(Terminal())
    found = compared(f"{runs[0]}:base", f"{runs[1]}:specialist_math")
    plain, painted = (to_terminal(found, everything=True, colour=colour) for colour in (False, True))
    assert "\033[" not in plain
    assert "\033[32mbetter\033[0m" in painted
    assert re.sub(r"\033\[\d*m", "", painted) == plain


def test_warnings_of_the_tables_are_repeated(pair: tuple[Path, Path]) -> None:
    (pair[1] / "tables").mkdir()
    (pair[1] / "tables/headline.csv").write_text("base,warning\nx,Tuned on a test set.\n")
    found = compared(*pair)
    assert to_terminal(found).startswith("WARNING, B: Tuned on a test set.")
    assert "Tuned on a test set." in to_table(found)


GOLDEN = """\
A: a
B: b
B - A in percentage points, each normalised by its own specialists and base.

Normalised performance (% of the specialists)

tiny-llama-strong     A      B  B - A   95 % interval      p
-----------------  ----  -----  -----  --------------  -----  ------
Untouched base     40.4   40.4   +0.0    [+0.0, +0.0]  1.000    same
TIES               69.2  115.4  +46.2  [+32.4, +60.6]  <.001  better
DARE               65.4   65.4   +0.0    [+0.0, +0.0]  1.000    same

Retention (% of the base on the forgetting benchmarks)

tiny-llama-strong      A      B   B - A     95 % interval      p
-----------------  -----  -----  ------  ----------------  -----  -----
TIES               284.6  284.6    +0.0      [+0.0, +0.0]  1.000   same
DARE               307.7    0.0  -307.7  [-573.3, -208.1]  0.012  worse

Benchmarks (points): where a difference is decided

tiny-llama-strong  items   +   -     A      B  B - A   95 % interval      p
-----------------  -----  --  --  ----  -----  -----  --------------  -----  ------
TIES
  gsm8k               60  24   0  60.0  100.0  +40.0  [+29.1, +52.5]  <.001  better
DARE
  triviaqa            60   0  40  66.7    0.0  -66.7  [-78.3, -54.1]  <.001   worse

5 means over all domains: 1 better, 1 worse, 3 no difference.
3 domains: 1 better, 2 no difference.
8 benchmarks: 1 better, 1 worse, 6 no difference.
Better in B: TIES on tiny-llama-strong (performance +46.2).
Worse in B: DARE on tiny-llama-strong (retention -307.7).
Intervals: 95 %, of paired resamples of the common items, not corrected. p: of the paired
difference, after Holm's correction over all differences of the level. Better and worse: p below
0.05; same: no resample differs.
Items: how many both have scored; + and -: on how many of them B is better and worse.
"""


def test_golden(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    items = {key: values for key, values in outcomes().items() if key[2] in ("gsm8k", "triviaqa")}
    better = items | {(LLAMA, "merged_ties", "gsm8k"): np.ones(N), (LLAMA, "merged_dare", "triviaqa"): np.zeros(N)}
    write(Path("a"), items)
    write(Path("b"), better)
    assert command(capsys, "a", "b")[1] == GOLDEN
