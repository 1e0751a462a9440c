"""Final answers of worked solutions: found, and compared."""

import pytest

from mergebench.evaluation import mathematics


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        (r"so \boxed{\frac{1}{2}} and $7$.", r"\frac{1}{2}", "boxed"),
        (r"\boxed{1}, no: \boxed{a^{2}}", "a^{2}", "boxed"),
        (r"\boxed 5$ .", "5", "boxed"),
        ("3 + 4 = 7. The answer is 7.", "7", "sentence"),
        ("The answer is 3.5. Done", "3.5", "sentence"),
        ("The final answer is: $x+1$. I hope it is correct.", "x+1", "sentence"),
        ("thus $3$ and then $4$", "4", "formula"),
        (r"so $$\frac{1}{2}\ge p.$$Reducing it, we get $p\le 3$.", r"p\le 3", "formula"),
        ("I do not know", None, "none"),
        ("", None, "none"),
        (r"\boxed{unclosed", None, "none"),
    ],
)
def test_final_answer(text, answer, found):
    assert mathematics.final_answer(text) == (answer, found)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        (r"\frac12", r"\frac{1}{2}", True),
        ("0.5", r"\frac{1}{2}", True),
        ("1,000", "1000", True),
        ("4.0", "4", True),
        ("12", "13", False),
        (r"x^2+2x+1", r"(x+1)^2", True),
        (r"x^2+1", r"(x+1)^2", False),
        ("zzqx", "4", False),
        ("", "4", False),
    ],
)
def test_equivalence(answer, reference, same):
    assert mathematics.equivalent(answer, reference) is same


def test_scoring_works_outside_the_main_thread():
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(mathematics.equivalent("x+1", "1+x")))
    thread.start()
    thread.join()
    assert found == [True]


def test_rubbish_and_gold():
    doc = {"answer": "4"}
    assert mathematics.process_results(doc, [r"2+2=\boxed{4}"])["equivalent"]["outcome"] == 1.0
    assert mathematics.process_results(doc, ["zzqx"])["equivalent"]["outcome"] == 0.0
