"""Templates word for word, and what surrounds a prompt and a response in every one of them."""

import pytest

from mergebench.training.encoding import Encoded, Encoder
from mergebench.training.examples import IGNORED, encode
from mergebench.training.templates import TEMPLATES, WHOLE_TEXT, prompt_text, template_facts, use_template
from tests.unit.training.pico import PICO_TEMPLATE, pico_tokenizer

ASKED = {"id": "1", "prompt": "add them", "response": "3"}
WITH_INPUT = ASKED | {"input": "1 and 2"}

# axolotl's AlpacaPrompter (src/axolotl/prompters.py), from which `gpteacher` inherits.
ALPACA = (
    "<bos>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nadd them\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "<bos>Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nadd them\n\n### Input:\n1 and 2\n\n### Response:\n"
)


def released(instruction: str, input_text: str) -> str:
    """The text before the response in MergeBench's merging/taskloader.py, whose literal is indented by eight spaces."""
    head = (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n        \n        ### Instruction:\n        "
    )
    middle = f"\n        \n        ### Input:\n        {input_text}" if input_text else ""
    return f"<bos>{head}{instruction}{middle}\n        \n        ### Response:\n        "


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("alpaca", ASKED, ALPACA),
        ("alpaca", WITH_INPUT, ALPACA_WITH_INPUT),
        ("alpaca", ASKED | {"input": ""}, ALPACA),
        ("alpaca_short", ASKED, "<bos>### Instruction:\nadd them\n\n### Response:\n"),
        ("alpaca_short", WITH_INPUT, "<bos>### Instruction:\nadd them\n\n### Input:\n1 and 2\n\n### Response:\n"),
        ("mergebench_taskloader", ASKED, released("add them", "")),
        ("mergebench_taskloader", WITH_INPUT, released("add them", "1 and 2")),
        ("chat", ASKED, "<bos>### Instruction:\nadd them\n\n### Response:\n"),
        ("chat", WITH_INPUT, "<bos>### Instruction:\nadd them\n\n1 and 2\n\n### Response:\n"),
    ],
)
def test_a_prompt_reads_word_for_word(template: str, row: dict[str, str], text: str) -> None:
    assert prompt_text(use_template(pico_tokenizer(), template), row) == text


@pytest.mark.parametrize("template", ["chat", *TEMPLATES])
@pytest.mark.parametrize("row", [ASKED, WITH_INPUT, ASKED | {"prompt": "{{ bos_token }} {% raw %}"}])
def test_a_row_begins_once_and_ends_once(template: str, row: dict[str, str]) -> None:
    tokenizer = use_template(pico_tokenizer(), template)
    (example,) = encode(tokenizer, [row], 512)
    assert example.input_ids.count(tokenizer.bos_token_id) == example.input_ids.count(tokenizer.eos_token_id) == 1
    assert example.input_ids[0] == tokenizer.bos_token_id
    assert example.input_ids[-1] == tokenizer.eos_token_id


def test_the_released_calibration_text_has_its_loss_everywhere_and_its_margin_at_the_end() -> None:
    tokenizer = use_template(pico_tokenizer(), "mergebench_taskloader")
    (example,) = encode(tokenizer, [ASKED], 512)
    assert example.labels == [IGNORED, *example.input_ids[1:]]
    assert tokenizer.decode(example.input_ids).endswith("### Response:\n        3\n        <eos>")


# As Gemma-2's: a turn ends in a token that is not the end of the sequence, and in a new line.
TURNS = (
    "{{ bos_token }}{% for m in messages %}<unk>{{ m['role'] }}\n{{ m['content'] | trim }}<pad>\n{% endfor %}"
    "{% if add_generation_prompt %}<unk>model\n{% endif %}"
)


def test_a_response_ends_in_what_the_chat_template_ends_a_turn_with() -> None:
    tokenizer = pico_tokenizer()
    tokenizer.chat_template = TURNS.replace("{{ m['role'] }}", "{{ 'model' if m['role'] == 'assistant' else m['role'] }}")
    (example,) = encode(tokenizer, [ASKED], 64)
    response = [label for label in example.labels if label != IGNORED]
    assert tokenizer.decode(response) == "3<pad>\n<eos>"


def test_a_template_that_rewrites_earlier_turns_still_gets_an_end() -> None:
    tokenizer = pico_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}{{ messages | length }}{% if add_generation_prompt %}:{% endif %}"
    (example,) = encode(tokenizer, [ASKED], 64)
    assert tokenizer.decode([label for label in example.labels if label != IGNORED]) == "3<eos>"


def test_a_template_without_a_beginning_gets_the_tokenizers_own() -> None:
    tokenizer = pico_tokenizer()
    tokenizer.chat_template = PICO_TEMPLATE.replace("{{ bos_token }}", "")
    (example,) = encode(tokenizer, [ASKED], 64)
    assert example.input_ids[0] == tokenizer.bos_token_id
    assert example.input_ids.count(tokenizer.bos_token_id) == 1


def test_special_tokens_in_a_text_are_text_or_leave_the_row_out() -> None:
    tokenizer = use_template(pico_tokenizer(), "alpaca_short")
    encoder = Encoder(tokenizer, 96)
    good, bad = encoder.encode([ASKED | {"response": "a<eos>b"}, ASKED | {"prompt": "a<eos>b"}])
    assert isinstance(good, Encoded)
    assert good.ids.count(tokenizer.eos_token_id) == 1
    assert bad == "special tokens in the prompt"
    assert tokenizer("<eos>", add_special_tokens=False)["input_ids"] == [tokenizer.eos_token_id]  # the tokenizer is as before


def test_a_model_can_tell_which_template_it_learnt() -> None:
    tokenizer = pico_tokenizer()
    chat = template_facts(use_template(tokenizer, "chat"), "chat", instruction_tuned=True)
    alpaca = template_facts(use_template(tokenizer, "alpaca"), "alpaca", instruction_tuned=True)
    assert chat["template_sha256"] != alpaca["template_sha256"]
    assert "template_warning" not in chat
    assert "learns alpaca here" in alpaca["template_warning"]
    assert "template_warning" not in template_facts(tokenizer, "alpaca", instruction_tuned=False)
    for name in WHOLE_TEXT:
        facts = template_facts(use_template(tokenizer, name), name)
        assert (facts["loss"], facts["template"]) == ("text", name)
        assert "fidelity" in facts["template_warning"]
