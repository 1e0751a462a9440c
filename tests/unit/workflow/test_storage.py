"""The disk budget: the bound on the peak, its refusal, and how many bases may hold merged models at once."""

import copy
import itertools
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import yaml

from mergebench import config
from mergebench.errors import MergebenchError
from mergebench.workflow.estimates import GB
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Resources, Site
from mergebench.workflow.storage import Storage, gigabytes, nearest_folder
from mergebench.workflow.survey import Planned

ROOT = Path(__file__).parents[3]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())


def storage(gpus=8, **settings) -> Storage:
    raw = copy.deepcopy(RAW)
    raw["presets"]["paper"]["storage"] = settings
    return Storage(Resources(Plan(config.parse(raw)), Site()), gpus)


def named(made: Storage):
    return [(stage, wildcards) for _, stage, wildcards in made.plan.jobs()]


def planned(made: Storage, todo: bool = True) -> list[Planned]:
    """The whole campaign as Snakemake's DAG gives it."""
    jobs = ((rule, {k: v for k, v in wildcards.items() if k != "group"}) for rule, _, wildcards in made.plan.jobs())
    return [Planned(rule, wildcards, todo, gpu=0, needs=[], cost=None) for rule, wildcards in jobs] + [
        Planned("all", {}, todo, gpu=0, needs=[], cost=None)
    ]


def merged(made: Storage, base: str) -> float:
    return len(made.plan.merged) * made.estimates.weights(base)


def test_merged_models_count_once_and_nowhere_twice():
    kept, dropped = storage(keep_merged=True), storage(keep_merged=False)
    everything = sum(merged(kept, b) for b in kept.plan.bases)
    first, second = kept.space(named(kept)), dropped.space(named(kept))
    assert first.window == 0
    assert first.kept - second.kept == pytest.approx(everything)
    assert second.window == pytest.approx(everything)
    assert first.peak == pytest.approx(second.peak)


def test_the_window_holds_the_largest_bases():
    made = storage(keep_merged=False)
    sizes = sorted((merged(made, b) for b in made.plan.bases), reverse=True)
    assert made.space(named(made), at_once=3).window == pytest.approx(sum(sizes[:3]))


def test_saved_states_are_those_that_the_gpus_can_run_at_once():
    made = storage()
    states = [e.working for s, w in named(made) if (e := made.estimates.of(s, **w)).working]
    alone = made.estimates.of("statistics", base="gemma-2-9b", kind="mask")  # more per GPU than the training of any base
    assert made.space(named(made), gpus=1).saved == pytest.approx(alone.working)
    assert made.space(named(made), gpus=4).saved == pytest.approx(4 * alone.working)
    assert made.space(named(made), gpus=10_000).saved == pytest.approx(sum(states))


@pytest.mark.parametrize("wanted", [1, 2, 5, 8])
def test_the_budget_decides_how_many_bases_are_merged_at_once_and_is_kept(wanted):
    made = storage(keep_merged=False, budget_gb=1)
    bare = made.space(named(made), at_once=1)
    largest = max(merged(made, b) for b in made.plan.bases)
    budget = (bare.kept + bare.saved + (wanted + 0.01) * largest) / GB
    budgeted = storage(keep_merged=False, budget_gb=budget)
    assert budgeted.bases_at_once == wanted
    assert budgeted.space(named(budgeted)).peak <= budget * GB


def test_a_base_waits_for_the_one_that_many_places_before_it():
    bare = storage(keep_merged=False, budget_gb=1)
    assert bare.bases_at_once == 1
    bases = bare.plan.bases
    assert bare.before(bases[0]) == []
    for before, base in itertools.pairwise(bases):
        assert bare.before(base) == [bare.plan.dropped(before, m) for m in bare.plan.merged]


@pytest.mark.parametrize("settings", [{}, {"budget_gb": 1}, {"keep_merged": False}])
def test_without_a_budget_or_without_dropping_no_base_waits(settings):
    made = storage(**settings)
    assert [made.before(b) for b in made.plan.bases] == [[]] * 8


def test_a_run_above_its_budget_is_refused_with_what_would_lower_it():
    made = storage(budget_gb=4000)
    with pytest.raises(
        MergebenchError, match=r"budget_gb is 4000, .* may need ([\d,]+) GB .*keep_merged: false lowers .* ([\d,]+) GB"
    ) as error:
        made.check(planned(made))
    peak, lower = (float(n.replace(",", "")) for n in re.findall(r"([\d,]+) GB", str(error.value)))
    assert lower < 4000 < peak
    storage(budget_gb=peak + 1).check(planned(made))
    dropping = storage(budget_gb=4000, keep_merged=False)
    dropping.check(planned(dropping))


def test_where_dropping_is_on_already_a_refusal_names_the_saved_states():
    made = storage(budget_gb=100, keep_merged=False)
    with pytest.raises(MergebenchError, match=r"smaller GPU quota lowers the [\d,]+ GB"):
        made.check(planned(made))


def test_a_full_disk_is_told_and_a_finished_campaign_needs_nothing_more(monkeypatch):
    made = storage()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    assert re.search(r"may need [\d,]+ GB more .* has 0 MB free", made.shortage(planned(made)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1e15))
    assert made.shortage(planned(made)) is None


def test_space_is_looked_up_where_the_results_will_be(tmp_path):
    assert nearest_folder(tmp_path / "not" / "yet") == tmp_path


def test_sizes_read_well():
    assert [gigabytes(n * GB) for n in (0.02, 1.25, 1234)] == ["20 MB", "1.2 GB", "1,234 GB"]
