"""A demo of a test's own size, played to its audit."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.local.demo import Demo, play


def demo(tmp_path: Path, **fields: Any) -> Demo:
    return Demo(
        **{"base_dir": tmp_path / "demo", "staff": 20, "customers": 200, "plain": True, "free_ports": True} | fields
    )


async def played(what: Demo, **beside: Any) -> dict[str, Any]:
    """The audit's report of a run that must end with status 0."""
    status = await play(what, Console(width=160), **beside)
    report: dict[str, Any] = json.loads((what.base_dir / "audit.json").read_text(encoding="utf-8"))
    assert report["clean"], [section for section in report["sections"] if section["differences"]]
    assert status == 0
    return report


def sections(report: dict[str, Any], source: str) -> dict[str, int]:
    return {s["name"]: s["found"] for s in report["sections"] if s["source"] == source}
