"""The plan of the paper's campaign, pinned; specs hold what decides a result and nothing else."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench import catalogue, config
from mergebench.errors import MergebenchError
from mergebench.merging.candidates import candidates
from mergebench.merging.declarations import declared
from mergebench.workflow.plan import Plan, Settled, alternatives
from mergebench.workflow.questions import similar

ROOT = Path(__file__).parents[3]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())
PAPER = {
    "fetch_base": 8,
    "fetch_data": 23,
    "fetch_training_data": 6,
    "decontaminate": 6,
    "tokenise": 40,
    "train_specialist": 40,
    "train_grpo": 4,
    "train_multitask": 8,
    "vectors": 40,
    "interference": 8,
    "statistics": 120,
    "tune": 48,
    "admit": 8,
    "merge": 80,
    "evaluate_general_1": 96,
    "evaluate_general_2": 96,
    "evaluate_general_3": 96,
    "evaluate_general_4": 96,
    "evaluate_specialist_1": 40,
    "evaluate_specialist_2": 40,
    "evaluate_specialist_3": 40,
    "evaluate_surrogates_1": 8,
    "evaluate_surrogates_2": 32,
    "fetch_judge": 1,
    "judge": 8,
    "judge_surrogates": 8,
    "settle_code": 136,
    "settle_safety": 8,
    "settle_safety_surrogates": 8,
    "analyse": 1,
    "report": 1,
    "official": 1,
    "all": 1,
}


def plan(preset: str = "paper", change=lambda raw: None) -> Plan:
    raw = {**copy.deepcopy(RAW), "preset": preset}
    change(raw["presets"][preset])
    return Plan(config.parse(raw))


def test_the_papers_jobs():
    assert plan().job_counts() == PAPER


def test_the_papers_campaign_is_the_papers():
    paper = plan()
    assert len(paper.bases) == 8
    assert len(paper.in_domain) == 12
    assert len(paper.preset.evaluation.forgetting) == 6
    assert [len(s) for s in paper.surrogates.values()] == [1] * 5
    assert len(paper.methods) == 9


def test_the_grids_have_the_sizes_of_table_6():
    paper = plan()
    counts = {m: len(candidates(m, c.grid, paper.domains)) for m, c in paper.preset.merging.methods.items()}
    assert counts == {
        "model_soup": 0,
        "task_arithmetic": 10,
        "fisher": 0,
        "regmean": 5,
        "ties": 30,
        "dare": 30,
        "consensus_ta": 35,
        "dataless_localize_and_stitch": 5,
        "localize_and_stitch": 0,
    }


@pytest.mark.parametrize("preset", ["tiny", "tiny-full"])
def test_the_demo_has_the_papers_grids(preset):
    grids = [{m: c.grid for m, c in plan(p).preset.merging.methods.items()} for p in ("paper", preset)]
    assert grids[0] == grids[1]


@pytest.mark.parametrize(("jobs", "groups"), [("model", 2), ("domain", 7), ("benchmark", 23), ("length", 15)])
def test_every_score_is_made_by_exactly_one_group(jobs, groups):
    made = plan("tiny", lambda p: p["evaluation"].update(jobs=jobs))
    assert len(made.groups) == groups
    for model in (*made.general_models, *made.specialists):
        scored = [b for g in made.groups if model in g.models for b in g.benchmarks]
        assert len(scored) == len(set(scored))
        wanted = {s.rpartition("/")[2].removesuffix(".json") for s in made.scores if f"/{model}/" in s}
        assert wanted <= set(scored)


def test_names_are_safe_in_paths_and_on_slurm():
    made = plan("tiny")
    for name in (*catalogue.bases(), *made.benchmark_datasets, *made.training_sets, *made.methods, *made.general_models):
        assert re.fullmatch(r"[a-z0-9._-]+", name), name


def test_alternatives_match_these_names_only():
    pattern = re.compile(alternatives(["llama-3.2-3b", "llama-3.2-3b-instruct"]))
    assert pattern.fullmatch("llama-3.2-3b-instruct")
    assert not pattern.fullmatch("llama-3x2-3b")
    assert not re.compile(alternatives([])).search("anything")


def specs(made: Plan) -> dict[str, str]:
    """One spec per kind of job, as the rules pass it on."""
    base = made.bases[0]
    found = {
        "fetch_base": made.spec("fetch_base", base=base),
        "prepare gsm8k": made.spec("prepare", dataset="gsm8k"),
        "prepare train_math": made.spec("prepare", training_set="train_math"),
        "decontaminate train_math": made.spec("decontaminate", training_set="train_math"),
        "tokenise train_math": made.spec("tokenise", key=made.tokens(base).key, training_set="train_math"),
        "train specialist_math": made.spec("train", base=base, model="specialist_math"),
        "train multitask": made.spec("train", base=base, model="multitask"),
        "vectors": made.spec("vectors", base=base, domain="math"),
        "interference": made.spec("interference", base=base),
        "statistics fisher": made.spec("statistics", base=base, domain="math", kind="fisher"),
        "statistics mask": made.spec("statistics", base=base, domain="math", kind="mask"),
        "tune ties": made.spec("tune", base=base, method="ties"),
        "tune dare": made.spec("tune", base=base, method="dare"),
        "merge ties": made.spec("merge", base=base, method="ties"),
        "merge dare": made.spec("merge", base=base, method="dare"),
        **{f"evaluate {g.name}": made.spec("evaluate", base=base, model="base", group=g.name) for g in made.groups},
        **{f"judge {s.name}": made.spec("judge", base=base, group=s.name) for s in made.settled if s.kind == "safety"},
        **{f"settle {s.name}": made.spec("settle", base=base, group=s.name) for s in made.settled},
        "analyse": made.spec("analyse"),
    }
    return {name: json.dumps(spec, sort_keys=True) for name, spec in found.items()}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda p: p["merging"]["methods"]["ties"]["grid"].update(density=[0.4]), {"tune ties", "analyse"}),
        (
            lambda p: p["merging"]["methods"]["dare"].update(parameters={"density": 0.3}, grid={"scale": [0.2, 0.3, 0.4]}),
            {"tune dare", "merge dare", "analyse"},
        ),
        (
            lambda p: p["merging"].update(vocabulary="base"),
            {"vectors", "interference", "tune ties", "tune dare", "merge ties", "merge dare"},
        ),
        (lambda p: p["statistics"]["mask"].update(steps=7), {"statistics mask"}),
        (lambda p: p["training"]["multitask"].update(steps={"tiny": 9}), {"train multitask"}),
        (lambda p: p["data"].update(rows=70), {"prepare train_math"}),
        (lambda p: p["data"].update(limits={"gsm8k": 3}), {"prepare gsm8k"}),
        (lambda p: p["data"].update(ngram=8), {"decontaminate train_math"}),
        (lambda p: p["data"].update(filters={"train_safety": "paper"}), set()),
        (lambda p: p["evaluation"].update(benchmarks={"gsm8k": {"max_tokens": 9}}), {"evaluate general", "evaluate specialist"}),
        (lambda p: p["evaluation"].update(benchmarks={"mbppplus": {"timeout_seconds": 9.0}}), {"settle code"}),
        (lambda p: p["evaluation"].update(allow_weak_sandbox=False), {"settle code"}),
        (lambda p: p["evaluation"].update(judge="wildguard"), {"judge safety", "judge safety_surrogates", "tune ties", "tune dare"}),
        (lambda p: p["evaluation"].update(judge_parse_errors=0.2), {"judge safety", "judge safety_surrogates"}),
        (lambda p: p["evaluation"].update(judging="model"), set()),
        (lambda p: p.update(analysis={"prices": {"gpu_hour": 3.5}}), {"analyse"}),
    ],
)
def test_a_changed_value_changes_the_specs_of_what_depends_on_it(change, stale):
    before, after = specs(plan("tiny")), specs(plan("tiny", change))
    assert {name for name in before if before[name] != after[name]} == stale


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda p: p["merging"]["methods"]["ties"]["grid"].update(density=[0.4]), True),
        (lambda p: p["data"].update(rows=70), True),
        (lambda p: p["evaluation"].update(jobs="benchmark"), False),
        (lambda p: p["evaluation"].update(judging="model"), False),
        (lambda p: p.update(tuning={"fused": True}), False),
        (lambda p: p.update(storage={"keep_merged": False, "budget_gb": 500}), False),
    ],
)
def test_the_report_follows_the_configuration_but_not_the_layout_of_jobs(change, stale):
    before, after = (json.dumps(made.spec("report"), sort_keys=True) for made in (plan("tiny"), plan("tiny", change)))
    assert (before != after) is stale


def test_swapped_values_of_two_keys_are_seen():
    """Snakemake compares params as a set; one JSON string per rule keeps the keys."""

    def swap(p):
        settings = p["training"]["supervised"]["tiny"]
        settings["batch_size"], settings["steps"] = settings["steps"], settings["batch_size"]
        settings["micro_batch_size"] = 2

    def one(p):
        p["training"]["supervised"]["tiny"]["micro_batch_size"] = 2

    first, second = (specs(plan("tiny", c))["train multitask"] for c in (one, swap))
    assert first != second


def test_resources_do_not_enter_the_spec():
    text = " ".join(specs(plan()).values())
    assert not re.search(r'"(threads|gpu|mem_mb|runtime)"', text)


def test_dropping_weights_adds_its_own_jobs_and_changes_no_spec():
    kept, dropped = plan(), plan(change=lambda p: p.update(storage={"keep_merged": False, "budget_gb": 9000}))
    assert dropped.job_counts() == {**PAPER, "drop_weights": 80}
    assert specs(kept) == specs(dropped)
    assert set(dropped.targets) - set(kept.targets) == {dropped.dropped(b, m) for b in dropped.bases for m in dropped.merged}


@pytest.mark.parametrize("preset", ["paper", "tiny", "micro"])
def test_a_job_is_known_by_its_rule_and_wildcards(preset):
    made = plan(preset)
    for rule, stage, wildcards in made.jobs():
        given = {k: v for k, v in wildcards.items() if k != "group"}
        assert made.stage(rule, given) == (stage, wildcards)


def test_controls_are_merged_and_scored_as_methods_are_and_are_none():
    made = plan("micro")
    assert made.controls == ["random_direction"]
    assert "random_direction" not in made.methods
    assert "merged_random_direction" in made.general_models
    wanted = {b for g in made.groups if "merged_random_direction" in g.models for b in g.benchmarks}
    assert wanted == {b for g in made.groups if "merged_model_soup" in g.models for b in g.benchmarks}
    spec = made.spec("merge", base=made.bases[0], method="random_direction")
    assert (spec["method"], spec["seed"], spec["parameters"]) == ("random_direction", 0, {})
    assert made.best(made.bases[0], "random_direction") == []


def test_every_seed_is_a_model_with_the_winner_s_parameters():
    def change(raw):
        raw.update(seed=5, tuning={"seeds": 3})
        raw["merging"]["controls"] = {"random_direction": {"seeds": 2}}

    made = plan("micro", change)
    assert made.seeded == {
        "dare": {"merged_dare": 5, "merged_dare-seed6": 6, "merged_dare-seed7": 7},
        "random_direction": {"merged_random_direction": 5, "merged_random_direction-seed6": 6},
    }
    base = made.bases[0]
    specs = [made.spec("merge", base=base, method=model.removeprefix("merged_")) for model in made.seeded["dare"]]
    assert [spec["seed"] for spec in specs] == made.spec("tune", base=base, method="dare")["seeds"] == [5, 6, 7]
    assert [spec["model"] for spec in specs] == list(made.seeded["dare"])
    same = [{k: v for k, v in spec.items() if k not in ("seed", "model")} for spec in specs]
    assert same[0] == same[1] == same[2]
    assert {spec["method"] for spec in specs} == {"dare"}
    assert {m for m in made.merged if "seed" in m} == {"dare-seed6", "dare-seed7", "random_direction-seed6"}
    assert made.job_counts()["tune"] == plan("micro").job_counts()["tune"]
    assert made.job_counts()["merge"] == plan("micro").job_counts()["merge"] + 3


def test_declarations_cover_every_method_of_the_catalogue():
    assert set(plan().methods) <= set(declared())


@pytest.mark.parametrize(("value", "said"), [(None, "is not set"), ("", "is not set"), ("/no/such/folder", "not a folder")])
def test_a_data_folder_that_is_not_there_is_refused_before_planning(monkeypatch, value, said):
    monkeypatch.delenv("MERGEBENCH_REAL_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("MERGEBENCH_REAL_DATA", value)
    with pytest.raises(MergebenchError, match=said):
        plan("tiny-local").check_data()
    plan("tiny").check_data()


def test_benchmarks_are_deferred_as_their_tasks_say():
    from lm_eval.tasks._yaml_loader import load_yaml

    from mergebench.evaluation.settings import BenchmarkSetting

    said = {name: load_yaml(BenchmarkSetting(name).task_file)["metadata"].get("defer") for name in catalogue.benchmarks()}
    assert said == {name: plan().deferred(name) for name in catalogue.benchmarks()}
    assert set(said.values()) == {None, "code", "safety"}


@pytest.mark.parametrize("preset", ["paper", "tiny", "micro"])
@pytest.mark.parametrize("judging", ["base", "model"])
def test_every_deferred_score_is_settled_by_exactly_one_job_from_answers_that_one_job_makes(preset, judging):
    made = plan(preset, lambda p: p["evaluation"].update(judging=judging))
    surrogates = {s for names in made.surrogates.values() for s in names}
    for model in (*made.general_models, *made.specialists):
        asked = [b for g in made.groups if model in g.models for b in g.benchmarks if made.deferred(b)]
        settled = [b for s in made.settled if model in s.models for b in s.benchmarks]
        assert sorted(asked) == sorted(settled)
        assert not set(settled) & surrogates or model.startswith("specialist")
        if model == "specialist_safety":
            assert set(made.surrogates["safety"]) <= set(settled)
    for chosen in made.settled:
        assert chosen.together == (judging == "base" and chosen.kind == "safety")
        assert {made.deferred(b) for b in chosen.benchmarks} == {chosen.kind}


def test_tuning_waits_for_no_merged_model():
    for chosen in plan().settled:
        kinds = {catalogue.benchmarks()[b]["role"] for b in chosen.benchmarks}
        assert len(kinds) == 1
        if kinds == {"surrogate"}:
            assert all(model.startswith("specialist") for model in chosen.models)


@pytest.mark.parametrize("judge", ["keyword", "wildguard"])
def test_a_judge_with_a_model_is_fetched_and_runs_on_a_gpu(judge):
    from mergebench.workflow.jobs import planned_jobs
    from mergebench.workflow.resources import Resources, Site

    made = plan("paper", lambda p: p["evaluation"].update(judge=judge))
    weighty = judge == "wildguard"
    assert made.job_counts().get("fetch_judge") == (1 if weighty else None)
    jobs = [job for job in planned_jobs(made) if job.stage == "judge"]
    assert len(jobs) == 16
    resources = Resources(made, Site())
    assert {(job.local, resources.of(job.stage, None, **job.wildcards).gpu) for job in jobs} == {(not weighty, int(weighty))}
    assert ("backend" in made.spec("judge", **jobs[0].wildcards)) == weighty


def test_groups_of_similar_length_keep_their_benchmarks_and_none_is_longer_than_the_longest_benchmark():
    made = plan()
    seconds = {b: made.reference_seconds(b) for b in made.benchmark_datasets}
    general = [g.benchmarks for g in made.groups if "merged_ties" in g.models]
    longest = max(seconds[b] for benchmarks in general for b in benchmarks)
    for benchmarks in general:
        assert sum(seconds[b] for b in benchmarks) <= longest * 1.001
    total = sum(seconds[b] for benchmarks in general for b in benchmarks)
    assert len(general) <= 2 * total / longest, "two of them never fit into one"


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0.001, 1000), min_size=1, max_size=12))
@settings(max_examples=60)
def test_similar_groups_hold_every_name_once_within_the_largest_cost(costs):
    groups = similar(costs)
    assert sorted(name for group in groups for name in group) == sorted(costs)
    loads = [sum(costs[name] for name in group) for group in groups]
    assert max(loads) <= max(costs.values()) * (1 + 1e-6)
    assert sum(sorted(loads)[:2]) > max(costs.values()) * (1 - 1e-6) or len(groups) == 1


def test_a_score_that_is_asked_for_alone_gets_jobs_of_its_own_with_the_same_settings():
    whole, alone = plan("micro"), Plan(plan("micro").configuration, [("base", "gsm8k"), ("merged_ties", "xstest")])
    assert alone.groups[:2] == whole.groups
    assert [(g.name, g.benchmarks, g.models) for g in alone.groups[2:]] == [
        ("general_apart", ("gsm8k", "xstest"), ("base", "merged_ties")),
    ]
    assert [s for s in alone.settled if s not in whole.settled] == [
        Settled("safety_apart", "safety", ("xstest",), ("merged_ties",), together=False)
    ]
    assert alone.preferred == [
        ("evaluate_general_apart", "evaluate_general"),
        ("settle_safety_apart", "settle_safety"),
        ("judge_apart", "judge"),
    ]
    base = whole.bases[0]
    together = whole.spec("evaluate", base=base, model="base", group="general")["benchmarks"]
    apart = alone.spec("evaluate", base=base, model="base", group="general_apart")["benchmarks"]
    assert apart.items() <= together.items()
    for rule, stage, wildcards in alone.jobs():
        given = {k: v for k, v in wildcards.items() if k != "group"}
        assert alone.stage(rule, given) == (stage, wildcards)


@pytest.mark.parametrize("jobs", ["model", "domain", "benchmark", "length"])
@pytest.mark.parametrize("judging", ["base", "model"])
def test_how_jobs_are_grouped_decides_no_benchmarks_settings(jobs, judging):
    def settings_of(made: Plan) -> dict[str, dict]:
        found: dict[str, dict] = {}
        for rule, stage, wildcards in made.jobs():
            if stage in ("evaluate", "settle"):
                for name, values in made.spec(stage, **wildcards)["benchmarks"].items():
                    found.setdefault(f"{stage} {name}", values)
                    assert found[f"{stage} {name}"] == values, rule
        return found

    assert settings_of(plan("tiny", lambda p: p["evaluation"].update(jobs=jobs, judging=judging))) == settings_of(plan("tiny"))


def with_regmean_plus_plus(raw):
    raw["merging"]["methods"] = {"model_soup": {}, "regmean_plus_plus": {"grid": {"reduction": [0.1, 0.9]}}}


def test_a_method_that_reads_calibration_rows_gets_those_of_every_domain():
    made = plan(change=with_regmean_plus_plus)
    assert made.calibrated == ["regmean_plus_plus"]
    assert made.calibration("regmean_plus_plus") == [f"results/paper/data/train_{d}/manifest.json" for d in made.domains]
    assert made.calibration("model_soup") == []
    assert made.statistics_kinds == []
    assert {f"train_{d}" for d in made.domains} <= set(made.training_sets)
    for stage in ("merge", "tune"):
        assert "calibration" not in made.spec(stage, base="gemma-2-9b", method="model_soup")
        assert made.spec(stage, base="gemma-2-9b", method="regmean_plus_plus")["calibration"] == {
            "rows": 1000,
            "max_length": 3072,
            "template": "alpaca",
            "settings": {"rows": 256, "dtype": "float32", "accumulate": "float64"},
        }


def test_calibration_rows_that_share_text_with_benchmarks_are_left_out():
    made = plan(change=with_regmean_plus_plus)
    assert made.calibration_hits("regmean_plus_plus") == [f"results/paper/decontamination/train_{d}/hits.jsonl" for d in made.domains]
    assert made.uncalibrated("train_math") == ["results/paper/decontamination/train_math/hits.jsonl"]
    assert made.calibration_hits("model_soup") == []


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({"decontaminate": "none"}, False),
        ({"source": "tiny"}, False),
        ({"source": "tiny", "decontaminate": "remove"}, True),
        ({"sources": {"train_math": "tiny"}}, False),
    ],
)
def test_generated_rows_are_calibrated_with_as_they_are(change, listed):
    def changed(raw):
        raw["data"].update(change)

    assert bool(plan(change=changed).uncalibrated("train_math")) == listed


def test_imported_specialists_still_need_calibration_rows():
    def change(raw):
        with_regmean_plus_plus(raw)
        raw["training"] |= {"specialists": "hub", "multitask": None, "grpo": None}

    assert set(plan(change=change).training_sets) == {f"train_{d}" for d in plan().domains}


def test_the_samples_of_a_method_decide_its_jobs_alone():
    def more(raw):
        with_regmean_plus_plus(raw)
        raw["statistics"] = {"regmean_plus_plus": {"rows": 512}}

    one, two = plan(change=with_regmean_plus_plus), plan(change=more)
    jobs = [(stage, wildcards) for _, stage, wildcards in one.jobs() if stage in ("merge", "tune", "train", "vectors")]
    changed = {(stage, where["method"]) for stage, where in jobs if one.spec(stage, **where) != two.spec(stage, **where)}
    assert changed == {("merge", "regmean_plus_plus"), ("tune", "regmean_plus_plus")}


def test_code_that_runs_models_decides_only_merges_that_do():
    from mergebench.fingerprint import closure

    decoder = "mergebench.merging.statistics.decoder"
    assert decoder in closure("mergebench.merging.methods.regmean_plus_plus")
    assert decoder not in closure("mergebench.merging.run")
    assert decoder not in closure("mergebench.merging.methods.regmean")


def test_spectra_are_measured_by_the_job_that_needs_them_where_no_method_does():
    def soup_alone(raw):
        raw["merging"]["methods"] = {"model_soup": {}}
        raw["statistics"] = {}

    one, every = plan("tiny", soup_alone), plan("tiny")
    assert "vectors" not in one.job_counts()
    assert one.job_counts()["interference"] == len(one.bases)
    assert one.measured(one.bases[0]) == []
    assert len(every.measured(every.bases[0])) == len(every.domains)
