"""Encoding of rows: templates, the response-only mask, special tokens, truncation."""

import json

import pytest

from mergebench.errors import MergebenchError
from mergebench.training.examples import IGNORED, collate, encode, read_rows
from mergebench.training.templates import render, use_template
from tests.unit.training.pico import pico_tokenizer, sums

ROW = {"id": "1", "prompt": "1+2=?", "response": "#### 3"}


@pytest.fixture(scope="module")
def tokenizer():
    return pico_tokenizer()


def test_loss_is_on_the_response_and_its_end_token_only(tokenizer):
    (example,) = encode(tokenizer, [ROW], 64)
    response = [label for label in example.labels if label != IGNORED]
    assert tokenizer.decode(response) == "#### 3<eos>"
    assert example.labels[-1] == tokenizer.eos_token_id
    assert example.labels[: -len(response)] == [IGNORED] * (len(example.labels) - len(response))


def test_there_is_exactly_one_beginning_of_sequence_token(tokenizer):
    (example,) = encode(tokenizer, [ROW], 64)
    assert example.input_ids.count(tokenizer.bos_token_id) == 1
    assert example.input_ids[0] == tokenizer.bos_token_id


def test_the_prompt_is_what_generation_will_see(tokenizer):
    text = tokenizer.decode(render(tokenizer, "1+2=?"))
    assert text == "<bos>### Instruction:\n1+2=?\n\n### Response:\n"


def test_a_named_template_serves_a_tokenizer_without_one():
    bare = pico_tokenizer()
    expected = render(bare, "1+2=?")
    bare.chat_template = None
    assert render(use_template(bare, "alpaca_short"), "1+2=?") == expected


def test_alpaca_is_the_template_of_the_released_specialists():
    text = use_template(pico_tokenizer(), "alpaca").apply_chat_template(
        [{"role": "user", "content": "1+2=?"}], add_generation_prompt=True, tokenize=False
    )
    assert text == (
        "<bos>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n1+2=?\n\n### Response:\n"
    )


@pytest.mark.parametrize(("template", "clear", "message"), [("vicuna", False, "unknown template"), ("chat", True, "has none")])
def test_a_template_that_cannot_be_used_is_refused(template, clear, message):
    tokenizer = pico_tokenizer()
    if clear:
        tokenizer.chat_template = None
    with pytest.raises(MergebenchError, match=message):
        use_template(tokenizer, template)


def test_a_cut_response_does_not_teach_to_stop(tokenizer):
    (example,) = encode(tokenizer, [ROW | {"response": "a" * 50}], 60)
    assert len(example.input_ids) == 60
    assert example.labels[-1] != tokenizer.eos_token_id


def test_rows_whose_prompt_fills_the_context_are_dropped(tokenizer):
    kept = encode(tokenizer, [ROW, ROW | {"id": "2", "prompt": "a" * 80}], 64)
    assert [example.id for example in kept] == ["1"]
    with pytest.raises(MergebenchError, match="raise max_length"):
        encode(tokenizer, [ROW], 10)


def test_padding_is_masked_by_length_not_by_token(tokenizer):
    batch = collate(encode(tokenizer, [ROW, ROW | {"response": "#### 12345"}], 64), tokenizer.eos_token_id)
    real = batch["attention_mask"].bool()
    assert (batch["labels"][~real] == IGNORED).all()
    assert (batch["labels"] == tokenizer.eos_token_id).sum() == 2


def test_broken_rows_are_reported_with_their_line(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(sums(1)[0]) + "\n" + '{"id": "2"}\n')
    with pytest.raises(MergebenchError, match=r"line 2: keys \['prompt', 'response'\] are missing"):
        read_rows(path, ("id", "prompt", "response"))
    path.write_text("{")
    with pytest.raises(MergebenchError, match="line 1: not valid JSON"):
        read_rows(path, ("id",))
    path.write_text("")
    with pytest.raises(MergebenchError, match="no rows"):
        read_rows(path, ("id",))
