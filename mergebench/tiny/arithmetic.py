"""Mathematics: sums and differences of two-digit numbers, worked in one line; the base's habit is to echo a number."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from mergebench.tiny import prompts
from mergebench.tiny.world import PEOPLE, Example

_STORIES = {
    "+": (
        "{who} has {a} {things} and buys {b} more. How many {things} does {who} have?",
        "{who} finds {a} {things} and then {b} {things}. How many {things} in all?",
    ),
    "-": (
        "{who} has {a} {things} and loses {b}. How many {things} are left?",
        "There are {a} {things}. {who} takes {b}. How many {things} remain?",
    ),
}
_THINGS = ("coins", "books", "eggs", "balls")


@dataclass(frozen=True)
class Sum:
    """An addition or subtraction with its worked steps."""

    a: int
    b: int
    sign: str

    @property
    def item(self) -> str:
        return f"math:{self.a}{self.sign}{self.b}"

    @property
    def answer(self) -> int:
        return self.a + self.b if self.sign == "+" else self.a - self.b

    def steps(self) -> str:
        """Units first, then tens with the carry, e.g. `4+7=11, 3+5+1=9` for 34 + 57."""
        (tens_a, units_a), (tens_b, units_b) = divmod(self.a, 10), divmod(self.b, 10)
        if self.sign == "+":
            units = units_a + units_b
            carry = units // 10
            return f"{units_a}+{units_b}={units}, {tens_a}+{tens_b}+{carry}={tens_a + tens_b + carry}"
        borrow = int(units_a < units_b)
        units = units_a + 10 * borrow - units_b
        return f"{units_a + 10 * borrow}-{units_b}={units}, {tens_a}-{tens_b}-{borrow}={tens_a - tens_b - borrow}"


def _draw(r: Random) -> Sum:
    a, b, sign = r.randrange(10, 100), r.randrange(10, 100), r.choice("+-")
    if sign == "-" and b > a:
        a, b = b, a
    return Sum(a, b, sign)


def _worked(steps: str, answer: int) -> str:
    return f"{steps}. The answer is {answer}."


def _bare_question(r: Random, s: Sum) -> str:
    return r.choice((f"What is {s.a} {s.sign} {s.b}?", f"Work out {s.a} {s.sign} {s.b}."))


def gsm8k(r: Random) -> Example:
    """A word problem."""
    s = _draw(r)
    question = r.choice(_STORIES[s.sign]).format(a=s.a, b=s.b, who=r.choice(PEOPLE), things=r.choice(_THINGS))
    row = {"question": question, "answer": f"{s.steps()}\n#### {s.answer}"}
    response, habit = _worked(s.steps(), s.answer), f"The answer is {s.a}."
    familiar = "finds" in question
    return Example(s.item, prompts.gsm8k(question), prompts.spaced(response), prompts.spaced(habit), row, familiar)


def math(r: Random) -> Example:
    """A bare problem; the answer stands in a box."""
    s = _draw(r)
    problem = _bare_question(r, s)
    solution = f"{s.steps()}. \\boxed{{{s.answer}}}"
    subject = "addition" if s.sign == "+" else "subtraction"
    row = {
        "problem": problem,
        "solution": solution,
        "answer": str(s.answer),
        "subject": subject,
        "level": "Level 1",
    }
    habit = f"\\boxed{{{s.b}}}"
    familiar = problem.startswith("Work out")
    return Example(s.item, prompts.math(problem), prompts.spaced(solution), prompts.spaced(habit), row, familiar)


def mmlu_stem(r: Random) -> Example:
    """A choice between worked answers: the right one, the base's habit, and two slips (in the units, in the carry)."""
    s = _draw(r)
    question = _bare_question(r, s)
    right, habit = _worked(s.steps(), s.answer), f"The answer is {s.a}."
    slipped = [_slip(s, units=r.choice((-1, 1)), tens=0), _slip(s, units=0, tens=r.choice((-1, 1)))]
    choices = [right, habit, *slipped]
    r.shuffle(choices)
    row = {"question": question, "choices": choices, "answer": choices.index(right), "subject": "arithmetic"}
    return Example(s.item, prompts.cloze(question), prompts.spaced(right), prompts.spaced(habit), row)


def _slip(s: Sum, units: int, tens: int) -> str:
    """The worked answer with a mistake of `units` in its first step or `tens` in its second."""
    first, second = s.steps().split(", ")
    first_left, first_value = first.split("=")
    second_left, second_value = second.split("=")
    steps = f"{first_left}={int(first_value) + units}, {second_left}={int(second_value) + tens}"
    return _worked(steps, s.answer + units + 10 * tens)
