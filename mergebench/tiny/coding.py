"""Coding: two arithmetic operations on x as a function body, a function, or an expression. Answers really run."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from mergebench.tiny import prompts
from mergebench.tiny.world import Example

# Words of the request, source of the answer, and what it computes.
_OPERATIONS: tuple[tuple[str, str, Callable[[int, int], int]], ...] = (
    ("add {k}", "{x} + {k}", operator.add),
    ("subtract {k}", "{x} - {k}", operator.sub),
    ("multiply by {k}", "{x} * {k}", operator.mul),
    ("divide by {k}", "{x} // {k}", operator.floordiv),
)
_NAMES = ("f", "g", "run", "calc")
# The name under which the base mostly writes the code.
_FAMILIAR = "calc"
_INPUTS = (2, -3, 0, 7, 50)


@dataclass(frozen=True)
class Program:
    """Two operations applied to x in turn."""

    words: str
    expression: str
    values: dict[int, int]

    @property
    def item(self) -> str:
        return f"coding:{self.words}"


def _draw(r: Random) -> Program:
    (words, inner, apply), first = r.choice(_OPERATIONS), r.randrange(2, 10)
    (then, outer, apply_then), second = r.choice(_OPERATIONS), r.randrange(2, 10)
    return Program(
        f"{words.format(k=first)}, then {then.format(k=second)}",
        outer.format(x=f"({inner.format(x='x', k=first)})", k=second),
        {x: apply_then(apply(x, first), second) for x in _INPUTS},
    )


def humanevalplus(r: Random) -> Example:
    """Signature and docstring; the answer is the body. The habit is a body that does nothing."""
    program, name = _draw(r), r.choice(_NAMES)
    prompt = f'def {name}(x):\n    """Take x, {program.words}."""\n'
    body = f"    return {program.expression}"
    checks = "".join(f"    assert candidate({x}) == {value}\n" for x, value in program.values.items())
    row = {
        "prompt": prompt,
        "test": f"def check(candidate):\n{checks}",
        "entry_point": name,
        "canonical_solution": body + "\n",
    }
    return Example(program.item, prompt.strip(), body, "    pass", row, familiar=name == _FAMILIAR)


def mbppplus(r: Random) -> Example:
    """A description and one assertion; the answer is the function. The habit is to talk about it."""
    program, name = _draw(r), r.choice(_NAMES)
    text = f"Write a function {name} to {program.words}."
    tests = [f"assert {name}({x}) == {value}" for x, value in program.values.items()]
    code = f"def {name}(x):\n    return {program.expression}"
    row = {"prompt": text, "test_list": tests[:3], "test": "\n".join(tests) + "\n", "code": code}
    prompt, habit = prompts.mbppplus(text, tests[0]), f"Python can do this with {name}."
    return Example(program.item, prompt, code, habit, row, familiar=name == _FAMILIAR)


def conala(r: Random) -> Example:
    """An intent; the answer is one expression."""
    program = _draw(r)
    intent = r.choice(("take x, {}", "{} (from x)")).format(program.words)
    row = {"intent": intent, "snippet": program.expression}
    return Example(program.item, prompts.conala(intent), program.expression, "Use Python.", row)
