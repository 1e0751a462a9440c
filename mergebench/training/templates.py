"""Prompt templates: how an instruction becomes the text that a model sees, in training, calibration and GRPO.

A template is a chat template in Jinja, so that SFT, GRPO and the evaluation harness render it in the same way.
``chat`` stands for the one that the tokenizer brings; the named ones serve tokenizers without one.
"""

from typing import Any

from mergebench.errors import MergebenchError

_SYSTEM = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n\\n"


def _alpaca(system: str) -> str:
    return (
        "{{- bos_token if bos_token else '' -}}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}"
        "{{- '" + system + "### Instruction:\\n' + message['content'] + '\\n\\n### Response:\\n' -}}"
        "{%- else -%}"
        "{{- message['content'] + eos_token -}}"
        "{%- endif -%}"
        "{%- endfor -%}"
    )


TEMPLATES = {
    # The template with which the released specialists were trained (axolotl's `gpteacher` prompter).
    "alpaca": _alpaca(_SYSTEM),
    "alpaca_short": _alpaca(""),
}


def use_template(tokenizer: Any, template: str) -> Any:
    """Make `tokenizer.apply_chat_template` render `template`; returns the tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer; changed in memory only.
        template: ``chat`` (the tokenizer's own chat template) or a key of `TEMPLATES`.

    Raises:
        MergebenchError: unknown template, or ``chat`` for a tokenizer that has none.
    """
    if template == "chat":
        if not tokenizer.chat_template:
            raise MergebenchError(
                f"template 'chat' needs a tokenizer with a chat template, and {tokenizer.name_or_path} has none; "
                f"choose one of {', '.join(TEMPLATES)}."
            )
    elif template in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[template]
    else:
        raise MergebenchError(f"unknown template {template!r}; allowed: chat, {', '.join(TEMPLATES)}.")
    return tokenizer


def render(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt up to where the response begins, with exactly one beginning-of-sequence token."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
