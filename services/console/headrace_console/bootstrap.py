"""Wires the console service: store, handlers, gRPC server, HTTP port. The only place that does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace.api.workspace.v1.workspace_service_pb2_grpc import add_WorkspaceServiceServicer_to_server
from headrace.rpc.auth import ChainAuthenticator, ServiceTokenAuthenticator
from headrace.rpc.idempotency import RequestIds
from headrace.rpc.page_tokens import Pager
from headrace.rpc.server import Hosted, serving
from headrace.service import Running, background
from headrace.storage.mongo import client as mongo
from headrace.storage.mongo.watch import StoreWatch
from headrace_console.handlers import StoredTokens, Workspaces
from headrace_console.http import serving_http
from headrace_console.servicer import WorkspaceServicer
from headrace_console.settings import Settings
from headrace_console.store import ConsoleStore


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Running]:
    """Serve inside the block; drain and close at its end.

    Args:
        settings: The service's settings. Indexes must exist.

    Yields:
        Where it can be reached.
    """
    client = mongo.connect(settings.mongo_url, driver=settings.mongo_driver)
    try:
        db = client[settings.mongo_database]
        store = ConsoleStore(db)
        service_token = settings.service_token.get_secret_value()
        servicer = WorkspaceServicer(Workspaces(store), Pager(service_token), RequestIds(db))
        hosted = Hosted(
            "headrace.api.workspace.v1.WorkspaceService", lambda s: add_WorkspaceServiceServicer_to_server(servicer, s)
        )
        authenticator = ChainAuthenticator([ServiceTokenAuthenticator(service_token), StoredTokens(store)])
        watch = StoreWatch(client)
        async with (
            background() as loops,
            serving(
                [hosted], authenticator=authenticator, settings=settings, is_ready=lambda: watch.reachable
            ) as address,
            serving_http(settings.host, settings.console_http_port, lambda: watch.reachable) as url,
        ):
            loops.start("store_watch", watch.run)
            yield Running(grpc_address=address, http_address=url)
    finally:
        await mongo.close(client)
