"""What the fuzz tests do to valid requests: bodies with something wrong in them, and bytes that are no body."""

import copy
import json
import random
from typing import Any

ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    -0.0,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "0",
    "@all",
    "|",
    "x" * 5_000,
    "你" * 3_000,
    "\ud800",
    "\x00",
    "../../etc",
    "$tag",
    [],
    [[]],
    [None],
    ["", ""],
    [{}],
    list(range(1_200)),
    ["x"] * 12_000,
    {},
    {"a": {}},
    {"": None},
]
DEEP = b'{"text":' * 400 + b"1" + b"}" * 400
VERY_DEEP = b"[" * 50_000
LARGE = b'{"external_userid":["' + b'x","' * 400_000 + b'"]}'


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a body."""
    found: list[tuple[Any, Any]] = []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found.append((node, key))
        found += places(value)
    return found


def mutated(rng: random.Random, body: Any) -> Any:
    """A copy with one to three things wrong with it."""
    body = copy.deepcopy(body)
    for _ in range(rng.randint(1, 3)):
        found = places(body)
        if not found or rng.random() < 0.03:
            return copy.deepcopy(rng.choice(ODD))
        place, key = rng.choice(found)
        match rng.randrange(8):
            case 0:
                del place[key]
            case 1 if isinstance(place[key], list) and place[key]:
                place[key] = place[key] * min(rng.choice([2, 11, 101, 1_001, 10_001]), 1 + 20_000 // len(place[key]))
            case 2 if isinstance(place[key], str):
                place[key] = place[key] * min(rng.choice([2, 50, 2_000]), 1 + 50_000 // (len(place[key]) or 1))
            case 3 if isinstance(place[key], int):
                place[key] = place[key] * rng.choice([-1, 2, 1_000, 10**9, 10**18])
            case 4 if isinstance(place, dict):
                place[rng.choice(["extra", "cursor", "limit", "type", "\ud800", ""])] = copy.deepcopy(rng.choice(ODD))
            case 5:
                other, name = rng.choice(found)
                place[key] = copy.deepcopy(other[name]) if name in other or isinstance(other, list) else None
            case _:
                place[key] = copy.deepcopy(rng.choice(ODD))
    return body


def garbled(rng: random.Random, content: bytes) -> bytes:
    """Bytes that are no JSON any more, mostly."""
    place = rng.randrange(len(content) + 1)
    match rng.randrange(5):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + rng.randbytes(4) + content[place + 1 :]
        case 2:
            return b"\xef\xbb\xbf" + content
        case 3:
            return content.decode("latin-1").encode("utf-16")
        case _:
            return rng.choice(
                [b"", b"null", b"[]", b'"x"', b"{}{}", DEEP, VERY_DEEP, LARGE, b"\xff\xfe", b"1e999", b"NaN"]
            )


def written(rng: random.Random, body: Any, broken: float = 0.0) -> bytes:
    """A body with something wrong in it as bytes; that share of them is no JSON either."""
    content = json.dumps(mutated(rng, body)).encode()
    return garbled(rng, content) if rng.random() < broken else content
