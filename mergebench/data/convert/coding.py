"""Coding: HumanEval+, MBPP+, CoNaLa and their training sets."""

from mergebench.data.convert.instruction import instruction
from mergebench.data.convert.selection import exchange, given
from mergebench.data.records import Parts, Record, Row

# The published test of HumanEval/32 (find_zero) applies its polynomial to the arguments in the wrong order, so
# that no solution can pass; EvalPlus corrected it later. The correction asks what the published line meant to.
_WRONG_ORDER = "assert _poly(*candidate(*inp), inp) <= 0.0001"
_RIGHT_ORDER = "assert abs(_poly(*inp, candidate(*inp))) <= 0.0001"
# The published tests of Mbpp/737, 787 and 794 compare and then drop the result, so that any function passes.
_DROPPED = "        exact_match = exp == (out is not None)\n"
_ASSERTED = f"{_DROPPED}    assert exact_match\n"


def humanevalplus(parts: Parts, seed: int) -> list[Row]:
    """HumanEval+: `test` defines ``check(candidate)`` with the base and plus inputs and the expected results.

    prompt + completion + test + ``check(<entry_point>)`` is a program that fails unless the completion is right.
    """
    return [
        {
            "id": record["task_id"],
            "prompt": record["prompt"],
            "test": _corrected(record),
            "entry_point": record["entry_point"],
            "canonical_solution": record["canonical_solution"],
        }
        for record in parts["rows"]
    ]


def _corrected(record: Record) -> str:
    test = record.text("test").replace(_WRONG_ORDER, _RIGHT_ORDER).strip()
    if "def check(" not in test:
        raise record.error("'test' does not define check(candidate), expected the format of HumanEval+")
    # Some copies end with the call, which the evaluator makes; twice would take twice as long.
    return test.removesuffix(f"check({record['entry_point']})").rstrip() + "\n"


def mbppplus(parts: Parts, seed: int) -> list[Row]:
    """MBPP+: code + test is a program; `test` runs the plus tests, `test_list` holds the original assertions.

    Three published tests assert nothing; ours assert what they compare.
    """
    return [
        {
            "id": f"Mbpp/{record['task_id']}",
            "prompt": record["prompt"],
            "test_list": list(record["test_list"]),
            "test": "\n".join([*record["test_imports"], record["test"].replace(_DROPPED, _ASSERTED)]),
            "code": record["code"],
        }
        for record in parts["rows"]
    ]


def conala(parts: Parts, seed: int) -> list[Row]:
    """CoNaLa: the annotators' rewritten intent where there is one, else the original title."""
    return [
        {
            "id": f"{record['question_id']}/{index}",
            "question_id": str(record["question_id"]),
            "intent": record["rewritten_intent"] or record["intent"],
            "snippet": record["snippet"],
        }
        for index, record in enumerate(parts["rows"])
    ]


def magicoder(record: Record, index: int) -> Row | str:
    """Magicoder-Evol-Instruct."""
    return exchange(given(record, "instruction").strip(), given(record, "response").strip(), id=f"{index:06d}")


def code_alpaca(parts: Parts, seed: int) -> list[Row]:
    """Code Alpaca. Two of its records have an empty output and are left out."""
    return [
        {"id": f"{index:05d}", **instruction(record), "response": record.text("output").strip()}
        for index, record in enumerate(parts["rows"])
        if record.text("output").strip()
    ]
