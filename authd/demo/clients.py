"""Ordinary MQTT clients (paho) that remember what happened to them."""

import threading
import time
from collections.abc import Callable
from typing import Final, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from authd.device import DeviceKey

_WAIT_S: Final = 5.0
_SETTLE_S: Final = 0.5
_REFUSED: Final = 0x80


class Client:
    """One MQTT 3.1.1 client on one broker; an object to be used with ``with``."""

    def __init__(
        self,
        port: int,
        *,
        client_id: str,
        username: str = "",
        password: str = "",
        device: DeviceKey | None = None,
        endpoint: str = "",
        will: tuple[str, str] | None = None,
    ) -> None:
        """Prepare a client; with ``device`` each CONNECT carries a fresh proof."""
        self._port = port
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
        self._client.username_pw_set(username, password)
        if device is not None:
            self._client.on_pre_connect = device.on_pre_connect(endpoint or f"127.0.0.1:{port}")
        if will is not None:
            self._client.will_set(*will)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self.messages: list[tuple[str, str]] = []
        self.accepted = 0
        self.refused = 0
        self.connected = threading.Event()
        self._settled = threading.Event()
        self._granted: dict[int, list[int]] = {}
        self._subscribed = threading.Condition()
        self.lost_at = 0.0

    def __enter__(self) -> Self:
        """Connect and wait for the broker's answer, whatever it is."""
        self._settled.clear()
        try:
            self._client.connect("127.0.0.1", self._port, keepalive=30)
        except OSError:
            self._settled.set()
        self._client.loop_start()
        self._settled.wait(_WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.refused += 1
        else:
            self.accepted += 1
            self.connected.set()
        self._settled.set()

    def _on_connect_fail(self, _client: mqtt.Client, _userdata: object) -> None:
        self._settled.set()

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.DisconnectFlags,
        _reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self.connected.is_set():
            self.lost_at = time.perf_counter()
        self.connected.clear()
        self._settled.set()

    def _on_message(
        self,
        _client: mqtt.Client,
        _userdata: object,
        message: mqtt.MQTTMessage,
    ) -> None:
        self.messages.append((message.topic, message.payload.decode("utf-8", "replace")))

    def _on_subscribe(
        self,
        _client: mqtt.Client,
        _userdata: object,
        mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        with self._subscribed:
            self._granted[mid] = [reason.value for reason in reasons]
            self._subscribed.notify_all()

    # --- what a step asks -----------------------------------------------------------------

    def subscribe(self, topic_filter: str) -> bool:
        """Subscribe; say whether the broker granted it."""
        _, mid = self._client.subscribe(topic_filter, qos=0)
        if mid is None:
            return False
        with self._subscribed:
            self._subscribed.wait_for(lambda: mid in self._granted, _WAIT_S)
            codes = self._granted.get(mid, [_REFUSED])
        return all(code < _REFUSED for code in codes)

    def publish(self, topic: str, payload: str) -> None:
        """Publish at QoS 1 and wait for the acknowledgement, which says nothing about rights."""
        sent = self._client.publish(topic, payload, qos=1)
        try:
            sent.wait_for_publish(_WAIT_S)
        except (RuntimeError, ValueError):
            return

    def received(self, topic: str, payload: str, *, within_s: float = 3.0) -> bool:
        """Say whether a message has come, waiting for it."""
        return self._wait(lambda: (topic, payload) in self.messages, within_s)

    def never_received(self, payload: str) -> bool:
        """Say, after a moment, that no message with this payload has come."""
        time.sleep(_SETTLE_S)
        return all(text != payload for _, text in self.messages)

    def _wait(self, condition: Callable[[], bool], within_s: float) -> bool:
        deadline = time.perf_counter() + within_s
        while not condition():
            if time.perf_counter() > deadline:
                return False
            time.sleep(0.02)
        return True

    def reconnect(self) -> bool:
        """Drop the connection and connect again; say whether it was admitted."""
        before = self.accepted
        self._settled.clear()
        self._client.disconnect()
        self._client.loop_stop()
        self.connected.clear()
        self._settled.clear()
        self._client.reconnect()
        self._client.loop_start()
        self._wait(lambda: self.accepted > before, _WAIT_S)
        return self.accepted > before
