"""From a model's answer to a program and its tests, and from verdicts to outcomes.

``protocol`` says how an answer becomes a program:

- *corrected* (and *paper*, which prints nothing about it): code is taken out of its fence, a repeated prompt or a whole
  function replaces the prompt's, chat around it is left out, and the body is indented.
- *released*: bigcode-evaluation-harness's post-processing: prompt and answer, joined as they are (the stop strings have
  cut the answer already).
"""

import ast
import math
import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
STATEMENT = re.compile(r"(?:def|class|import|from|@|async def)\b|@|#|[A-Za-z_]\w*\s*=[^=]")

Scored = dict[str, dict[str, Any]]
Program = dict[str, str]


def unfenced(answer: str, name: str = "") -> str:
    """The fenced blocks of an answer: the first that defines `name`, else the first; the answer if it has none."""
    blocks = [match[1] for match in FENCE.finditer(answer)]
    return next((block for block in blocks if name and _defines(block, name)), blocks[0] if blocks else answer)


def _defines(text: str, name: str) -> bool:
    return re.search(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{re.escape(name)}\b|^{re.escape(name)}[ \t]*=", text, re.MULTILINE) is not None


def body(answer: str) -> str:
    """A completion as the indented body of a function.

    A model may continue with the line break, begin in column one, or indent all lines but the first.
    """
    lines = answer.rstrip().strip("\n").split("\n")
    if not lines[0].strip() or lines[0][0] in " \t":
        return "\n".join(lines)
    rest = [line for line in lines[1:] if line.strip()]
    if rest and all(line[0] in " \t" for line in rest) and not lines[0].rstrip().endswith(":"):
        return "\n".join(["    " + lines[0], *lines[1:]])
    return textwrap.indent("\n".join(lines), "    ")


def without_chat(code: str) -> str:
    """Text without the prose before its first statement and after its last one, if that makes it Python.

    Only whole lines at the two ends go; a text that is Python, or that no such cut makes Python, stays as it is.
    """
    if _is_python(code):
        return code
    lines = code.split("\n")
    starts = [index for index, line in enumerate(lines) if STATEMENT.match(line)]
    if not starts:
        return code
    inside = lines[starts[0] :]
    ends = [index for index in range(len(inside), 0, -1) if index == len(inside) or _ends_block(inside, index)]
    for end in ends[:50]:
        text = "\n".join(inside[:end])
        if _is_python(text):
            return text
    return code


def _ends_block(lines: list[str], index: int) -> bool:
    """Whether a line in column one follows, where a cut can fall between two statements."""
    return bool(lines[index].strip()) and not lines[index][0].isspace()


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def complete_function(doc: dict[str, Any], answer: str, protocol: str = "corrected") -> str:
    """HumanEval+: prompt and completion. An answer that repeats the whole function replaces the prompt's."""
    prompt = doc["prompt"].strip()
    if protocol == "released":
        return f"{prompt}{answer}"
    code = textwrap.dedent(unfenced(answer, doc["entry_point"])) if "```" in answer else answer
    if _defines(code, doc["entry_point"]):
        return f"{prompt}\n    pass\n\n{without_chat(textwrap.dedent(code))}"
    return f"{prompt}\n{body(code)}"


def defined_function(doc: dict[str, Any], answer: str, protocol: str = "corrected") -> str:
    """MBPP+: the function that the answer defines."""
    if protocol == "released":
        return f'"""\n{doc["prompt"]}\n{doc["test_list"][0]}\n"""\n{answer}'
    return without_chat(textwrap.dedent(unfenced(answer, entry_name(doc))))


def entry_name(doc: dict[str, Any]) -> str:
    """The function that MBPP+'s first assertion calls; empty if it calls none."""
    try:
        tree = ast.parse(doc["test_list"][0])
    except (SyntaxError, ValueError, IndexError):
        return ""
    called = [n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    own = [name for name in called if name not in ("set", "sorted", "list", "tuple", "round", "abs", "len", "str", "int", "float")]
    return (own or called or [""])[0]


@lru_cache(maxsize=4)
def imports(tests: str) -> str:
    """The import statements at the top of tests: a published program shares them with its tests, so ours gets them too."""
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    return "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))


def _pair(program: str, tests: str, entry: str) -> Program:
    return {"program": f"{program}\n\n{imports(tests)}\n", "tests": tests, "entry": entry}


def prepare(benchmark: str, doc: dict[str, Any], answers: Sequence[str], protocol: str = "corrected") -> list[Program]:
    """The programs of a row's answers, one per sample, each with its tests and the name that these take from it.

    Args:
        benchmark: ``humanevalplus`` or ``mbppplus``.
        doc: the row.
        answers: the samples; any text, also none.
        protocol: see the module.
    """
    if benchmark == "humanevalplus":
        tests = f"{doc['test']}\n\ncheck({doc['entry_point']})\n"
        return [_pair(complete_function(doc, answer, protocol), tests, doc["entry_point"]) for answer in answers]
    return [_pair(defined_function(doc, answer, protocol), doc["test"], entry_name(doc)) for answer in answers]


def _scored(programs: list[Program], answers: Sequence[str]) -> Scored:
    return {"pass@1": {"outcome": math.nan, "response": answers[0], "programs": programs}}


def function_body(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Scored:
    """lm-eval's ``process_results`` for HumanEval+: the programs to run, one per sample."""
    return _scored(prepare("humanevalplus", doc, results[0]), results[0])


def whole_function(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Scored:
    """lm-eval's ``process_results`` for MBPP+: the programs to run, one per sample."""
    return _scored(prepare("mbppplus", doc, results[0]), results[0])


def released_function_body(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Scored:
    """`function_body` under the released protocol."""
    return _scored(prepare("humanevalplus", doc, results[0], "released"), results[0])


def released_whole_function(doc: dict[str, Any], results: Sequence[Sequence[str]]) -> Scored:
    """`whole_function` under the released protocol."""
    return _scored(prepare("mbppplus", doc, results[0], "released"), results[0])


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that one of k samples passes, without bias: 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, section 2.1).

    Raises:
        ValueError: there are fewer than k samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {samples} samples")
    return 1.0 - math.comb(samples - passed, k) / math.comb(samples, k)


def settle(items: list[Any], *, store: Path | None = None, **settings: Any) -> dict[str, Any]:
    """Run the programs of a benchmark's items; an outcome is the share of its samples that pass (pass@1).

    Args:
        items: each with ``extra["programs"]`` (`prepare`), which ``passed`` and ``reasons`` replace, a value per sample.
        store: a file that keeps verdicts while a job runs.
        settings: as for `sandbox.run`.

    Returns:
        What confined the programs.
    """
    from mergebench.evaluation.code import sandbox

    tasks = [sandbox.Task(**program) for item in items for program in item.extra["programs"]]
    verdicts, facts = sandbox.run(tasks, store=store, **settings)
    remaining = iter(verdicts)
    for item in items:
        own = [next(remaining) for _ in item.extra.pop("programs")]
        item.outcome = pass_at_k(len(own), sum(verdict.passed for verdict in own), 1)
        item.extra |= {"passed": [v.passed for v in own], "reasons": [v.reason for v in own]}
    return facts
