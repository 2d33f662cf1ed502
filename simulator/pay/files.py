"""Files behind download addresses: bills and coupon flows. An address is good for some seconds, for one merchant."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from simulator.pay.signing import token
from simulator.world.corp import CorpWorld

PATH = "/v3/billdownload/file"


@dataclass(frozen=True, slots=True)
class Stored:
    """One file. ``auth``: an Authorization value that opens it instead of a signature; empty: a signature does."""

    mchid: str
    content: bytes
    expires_s: int
    auth: str


class Files:
    """What one corp's merchants may download."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._files: dict[str, Stored] = {}
        self._serial = 0

    def put(self, mchid: str, content: bytes, *, expires_s: int, with_auth: bool = False) -> tuple[str, str]:
        """Keeps a file until ``expires_s``; returns the token of its address, and its ``auth`` where there is one."""
        self._serial += 1
        name = token(self._corp.seed, self._corp.corp_id, "file", self._serial, length=40)
        auth = "WECHATPAY2-FILE " + token(name, "auth", length=40) if with_auth else ""
        self._files[name] = Stored(mchid, content, expires_s, auth)
        return name, auth

    def get(self, name: str, now_s: int) -> Stored | None:
        """The file, unless it never was or its address has grown old."""
        stored = self._files.get(name)
        if stored is not None and now_s > stored.expires_s:
            del self._files[name]
            return None
        return stored


def table(head: Sequence[str], rows: Iterable[Sequence[object]], total: Sequence[tuple[str, object]]) -> bytes:
    """A bill: head, rows, head of the totals, totals; a back-tick before every value, so that no spreadsheet rounds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows([f"`{value}" for value in row] for row in rows)
    writer.writerow([name for name, _ in total])
    writer.writerow([f"`{value}" for _, value in total])
    return text.getvalue().encode()


def sha1(content: bytes) -> str:
    """The hash that is told with an address."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def yuan(fen: int) -> str:
    """Files, unlike everything else, speak of yuan."""
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02d}"
