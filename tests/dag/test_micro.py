"""The whole DAG on the micro preset: it runs, it is idle, it reruns what it must, it survives being killed."""

import csv
import filecmp
import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from mergebench import cli
from tests.dag.campaign import Campaign

pytestmark = pytest.mark.dag

BASE = "tiny-llama-strong"
SETTLED = {"judge": 1, "settle_safety": 1}
REPORTED = {"analyse": 1, "report": 1, "official": 1, "all": 1}


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Campaign:
    campaign = Campaign.create(tmp_path_factory.mktemp("finished"))
    campaign.run()
    return campaign


@pytest.fixture
def campaign(finished, tmp_path) -> Campaign:
    """A copy of the finished campaign that the test may change."""
    return finished.fork(tmp_path / "campaign")


def tables(campaign: Campaign) -> dict[str, bytes]:
    """The tables without cost columns."""
    names = ("normalised_performance.csv", "forgetting.csv", "specialisation.csv", "scores.csv")
    return {name: (campaign.results / "tables" / name).read_bytes() for name in names}


def test_every_stage_left_its_artifacts(finished):
    results = finished.results
    base = "tiny-llama-strong"
    merged = ("merged_ties", "merged_localize_and_stitch", "merged_random_direction")
    for model in ("base", "specialist_math", "sft_math", "specialist_safety", "multitask", *merged):
        assert (results / f"models/{base}/{model}/manifest.json").is_file()
    assert (results / f"vectors/{base}/math/spectrum.npz").is_file()
    assert {p.name for p in (results / f"statistics/{base}/math").iterdir()} == {"fisher", "gram", "mask"}
    assert (results / f"tuning/{base}/consensus_ta/best.yaml").is_file()
    record = json.loads((results / f"scores/{base}/merged_dare/gsm8k.json").read_text())
    assert 0 <= record["value"] <= 1
    assert record["n"] == 4
    assert (results / f"scores/{base}/merged_dare/gsm8k.items.parquet").is_file()
    assert (results / f"answers/{base}/merged_dare/xstest.responses.parquet").is_file()
    assert (results / f"labels/{base}/merged_dare/xstest.parquet").is_file()
    judged = json.loads((results / f"scores/{base}/merged_dare/xstest.json").read_text())
    assert (judged["judge"]["name"], judged["n"]) == ("keyword", 4)
    assert json.loads((results / f"official/{base}/merged_dare/safety_eval.json").read_text())
    cost = json.loads((results / f"costs/tune/{base}/ties.json").read_text())
    assert cost["timing"]["validation"] > 0
    assert cost["peak_rss_bytes"] > 50e6


def test_no_temporary_file_is_left(finished):
    assert [p for p in finished.results.rglob("*") if ".tmp-" in p.name] == []


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.run(warm=False)


def test_touching_every_source_changes_nothing(campaign):
    for path in [*(campaign.folder / "mergebench").rglob("*.py"), *(campaign.folder / "rules").glob("*")]:
        path.touch()
    assert campaign.planned() == {}


def test_changing_one_grid_reruns_that_method_only(campaign):
    config = campaign.folder / "config.yaml"
    text = config.read_text()
    head, micro = text.split("\n  micro:", 1)
    micro = micro.replace("ties: {grid: {density: [0.2], scale: [0.5, 1.0]}}", "ties: {grid: {density: [0.3], scale: [0.5, 1.0]}}", 1)
    config.write_text(f"{head}\n  micro:{micro}")
    assert config.read_text() != text
    assert campaign.planned() == {"tune": 1, "merge": 1, "evaluate_general": 1, **SETTLED, **REPORTED}
    assert "method=ties" in campaign.run("--dry-run", warm=False)


def with_seeds(campaign: Campaign, count: int) -> Campaign:
    config = campaign.folder / "config.yaml"
    head, micro = config.read_text().split("\n  micro: &micro\n", 1)
    config.write_text(f"{head}\n  micro: &micro\n    tuning: {{seeds: {count}}}\n{micro}")
    return campaign


def test_another_seed_concerns_the_methods_that_draw_random_numbers_alone(campaign):
    planned = with_seeds(campaign, 2).planned()
    assert planned == {"tune": 1, "merge": 2, "evaluate_general": 2, **SETTLED, **REPORTED}


@pytest.mark.long
def test_every_seed_is_merged_scored_and_averaged(campaign):
    before = tables(campaign)
    with_seeds(campaign, 2).run()
    assert campaign.planned() == {}
    models = [campaign.results / f"models/{BASE}/{name}/manifest.json" for name in ("merged_dare", "merged_dare-seed1")]
    one, other = (json.loads(path.read_text()) for path in models)
    assert one["spec"]["parameters"] == other["spec"]["parameters"]
    assert (one["spec"]["seed"], other["spec"]["seed"]) == (0, 1)
    assert one["weights_digest"] != other["weights_digest"]
    rows = list(csv.DictReader((campaign.results / "tables/seeds.csv").open()))
    mine = [row for row in rows if row["method"] == "dare" and row["measure"] == "performance"]
    assert [(row["seed"], row["n"]) for row in mine] == [("0", "2"), ("1", "2")]
    shown = next(csv.DictReader((campaign.results / "tables/normalised_performance.csv").open()))
    assert float(shown["dare"]) == pytest.approx(sum(float(row["value"]) for row in mine) / 2, abs=1e-3)
    former = next(csv.DictReader(before["normalised_performance.csv"].decode().splitlines()))
    assert {column for column in former if former[column] != shown[column]} <= {"dare"}


@pytest.mark.long
def test_one_job_for_a_base_tunes_what_a_job_per_method_tunes(campaign):
    tuning = campaign.results / f"tuning/{BASE}"
    before = {path.parent.name: path.read_bytes() for path in tuning.glob("*/best.yaml")}
    config = campaign.folder / "config.yaml"
    head, micro = config.read_text().split("\n  micro: &micro\n", 1)
    config.write_text(f"{head}\n  micro: &micro\n    tuning: {{fused: true}}\n{micro}")
    assert campaign.planned() == {}, "who asks for one job after the searches gets no new ones"
    shutil.rmtree(tuning)
    planned = campaign.planned()
    assert planned["tune_base"] == 1
    assert "tune" not in planned
    campaign.run("--until", "tune_base")
    assert {path.parent.name: path.read_bytes() for path in tuning.glob("*/best.yaml")} == before
    assert len(before) == 6
    left = campaign.planned()
    assert {"tune", "tune_base", "merge"} & set(left) == set(), "equal parameters make nothing stale"
    costs = campaign.results / "costs"
    per_method = [json.loads(path.read_text())["timing"] for path in (costs / f"tune/{BASE}").glob("*.json")]
    whole = json.loads((costs / f"tune_base/{BASE}.json").read_text())["timing"]
    assert sum(timing["validation"] for timing in per_method) == pytest.approx(whole["validation"], abs=0.01)
    (tuning / "ties/best.yaml").unlink()
    assert campaign.planned("--", f"results/micro/tuning/{BASE}/ties/best.yaml") == {"tune": 1}


def test_deleting_one_score_reruns_one_evaluation_and_the_tables(campaign):
    before = tables(campaign)
    (campaign.results / "scores/tiny-llama-strong/merged_dare/gsm8k.json").unlink()
    # The job makes the answers to the safety prompts too; what is judged and settled is found again.
    assert campaign.planned() == {"evaluate_general": 1, **SETTLED, **REPORTED}
    scores = {path: path.read_bytes() for path in campaign.results.glob("scores/*/*/*") if path.name != "gsm8k.json"}
    campaign.run()
    assert tables(campaign) == before
    assert {path: path.read_bytes() for path in scores} == scores


def test_asking_for_one_missing_score_asks_and_judges_nothing_else(campaign):
    scores = campaign.results / "scores/tiny-llama-strong/merged_dare"
    for name, planned in (
        ("gsm8k", {"evaluate_general_apart": 1}),
        ("xstest", {"evaluate_general_apart": 1, "judge_apart": 1, "settle_safety_apart": 1}),
    ):
        target = scores / f"{name}.json"
        target.unlink()
        for path in (campaign.results / "answers/tiny-llama-strong/merged_dare").glob(f"{name}.*"):
            path.unlink()
        assert campaign.planned("--", str(target.relative_to(campaign.folder))) == planned
    assert campaign.planned("--", f"results/micro/scores/{BASE}/merged_dare/wmt14.json") == {}


def test_deleting_a_judged_score_asks_no_model(campaign):
    before = tables(campaign)
    (campaign.results / f"scores/{BASE}/merged_dare/xstest.json").unlink()
    assert campaign.planned() == {"settle_safety": 1, **REPORTED}
    campaign.run()
    assert tables(campaign) == before


def test_another_judge_judges_again_and_asks_no_specialist_again(campaign):
    config = campaign.folder / "config.yaml"
    config.write_text(config.read_text().replace("      judge: keyword\n", "      judge: wildguard\n"))
    planned = campaign.planned()
    assert {rule: planned.get(rule) for rule in ("fetch_judge", "judge", "judge_surrogates", *SETTLED)} == {
        "fetch_judge": 1, "judge": 1, "judge_surrogates": 1, **SETTLED
    }  # fmt: skip
    assert planned["tune"] == 6, "a grid is judged by the judge of its references"
    assert planned["evaluate_general"] == 6, "of the methods that are tuned"
    assert {"evaluate_specialist", "train_specialist", "fetch_data"} & set(planned) == set()


def test_changing_one_methods_code_reruns_that_method_only(campaign):
    with (campaign.folder / "mergebench/merging/methods/model_soup.py").open("a") as stream:
        stream.write("\nUNUSED = 1\n")
    assert campaign.planned() == {"merge": 1, "evaluate_general": 1, **SETTLED, **REPORTED}


def test_changing_the_training_code_makes_everything_after_it_stale(campaign):
    with (campaign.folder / "mergebench/training/sft.py").open("a") as stream:
        stream.write("\nUNUSED = 1\n")
    planned = campaign.planned()
    assert planned["train_specialist"] == 2
    assert planned["train_multitask"] == 1
    assert planned["merge"] == 10
    assert "fetch_base" not in planned
    assert "fetch_data" not in planned


@pytest.mark.long
def test_killed_in_the_middle_of_a_merge_and_finished(campaign):
    reference = {}
    models = campaign.results / "models/tiny-llama-strong"
    for manifest in models.glob("merged_*/manifest.json"):
        reference[manifest.parent.name] = manifest.read_bytes()
        manifest.unlink()
    killed = campaign.kill_when(lambda: any(models.glob("merged_*/.weights.tmp-*/*")))
    assert killed
    assert len(list(models.glob("merged_*/manifest.json"))) < len(reference)
    campaign.run()
    assert {p.parent.name: p.read_bytes() for p in models.glob("merged_*/manifest.json")} == reference
    assert campaign.planned() == {}


@pytest.mark.long
def test_killed_in_the_middle_of_an_evaluation_and_finished(finished, campaign):
    before = tables(campaign)
    scores = campaign.results / "scores/tiny-llama-strong"
    for path in [*scores.glob("merged_*/*"), *campaign.results.glob("answers/*/merged_*/*")]:
        path.unlink()
    for path in campaign.results.glob(".state/asked/*/merged_*"):
        shutil.rmtree(path)
    killed = campaign.kill_when(lambda: any(campaign.results.glob(".state/asked/*/merged_*/*-*")))
    assert killed
    assert len(list(scores.glob("merged_*/*.json"))) < len(list((finished.results / "scores/tiny-llama-strong").glob("merged_*/*.json")))
    campaign.run()
    assert tables(campaign) == before


@pytest.mark.long
def test_killed_again_and_again_and_finished(finished, tmp_path):
    """From nothing, whatever the moments: nothing half-written is trusted, nothing finished made again, and the end is the same."""
    campaign = finished.fork(tmp_path / "again")
    shutil.rmtree(campaign.results)
    shutil.rmtree(campaign.folder / ".snakemake")

    def models() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in campaign.results.glob("models/*/*/manifest.json")}

    made: dict[Path, int] = {}
    for wanted in (3, 8, 11):  # kill when so many models are there
        assert campaign.kill_when(lambda wanted=wanted: len(models()) >= wanted)
        now = models()
        # Snakemake runs what was under way again: at most one job per core.
        assert sum(now.get(p) != time for p, time in made.items()) <= 2
        made = now
    campaign.run()
    assert sum(models()[p] != time for p, time in made.items()) <= 2
    assert tables(campaign) == tables(finished)
    manifests = [p.relative_to(finished.results) for p in finished.results.rglob("manifest.json")]
    assert [p for p in manifests if not filecmp.cmp(finished.results / p, campaign.results / p, shallow=False)] == []
    assert [p for p in campaign.results.rglob("*") if ".tmp-" in p.name] == []


@pytest.mark.long
def test_a_second_workflow_in_the_same_folder_is_refused(campaign):
    (campaign.results / "tables/headline.csv").unlink()
    (campaign.results / "scores/tiny-llama-strong/base/gsm8k.json").unlink()
    first = campaign.start(warm=False)
    lock = campaign.folder / ".snakemake/mergebench/workflows/micro.lock"
    while f"process {first.pid} " not in lock.read_text():
        assert first.poll() is None
    first.send_signal(signal.SIGSTOP)  # or it may be done before the second has begun
    second = campaign.start(warm=False)
    output, _ = second.communicate()
    first.send_signal(signal.SIGCONT)
    assert second.returncode != 0
    assert f"process {first.pid} on" in output
    assert "is running preset micro in this folder" in output
    output, _ = first.communicate()
    assert first.returncode == 0, output


@pytest.mark.long
def test_a_truncated_checkpoint_is_rejected_and_made_again(campaign):
    weights = campaign.results / "models/tiny-llama-strong/merged_ties/weights"
    file = next(weights.glob("*.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    output = campaign.run("--dry-run", warm=False)
    assert re.search(r"merged_ties/weights/\S+ has \d+ bytes, .* truncated", output)
    output = campaign.run()
    assert "truncated" in output
    assert next(weights.glob("*.safetensors")).read_bytes() == content
    assert campaign.planned() == {}


def test_a_checkpoint_truncated_under_the_manifest_is_refused_by_its_reader(campaign):
    from mergebench.artifacts import Job, execute
    from mergebench.errors import MergebenchError

    weights = campaign.results / "models/tiny-llama-strong/merged_dare/weights"
    file = next(weights.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    job = Job("evaluate", {}, {"weights": weights}, {"x": campaign.folder / "x.json"}, campaign.folder / "state")
    with pytest.raises(MergebenchError, match="truncated"):
        execute(None, job)


def test_a_run_without_the_warm_server_gives_the_same_scores(finished, tmp_path):
    """The server saves import time and nothing else."""
    target = "results/micro/scores/tiny-llama-strong/base/gsm8k.json"
    cold = Campaign.create(tmp_path / "cold")
    cold.run("--", target, warm=False)
    cold_record, warm_record = (json.loads((c.folder / target).read_text()) for c in (cold, finished))
    assert cold_record.pop("seconds").keys() == warm_record.pop("seconds").keys()
    assert cold_record == warm_record


def test_the_report_builds_without_a_network(finished, tmp_path):
    report = tmp_path / "report.html"
    said = finished.run("--report", str(report), warm=False)
    assert "WARNING" not in said  # of docutils, into every caption
    text = report.read_text()
    assert len(text) > 100_000
    assert "normalised_performance" in text
    assert "Report with provenance, search logs and failures" in text


def test_the_command_writes_the_report_of_the_workflow(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished.folder)
    assert cli.main(["report", "--results", "results/micro", "--output", str(tmp_path / "index.html")]) == 0
    # Of the jobs that the efficiency table counts, one may have ended after the analysis of the workflow.
    efficiency = re.compile(r'<section class="item" id="table-efficiency">.*?</section>', re.DOTALL)
    ours, workflows = (efficiency.sub("", path.read_text()) for path in (tmp_path / "index.html", finished.results / "report/index.html"))
    assert ours == workflows


def test_another_table_makes_another_report(campaign):
    page = campaign.results / "report/index.html"
    before = page.read_bytes()
    record = campaign.results / f"scores/{BASE}/merged_ties/gsm8k.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"value": 0.75}))
    (campaign.results / f"scores/{BASE}/merged_ties/gsm8k.items.parquet").unlink()
    campaign.run("--", "results/micro/report/index.html")
    assert page.read_bytes() != before
    assert "does not agree" not in page.read_text()
