"""Is it ready? By kind of address: `tcp://` accepts, `http://` answers 200, `kafka://` serves metadata."""

import asyncio
from urllib.parse import urlsplit

import httpx2
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

__all__ = ["is_ready"]

PATIENCE_S = 2.0


async def is_ready(address: str) -> bool:
    """One try, never longer than 2 s; no exception for what is merely not there yet."""
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        try:
            async with httpx2.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
                return (await client.get(address)).status_code == 200
        except httpx2.TransportError:
            return False
    if parts.scheme not in ("tcp", "kafka") or parts.hostname is None or parts.port is None:
        raise ValueError(f"no such kind of readiness: {address!r} (tcp://host:port, kafka://host:port, http://…)")
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.close()
    except OSError:  # also the timeout
        return False
    # Asking for metadata only once the port answers keeps the client's connection errors out of the output.
    return parts.scheme == "tcp" or await asyncio.to_thread(_serves_metadata, f"{parts.hostname}:{parts.port}")


def _serves_metadata(bootstrap: str) -> bool:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return bool(admin.list_topics(timeout=PATIENCE_S).brokers)
    except KafkaException:
        return False
