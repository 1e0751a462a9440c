"""What the workflow reads of the methods' files is what they register."""

from mergebench.merging.descriptions import described
from mergebench.merging.registry import methods


def test_descriptions_are_those_that_the_methods_register() -> None:
    found = {name: (each.title, each.paper, each.arxiv, each.data) for name, each in described().items()}
    assert found == {name: (each.title, each.reference.paper, each.reference.arxiv, each.data) for name, each in methods().items()}


def test_every_method_says_in_a_line_what_it_is() -> None:
    assert [name for name, each in described().items() if not 10 < len(each.summary) < 160] == []
