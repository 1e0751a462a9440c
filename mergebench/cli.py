"""The command line: one verb per thing that a person or a rule asks for. Heavy imports stay inside the verbs."""

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mergebench import __version__
from mergebench.errors import MergebenchError

if TYPE_CHECKING:
    from mergebench.artifacts import Job

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Errors meant for the user are printed as one sentence."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words, argparse.Namespace(words=words))
    try:
        return int(options.verb(options) or 0)
    except MergebenchError as error:
        print(f"mergebench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    top = argparse.ArgumentParser(prog="mergebench", description="Merge domain-specialised language models and measure the result.")
    top.add_argument("--version", action="version", version=f"mergebench {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB")

    run = _verb(verbs, "run", run_stage, "run one stage, as the rules of the workflow do")
    stages = (
        "fetch_base | prepare | decontaminate | tokenise | import | train | vectors | statistics | tune | tune_base | merge | evaluate"
        " | judge | settle | analyse | report"
    )
    run.add_argument("stage", help=stages)
    run.add_argument("--spec", required=True, help="JSON: all that decides the result")
    run.add_argument("--input", nargs="*", default=[], metavar="NAME=PATH [PATH ...]", help="inputs; further paths belong to the last name")
    run.add_argument(
        "--glob",
        nargs="*",
        default=[],
        metavar="NAME=PATTERN",
        help="inputs by a pattern below the results (the parent of --state), for thousands of files",
    )
    run.add_argument("--output", nargs="*", default=[], metavar="NAME=PATH", help="outputs")
    run.add_argument("--output-files", nargs="*", default=[], metavar="PATH", help="outputs called by their file names")
    run.add_argument("--output-paths", nargs="*", default=[], metavar="PATH", help="outputs called by their paths below the results")
    run.add_argument("--state", type=Path, default=Path("results/.state"), help="folder for resumable state (default: %(default)s)")
    run.add_argument("--threads", type=int, default=1, help="CPU threads of each task (default: %(default)s)")
    run.add_argument("--tasks", type=int, default=1, help="processes, one per GPU, that share train or statistics (default: %(default)s)")
    run.add_argument("--nodes", type=int, default=1, help="nodes of the Slurm allocation over which tasks spread (default: %(default)s)")
    run.add_argument(
        "--requested", nargs="*", default=[], metavar="NAME=N", help="for the cost record: mem_mb, runtime (minutes), gpu, ..."
    )
    run.add_argument("--online", action="store_true", help="allow the network (only the fetch stages need it)")
    recorded = "file that records the commits of hub repositories (default: %(default)s)"
    run.add_argument("--hub-lock", type=Path, default=Path("hub.lock.json"), help=recorded)

    configuration = _verb(verbs, "config", check_configuration, "check config.yaml, or print its JSON schema")
    configuration.add_argument("--file", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    configuration.add_argument("--preset", help="check this preset's names (default: the file's)")
    configuration.add_argument("--schema", action="store_true", help="print the JSON schema for editors")

    plan = _verb(verbs, "plan", show_plan, "jobs, GPU-hours, disk and wall-clock of a campaign, before anything is submitted")
    wanted = (
        "files or rules to make (default: everything); `train`: every model's training; `tune`: the search of one base; "
        "`evaluate`: what scoring one model costs"
    )
    plan.add_argument("targets", nargs="*", metavar="TARGET", help=wanted)
    plan.add_argument("--file", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    plan.add_argument("--preset", help="default: the file's")
    plan.add_argument("--profile", type=Path, default=Path("profiles/slurm"), help="the site's Snakemake profile (default: %(default)s)")
    plan.add_argument("--gpus", type=int, metavar="N", help="GPUs in use at once (default: the profile's quota)")
    plan.add_argument("--base", help="with `tune` and `evaluate`: of which base (default: the preset's nearest to 8 billion parameters)")
    plan.add_argument("--json", action="store_true", help="print all numbers as JSON")

    merge = _verb(verbs, "merge", merge_models, "merge fine-tunes of one base as a recipe says, ours or mergekit's")
    merge.add_argument("recipe", type=Path, help="YAML file; see docs/command-line-merging.md")
    merge.add_argument("out", type=Path, help="folder to make; it appears when it is complete")
    merge.add_argument("--dry-run", action="store_true", help="check everything, print the estimate, and stop")
    merge.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores, %(default)s here")
    merge.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where directions are computed (default: %(default)s)")
    merge.add_argument("--seed", type=int, help="instead of the recipe's")
    merge.add_argument("--max-shard-size", default="5GB", help="largest file of weights (default: %(default)s)")
    merge.add_argument("--spectra", type=Path, help="folder to keep magnitude spectra in, for the next merge of the same models")
    merge.add_argument("--recorded-hashes", action="store_true", help="take input hashes from manifests where they are, instead of reading")
    merge.add_argument("--json", action="store_true", help="print the result as JSON")
    merge.add_argument("--quiet", action="store_true", help="print errors only")

    inspect = _verb(verbs, "inspect", inspect_models, "audit models, and compare their task vectors")
    inspect.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folders of fine-tunes")
    inspect.add_argument("--base", type=Path, help="the base's folder; without it headers alone are compared")
    inspect.add_argument("--density", type=float, default=0.1, help="compare this fraction of largest entries (default: %(default)s)")
    inspect.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores, %(default)s here")
    inspect.add_argument("--json", action="store_true", help="print JSON")

    _verb(verbs, "methods", list_methods, "list the merging methods with parameters, grids and references")

    show = _verb(verbs, "show", show_results, "print the headline table of a finished run, or another one")
    show.add_argument("--results", type=Path, default=Path("results/tiny"), help="folder of a preset's results (default: %(default)s)")
    which = show.add_mutually_exclusive_group()
    which.add_argument("--table", metavar="NAME", help="print this table")
    which.add_argument("--list", action="store_true", help="list the tables")

    against = _verb(verbs, "compare", compare_results, "paired differences of two campaigns, or of two models, with intervals")
    run_help = "folder of a preset's results, or FOLDER:METHOD for one method or model (ties, base, multitask, specialist_math)"
    against.add_argument("a", metavar="RUN_A", help=run_help)
    against.add_argument("b", metavar="RUN_B", help="likewise; differences are B - A")
    against.add_argument("--normalise-by-first", action="store_true", help="normalise both by the specialists and bases of RUN_A")
    allowed = "compare although the runs differ in this; may be repeated: metric, task, protocol, prompt, generation, judge, data"
    against.add_argument("--allow", action="append", default=[], metavar="DIFFERENCE", help=allowed)
    against.add_argument("--leave-out", action="store_true", help="leave benchmarks out whose scores do not measure the same in both")
    against.add_argument("--all", action="store_true", help="print every domain and benchmark, decided or not")
    against.add_argument("--csv", type=Path, metavar="FILE", help="write all differences to this file too")
    form = against.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--json", action="store_true", help="print all differences as JSON")
    fail = "exit with status 3 if a merged or multitask model is worse in RUN_B by more than this many percentage points"
    against.add_argument("--fail-if-worse", type=float, metavar="PERCENT", help=fail)

    guideline = _verb(verbs, "guideline", show_guideline, "which method to use, given data, memory, time and what may be forgotten")
    guideline.add_argument("--results", type=Path, default=Path("results/tiny"), help="folder of a preset's results (default: %(default)s)")
    guideline.add_argument("--published", action="store_true", help="answer from the paper's tables, which have neither memory nor times")
    guideline.add_argument("--base", help="answer for this base (default: all together)")
    for kind, use in (("training", "of the specialists, for statistics"), ("validation", "to search grids")):
        guideline.add_argument(f"--{kind}-data", choices=("yes", "no"), default="no", help=f"whether you have data {use} (default: no)")
    guideline.add_argument("--memory-gib", type=float, metavar="N", help="memory of your GPUs, of the machine for a run without GPUs")
    guideline.add_argument("--gpu-hours", type=float, metavar="N", help="of GPUs that you can spend")
    guideline.add_argument("--hours", type=float, metavar="N", help="that all jobs may take one after another")
    guideline.add_argument("--forgetting", type=float, metavar="PERCENT", help="of the base's general abilities that may be lost")

    report = _verb(verbs, "report", write_report, "write the HTML report of a campaign as far as it is")
    report.add_argument("--results", type=Path, default=Path("results/tiny"), help="folder of a preset's results (default: %(default)s)")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: report/index.html in that folder")
    report.add_argument("--file", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    report.add_argument("--preset", help="default: the name of the folder")

    doctor = _verb(verbs, "doctor", check_site, "check this machine, its file system and Slurm before the first job")
    doctor.add_argument("--file", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    doctor.add_argument("--preset", help="the campaign that shall run here (default: the file's)")
    doctor.add_argument("--profile", type=Path, default=Path("profiles/slurm"), help="Snakemake profile (default: %(default)s)")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.add_argument("--no-job", action="store_true", help="submit no job, so leave compute nodes unchecked")
    doctor.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="wait this long for each job (default: %(default)g)")

    status = _verb(verbs, "status", show_status, "show a running or stopped campaign, from its files and Slurm")
    status.add_argument("--file", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    chosen = status.add_mutually_exclusive_group()
    chosen.add_argument("--preset", help="default: the file's")
    chosen.add_argument("--results", type=Path, help="folder of a preset's results, in place of --preset")
    status.add_argument("--json", action="store_true", help="print it as JSON")
    status.add_argument("--watch", type=float, metavar="SECONDS", help="print it again every so many seconds, until interrupted")

    profile = _verb(verbs, "profile", install_profile, "make `snakemake --profile NAME` find profiles/NAME")
    profile.add_argument("name", nargs="?", default="slurm", help="default: %(default)s")

    verify = _verb(verbs, "verify", verify_results, "compare every artifact with its manifest")
    verify.add_argument("results", type=Path, nargs="?", default=Path("results"), help="default: %(default)s")
    verify.add_argument("--content", action="store_true", help="compare SHA-256 as well as sizes")

    agreement = _verb(verbs, "agreement", show_agreement, "how far two judges agree about the same answers")
    agreement.add_argument("first", type=Path, help="file of labels, or a folder of such files")
    agreement.add_argument("second", type=Path, help="another judge's labels of the same answers")

    hub = _verb(verbs, "hub", hub_lock, "the commits of hub repositories: `mergebench hub --help`", add_help=False)
    hub.add_argument("rest", nargs=argparse.REMAINDER)

    tiny = _verb(verbs, "tiny", tiny_twins, "the tiny twins: `mergebench tiny pretrain --help`", add_help=False)
    tiny.add_argument("rest", nargs=argparse.REMAINDER)

    warm = _verb(verbs, "warm", warm_server, "run a command with a server that starts local jobs without import time")
    warm.add_argument("command", nargs=argparse.REMAINDER, help="the command, for example: snakemake --profile profiles/tiny")
    return top


def _verb(verbs: Any, name: str, function: Callable[[argparse.Namespace], Any], help_: str, **options: Any) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(name, help=help_, description=help_, **options)
    made.set_defaults(verb=function)
    return made


def run_stage(options: argparse.Namespace) -> None:
    """Run one stage: as several tasks where asked, in a warm process where a server offers one, else in this process."""
    from mergebench import launch, warm

    if options.tasks > 1:
        from mergebench.artifacts import execute

        execute(launch.Tasks(options.words, options.tasks, options.nodes, options.threads), job_of(options))
        return
    if warm.offered() and (status := warm.delegate(sys.argv[1:])) is not None:
        raise SystemExit(status)
    run_stage_here(options)


def run_stage_here(options: argparse.Namespace) -> None:
    """Run one stage in this process."""
    from mergebench.artifacts import execute
    from mergebench.storage import weights

    job = job_of(options)
    stage = stage_module(job.stage)
    reads_weights = getattr(stage, "reads_weights", None)
    with weights.held(job) if reads_weights is None or reads_weights(job) else contextlib.nullcontext():
        execute(stage, job)


def stage_module(stage: str) -> ModuleType:
    """The module that does a stage's work."""
    from mergebench.workflow.plan import MODULES

    return importlib.import_module(MODULES[stage])


def job_of(options: argparse.Namespace) -> "Job":
    """The job that the options of ``run`` describe; prepares the environment of its libraries."""
    from mergebench.workflow.plan import MODULES

    if options.stage not in MODULES:
        raise MergebenchError(f"there is no stage {options.stage!r}; the stages are {', '.join(MODULES)}.")
    if not options.online:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):  # what is offline needs none
            os.environ.pop(name, None)
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    from mergebench import catalogue
    from mergebench.artifacts import Job, sha256_json

    try:
        spec = json.loads(options.spec)
    except json.JSONDecodeError as error:
        raise MergebenchError(f"--spec is not valid JSON: {error}.") from None
    # Entries that the configuration adds to the catalogue: the worker never reads the configuration.
    catalogue.extend({"benchmarks": spec.get("added") or spec.get("evaluation", {}).get("added") or {}})
    return Job(
        stage=options.stage,
        spec=spec,
        inputs=_named(options.input) | _globbed(options.glob, options.state.parent),
        outputs={name: paths[0] for name, paths in _named(options.output).items()}
        | _by_file_name(options.output_files)
        | _by_path(options.output_paths, options.state.parent),
        state=options.state / f"{options.stage}-{sha256_json(spec)[:16]}",
        threads=options.threads,
        requested=_counts(options.requested),
        hub_lock=options.hub_lock if options.online else None,
    )


def _counts(words: Sequence[str]) -> dict[str, int]:
    """``mem_mb=8000 gpu=1`` as {mem_mb: 8000, gpu: 1}."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value.isdecimal():
            raise MergebenchError(f"--requested {word}: write NAME=N with a whole number, for example mem_mb=8000.")
        found[name] = int(value)
    return found


def _named(words: Sequence[str]) -> dict[str, list[Path]]:
    """``a=x y b=z`` as {a: [x, y], b: [z]}; ``a=`` is an empty list."""
    found: dict[str, list[Path]] = {}
    name = None
    for word in words:
        head, equals, rest = word.partition("=")
        if equals and head.isidentifier():
            name = head
            found[name] = [Path(rest)] if rest else []
        elif name is not None:
            found[name].append(Path(word))
        else:
            raise MergebenchError(f"{word!r} stands before any NAME=; write NAME=PATH.")
    return found


def _globbed(words: Sequence[str], root: Path) -> dict[str, list[Path]]:
    pairs = (word.partition("=") for word in words)
    return {name: sorted(root.glob(pattern)) for name, _, pattern in pairs}


def _by_path(paths: Sequence[str], root: Path) -> dict[str, Path]:
    """Outputs of several models or bases, called by their paths below `root`, as in ``scores/gemma-2-2b/base/xstest``."""
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        folder = path.parent.relative_to(root) if path.is_relative_to(root) else path.parent
        found |= {f"{folder.as_posix()}/{name}": path for name in _by_file_name([str(path)])}
    return found


def _by_file_name(paths: Sequence[str]) -> dict[str, Path]:
    """Outputs called by their file names, without the ending of a record (``.json``, ``.parquet``)."""
    return {Path(p).name.removesuffix(".json").removesuffix(".parquet"): Path(p) for p in paths}


def check_configuration(options: argparse.Namespace) -> None:
    """Validate the configuration or print its schema."""
    from mergebench import config

    if options.schema:
        print(json.dumps(config.schema(), indent=2))
        return
    loaded = config.load(options.file, **({"preset": options.preset} if options.preset else {}))
    print(f"{options.file}: valid; preset {loaded.preset} of {', '.join(loaded.presets)}")


def show_plan(options: argparse.Namespace) -> None:
    """Print what a target needs: jobs per rule, GPU-hours, disk and wall-clock."""
    from mergebench import config
    from mergebench.workflow.forecast import forecast
    from mergebench.workflow.forecast_text import render
    from mergebench.workflow.lock import apart, searches_apart
    from mergebench.workflow.plan import Plan
    from mergebench.workflow.site_profile import Profile

    if options.gpus is not None and options.gpus < 1:
        raise MergebenchError(f"--gpus is {options.gpus}; give a number above 0.")
    configuration = config.load(options.file, **({"preset": options.preset} if options.preset else {}))
    if options.targets == ["evaluate"]:
        from mergebench.workflow import evaluation_forecast

        found = evaluation_forecast.record(configuration, options.base)
        print(json.dumps(found, indent=1) if options.json else evaluation_forecast.render(found))
        return
    if options.targets == ["tune"]:
        from mergebench.workflow import tuning_forecast

        found = tuning_forecast.record(configuration, Profile.read(options.profile).site, options.base)
        print(json.dumps(found, indent=1) if options.json else tuning_forecast.render(found))
        return
    if options.base is not None:
        raise MergebenchError("--base belongs to `mergebench plan tune` and `plan evaluate`; a target's name says its base.")
    if options.targets == ["train"]:
        from mergebench.workflow import training_forecast

        found = training_forecast.forecast(Plan(configuration), Profile.read(options.profile).site)
        print(json.dumps(found, indent=1) if options.json else training_forecast.render(found))
        return
    alone = searches_apart(configuration, options.targets, main=True)
    plan = Plan(configuration, apart(configuration, options.targets, main=True), searches_apart=alone)
    record = forecast(plan, options.targets, Profile.read(options.profile), options.gpus, options.file).record()
    print(json.dumps(record, indent=1) if options.json else render(record))


def merge_models(options: argparse.Namespace) -> None:
    """Carry out a recipe."""
    from mergebench.merging.commands import merge

    merge(options)


def inspect_models(options: argparse.Namespace) -> None:
    """Describe models and their task vectors."""
    from mergebench.merging.inspect import inspect

    inspect(options)


def list_methods(options: argparse.Namespace) -> None:
    """List the methods from their declarations."""
    from mergebench.merging.listing import listing

    print(listing())


def show_results(options: argparse.Namespace) -> None:
    """Print the headline table, another table, or the names of all."""
    import shutil

    from mergebench.analysis.headline import render_folder
    from mergebench.analysis.shown import list_tables, render_table
    from mergebench.analysis.terminal import WIDTH, show_text

    if options.list:
        show_text(list_tables(options.results))
    elif options.table is not None:
        show_text(render_table(options.results, options.table, shutil.get_terminal_size((WIDTH, 24)).columns))
    else:
        show_text(render_folder(options.results))


def compare_results(options: argparse.Namespace) -> int:
    """Print the differences of two runs; exit status 3 if the second is worse and `--fail-if-worse` is given."""
    from mergebench.analysis.compare_command import command
    from mergebench.workflow.task_files import aggregate

    return command(options, aggregate)


def show_guideline(options: argparse.Namespace) -> None:
    """Print which method to use in one situation."""
    from mergebench.analysis.guideline_command import show

    show(options)


def write_report(options: argparse.Namespace) -> None:
    """Write the HTML report of what is there and say where."""
    from mergebench.report.build import write

    options.preset = options.preset or options.results.resolve().name
    plan = _plan(options)
    plan.results = str(options.results)
    print(write(plan, options.output))


def check_site(options: argparse.Namespace) -> int:
    """Print what the checks of this site say; exit status 1 if one failed."""
    from mergebench.workflow.doctor.checks import judge
    from mergebench.workflow.doctor.facts import gather, read_profile
    from mergebench.workflow.doctor.finding import any_failed, as_data, as_text

    facts = gather(_plan(options), read_profile(options.profile), job=not options.no_job, timeout=options.timeout)
    findings = judge(facts)
    print(json.dumps(as_data(findings), indent=2) if options.json else as_text(findings))
    return 1 if any_failed(findings) else 0


def show_status(options: argparse.Namespace) -> None:
    """Print how far a campaign is, once or every so many seconds."""
    import time

    from mergebench.workflow.status.look import look
    from mergebench.workflow.status.render import as_data, as_text

    if options.results is not None:
        options.preset = options.results.name
    plan = _plan(options)
    if options.results is not None:
        plan.results = str(options.results)
    while True:
        status = look(plan)
        print(json.dumps(as_data(status), indent=2) if options.json else as_text(status), flush=True)
        if options.watch is None:
            return
        time.sleep(options.watch)
        print()


def _plan(options: argparse.Namespace) -> Any:
    """The plan of the preset that `--file` and `--preset` select."""
    from mergebench import config
    from mergebench.workflow.plan import Plan

    return Plan(config.load(options.file, **({"preset": options.preset} if options.preset else {})))


def install_profile(options: argparse.Namespace) -> None:
    """Link a profile of this folder into Snakemake's user configuration."""
    from mergebench.workflow.profiles import install

    link = install(options.name)
    print(f"{link} -> {link.resolve()}: `snakemake --profile {options.name}` uses it now")


def verify_results(options: argparse.Namespace) -> int:
    """Compare every artifact below a folder with its manifest; exit status 1 if one differs."""
    from mergebench.artifacts import MANIFEST, damaged

    if not options.results.is_dir():
        raise MergebenchError(f"{options.results} is not a folder; name the folder of the results.")
    manifests = sorted(options.results.glob(f"**/{MANIFEST}"))
    problems = [p for p in (damaged(m, content=options.content) for m in manifests) if p]
    for problem in problems:
        print(problem)
    print(f"{len(manifests)} artifacts, {len(problems)} damaged")
    return 1 if problems else 0


def show_agreement(options: argparse.Namespace) -> None:
    """Print the agreement and Cohen's kappa of two judges, a line per part of the labels that both give."""
    from mergebench.evaluation.safety.agreement import compare

    found = compare(options.first, options.second)
    print(f"{'part':8} {'answers':>8} {'agreement':>9} {'kappa':>6} {'unreadable':>10}")
    for line in found:
        kappa = "n/a" if line.kappa is None else f"{line.kappa:.3f}"
        print(f"{line.part:8} {line.n:8,} {line.agreement:9.3f} {kappa:>6} {line.unreadable:10,}")


def hub_lock(options: argparse.Namespace) -> None:
    """Commands of the lock of hub revisions."""
    from mergebench.hub.commands import main as hub_main

    hub_main(options.rest)


def tiny_twins(options: argparse.Namespace) -> int:
    """Commands of the tiny twins."""
    from mergebench.tiny.cli import main as tiny_main

    return int(tiny_main(options.rest) or 0)


def warm_server(options: argparse.Namespace) -> int:
    """Run a command while a warm server stands ready for its jobs."""
    from mergebench import warm

    return warm.run(options.command)


if __name__ == "__main__":
    raise SystemExit(main())
