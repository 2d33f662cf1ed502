"""ClickHouse's HTTP interface over the engine, as its clients know it: parameters, headers, statuses, exceptions.

A request is read to its end before it touches the engine (small ones in memory, large ones in a nameless temporary
file), so a client that goes away in the middle of an insert has written nothing. Statements that may change something
run one at a time, in the order their bodies were complete; reads run beside them. When too many wait, the next one is
refused with TOO_MANY_SIMULTANEOUS_QUERIES and 503, never queued without bound.

Not supported, and refused with a reason: sessions, roles, external tables, ClickHouse's own block compression
(`compress=1`, `decompress=1`; use Content-Encoding and Accept-Encoding).
"""

import json
import logging
import secrets
import string
import time
import uuid
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import SpooledTemporaryFile

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from deploy.local.clickhouse import codecs
from deploy.local.clickhouse.engine import Answer, Engine, Progress
from deploy.local.clickhouse.engine import Request as EngineRequest
from deploy.local.clickhouse.exceptions import ClickHouseException, Code
from deploy.local.clickhouse.revision import CUSTOM_SERIALIZATION, with_block_info
from deploy.local.clickhouse.statement import Kind, Statement, scan

__all__ = ["HttpInterface"]

log = logging.getLogger("clickhouse")

IN_MEMORY = 4 * 1024 * 1024  # a longer body goes to a temporary file
LONGEST_BODY = 2 * 1024**3
PIECE = 1024 * 1024
MAX_QUERY_SIZE = 262144  # ClickHouse's default; data of an INSERT does not count
PARALLEL_READS = 8
USER = "default"
HOW_TO = "Use / or /ping for health checks.\nSend queries with POST /, or with GET /?query= when they change nothing.\n"

# Parameters of the interface; every other parameter of a request is a setting of its query.
_RESERVED = frozenset(
    {
        "query", "database", "default_format", "user", "password", "query_id", "quota_key", "stacktrace", "compress",
        "decompress", "enable_http_compression", "wait_end_of_query", "buffer_size", "client_protocol_version",
        "session_timeout", "session_check", "close_session",
    }
)  # fmt: skip

# These formats' blocks, one after the other, are the answer; others have a beginning and an end around the blocks.
_STREAMED = frozenset(
    {
        "Native", "RowBinary", "TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV", "JSONEachRow", "NDJSON",
        "JSONCompactEachRow", "JSONStringsEachRow", "LineAsString",
    }
)  # fmt: skip

_CONTENT_TYPES = (
    (("TabSeparated", "TSV"), "text/tab-separated-values; charset=UTF-8"),
    (("CSV",), "text/csv; charset=UTF-8"),
    (
        ("JSONEachRow", "JSONLines", "NDJSON", "JSONCompactEachRow", "JSONStringsEachRow"),
        "application/x-ndjson; charset=UTF-8",
    ),
    (("JSON",), "application/json; charset=UTF-8"),
    (("XML",), "application/xml; charset=UTF-8"),
    (("Pretty", "Vertical", "Values", "Markdown", "LineAsString", "SQLInsert"), "text/plain; charset=UTF-8"),
)


@dataclass(frozen=True)
class Asked:
    """A request's parameters and headers, understood."""

    query: bytes
    database: str | None
    default_format: str
    query_id: str
    body_encoding: str
    answer_encoding: str | None
    wait_for_end: bool
    protocol_version: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def max_query_size(self) -> int:
        asked = self.settings.get("max_query_size", "")
        return int(asked) if asked.isdigit() else MAX_QUERY_SIZE


class HttpInterface:
    """The ASGI application."""

    def __init__(self, engine: Engine, spool: Path, *, queued_writes: int = 64, queued_reads: int = 256) -> None:
        self._engine = engine
        self._spool = spool
        self._writes = _Gate("writes", 1, queued_writes)
        self._reads = _Gate("reads", PARALLEL_READS, queued_reads)
        # Bodies are unpacked and scanned outside the gates; their threads are bounded too.
        self._scanners = CapacityLimiter(4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        path = request.url.path
        if path in ("/ping", "/replicas_status") or (path == "/" and self._is_greeting(request)):
            await PlainTextResponse("Ok.\n", headers=self._server_headers())(scope, receive, send)
        elif path != "/":
            text = f"There is no handle {path}\n\n{HOW_TO}"
            await PlainTextResponse(text, 404, headers=self._server_headers())(scope, receive, send)
        elif request.method not in ("GET", "HEAD", "POST"):
            await PlainTextResponse(HOW_TO, 405, headers={"Allow": "GET, HEAD, POST"})(scope, receive, send)
        else:
            await self._query(request, send)

    @staticmethod
    def _is_greeting(request: Request) -> bool:
        return request.method in ("GET", "HEAD") and "query" not in request.query_params

    def _server_headers(self) -> dict[str, str]:
        return {
            "X-ClickHouse-Server-Display-Name": self._engine.display_name,
            "X-ClickHouse-Timezone": self._engine.timezone,
        }

    async def _query(self, request: Request, send: Send) -> None:
        began = time.perf_counter()
        told = _Told()
        try:
            asked = _understand(request)
            told.query_id = asked.query_id
            await self._answer(request, asked, send, told)
        except ClickHouseException as exception:
            told.code = exception.code
            if told.headers_sent:
                return  # an answer left incomplete is a broken transfer to the client, as ClickHouse does it
            body = f"{exception} (version {self._engine.version} (official build))\n"
            headers = {
                **self._server_headers(),
                "X-ClickHouse-Exception-Code": str(exception.code),
                "X-ClickHouse-Query-Id": told.query_id,
            }
            response = PlainTextResponse(body, exception.status, headers=headers)
            await response(request.scope, request.receive, send)
        except ClientDisconnect:
            told.kind = "abandoned"
        finally:
            spent = (time.perf_counter() - began) * 1000
            # Neither the query nor its parameters: they hold names and ids of people.
            log.info("%s %s %.0f ms %d rows code %d", request.method, told.kind, spent, told.rows, told.code)

    async def _answer(self, request: Request, asked: Asked, send: Send, told: "_Told") -> None:
        with SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(self._spool)) as body:
            size = 0
            async for piece in request.stream():
                size += len(piece)
                if size > LONGEST_BODY:
                    raise ClickHouseException(Code.QUERY_IS_TOO_LARGE, f"The body is longer than {LONGEST_BODY} bytes")
                body.write(piece)
            body.seek(0)
            content = codecs.decompressed(iter(lambda: body.read(PIECE), b""), asked.body_encoding)
            statement, data = await to_thread.run_sync(_parse, asked, content, limiter=self._scanners)
            told.kind = statement.kind.value
            gate = self._writes if statement.kind in (Kind.WRITE, Kind.INSERT) else self._reads
            async with gate.passing():
                engine_request = await to_thread.run_sync(
                    self._engine.connect, asked.database, asked.settings, limiter=gate.limiter
                )
                try:
                    await self._execute(request, asked, statement, data, engine_request, send, told, gate.limiter)
                finally:
                    with CancelScope(shield=True):
                        await to_thread.run_sync(engine_request.close, limiter=gate.limiter)

    async def _execute(
        self,
        request: Request,
        asked: Asked,
        statement: Statement,
        data: Iterable[bytes],
        engine_request: EngineRequest,
        send: Send,
        told: "_Told",
        limiter: CapacityLimiter,
    ) -> None:
        output_format = statement.format or asked.default_format
        reads_block_info = output_format == "Native" and asked.protocol_version >= CUSTOM_SERIALIZATION
        if statement.kind is Kind.INSERT:
            progress = await to_thread.run_sync(engine_request.insert, statement, data, limiter=limiter)
            answer = Answer(b"", progress)
        elif (
            statement.kind is Kind.SELECT
            and output_format in _STREAMED
            and not statement.totals
            and (not asked.wait_for_end or reads_block_info)
            and asked.settings.get("extremes", "0") == "0"
        ):
            blocks = engine_request.stream(statement.head, output_format)
            if reads_block_info:
                blocks = _with_block_info(blocks)
            await self._stream(request, asked, output_format, blocks, send, told, limiter)
            return
        else:
            answer = await to_thread.run_sync(engine_request.run, statement.head, output_format, limiter=limiter)
        told.rows = answer.progress.written_rows or answer.progress.result_rows
        body = answer.body
        headers = self._answer_headers(asked, output_format, answer.progress, told)
        if asked.answer_encoding and body:
            body = await to_thread.run_sync(_compress, body, asked.answer_encoding, limiter=limiter)
            headers["Content-Encoding"] = asked.answer_encoding
        await Response(body, headers=headers)(request.scope, request.receive, send)

    async def _stream(
        self,
        request: Request,
        asked: Asked,
        output_format: str,
        blocks: Iterator[bytes],
        send: Send,
        told: "_Told",
        limiter: CapacityLimiter,
    ) -> None:
        following = partial(to_thread.run_sync, next, blocks, None, limiter=limiter)
        try:
            # The first block comes before the status, so that most errors still have one of their own.
            block = await following()
            headers = self._answer_headers(asked, output_format, Progress(), told)
            tag = "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))
            headers["X-ClickHouse-Exception-Tag"] = tag
            packer = codecs.compressor(asked.answer_encoding) if asked.answer_encoding and block is not None else None
            if packer is not None and asked.answer_encoding:
                headers["Content-Encoding"] = asked.answer_encoding
            await send({"type": "http.response.start", "status": 200, "headers": Headers(headers).raw})
            told.headers_sent = True
            while block is not None and not await request.is_disconnected():
                packed = block if packer is None else await to_thread.run_sync(packer.compress, block, limiter=limiter)
                await send({"type": "http.response.body", "body": packed, "more_body": True})
                try:
                    block = await following()
                except ClickHouseException as exception:
                    # The status is gone; ClickHouse's way to tell is a marked text at the end, then a broken transfer.
                    marked = _marked(exception, tag)
                    packed = marked if packer is None else packer.compress(marked) + packer.flush()
                    await send({"type": "http.response.body", "body": packed, "more_body": True})
                    raise
            await send({"type": "http.response.body", "body": packer.flush() if packer else b"", "more_body": False})
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(blocks.close, limiter=limiter)  # type: ignore[attr-defined]

    def _answer_headers(self, asked: Asked, output_format: str, progress: Progress, told: "_Told") -> dict[str, str]:
        elapsed_ns = time.perf_counter_ns() - told.began_ns
        summary = {name: str(value) for name, value in {**asdict(progress), "elapsed_ns": elapsed_ns}.items()}
        return {
            **self._server_headers(),
            "Content-Type": _content_type(output_format),
            "X-ClickHouse-Format": output_format,
            "X-ClickHouse-Query-Id": asked.query_id,
            "X-ClickHouse-Summary": json.dumps({**summary, "total_rows_to_read": "0"}),
        }


@dataclass
class _Told:
    """What the log line and an error's headers say; filled in as it becomes known."""

    query_id: str = ""
    kind: str = "unread"
    rows: int = 0
    code: int = 0
    headers_sent: bool = False
    began_ns: int = field(default_factory=time.perf_counter_ns)


class _Gate:
    """At most `parallel` inside, at most `queued` before it; whoever comes then is refused at once."""

    def __init__(self, name: str, parallel: int, queued: int) -> None:
        self._name = name
        self._queued = queued
        self._inside = CapacityLimiter(parallel)
        # The engine's threads: as many as may be inside.
        self.limiter = CapacityLimiter(parallel)

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        if self._inside.statistics().tasks_waiting >= self._queued:
            raise ClickHouseException(
                Code.TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many simultaneous queries: {self._queued} {self._name} wait"
            )
        async with self._inside:
            yield


def _understand(request: Request) -> Asked:
    """Raises ClickHouseException for what this server does not do, and for wrong credentials."""
    params, headers = request.query_params, request.headers
    for name in ("session_id", "role"):
        if params.get(name):
            raise ClickHouseException(
                Code.NOT_IMPLEMENTED,
                f"{name} is not supported by this local server: every request stands alone. "
                "With clickhouse-connect pass autogenerate_session_id=False to get_client",
            )
    for name in ("compress", "decompress"):
        if params.get(name, "0") not in ("0", "false"):
            raise ClickHouseException(
                Code.NOT_IMPLEMENTED,
                f"{name}=1 (ClickHouse's own block compression) is not supported by this local server: "
                "use Content-Encoding, and Accept-Encoding with enable_http_compression=1",
            )
    if headers.get("content-type", "").startswith("multipart/form-data"):
        raise ClickHouseException(Code.NOT_IMPLEMENTED, "External tables and form fields are not supported here")
    if request.method == "POST" and "content-length" not in headers and "transfer-encoding" not in headers:
        raise ClickHouseException(
            Code.HTTP_LENGTH_REQUIRED,
            "The Transfer-Encoding is not chunked and there is no Content-Length header for POST request",
        )
    _authenticate(request)

    settings = {name: value for name, value in params.items() if name not in _RESERVED | {"session_id", "role"}}
    if request.method != "POST":
        settings.setdefault("readonly", "2")  # nothing may be changed, settings of the query itself may
    query = params.get("query", "").encode()
    wants_packing = params.get("enable_http_compression", "1") not in ("0", "false")
    return Asked(
        # As ClickHouse joins them: the parameter, one line end, the body.
        query=query + b"\n" if query else b"",
        database=params.get("database") or headers.get("x-clickhouse-database"),
        default_format=params.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
        query_id=params.get("query_id") or str(uuid.uuid4()),
        body_encoding=headers.get("content-encoding", "").strip().lower(),
        answer_encoding=codecs.accepted(headers.get("accept-encoding", "")) if wants_packing else None,
        protocol_version=int(version) if (version := params.get("client_protocol_version", "")).isdigit() else 0,
        wait_for_end=params.get("wait_end_of_query", "0") not in ("0", "false"),
        settings=settings,
    )


def _authenticate(request: Request) -> None:
    """The engine has one user; ClickHouse's three ways to name it are read in ClickHouse's order."""
    params, headers = request.query_params, request.headers
    user, password = headers.get("x-clickhouse-user"), headers.get("x-clickhouse-key")
    if user is None and headers.get("authorization", "").lower().startswith("basic "):
        try:
            user, _, password = b64decode(headers["authorization"][6:]).decode().partition(":")
        except (BadBase64, UnicodeDecodeError):
            user, password = "", None
    if user is None:
        user, password = params.get("user"), params.get("password")
    if (user or USER) != USER or password:
        raise ClickHouseException(
            Code.AUTHENTICATION_FAILED,
            "Authentication failed: password is incorrect, or there is no user with such name. "
            f"This local server knows the user {USER!r} without a password",
        )


def _parse(asked: Asked, content: Iterator[bytes]) -> tuple[Statement, Iterable[bytes]]:
    """The statement, and for an INSERT its rows: what is left of the text, then what is left of the body."""
    text = bytearray(asked.query)
    complete = True
    for piece in content:
        text += piece
        if len(text) > asked.max_query_size:
            complete = False
            break
    statement = scan(bytes(text))
    if statement.kind is Kind.INSERT:
        return statement, chain([bytes(text[statement.data_at :])], content)
    if not complete:
        raise ClickHouseException(Code.SYNTAX_ERROR, "Syntax error: Max query size exceeded")
    return statement, ()


def _with_block_info(blocks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from map(with_block_info, blocks)
    finally:
        blocks.close()  # type: ignore[attr-defined]  # a generator: closing it cancels the query


def _compress(body: bytes, encoding: str) -> bytes:
    packer = codecs.compressor(encoding)
    return packer.compress(body) + packer.flush()


def _content_type(output_format: str) -> str:
    for prefixes, content_type in _CONTENT_TYPES:
        if output_format.startswith(prefixes):
            return content_type
    return "application/octet-stream"


def _marked(exception: ClickHouseException, tag: str) -> bytes:
    text = f"{exception}\n".encode()
    return b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (tag.encode(), text, len(text), tag.encode())
