"""A Python environment of its own for an engine whose requirements do not fit the project's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_CACHE = Path.home() / ".cache" / "siyu"


def interpreter(requirements: Path) -> str:
    """Python with exactly these pinned packages, of this process's version; made once per content and version."""
    content = requirements.read_bytes() + sys.version.encode()
    made = _CACHE / f"benchmark-{requirements.stem}-{hashlib.sha256(content).hexdigest()[:12]}"
    python = made / "bin" / "python"
    if python.exists():
        return str(python)
    uv = shutil.which("uv") or str(Path.home() / ".local" / "bin" / "uv")
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        new = Path(folder) / "environment"
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        for command in (
            ["venv", "--quiet", "--relocatable", "--python", sys.executable, str(new)],
            ["pip", "sync", "--quiet", "--python", str(new / "bin" / "python"), str(requirements)],
        ):
            subprocess.run([uv, *command], check=True, env=environment)
        # A rename shows the whole environment or none of it.
        new.rename(made)
    return str(python)
