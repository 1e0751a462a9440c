"""The result files of the tools that MergeBench's authors used, written and read, so that their numbers and ours can be laid side by side.

One module per file: `lm_eval` (lm-eval's result schema), `code_eval` (bigcode-evaluation-harness) and `safety` (safety-eval). Each has
``write(records) -> dict`` and ``read(path) -> list[OfficialScore]``; `read` takes the published files and our own alike.
"""
