"""Instruction following: IFEval, IFEval-like data, and the Tulu 3 persona instructions."""

import json

from mergebench.data.records import Parts, Record, Row


def ifeval(parts: Parts, seed: int) -> list[Row]:
    """IFEval and data like it: a prompt with verifiable instructions and their arguments."""
    return [
        {
            "id": str(record.get("key", f"{index:05d}")),
            "prompt": record["prompt"],
            "instruction_id_list": list(record["instruction_id_list"]),
            "kwargs": _arguments(record),
        }
        for index, record in enumerate(parts["rows"])
    ]


def _arguments(record: Record) -> list[dict[str, object]]:
    """Arguments of each instruction. Columnar copies fill in null for every argument that is not used."""
    arguments = record["kwargs"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError as error:
            raise record.error(f"'kwargs' is not valid JSON ({error.msg}), expected a list of objects") from None
    if not isinstance(arguments, list) or not all(a is None or isinstance(a, dict) for a in arguments):
        raise record.error(f"'kwargs' is a {type(arguments).__name__}, expected a list of objects")
    return [{name: value for name, value in (a or {}).items() if value is not None} for a in arguments]


def tulu_personas(parts: Parts, seed: int) -> list[Row]:
    """The first exchange of every conversation of tulu-3-sft-personas-instruction-following."""
    rows = []
    for record in parts["rows"]:
        said = {m["role"]: m["content"] for m in reversed(list(record["messages"]))}
        if "user" not in said or "assistant" not in said:
            raise record.error("'messages' lacks a user's or an assistant's turn, expected both")
        rows.append({"id": str(record["id"]), "prompt": said["user"], "response": said["assistant"]})
    return rows


def open_instructions(parts: Parts, seed: int) -> list[Row]:
    """Freely available instructions: the Alpaca and Self-Instruct file formats."""
    rows = [
        {"id": f"alpaca/{i:05d}", "prompt": instruction(record), "response": record.text("output").strip()}
        for i, record in enumerate(parts.get("alpaca", []))
    ]
    for record in parts.get("self_instruct", []):
        for i, instance in enumerate(record["instances"]):
            prompt = joined(record["instruction"], instance["input"])
            rows.append({"id": f"{record['id']}/{i}", "prompt": prompt, "response": instance["output"].strip()})
    return rows


def instruction(record: Record) -> str:
    """The prompt of an Alpaca record: its instruction, and its input below it where there is one."""
    return joined(record.text("instruction"), record.text("input"))


def joined(text: str, context: str) -> str:
    """An instruction and the text that it is about."""
    return f"{text.strip()}\n\n{context.strip()}" if context.strip() else text.strip()
