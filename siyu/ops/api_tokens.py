"""Tokens of the API: a file of names, roles and hashes. Whoever has the file can call nothing with it.

A token is 256 random bits, so one SHA-256 is as hard to turn back as the token is to guess; no salt is needed. Hashes
are looked up, not compared one by one, so the time an answer takes tells nothing about them.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

Role = Literal[
    "reader",  # sees everything but the names of customers
    "operator",  # also names customers, and writes
]
ROLES: tuple[Role, ...] = get_args(Role)
PREFIX = "siyu_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "role", "sha256"}


class TokensError(ValueError):
    """A tokens file that cannot be used. The message names the file, the entry and the field, never a hash."""


@dataclass(frozen=True)
class Principal:
    """Who asks. ``name`` is the author of what is written."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether it has at least this role."""
        return ROLES.index(self.role) >= ROLES.index(role)


def hash_of(token: str) -> str:
    """What stands in the file."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(path: Path) -> dict[str, Principal]:
    """By hash. Raises TokensError."""
    return {entry["sha256"]: Principal(entry["name"], entry["role"]) for entry in _entries(path)}


def make_token(path: Path, name: str, role: str) -> str:
    """Adds an entry to the file, which is made if it is not there, for its owner's eyes only; returns the token, which
    stands nowhere else. Raises TokensError, also when the name is taken."""
    if not _NAME.fullmatch(name):
        raise TokensError("a name has 1 to 64 letters, digits, and . _ @ - behind the first")
    if role not in ROLES:
        raise TokensError(f"a role is one of {', '.join(ROLES)}")
    entries = _entries(path) if path.exists() else []
    if any(entry["name"] == name for entry in entries):
        raise TokensError(f"{path}: {name} has a token; remove its entry first")
    token = PREFIX + secrets.token_urlsafe(32)
    entries.append({"name": name, "role": role, "sha256": hash_of(token)})
    draft = path.with_name(path.name + ".new")
    try:
        with open(draft, "w", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            yaml.safe_dump({"tokens": entries}, file, sort_keys=False)
        draft.replace(path)
    except OSError as error:
        raise TokensError(f"{path}: {error.strerror}") from None
    return token


class TokenFile:
    """The tokens in force: read again when the file changes, so that one can be added or taken away while the API
    runs. A file that cannot be used leaves the last good ones in force, and ``problem`` says why."""

    def __init__(self, path: Path | None, refused: Callable[[str], None] = lambda _: None) -> None:
        """``path`` None: there are no tokens. Raises TokensError when the file cannot be used at start."""
        self._path = path
        self._refused = refused
        self._stamp = self._look()
        self._tokens = {} if path is None else read_tokens(path)
        self.problem: str | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    def who(self, token: str) -> Principal | None:
        """Whose it is; None: nobody's."""
        self._read_again()
        return self._tokens.get(hash_of(token))

    def _read_again(self) -> None:
        stamp = self._look()
        if self._path is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = read_tokens(self._path)
            self.problem = None
        except TokensError as error:
            self.problem = str(error)
            self._refused(self.problem)

    def _look(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TokensError(f"{path}: {error.strerror}; `siyu api-token` makes one") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise TokensError(f"{path}: not YAML") from None
    entries = content.get("tokens") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise TokensError(f"{path}: a mapping with a list `tokens` is needed")
    names: set[str] = set()
    hashes: set[str] = set()
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or set(entry) != _FIELDS:
            raise TokensError(f"{path}: token {number}: exactly the fields {', '.join(sorted(_FIELDS))} are needed")
        name, role, digest = (entry[field] for field in ("name", "role", "sha256"))
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in names:
            raise TokensError(f"{path}: token {number}: name: missing, malformed or used twice")
        if role not in ROLES:
            raise TokensError(f"{path}: token {number}: role: one of {', '.join(ROLES)}")
        if not isinstance(digest, str) or not _HASH.fullmatch(digest) or digest in hashes:
            raise TokensError(f"{path}: token {number}: sha256: 64 hex digits, used once")
        names.add(name)
        hashes.add(digest)
    return cast(list[dict[str, Any]], entries)
