"""The command line: one verb per thing that a person or a rule asks for. Heavy imports stay inside the verbs."""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mergebench import __version__
from mergebench.errors import MergebenchError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Errors meant for the user are printed as one sentence."""
    options = parser().parse_args(arguments)
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
    run.add_argument("stage", help="fetch_base | prepare | train | vectors | statistics | tune | merge | evaluate | analyse")
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
    run.add_argument("--state", type=Path, default=Path("results/.state"), help="folder for resumable state (default: %(default)s)")
    run.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    run.add_argument("--online", action="store_true", help="allow the network (only the fetch stages need it)")

    configuration = _verb(verbs, "config", check_configuration, "check config.yaml, or print its JSON schema")
    configuration.add_argument("--file", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    configuration.add_argument("--preset", help="check this preset's names (default: the file's)")
    configuration.add_argument("--schema", action="store_true", help="print the JSON schema for editors")

    plan = _verb(verbs, "plan", show_plan, "count the jobs of a campaign")
    plan.add_argument("--file", type=Path, default=Path("config.yaml"), help="default: %(default)s")
    plan.add_argument("--preset", help="default: the file's")

    _verb(verbs, "methods", list_methods, "list the merging methods with parameters, grids and references")

    show = _verb(verbs, "show", show_results, "print the headline table of a finished run")
    show.add_argument("--results", type=Path, default=Path("results/tiny"), help="folder of a preset's results (default: %(default)s)")

    profile = _verb(verbs, "profile", install_profile, "make `snakemake --profile NAME` find profiles/NAME")
    profile.add_argument("name", nargs="?", default="slurm", help="default: %(default)s")

    verify = _verb(verbs, "verify", verify_results, "compare every artifact with its manifest")
    verify.add_argument("results", type=Path, nargs="?", default=Path("results"), help="default: %(default)s")
    verify.add_argument("--content", action="store_true", help="compare SHA-256 as well as sizes")

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
    """Run one stage, in a warm process where a server offers one."""
    from mergebench import warm

    if warm.offered() and (status := warm.delegate(sys.argv[1:])) is not None:
        raise SystemExit(status)
    run_stage_here(options)


def run_stage_here(options: argparse.Namespace) -> None:
    """Run one stage in this process."""
    from mergebench.workflow.plan import MODULES

    if options.stage not in MODULES:
        raise MergebenchError(f"there is no stage {options.stage!r}; the stages are {', '.join(MODULES)}.")
    if not options.online:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false"}
    from mergebench.artifacts import Job, execute, sha256_json

    try:
        spec = json.loads(options.spec)
    except json.JSONDecodeError as error:
        raise MergebenchError(f"--spec is not valid JSON: {error}.") from None
    module = importlib.import_module(MODULES[options.stage])
    execute(
        module,
        Job(
            stage=options.stage,
            spec=spec,
            inputs=_named(options.input) | _globbed(options.glob, options.state.parent),
            outputs={name: paths[0] for name, paths in _named(options.output).items()} | _by_file_name(options.output_files),
            state=options.state / f"{options.stage}-{sha256_json(spec)[:16]}",
            threads=options.threads,
        ),
    )


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
    """Print the number of jobs per rule when nothing has been made yet."""
    from mergebench import config
    from mergebench.workflow.plan import Plan

    plan = Plan(config.load(options.file, **({"preset": options.preset} if options.preset else {})))
    counts = plan.job_counts()
    width = max(map(len, counts))
    for rule, count in counts.items():
        print(f"{rule:{width}}  {count:>6}")
    print(f"{'total':{width}}  {sum(counts.values()):>6}")


def list_methods(options: argparse.Namespace) -> None:
    """List the methods from their declarations."""
    from mergebench.merging.listing import listing

    print(listing())


def show_results(options: argparse.Namespace) -> None:
    """Print the headline table."""
    from mergebench.analysis.headline import render_folder

    print(render_folder(options.results))


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
