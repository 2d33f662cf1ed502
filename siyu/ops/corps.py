"""The corps file: which corps this system serves and the secrets it needs for each (``SIYU_CORPS``)."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import yaml

_AES_KEY = re.compile(r"[A-Za-z0-9]{43}")
_TOKEN = re.compile(r"[A-Za-z0-9]{1,32}")


class CorpsError(ValueError):
    """A corps file that cannot be used. Messages name the corp and the field, never a value."""


class Corp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One corp × app. ``repr`` shows no secret."""

    corp_id: str
    agent_id: str
    secret: str
    """App secret for gettoken (fact sheet 3.1)."""
    callback_token: str
    """Letters and digits, at most 32 (fact sheet 1.1)."""
    callback_aes_key: str
    """EncodingAESKey, exactly 43 characters (fact sheet 1.1)."""

    def __repr__(self) -> str:
        return f"Corp(corp_id={self.corp_id!r}, agent_id={self.agent_id!r})"


def load_corps(path: Path) -> dict[str, Corp]:
    """Reads ``{corps: [...]}`` by corp id. Raises CorpsError naming what is wrong and where, without its value."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CorpsError(f"corps file {path}: {error.strerror}; set SIYU_CORPS") from None
    except yaml.YAMLError:
        raise CorpsError(f"corps file {path}: not YAML") from None
    try:
        corps = msgspec.convert(raw.get("corps") if isinstance(raw, dict) else raw, type=list[Corp])
    except msgspec.ValidationError as error:
        # msgspec names the expected type and the path, not the value.
        raise CorpsError(f"corps file {path}: {error}") from None
    by_id: dict[str, Corp] = {}
    for corp in corps:
        if corp.corp_id in by_id:
            raise CorpsError(f"corps file {path}: corp {corp.corp_id} stands twice")
        if not corp.corp_id or "|" in corp.corp_id or "/" in corp.corp_id:
            raise CorpsError(f"corps file {path}: a corp_id is empty or holds | or /")
        if not _AES_KEY.fullmatch(corp.callback_aes_key):
            raise CorpsError(f"corps file {path}: corp {corp.corp_id}: callback_aes_key needs 43 letters or digits")
        if not _TOKEN.fullmatch(corp.callback_token):
            raise CorpsError(f"corps file {path}: corp {corp.corp_id}: callback_token needs 1 to 32 letters or digits")
        if not corp.secret:
            raise CorpsError(f"corps file {path}: corp {corp.corp_id}: secret is empty")
        by_id[corp.corp_id] = corp
    if not by_id:
        raise CorpsError(f"corps file {path}: names no corp")
    return by_id
