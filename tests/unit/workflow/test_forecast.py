"""The forecast of a plan: hours, corrections by finished jobs, and how it reads."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from mergebench import config
from mergebench.errors import MergebenchError
from mergebench.workflow.forecast import Forecast
from mergebench.workflow.forecast_text import duration, render
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Resources, Site
from mergebench.workflow.site_profile import Profile
from mergebench.workflow.survey import Planned

ROOT = Path(__file__).parents[3]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())
PROFILE = Profile({"default-resources": {"gpu_memory_gb": 80}, "resources": {"gpu": 16}, "jobs": 4})


def plan(preset="paper", **changes) -> Plan:
    raw = {**copy.deepcopy(RAW), "preset": preset}
    raw["presets"][preset].update(changes)
    return Plan(config.parse(raw))


def whole(made: Plan, costs: dict[str, Path] | None = None) -> list[Planned]:
    """All jobs in a chain, each with its GPUs; those whose rule is in `costs` are finished."""
    resources = Resources(made, Site())
    jobs = []
    for number, (rule, stage, wildcards) in enumerate(made.jobs()):
        given = {k: v for k, v in wildcards.items() if k != "group"}
        cost = (costs or {}).get(rule)
        gpu = resources.of(stage, **wildcards).gpu
        jobs.append(Planned(rule, given, cost is None, gpu, [number - 1] if number else [], str(cost) if cost else None))
    return [*jobs, Planned("all", {}, True, 0, [len(jobs) - 1], None)]


def forecast(made: Plan, jobs: list[Planned], gpus: int = 8) -> Forecast:
    return Forecast(made, PROFILE, jobs, gpus)


def test_every_job_is_counted_under_its_rule():
    made = plan()
    record = forecast(made, whole(made)).record()
    assert {rule: row["jobs"] for rule, row in record["rules"].items()} == made.job_counts()
    assert list(record["rules"]) == list(made.job_counts())
    assert record["jobs"] == record["todo"] == sum(made.job_counts().values())


def test_hours_are_those_of_the_estimates():
    made = plan()
    record = forecast(made, whole(made)).record()
    resources = Resources(made, Site())
    gpu_hours = sum(resources.of(s, **w).gpu * resources.seconds(resources.estimates.of(s, **w)) for _, s, w in made.jobs()) / 3600
    assert record["gpu_hours"] == pytest.approx(gpu_hours)
    chain = sum(resources.seconds(resources.estimates.of(s, **w)) for _, s, w in made.jobs()) / 3600
    assert record["wall_hours"] == pytest.approx(chain)


def test_finished_jobs_need_nothing_and_correct_their_stage(tmp_path):
    made = plan()
    cost = tmp_path / "cost.json"
    resources = Resources(made, Site())
    mean = sum(resources.seconds(resources.estimates.of("vectors", base=b, domain="math")) for b in made.bases) / 8
    cost.write_text(json.dumps({"wall_seconds": 3 * mean}))
    record = forecast(made, whole(made, {"vectors": cost})).record()
    assert record["rules"]["vectors"]["todo"] == 0
    assert record["rules"]["vectors"]["cpu_hours"] == 0
    assert record["corrections"]["vectors"] == {"factor": pytest.approx(3), "finished": 40}


def test_a_correction_stretches_what_is_left_of_its_stage(tmp_path):
    made = plan()
    cost = tmp_path / "cost.json"
    cost.write_text(json.dumps({"wall_seconds": 1e6}))
    done = whole(made, {"train_multitask": cost})
    before, after = (forecast(made, jobs).record() for jobs in (whole(made), done))
    factor = after["corrections"]["train"]["factor"]
    ratio = after["rules"]["train_specialist"]["gpu_hours"] / before["rules"]["train_specialist"]["gpu_hours"]
    assert ratio == pytest.approx(factor)
    assert after["rules"]["tune"] | {"finished_after_hours": 0} == before["rules"]["tune"] | {"finished_after_hours": 0}


def test_too_few_finished_jobs_correct_nothing(tmp_path):
    made = plan()
    cost = tmp_path / "cost.json"
    cost.write_text(json.dumps({"wall_seconds": 1e6}))
    assert "analyse" not in forecast(made, whole(made, {"analyse": cost})).corrections


def test_it_warns_of_jobs_that_no_gpu_holds_and_of_too_few_gpus():
    made = plan()
    small = Profile({"default-resources": {"gpu_memory_gb": 40}})
    said = Forecast(made, small, whole(made), 2).record()["warnings"]
    assert any(s.startswith("statistics gemma-2-9b mask needs about 6") and "40 GB" in s for s in said)
    said = forecast(made, whole(made), gpus=2).record()["warnings"]
    assert not any(s.startswith("statistics") for s in said)
    assert "the largest job asks for 4 GPUs, more than 2" in said
    assert not any("train" in s.split()[0] for s in said)


def test_it_warns_of_a_peak_above_the_budget():
    made = plan(storage={"budget_gb": 100})
    assert any("budget_gb is 100" in s for s in forecast(made, whole(made)).record()["warnings"])


def test_the_text_has_every_rule_the_totals_and_the_assumptions():
    made = plan(storage={"budget_gb": 9000})
    record = forecast(made, whole(made)).record()
    text = render(record)
    assert {line.split()[0] for line in text.splitlines() if line} >= {*made.job_counts(), "total", "wall-clock:", "disk:", "assumed:"}
    assert "(budget 9,000 GB)" in text
    json.dumps(record)


def test_a_profile_gives_site_quota_and_slots():
    profile = Profile.read(ROOT / "profiles/slurm")
    assert (profile.gpus, profile.slots) == (64, 64)
    assert profile.site.gpu_memory_gb == 80
    assert Profile.read(None).gpus == 8
    assert "executor" not in profile.settings


@pytest.mark.parametrize(("content", "said"), [(None, "there is no"), ("a: [", "not valid YAML")])
def test_a_profile_that_cannot_be_read_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(MergebenchError, match=said):
        Profile.read(tmp_path)


def test_durations_read_well():
    assert [duration(h) for h in (0.1, 5.25, 100)] == ["6 min", "5.2 h", "4.2 days"]
