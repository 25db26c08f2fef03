"""The port: what is said when it cannot be had."""

import asyncio
import socket
from collections.abc import Callable

import pytest
import uvloop

from authd.dht.udp import open_endpoint
from authd.errors import ConfigError


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_port_that_is_taken_is_said_with_the_setting_and_the_kernels_word(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as taken,
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            runner.run(open_endpoint("127.0.0.1", port, lambda *_: None))
    assert str(caught.value) == (
        f"cannot bind UDP `127.0.0.1:{port}` (listen.peer): address already in use"
    )
