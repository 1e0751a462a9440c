"""What travels between a program and its tests: values keep their type, and no bytes do anything else."""

import collections
import datetime
import json
import math
import os
import socket
import struct
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from mergebench.evaluation.code import wire

VALUES = {
    "nothing": None,
    "truth": [True, False, 1, 0],
    "large int": [2**63, -(2**63), 2**63 - 1, -(10**400)],
    "floats": [0.1, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf")],
    "complex": complex(float("inf"), -0.0),
    "text": ["", "\0", "\ud800", "é\u2028😀"],
    "bytes": [b"\xff\0", bytearray(b"x")],
    "nested": {(1, "a"): [{2: ({3},)}], None: frozenset({4})},
    "deque": collections.deque([1, 2], 5),
    "counter": collections.Counter("abca"),
    "ordered": collections.OrderedDict([(2, 1), (1, 2)]),
    "range": range(10**30, 0, -7),
    "fraction": Fraction(-1, 10**30),
    "decimal": Decimal("1.10e-400"),
    "dates": [datetime.date(2020, 2, 29), datetime.datetime(1, 1, 1, 2, 3, 4, 5), datetime.time(1, 2)],
    "mixed table": [(1, True, 1.0)] * wire.TABLE_ROWS,
    "table of text": [("a", "b")] * wire.TABLE_ROWS + [("b", "c")],
    "table with many words": [(str(i), "x") for i in range(wire.TABLE_ROWS)],
}


def refuse(kind, value):
    raise AssertionError(kind)


def travel(value, keep=refuse, stand_in=refuse):
    return wire.decode(json.loads(json.dumps(wire.encode(value, keep), allow_nan=False)), stand_in)


def types(value):
    inner = value.items() if isinstance(value, dict) else value if isinstance(value, list | tuple | set | frozenset) else ()
    return type(value), [types(item) for item in inner]


@pytest.mark.parametrize("name", VALUES)
def test_values_keep_value_and_type(name):
    value = VALUES[name]
    assert travel(value) == value
    assert types(travel(value)) == types(value)


def test_signs_of_zero_and_nan_travel():
    assert math.copysign(1, travel(-0.0)) == -1
    assert math.isnan(travel([float("nan")])[0])
    assert travel(collections.deque([1], 3)).maxlen == 3


@pytest.mark.parametrize("dtype", ["?", "i1", ">u2", "<i8", "f2", "f4", "f8", "c16", "S3", "<U4"])
def test_arrays_and_scalars_travel(dtype):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    back = travel(array)
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype
    assert back.flags.writeable
    assert type(travel(array[0, 1])) is type(array[0, 1])


def test_views_of_dicts_compare_as_such():
    value = {1: "a", 2: "b"}
    assert travel(value.keys()) == {1, 2}
    assert travel(value.items()) == {(1, "a"), (2, "b")}
    assert list(travel(value.values())) == ["a", "b"]


@pytest.mark.parametrize("base", [int, float, str, list, tuple, dict, set, frozenset])
def test_a_subclass_arrives_plain(base):
    crooked = type("Crooked", (base,), {"__eq__": lambda self, other: True, "__hash__": base.__hash__})
    back = travel(crooked())
    assert type(back) is base
    assert back == base()
    assert back != "something else"


def test_a_named_tuple_arrives_as_a_tuple():
    assert travel(collections.namedtuple("Point", "x y")(1, 2)) == (1, 2)


@pytest.mark.parametrize(
    ("value", "kind"), [(len, "function"), (iter([1]), "iterator"), ((x for x in "a"), "iterator"), (object(), "foreign")]
)
def test_what_does_not_travel_gets_a_handle(value, kind):
    assert travel(value, keep=lambda kind, value: {kind: 5}, stand_in=lambda kind, payload: (kind, payload)) == (kind, 5)


def test_a_stand_in_equals_nothing():
    foreign = wire.Foreign("Equal")
    assert foreign != 1
    assert foreign != wire.Foreign("Equal")


@pytest.mark.parametrize(
    "payload",
    [
        {}, {"int": "0x1", "float": "1"}, {"eval": "1"}, {"__class__": []}, {"int": 5}, {"int": "x"}, {"float": []}, {"set": [[]]},
        {"dict": [1]},
        {"array": ["O", [1], ""]}, {"array": ["<f8", [1 << 60], ""]}, {"scalar": ["<f8", ""]},
        {"array": ["<f8,<i4", [1], ""]}, {"range": [1, 2, 0]}, {"Fraction": [1, 0]}, {"Decimal": "x"}, {"deque": 1},
        {"table": [["a"], 1 << 20, 1 << 20, ""]}, {"table": [["a"], 2, 1, "eJxjAAAAAQAB"]}, {"table": [["a"], -2, -1, ""]}, {"date": "x"},
    ],
)  # fmt: skip
def test_crooked_values_are_refused(payload):
    with pytest.raises(wire.WireError):
        wire.decode(payload, refuse)


def test_a_packed_table_cannot_grow_beyond_what_it_says():
    import base64
    import zlib

    bomb = base64.b64encode(zlib.compress(bytes(50 << 20))).decode()
    with pytest.raises(wire.WireError, match="another size"):
        wire.decode({"table": [["a"], 10, 1, bomb]}, refuse)


@pytest.mark.parametrize("data", [b"", b"\0\0", struct.pack(">I", 5) + b"ab"])
def test_a_channel_that_ends_says_so(data):
    left, right = socket.socketpair()
    with right:
        with left:
            left.sendall(data)
        with pytest.raises(EOFError):
            wire.Channel(right.fileno()).receive()


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", struct.pack(">I", 1) + b"{", struct.pack(">I", 200_000) + b"[" * 200_000])
def test_what_is_no_message_is_refused(data):
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb", buffering=0) as stream, os.fdopen(reader, "rb") as end:
        import threading

        sending = threading.Thread(target=stream.write, args=(data,))
        sending.start()
        with pytest.raises(wire.WireError):
            wire.Channel(end.fileno()).receive()
        sending.join()


def test_a_message_that_is_too_large_is_not_sent(monkeypatch):
    monkeypatch.setattr(wire, "MESSAGE_BYTES", 10)
    with pytest.raises(wire.WireError, match="limit"):
        wire.Channel(-1).send(["x" * 20])
