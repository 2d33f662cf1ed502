"""No line of the system names a call that is not on the allow-list, and one module alone speaks HTTP with WeCom.

That module takes nothing but endpoints of the allow-list (tests/contract/executor/test_client.py), so what is put
together at run time is caught there; what a run has really called is told by the simulator's record
(benchmarks/harness/verdict.py).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.platform.endpoints import ENDPOINTS as DOCUMENTED
from siyu.wecom.endpoints import ENDPOINTS, GETTOKEN

ROOT = Path(__file__).parents[2]
ALLOW_LIST = Path("siyu/wecom/endpoints.py")
PACKAGES = ("siyu", "services", "deploy")
"""What runs beside the platform; the simulator is the platform."""

_FAMILIES = sorted({path.partition("/")[0] for path in DOCUMENTED if "/" in path})
"""First parts of the paths of everything the simulator plays, which is far more than this system calls."""
_PATH = re.compile(rf"(?:.*/cgi-bin)?/?(?P<path>(?:{'|'.join(_FAMILIES)})/[a-z][a-z0-9_/]*)(?:\?.*)?", re.DOTALL)
_HOST = re.compile(r"weixin\.qq\.com", re.IGNORECASE)
_HTTP = {"aiohttp", "httpx", "httpx2", "requests", "urllib3", "urllib.request", "http.client", "niquests", "pycurl"}

# What else needs HTTP, and whom it talks to.
_OTHER_CLIENTS = {
    "siyu/audit/warehouse.py": "the warehouse",
    "siyu/ops/workers/supervisor.py": "its own workers",
}


def sources(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def texts(module: ast.Module) -> Iterator[str]:
    """Strings that the code makes of its literals: as they are, joined by +, or formatted. Docstrings are prose."""
    names = {
        target.id: value
        for statement in module.body
        if isinstance(statement, ast.Assign) and isinstance(value := getattr(statement.value, "value", None), str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    prose = {
        id(node.value)
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.JoinedStr)
    }
    for node in ast.walk(module):
        if id(node) not in prose and (text := _text(node, names)):
            yield text


def _text(node: ast.AST, names: dict[str, str]) -> str | None:
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.Name(id=name):
            return names.get(name)
        case ast.FormattedValue(value=value):
            return _text(value, names)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            one, other = _text(left, names), _text(right, names)
            return one + other if one is not None and other is not None else None
        case ast.JoinedStr(values=values):
            # What is not known stands for something that ends no path.
            return "".join(part if (part := _text(value, names)) is not None else "\x00" for value in values)
    return None


def undocumented(module: ast.Module) -> set[str]:
    """Paths that look like WeCom's and are not on the allow-list."""
    named = {found["path"] for text in texts(module) if (found := _PATH.fullmatch(text))}
    return {path for path in named if path not in ENDPOINTS and path != GETTOKEN}


def http_clients(module: ast.Module) -> set[str]:
    """HTTP libraries that a module imports."""
    imported: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in imported if name in _HTTP or name.partition(".")[0] in _HTTP}


def test_every_endpoint_that_code_names_is_documented() -> None:
    found = {
        str(path): bad for path, module in sources(*PACKAGES) if path != ALLOW_LIST and (bad := undocumented(module))
    }
    assert found == {}


def test_the_endpoints_that_are_called_are_really_seen() -> None:
    """The scan would be worth nothing if it saw none of the many there are."""
    named = {text for path, module in sources(*PACKAGES) if path != ALLOW_LIST for text in texts(module)}
    assert len(named & set(ENDPOINTS)) >= 5


def test_one_module_alone_speaks_http_with_wecom() -> None:
    found = {str(path) for path, module in sources("siyu", "services") if http_clients(module)}
    assert found == {"siyu/wecom/client.py", *_OTHER_CLIENTS}


def test_no_code_knows_the_address_of_the_platform() -> None:
    found = {str(path) for path, module in sources(*PACKAGES) for text in texts(module) if _HOST.search(text)}
    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        'PATH = "externalcontact/del_external_contact"',
        'call("/cgi-bin/externalcontact/del_external_contact")',
        'url = f"{base}/cgi-bin/user/delete?userid={who}"',
        '_BASE = "externalcontact/"\ncall(_BASE + "del_follow_user")',
        '_BASE = "externalcontact"\ncall(f"{_BASE}/del_follow_user")',
        'call("https://example.invalid/cgi-bin/kf/send_msg?access_token=x")',
    ],
)
def test_a_planted_endpoint_is_found(code: str) -> None:
    assert undocumented(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        'PATH = "externalcontact/mark_tag"',
        '"""Not a call: externalcontact/del_external_contact."""',
        'TOPIC = "message.events"',
        'FOLDER = "schemas/limits"',
    ],
)
def test_what_is_no_undocumented_endpoint_is_left_alone(code: str) -> None:
    assert not undocumented(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    ["import aiohttp", "from httpx2 import AsyncClient", "from urllib import request", "import http.client as h"],
)
def test_a_planted_client_is_found(code: str) -> None:
    assert http_clients(ast.parse(code))
