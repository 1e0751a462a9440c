"""Requests follow from the parameters of the base, the settings of the stage and the site."""

import copy
from pathlib import Path

import pytest
import yaml

from mergebench import catalogue, config
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.settings import FisherSettings, MaskSettings
from mergebench.workflow.estimates import Estimates
from mergebench.workflow.plan import Plan
from mergebench.workflow.resources import Escalation, Resources, Site
from mergebench.workflow.statistics_cost import cost, fisher_passes

ROOT = Path(__file__).parents[3]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())
JOBS = {
    "train": {"model": "specialist_math"},
    "vectors": {"domain": "math"},
    "interference": {},
    "statistics": {"domain": "math", "kind": "fisher"},
    "tune": {"method": "ties"},
    "merge": {"method": "ties"},
    "evaluate": {"model": "merged_ties", "group": "general_3"},
}


def plan(preset="paper", **changes):
    raw = {**copy.deepcopy(RAW), "preset": preset}
    raw["presets"][preset].update(changes)
    return Plan(config.parse(raw))


@pytest.fixture(scope="module")
def paper():
    return Resources(plan(), Site())


@pytest.fixture
def sized(monkeypatch):
    """Resources of one base with a given number of parameters."""

    def make(parameters, site=None):
        entries = {**catalogue.bases(), "gemma-2-9b": {**catalogue.bases()["gemma-2-9b"], "parameters": parameters}}
        monkeypatch.setattr(catalogue, "bases", lambda: entries)
        training = copy.deepcopy(RAW["presets"]["paper"]["training"])
        training["supervised"]["large"] |= {"sharding": "zero3", "activation_checkpointing": "full"}
        return Resources(plan(training=training), site or Site())

    return make


@pytest.mark.parametrize(("base", "gpus"), [("gemma-2-2b", 1), ("llama-3.2-3b", 2), ("llama-3.1-8b", 4), ("gemma-2-9b", 4)])
def test_the_papers_training_jobs_take_as_many_gpus_as_hold_their_state(paper, base, gpus):
    request = paper.of("train", base=base, model="multitask")
    assert (request.gpu, request.tasks, request.nodes) == (gpus, gpus, 1)
    assert request.mpi == ("srun" if gpus > 1 else None)
    assert paper.fits(paper.estimates.of("train", base=base, model="multitask"))


@pytest.mark.parametrize(
    ("parameters", "gpus", "nodes"), [(2e9, 1, 1), (5e9, 2, 1), (9e9, 4, 1), (20e9, 8, 1), (50e9, 16, 2), (100e9, 32, 4)]
)
def test_larger_bases_take_more_gpus_of_a_node_and_then_more_nodes(sized, parameters, gpus, nodes):
    request = sized(int(parameters)).of("train", base="gemma-2-9b", model="specialist_coding")
    assert (request.gpu, request.nodes, request.tasks) == (gpus, nodes, gpus)


def test_the_site_decides_how_many_gpus_and_nodes(sized):
    assert sized(int(9e9), Site(gpu_memory_gb=141)).of("train", base="gemma-2-9b", model="multitask").gpu == 2
    request = sized(int(9e9), Site(gpu_memory_gb=40, gpus_per_node=4)).of("train", base="gemma-2-9b", model="multitask")
    assert (request.gpu, request.nodes) == (8, 2)


def test_gpus_divide_the_samples_of_a_step():
    training = copy.deepcopy(RAW["presets"]["paper"]["training"])
    training["supervised"]["large"] |= {"batch_size": 6, "micro_batch_size": 1}
    resources = Resources(plan(training=training), Site())
    estimate = resources.estimates.of("train", base="gemma-2-9b", model="multitask")
    assert resources.gpus(estimate) == 2
    assert not resources.fits(estimate)


@pytest.mark.parametrize("stage", ["tune", "evaluate", "statistics"])
def test_stages_of_one_device_ask_for_one_gpu(paper, stage):
    for base in paper.estimates.plan.bases:
        request = paper.of(stage, base=base, **JOBS[stage])
        assert (request.gpu, request.nodes, request.tasks) == (1, 1, 1)


@pytest.mark.parametrize("kind", ["fisher", "gram", "mask"])
def test_one_gpu_of_80_gb_holds_every_statistic_of_the_paper(paper, kind):
    for base in paper.estimates.plan.bases:
        assert paper.fits(paper.estimates.of("statistics", base=base, domain="math", kind=kind))


def statistic(kind, base="gemma-2-9b", **settings):
    return Resources(plan(statistics={kind: settings}), Site()).estimates.of("statistics", base=base, domain="math", kind=kind)


@pytest.mark.parametrize("kind", ["fisher", "gram", "mask"])
def test_processes_that_share_a_statistic_take_a_gpu_each_and_save_time_alone(kind):
    one, four = (Resources(plan(statistics={"execution": {"gpus": gpus}}), Site()) for gpus in (1, 4))
    asked = {"stage": "statistics", "base": "gemma-2-9b", "domain": "math", "kind": kind}
    alone, shared = one.of(**asked), four.of(**asked)
    assert (alone.gpu, alone.tasks, alone.mpi) == (1, 1, None)
    assert (shared.gpu, shared.tasks, shared.nodes, shared.mpi) == (4, 4, 1, "srun")
    assert shared.runtime < alone.runtime
    held = [resources.estimates.of(**asked) for resources in (one, four)]
    assert held[0].gpu_bytes == held[1].gpu_bytes
    small = Resources(four.estimates.plan, Site(gpu_memory_gb=16))
    assert not small.fits(held[1])  # four that are too small are no better than one


@pytest.mark.parametrize(
    ("kind", "less", "more", "what"),
    [
        ("fisher", {"dtype": "bfloat16"}, {}, "gpu_bytes"),
        ("fisher", {"dtype": "bfloat16"}, {}, "seconds"),
        ("fisher", {}, {"labels": "topk", "k": 3}, "seconds"),
        ("fisher", {"rows": 100}, {}, "seconds"),
        ("gram", {"accumulate": "float32"}, {}, "gpu_bytes"),
        ("gram", {"rows": 100}, {}, "working"),
        ("mask", {"micro_batch_size": None}, {}, "gpu_bytes"),
        ("mask", {}, {"model_dtype": "float32"}, "gpu_bytes"),
        ("mask", {"dtype": "bfloat16"}, {}, "host_bytes"),
        ("mask", {"dtype": "bfloat16"}, {}, "working"),
        ("mask", {"steps": 10}, {}, "seconds"),
    ],
)
def test_settings_of_a_statistic_change_what_it_costs(kind, less, more, what):
    assert getattr(statistic(kind, **less), what) < getattr(statistic(kind, **more), what)


def test_the_parts_of_a_statistics_memory_are_those_of_its_tensors():
    parameters = catalogue.bases()["gemma-2-9b"]["parameters"]
    fisher, mask = (cost(settings, parameters, 2, 1000, 400) for settings in (FisherSettings(), MaskSettings()))
    assert fisher.device["model"] == 4 * parameters
    assert fisher.written == 4 * parameters
    assert fisher_passes(FisherSettings(), parameters) * fisher.host["sums of a group"] == pytest.approx(4 * parameters)
    assert (mask.device["model"], mask.device["sums of gradients"]) == (2 * parameters, 4 * parameters)
    assert mask.host["logits"] == 4 * parameters
    assert mask.written == parameters / 8


@pytest.mark.parametrize("stage", ["merge", "vectors", "interference"])
def test_stages_that_only_read_weights_ask_for_no_gpu(paper, stage):
    assert paper.of(stage, base="gemma-2-9b", **JOBS[stage]).gpu == 0


@pytest.mark.parametrize("stage", JOBS)
def test_a_larger_base_needs_more_memory_and_time(paper, stage):
    small, large = (paper.estimates.of(stage, base=b, **JOBS[stage]) for b in ("gemma-2-2b", "gemma-2-9b"))
    assert large.host_bytes > small.host_bytes
    assert large.seconds > small.seconds


@pytest.mark.parametrize("preset", ["tiny", "tiny-full", "micro"])
def test_tiny_twins_need_no_gpu_one_thread_and_little(preset):
    resources = Resources(plan(preset), Site())
    for _, stage, wildcards in resources.estimates.plan.jobs():
        request = resources.of(stage, **wildcards)
        assert (request.gpu, request.nodes, request.tasks, request.threads) == (0, 1, 1, 1)
        assert request.mem_mb <= 3_000
        assert request.runtime <= 20


def test_every_job_of_the_paper_asks_for_something_possible(paper):
    for _, stage, wildcards in paper.estimates.plan.jobs():
        request = paper.of(stage, **wildcards)
        assert 0 <= request.gpu <= 8
        assert 500 <= request.mem_mb <= 512_000
        assert 10 <= request.runtime <= 30 * 24 * 60


def test_memory_and_time_grow_with_the_escalation_and_nothing_else_does(paper):
    first = paper.of("train", base="gemma-2-9b", model="multitask")
    memory = paper.of("train", Escalation(memory=3), base="gemma-2-9b", model="multitask")
    time = paper.of("train", Escalation(time=2), base="gemma-2-9b", model="multitask")
    assert (memory.mem_mb, memory.runtime) == (3 * first.mem_mb, first.runtime)
    assert (time.mem_mb, time.runtime) == (first.mem_mb, 2 * first.runtime)
    assert (memory.gpu, memory.threads, time.gpu, time.threads) == (first.gpu, first.threads) * 2


def test_run_time_stays_within_the_sites_limit():
    limited = Resources(plan(), Site(max_runtime=1440))
    assert limited.of("train", Escalation(time=3), base="gemma-2-9b", model="multitask").runtime == 1440
    assert limited.of("merge", base="gemma-2-2b", method="ties").runtime < 1440


@pytest.mark.parametrize(
    ("changes", "shared", "each"),  # bytes per parameter; each GPU's without activations
    [
        ({"sharding": "none"}, 0, 16),
        ({"sharding": "zero2"}, 14, 2),
        ({"sharding": "zero3"}, 16, 0.4),
        ({"sharding": "zero2", "offload": "optimizer"}, 2, 2),
        ({"sharding": "zero2", "lora": {"rank": 16}}, 14 * 0.02, 2),
    ],
)
def test_training_state_is_divided_as_zero_divides_it(changes, shared, each):
    training = copy.deepcopy(RAW["presets"]["paper"]["training"])
    training["supervised"]["large"] |= {"activation_checkpointing": "full", **changes}
    estimate = Resources(plan(training=training), Site()).estimates.of("train", base="llama-3.1-8b", model="multitask")
    parameters = catalogue.bases()["llama-3.1-8b"]["parameters"]
    assert estimate.gpu_bytes / parameters == pytest.approx(shared, abs=0.01)
    activations = 3072 * 1_000_000
    assert (estimate.local_bytes - activations) / parameters == pytest.approx(each, abs=0.05)


def test_what_is_kept_for_the_backward_pass_costs_memory_and_what_is_computed_again_time():
    made = []
    for kept in ("full", "selective", "none"):
        training = copy.deepcopy(RAW["presets"]["paper"]["training"])
        training["supervised"]["large"]["activation_checkpointing"] = kept
        made.append(Resources(plan(training=training), Site()).estimates.of("train", base="llama-3.1-8b", model="multitask"))
    assert made[0].local_bytes < made[1].local_bytes < made[2].local_bytes
    assert made[2].seconds == pytest.approx(made[0].seconds * 6 / 8)


def test_estimates_use_the_rows_that_filters_leave_of_the_published_sets():
    estimates = Estimates(plan())
    assert estimates.training_rows("train_math") == 590_705
    assert estimates.training_rows("train_multilingual") == 5_940
    assert estimates.training_rows("train_safety") == 86_759 - 48_783 + 261_559
    assert estimates.rows("gsm8k") == 1319
    assert Estimates(plan("micro")).rows("gsm8k") == 4
    assert Estimates(plan("micro")).training_rows("train_math") == 64


def test_a_method_with_a_larger_grid_takes_longer_to_tune(paper):
    regmean, ties = (paper.estimates.of("tune", base="gemma-2-2b", method=m).seconds for m in ("regmean", "ties"))
    assert ties > 2 * regmean


def test_the_site_is_read_from_the_default_resources():
    assert Site.of(None) == Site(gpu_memory_gb=80, gpus_per_node=8, max_runtime=None)
    assert Site.of({"mem_mb": 5, "gpu_memory_gb": 40, "max_runtime": 600}) == Site(40, 8, 600)


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, None])
def test_a_site_fact_that_is_not_a_number_is_refused(value):
    with pytest.raises(MergebenchError, match=r"default-resources\.gpus_per_node"):
        Site.of({"gpus_per_node": value})


def test_snakemakes_own_resources_are_understood():
    from snakemake.resources import Resources as Parsed

    parsed = Parsed.parse(["gpu_memory_gb=40", "gpus_per_node=4", "slurm_partition=gpu"], allow_expressions=True)
    assert Site.of(parsed) == Site(40, 4)
    with pytest.raises(MergebenchError, match="gpu_memory_gb"):
        Site.of(Parsed.parse(["gpu_memory_gb=attempt * 40"], allow_expressions=True))


@pytest.mark.parametrize("base", ["gemma-2-2b", "llama-3.1-8b", "gemma-2-9b"])
def test_only_merges_that_run_models_take_a_gpu_and_one_holds_them(base):
    made = Resources(
        plan(merging={"methods": {"ties": {}, "regmean": {}, "regmean_plus_plus": {"grid": {"reduction": [0.1, 0.9]}}}}), Site()
    )
    assert [made.of("merge", base=base, method=method).gpu for method in ("ties", "regmean", "regmean_plus_plus")] == [0, 0, 1]
    asked = made.estimates.of("merge", base=base, method="regmean_plus_plus")
    assert made.fits(asked)
    assert made.fits(made.estimates.of("tune", base=base, method="regmean_plus_plus"))
    assert made.seconds(asked) > made.seconds(made.estimates.of("merge", base=base, method="regmean"))


def test_passing_samples_costs_by_their_number():
    def seconds(rows):
        chosen = plan(merging={"methods": {"regmean_plus_plus": {}}}, statistics={"regmean_plus_plus": {"rows": rows}})
        return Estimates(chosen).of("merge", base="gemma-2-9b", method="regmean_plus_plus").seconds

    assert seconds(128) < seconds(256) < seconds(1000) == seconds(None)
