"""`EngineRouter`: what `@app.table_route` and `@app.topic_route` ask for the worker that has a key.

The partition of a key is that of the records with the key. Its task is live here, and then the view runs here; or
another worker owns it, and the request is forwarded to the HTTP port of that worker.
"""

from __future__ import annotations

from typing import Any

from faust.exceptions import SameNode
from faust.web.exceptions import ServiceUnavailable

from pipeline.core.records import partition_of
from pipeline.faust.committed import CommittedRows
from pipeline.faust.serializers import encoder_of

__all__ = ["EngineRouter", "Leader"]

_FORWARDED = "X-Pipeline-Forwarded"
_HOP_BY_HOP = frozenset({"connection", "host", "content-length", "transfer-encoding"})


class Leader:
    """Takes the place of Faust's leader assignor: the worker in which task 0 is live."""

    def __init__(self, committed: CommittedRows, group: str) -> None:
        self._committed = committed
        self._group = group

    def is_leader(self) -> bool:
        """Whether this worker is the leader. False before its tasks are live."""
        queries = self._committed.queries
        return queries is not None and queries.is_live(self._group, 0)


class EngineRouter:
    """Takes the place of Faust's router."""

    def __init__(self, app: Any, declared: Any, committed: CommittedRows, group: str) -> None:
        self._app = app
        self._declared = declared
        self._committed = committed
        self._group = group

    async def route_req(self, table_name: str, key: Any, web: Any, request: Any) -> Any:
        """The answer of the worker that has the key. Raises SameNode if it is this one."""
        table = self._declared.faust_tables[self._app.tables[table_name]]
        return await self._route(self._record_key(table.encode_key(key), key), web, request)

    def _record_key(self, stored: bytes, key: Any) -> bytes | None:
        """The key of the records that write a row: that of the table, unless the inputs encode keys differently.

        Without `key_type`, Faust stores keys as JSON in tables, and as text in topics.
        """
        found = [_encoded(self._app, agent.channel, key) for agent in self._app.agents.values()]
        return stored if stored in found or not found else found[0]

    async def route_topic_req(self, topic: Any, key: Any, web: Any, request: Any) -> Any:
        """The answer of the worker that processes the key. Raises SameNode if it is this one."""
        return await self._route(_encoded(self._app, topic, key), web, request)

    async def _route(self, key: bytes | None, web: Any, request: Any) -> Any:
        queries = self._committed.queries
        partitions = queries.partitions(self._group) if queries is not None else None
        if queries is None or partitions is None:
            raise ServiceUnavailable("the worker is starting")
        partition = partition_of(key or b"", partitions)
        elsewhere = queries.place_of(self._group, partition)
        if elsewhere is None:
            raise SameNode
        if not elsewhere.address:
            owner = f"worker {elsewhere.worker}, which has no HTTP port," if elsewhere.worker else "no worker"
            raise ServiceUnavailable(f"{owner} is known to own task {elsewhere.task}")
        if _FORWARDED in request.headers:
            raise ServiceUnavailable(f"task {elsewhere.task} moves to another worker")
        return await self._forward(elsewhere.address, web, request)

    async def _forward(self, address: str, web: Any, request: Any) -> Any:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with self._app.http_client.request(
            method=request.method,
            url=f"http://{address}{request.path_qs}",
            headers={**headers, _FORWARDED: "1"},
            data=await request.read(),
            allow_redirects=False,
        ) as response:
            return web.bytes(
                await response.read(), content_type=response.content_type, status=response.status
            )


def _encoded(app: Any, topic: Any, key: Any) -> bytes | None:
    """A key as a topic of Faust has it."""
    schema = topic.schema
    return encoder_of(schema.key_type, schema.key_serializer, app.serializers.key_serializer)(key)
