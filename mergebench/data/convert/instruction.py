"""Instruction following: IFEval, IFEval-like data, and the Tulu 3 persona instructions."""

import json

from mergebench.data.convert.selection import exchange, given
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


def tulu_personas(record: Record, index: int) -> Row | str:
    """The first exchange of a conversation of tulu-3-sft-personas-instruction-following."""
    turns = {message["role"]: message["content"] for message in reversed(list(record["messages"]))}
    if "user" not in turns or "assistant" not in turns:
        raise record.error("'messages' lacks a user's or an assistant's turn, expected both")
    said = Record(turns, f"{record.where}, 'messages'")
    return exchange(given(said, "user"), given(said, "assistant"), id=str(record["id"]))


def open_instructions(parts: Parts, seed: int) -> list[Row]:
    """Freely available instructions: the Alpaca and Self-Instruct file formats."""
    rows = [
        {"id": f"alpaca/{i:05d}", **instruction(record), "response": record.text("output").strip()}
        for i, record in enumerate(parts.get("alpaca", []))
    ]
    for record in parts.get("self_instruct", []):
        for i, instance in enumerate(record["instances"]):
            asked = request(record["instruction"], instance["input"])
            rows.append({"id": f"{record['id']}/{i}", **asked, "response": instance["output"].strip()})
    return rows


def instruction(record: Record) -> Row:
    """What an Alpaca record asks for: the fields of `request`."""
    return request(record.text("instruction"), record.text("input"))


def request(text: str, context: str) -> Row:
    """An instruction as ``prompt`` and, where there is one, the text that it is about as ``input``."""
    return {"prompt": text.strip(), **({"input": context.strip()} if context.strip() else {})}
