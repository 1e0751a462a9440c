"""The twins' tokenizer: size, reversibility, and boundaries that training and scoring rely on."""

from __future__ import annotations

import pytest

from mergebench.tiny import generate, prompts, tokenizer


@pytest.fixture(scope="module")
def tok():
    return tokenizer.build()


def test_size_and_special_tokens(tok) -> None:
    assert len(tok) == tokenizer.VOCABULARY
    assert (tok.pad_token_id, tok.bos_token_id, tok.eos_token_id) == (0, 1, 2)
    assert tok.padding_side == "left"


def test_bos_is_added_once(tok) -> None:
    assert tok("x")["input_ids"].count(tok.bos_token_id) == 1
    assert tok("")["input_ids"] == [tok.bos_token_id]


def test_chat_template_is_the_wrapper_behind_one_bos(tok) -> None:
    message = [{"role": "user", "content": "What is 1 + 2?"}]
    text = tok.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert text == "<bos>" + prompts.wrap("What is 1 + 2?")
    ids = tok.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids == tok(prompts.wrap("What is 1 + 2?"))["input_ids"]


@pytest.mark.parametrize("domain", generate.TRAINING)
def test_a_prompt_is_a_token_prefix_of_prompt_and_answer(tok, domain: str) -> None:
    for row in generate.rows(f"train_{domain}", 100, 0):
        prompt = prompts.wrap(row["prompt"])
        alone, together = tok(prompt)["input_ids"], tok(prompt + row["response"])["input_ids"]
        assert together[: len(alone)] == alone
        assert len(together) <= 100


def test_text_survives_a_round_trip(tok) -> None:
    for text in ("def f(x):\n    return (x + 3) * 47\n", " красный пёс, grüner Käse 你好", '<<The "dog">>\n* a'):
        assert tok.decode(tok(text, add_special_tokens=False)["input_ids"]) == text


def test_building_is_deterministic_and_matches_the_shipped_files(tok) -> None:
    assert tokenizer.build().backend_tokenizer.to_str() == tok.backend_tokenizer.to_str()
