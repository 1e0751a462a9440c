"""How grids are searched is configuration: what differs from the paper's way is in the spec of the jobs concerned, and nowhere else."""

import pytest

from mergebench import config
from mergebench.errors import MergebenchError
from mergebench.merging.declarations import declared
from mergebench.workflow import lock
from mergebench.workflow.plan import MODULES, Plan
from tests.unit.workflow.test_plan import RAW, plan

BASE = "tiny-llama-strong"


def tuned(preset: str = "micro", **tuning) -> Plan:
    return plan(preset, lambda raw: raw.update(tuning=tuning))


def specs(made: Plan) -> dict[str, dict]:
    """Without the report's, which shows the whole configuration."""
    return {
        f"{stage} {wildcards}": made.spec(stage, **wildcards) for _, stage, wildcards in made.jobs() if stage not in ("admit", "report")
    }


def changed(one: Plan, other: Plan) -> set[str]:
    before, after = specs(one), specs(other)
    return {
        name.partition(" ")[0] + " " + name.partition("'method': '")[2].rstrip("'}") for name in after if before.get(name) != after[name]
    }


@pytest.mark.parametrize("preset", ["paper", "tiny", "micro"])
def test_the_full_grid_without_a_budget_is_what_every_preset_does(preset):
    made = plan(preset)
    assert made.preset.tuning == config.Tuning()
    for method in made.tuned:
        spec = made.spec("tune", base=made.bases[0], method=method)
        assert {"search", "blocks", "halving", "budget", "seeds"} & set(spec) == set()
        assert spec["evaluation"]["backend"] == made.preset.evaluation.backend


def test_changing_how_grids_are_searched_makes_the_searches_stale_and_no_evaluation():
    every = {f"tune {method}" for method in plan("micro").tuned}
    for tuning in ({"search": "golden"}, {"search": "halving"}, {"backend": "vllm"}, {"budget": {"evaluations": 8}}):
        assert changed(plan("micro"), tuned(**tuning)) == every
    assert changed(plan("micro"), tuned(halving={"blocks": 5})) == set(), "without halving its settings decide nothing"


def test_seeds_concern_the_methods_that_draw_random_numbers():
    one, three = specs(plan("micro")), specs(tuned(seeds=3))
    assert {name.partition(" ")[0] for name in one if one[name] != three[name]} == {"tune", "analyse", "official"}
    assert changed(plan("micro"), tuned(seeds=3)) == {
        "tune dare", "merge dare-seed1", "merge dare-seed2", "evaluate ", "analyse ", "official "
    }  # fmt: skip
    assert plan("micro", lambda raw: raw.update(seed=5, tuning={"seeds": 3})).spec("tune", base=BASE, method="dare")["seeds"] == [5, 6, 7]
    assert {name for name, declaration in declared().items() if declaration.random} == {"dare", "random_direction"}


def test_fused_searches_are_one_job_per_base_with_the_same_settings():
    alone, together = plan("micro"), tuned(fused=True)
    assert alone.job_counts()["tune"] == 6
    assert together.job_counts()["tune_base"] == 1
    assert "tune" not in together.job_counts()
    spec = together.spec("tune_base", base=BASE)
    assert list(spec["methods"]) == alone.tuned
    for method, own in spec["methods"].items():
        apart = alone.spec("tune", base=BASE, method=method)
        joined = {**{k: v for k, v in spec.items() if k != "methods"}, **own, "method": method}
        assert {k: v for k, v in joined.items() if k not in ("code", "stage")} == {
            k: v for k, v in apart.items() if k not in ("code", "stage", "model")
        }
    assert set(MODULES) >= {"tune", "tune_base"}
    assert together.stage("tune_base", {"base": BASE}) == ("tune_base", {"base": BASE})


def test_who_asks_for_searches_alone_gets_a_job_per_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configuration = config.parse({**RAW, "preset": "micro"})
    found = tmp_path / "results/micro/tuning/tiny-llama-strong/dare/best.yaml"
    found.parent.mkdir(parents=True)
    found.write_text("")
    best = "results/micro/tuning/tiny-llama-strong/{}/best.yaml"
    for arguments, alone in (
        (["--", best.format("ties")], True),
        (["--", best.format("ties"), best.format("dare")], True),
        (["--", best.format("dare")], False),
        (["--", best.format("ties"), "results/micro/tables/headline.csv"], False),
        (["all", best.format("ties")], False),
        (["--profile", "profiles/tiny"], False),
    ):
        assert lock.searches_apart(configuration, arguments, main=True) is alone
        assert lock.searches_apart(configuration, [], main=False) is alone, "jobs are told by the environment"
    fused = tuned(fused=True).configuration
    assert Plan(fused, searches_apart=True).job_counts()["tune"] == 6


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"search": "halvin"}, "tuning.search is \"halvin\".*'halving'"),
        ({"halving": {"blocks": 1}}, r"tuning\.halving\.blocks is 1"),
        ({"halving": {"keep": 1.0}}, r"tuning\.halving\.keep is 1\.0"),
        ({"budget": {"evaluations": 0}}, r"tuning\.budget\.evaluations is 0"),
        ({"budget": {"minutes": 3}}, r"tuning\.budget\.minutes is not a key"),
        ({"budget": {}}, r"tuning\.budget\.evaluations: is null.*leave the budget out"),
        ({"seeds": 0}, r"tuning\.seeds is 0"),
    ],
)
def test_wrong_settings_are_refused_with_their_key(tuning, message):
    with pytest.raises(MergebenchError, match=message):
        tuned(**tuning)
