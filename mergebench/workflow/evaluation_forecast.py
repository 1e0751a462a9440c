"""`mergebench plan evaluate`: what scoring one model costs, benchmark by benchmark, and for each way of grouping jobs.

Arithmetic from the catalogue and the assumptions that are printed with it; rows and lengths of prompts are taken from the data
where it has been fetched.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergebench import catalogue
from mergebench.artifacts import read_json
from mergebench.config import Configuration
from mergebench.errors import MergebenchError, nearest
from mergebench.workflow import estimates
from mergebench.workflow.plan import Plan
from mergebench.workflow.questions import Questions, questions

TYPICAL = 8_030_261_248  # parameters of the base that is forecast where none is named: the nearest of the preset
SAMPLED = 64  # rows whose prompts are counted
CHARACTERS = 4.0  # of a token, where no tokenizer is there
GROUPINGS = ("model", "length", "domain", "benchmark")


def chosen_base(plan: Plan, name: str | None) -> str:
    """The base to forecast: the one named, or the one of the preset whose size is nearest to 8 billion parameters.

    Raises:
        MergebenchError: the preset has no such base.
    """
    if name is None:
        return min(plan.bases, key=lambda base: abs(catalogue.bases()[base]["parameters"] - TYPICAL))
    if name not in plan.bases:
        raise MergebenchError(f"--base {name} is not a base of preset {plan.name}; {nearest(name, plan.bases)}.")
    return name


def record(configuration: Configuration, base: str | None = None) -> dict[str, Any]:
    """All numbers of the forecast of one merged model of `base`."""
    plan = Plan(configuration)
    base = chosen_base(plan, base)
    parameters = int(catalogue.bases()[base]["parameters"])
    asked = {b: asked_of(plan, base, b) for b in (*plan.in_domain, *plan.preset.evaluation.forgetting)}
    rows = {name: _row(plan, parameters, found, measured) for name, (found, measured) in asked.items()}
    seconds = {name: row["seconds"] for name, row in rows.items()}
    models = len(plan.general_models) + len(plan.specialists)
    judged = [name for name in asked if plan.deferred(name) == "safety"]
    return {
        "preset": plan.name,
        "base": base,
        "parameters": parameters,
        "backend": plan.preset.evaluation.backend,
        "benchmarks": rows,
        "total": {key: sum(row[key] for row in rows.values()) for key in next(iter(rows.values())) if key != "source"},
        "groupings": {jobs: _grouping(configuration, jobs, seconds) for jobs in GROUPINGS},
        "judge": {
            "name": plan.preset.evaluation.judge,
            "answers": sum(asked[name][0].answers for name in judged),
            "engine_starts_per_model": 0.0 if plan.judge is None else 1 / models if plan.preset.evaluation.judging == "base" else 1.0,
            "seconds": estimates.judging_seconds(plan, [asked[name][0] for name in judged]),
        },
        "programs": sum(found.answers for name, (found, _) in asked.items() if plan.deferred(name) == "code"),
        "assumptions": assumptions(plan, base, plan.preset.evaluation.backend),
    }


def assumptions(plan: Plan, base: str, backend: str) -> str:
    """What the seconds count on."""
    if estimates.Estimates(plan).tiny(base):
        return estimates.CORE_ASSUMPTIONS
    steps = f"{estimates.SEQUENCES} answers decoded at once" if backend == "vllm" else "answers as long as their limit"
    return (
        f"one A100 at {estimates.MATRIX_RATE / 312e12:.0%} of its bfloat16 rate and {estimates.READ_RATE / 2e12:.0%} of its memory's, "
        f"{steps}, {estimates.GPU_START:.0f} s for an engine start, expected lengths of answers from catalogue/lengths.yaml"
    )


def asked_of(plan: Plan, base: str, benchmark: str) -> tuple[Questions, bool]:
    """The questions of a benchmark, and whether they were counted in the data."""
    manifest = Path(plan.data(benchmark))
    if not manifest.is_file():
        return questions(plan.preset, benchmark), False
    rows = int(read_json(manifest)["rows"]["rows"])
    return questions(plan.preset, benchmark, rows=rows, prompt=_mean_prompt(plan, base, benchmark)), True


def _mean_prompt(plan: Plan, base: str, benchmark: str) -> float:
    """Mean tokens of whole prompts, over rows spread evenly over the data."""
    from mergebench.evaluation.local_tasks import load_task
    from mergebench.evaluation.settings import BenchmarkSetting

    setting = BenchmarkSetting.parse(benchmark, plan.setting(benchmark))
    task = load_task(replace(setting, apply_chat_template=False), Path(plan.data(benchmark)).with_name("rows.jsonl"))
    docs = list(task.eval_docs)
    docs = docs[:: max(1, len(docs) // SAMPLED)]
    prompts = [str(task.fewshot_context(doc, task.config.num_fewshot or 0)) for doc in docs]
    weights = Path(plan.model(base, "base")) / "weights"
    if (weights / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        encoded = Tokenizer.from_file(str(weights / "tokenizer.json")).encode_batch(prompts)
        return sum(len(one.ids) for one in encoded) / len(prompts)
    return sum(map(len, prompts)) / CHARACTERS / len(prompts)


def seconds_of(plan: Plan, asked: Questions, parameters: int, backend: str) -> float:
    """Seconds in which a model of so many parameters answers."""
    if catalogue.bases()[plan.bases[0]]["size"] == "tiny":
        return estimates.answering_seconds(asked, parameters, rate=estimates.CORE_RATE, step=estimates.CORE_STEP)
    return estimates.engine_seconds(asked, parameters) if backend == "vllm" else estimates.answering_seconds(asked, parameters)


def _row(plan: Plan, parameters: int, asked: Questions, measured: bool) -> dict[str, Any]:
    backend = plan.preset.evaluation.backend
    like_lm_eval = replace(asked, read=asked.read_lm_eval, read_shared=asked.read_lm_eval)
    return {
        "rows": asked.rows,
        "requests": asked.requests,
        "passes": asked.passes,
        "read_lm_eval": asked.read_lm_eval,
        "read": asked.read_shared if backend == "vllm" else asked.read,
        "generated_most": asked.most,
        "generated_expected": asked.expected,
        "seconds_lm_eval": seconds_of(plan, like_lm_eval, parameters, backend),
        "seconds": seconds_of(plan, asked, parameters, backend),
        "source": "data" if measured else "catalogue",
    }


def _grouping(configuration: Configuration, jobs: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Engine starts and GPU time of one model, if `evaluation.jobs` were `jobs`."""
    content = configuration.model_dump(mode="json")
    content["presets"][configuration.preset]["evaluation"]["jobs"] = jobs
    plan = Plan(Configuration.model_validate(content))
    groups = [group.benchmarks for group in plan.groups if plan.general_models[-1] in group.models and group.benchmarks]
    start = estimates.CPU_START if catalogue.bases()[plan.bases[0]]["size"] == "tiny" else estimates.GPU_START
    loads = [start + sum(seconds[name] for name in benchmarks) for benchmarks in groups]
    return {"jobs": len(groups), "engine_starts": len(groups), "seconds": sum(loads), "longest_seconds": max(loads)}


def render(found: Mapping[str, Any]) -> str:
    """The forecast as text."""
    head = f"{'benchmark':<18}{'requests':>10}{'passes':>10}{'read, lm-eval':>15}{'read, ours':>12}"
    head += f"{'written':>12}{'at most':>12}{'min, lm-eval':>14}{'min':>8}"
    lines = [f"One merged model of {found['base']} (preset {found['preset']}, backend {found['backend']})", "", head]
    for name, row in [*found["benchmarks"].items(), ("total", found["total"])]:
        lines.append(
            f"{name:<18}{row['requests']:>10,}{row['passes']:>10,}{_tokens(row['read_lm_eval']):>15}{_tokens(row['read']):>12}"
            f"{_tokens(row['generated_expected']):>12}{_tokens(row['generated_most']):>12}"
            f"{row['seconds_lm_eval'] / 60:>14.1f}{row['seconds'] / 60:>8.1f}"
        )
    lines += ["", f"{'evaluation.jobs':<18}{'jobs':>10}{'engine starts':>15}{'minutes in all':>16}{'longest job':>13}"]
    for jobs, row in found["groupings"].items():
        lines.append(
            f"{jobs:<18}{row['jobs']:>10}{row['engine_starts']:>15}{row['seconds'] / 60:>16.1f}{row['longest_seconds'] / 60:>13.1f}"
        )
    judge = found["judge"]
    lines += [
        "",
        f"judge {judge['name']}: {judge['answers']:,} answers, {judge['seconds'] / 60:.1f} min, "
        f"{judge['engine_starts_per_model']:.2f} engine starts",
        f"programs to run: {found['programs']:,}",
        f"lengths: {_sources(found['benchmarks'])}",
        f"assumed: {found['assumptions']}",
    ]
    return "\n".join(lines)


def _sources(rows: Mapping[str, Mapping[str, Any]]) -> str:
    counted = [name for name, row in rows.items() if row["source"] == "data"]
    if not counted:
        return "from the catalogue; no data has been fetched"
    return f"counted in the data for {len(counted)} of {len(rows)} benchmarks" + (
        ", else from the catalogue" if len(counted) < len(rows) else ""
    )


def _tokens(count: float) -> str:
    return f"{count / 1e6:.2f}M" if count >= 1e4 else f"{count:,.0f}"
