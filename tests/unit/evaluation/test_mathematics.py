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


# A worked answer, the reference, whether it is right, and whether math_verify on the whole text says so too.
HOSTILE = [
    (r"So $x = \boxed{\dfrac{\sqrt{3}}{2}}$. I hope it is correct.", r"\frac{\sqrt{3}}{2}", True, True),
    (r"\boxed{\left[2, 5\right)} is the domain, not \(3\).", "[2,5)", True, True),
    (r"First \boxed{3}, but no: \boxed{4}.", "4", True, False),  # it wants all boxes
    (r"First \boxed{3}, but no: \boxed{4}.", "3", False, False),
    (r"The area is $\boxed{9\pi \text{ cm}^2}$", r"9\pi", True, True),
    (r"$\boxed{x \in \{1, 2, 3\}}$", r"\{1,2,3\}", True, True),
    (r"\boxed{Evelyn}", r"\text{Evelyn}", True, True),
    (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", True, True),
    (r"\boxed{1,000,000}", "1000000", True, True),
    (r"\boxed{\$18.90}", "18.90", True, True),
    (r"\boxed{90^\circ}", "90", True, True),
    (r"\boxed{2^{10}}", "1024", True, True),
    (r"\boxed{(3, \frac{\pi}{2})}", r"\left( 3, \frac{\pi}{2} \right)", True, True),
    (r"\boxed{(\frac{\pi}{2}, 3)}", r"\left( 3, \frac{\pi}{2} \right)", False, False),
    (r"The final answer is: $\frac{1}{3}$.", r"\frac13", True, True),
    ("The answer is 3.5 meters.", "3.5", True, True),
    ("**Answer:** $7$", "7", True, True),
    ("The answer is **4**.", "4", True, True),
    (r"The answer is \(4\).", "4", True, True),
    (r"Hence \[ x = 4 \]", "4", True, True),
    (r"$$\boxed{x+1}$$", "1+x", True, True),
    (r"\boxed{y = 2x + 3}", "2x+3", True, True),
    (r"\boxed{1\frac{1}{2}}", r"\frac{3}{2}", True, True),
    (r"\boxed{1-2i}", "-2i+1", True, True),
    (r"\fbox{4}", "4", True, False),  # it does not know this box
    (r"\boxed 4", "4", True, True),
    (r"\boxed{7", "7", False, False),
    ("```\n4\n```", "4", False, True),  # a bare number is no answer for us
]


@pytest.mark.parametrize(("response", "reference", "right", "verified"), HOSTILE)
def test_worked_answers_against_math_verify(response, reference, right, verified):
    doc = {"answer": reference, "solution": f"$\\boxed{{{reference}}}$"}
    found = mathematics.process_results(doc, [response])["equivalent"]
    assert (found["outcome"], found["math_verify"]) == (float(right), float(verified))


@pytest.mark.parametrize(
    ("response", "target", "strict", "flexible"),
    [
        (" 1,200 + 1,200 = 2,400. The answer is 2,400.", "2,400", 1.0, 1.0),
        (" The answer is $2,400.", "2,400", 0.0, 1.0),
        (" So $2,400.00 in all.", "2,400", 0.0, 0.0),
        (" The answer is 2400. Or 12?", "2,400", 1.0, 0.0),
        ("```python\nprint(2400)\n```", "2,400", 0.0, 1.0),
        (" The answer is -3.", "-3", 1.0, 1.0),
        (" The answer is 3", "3", 0.0, 1.0),
        (" The answer is 10.", "10", 1.0, 1.0),
    ],
)
def test_word_problems_by_both_patterns(response, target, strict, flexible):
    found = mathematics.word_problem({"answer": f"steps\n#### {target}"}, [response])["exact_match"]
    assert (found["exact_match,strict-match"], found["exact_match,flexible-extract"], found["outcome"]) == (strict, flexible, flexible)


def test_scoring_works_outside_the_main_thread():
    import threading

    found = []
    thread = threading.Thread(target=lambda: found.append(mathematics.equivalent("x+1", "1+x")))
    thread.start()
    thread.join()
    assert found == [True]


def test_rubbish_and_gold():
    doc = {"answer": "4", "solution": r"$\boxed{4}$"}
    assert mathematics.process_results(doc, [r"2+2=\boxed{4}"])["equivalent"]["outcome"] == 1.0
    assert mathematics.process_results(doc, ["zzqx"])["equivalent"]["outcome"] == 0.0
