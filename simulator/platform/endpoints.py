"""Every endpoint there is, by its path below ``/cgi-bin/``: what the modules of ``simulator.platform.api`` declare.

Whatever is not there is refused loudly: the platform has no call to delete a contact, to add a friend or to write to a
customer directly, and neither has this stand-in (fact sheet 3.14 and 6, point 22). ``gettoken`` needs no token and is
the gateway's own.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from simulator.platform import api
from simulator.platform.endpoint import Endpoint
from simulator.world.corp import CorpWorld

ENDPOINTS: dict[str, Endpoint] = {}
ALWAYS: list[Callable[[CorpWorld], Any]] = []
"""Families that watch the world from its opening on, whether they are called or not (a module's ``ALWAYS``)."""

for _found in pkgutil.iter_modules(api.__path__):
    _module = importlib.import_module(f"{api.__name__}.{_found.name}")
    for _path, _endpoint in _module.API.endpoints.items():
        if _path in ENDPOINTS:
            raise ValueError(f"endpoint {_path} is declared by two families")
        ENDPOINTS[_path] = _endpoint
    ALWAYS.extend(getattr(_module, "ALWAYS", ()))
