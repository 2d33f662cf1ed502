"""The OpenAPI 3.1 document, made of the declared routes and the types of what they take and give. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from services.api.routes import ErrorAnswer, Route
from siyu.actions.control import ID_LENGTH

_TEMPLATE = "#/components/schemas/{name}"
_REFUSALS: dict[int, tuple[str, str]] = {
    401: ("Unauthorized", "No token, or one that is not in force"),
    403: ("Forbidden", "The token's role does not suffice"),
    404: ("NotFound", "There is no such thing"),
    408: ("Timeout", "The body did not arrive in time"),
    409: ("Conflict", "It contradicts the state of the thing; the code says how"),
    413: ("TooLarge", "The body is too large"),
    422: ("Invalid", "The request is malformed; the field says where"),
    500: ("Defect", "A defect of ours; the log says where"),
    503: ("Unavailable", "ClickHouse or Kafka does not answer, or too much is asked at once: try again"),
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document as plain data."""
    types = {t for r in routes for t in (r.answer, r.query, r.body) if t is not None} | {ErrorAnswer}
    ordered = sorted(types, key=lambda t: t.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_TEMPLATE)
    queries = {r.query.__name__ for r in routes if r.query is not None}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Siyu 私域 API",
            "version": "1",
            "description": "What the executor did and does, and the operators' words about it. Times are epoch "
            "milliseconds UTC. Within /v1 fields are added, never removed or changed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Made by `siyu api-token`"}
            },
            # A query's fields stand with the operation, as parameters.
            "schemas": {name: schema for name, schema in sorted(components.items()) if name not in queries},
            "responses": {
                name: {
                    "description": text,
                    **({"headers": _RETRY_AFTER} if status == 503 else {}),
                    "content": {"application/json": {"schema": {"$ref": _TEMPLATE.format(name="ErrorAnswer")}}},
                }
                for status, (name, text) in _REFUSALS.items()
            },
        },
    }


_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds after which asking again makes sense", "schema": {"type": "integer"}}
}


def refusals(route: Route) -> tuple[int, ...]:
    """Every status but success that the route may answer with."""
    found = {401, 422, 500, 503, *route.refusals}
    if route.role != "reader" or route.may_forbid:
        found.add(403)
    if route.body is not None:
        found |= {408, 413}
    return tuple(sorted(found))


def _operation(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": ID_LENGTH},
        }
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if route.query is not None:
        schema = components[route.query.__name__]
        parameters += [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": of}
            for name, of in schema["properties"].items()
        ]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Needs the role {route.role}.",
        "parameters": parameters,
        "responses": {
            str(route.status): {
                "description": "The answer" if not route.writes else "Kafka has the word on all in-sync replicas",
                "content": {"application/json": {"schema": {"$ref": _TEMPLATE.format(name=route.answer.__name__)}}},
            },
            **{str(s): {"$ref": f"#/components/responses/{_REFUSALS[s][0]}"} for s in refusals(route)},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _TEMPLATE.format(name=route.body.__name__)}}},
        }
    return operation
