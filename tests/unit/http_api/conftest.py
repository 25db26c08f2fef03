"""The HTTP applications over a real service, served on loopback."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from authd.core.identity import key_id_text
from authd.http_api.go_auth import GoAuth
from authd.http_api.plugin import Plugin
from authd.http_api.server import Routes, make_app
from authd.observe import Observations
from tests.world import Domain, Site, make_key, scope

Client = TestClient[web.Request, web.Application]
Serve = Callable[..., Awaitable[Client]]
DEVICE = make_key("device")
DEVICE_ID = key_id_text(DEVICE.public)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(DEVICE.public, scope(pub="site/temp", sub="site/cmd/#")))
    yield site
    # The application holds on to it, and with it to open files.
    site.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(routes: Routes, *middlewares: object) -> Client:
            client = TestClient(TestServer(make_app([routes], *middlewares)))
            return await stack.enter_async_context(client)

        yield start


@pytest.fixture
async def go_auth(site: Site, serve: Serve) -> Client:
    observations = Observations()
    return await serve(
        GoAuth(
            decisions=site.service.decider,
            brokers=site.service.brokers,
            observe=observations.message,
        ),
    )


@pytest.fixture
async def plugin(site: Site, serve: Serve) -> Client:
    return await serve(
        Plugin(
            decisions=site.service.decider,
            table=site.service.enforcement,
            is_broker=lambda name: name == "m",
        ),
    )
