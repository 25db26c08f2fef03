"""amqtt with every message checked: the plugin that answers it, and the places it does not ask.

amqtt asks its topic plugins about publishing, subscribing and each delivery, but it publishes
wills and retained messages, and what it kept for a client that was away, without asking anybody;
at every connect it even sends a client the retained messages of *other* clients' subscriptions.
`CheckedBroker` closes those gaps. It leans on private methods of amqtt 0.12 and is tested against
that release alone; `pyproject.toml` bounds the version.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import structlog
from amqtt.broker import Broker
from amqtt.contexts import Action, BaseContext
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import ApplicationMessage, Session

from authd.core import topics
from authd.embedded.admissions import Admissions
from authd.embedded.messages import Will
from authd.embedded.retained import Owner, RetainedTopics

_log = structlog.get_logger(__name__)

LISTENER: Final = "default"
REFUSED_SUBSCRIPTION: Final = 0x80
# Each costs a comparison for every message; more is a client that loops.
MAX_SUBSCRIPTIONS: Final = 100
# amqtt keeps these in memory only.
MAX_RETAINED: Final = 10_000
MAX_KEPT_MESSAGES: Final = 1_000
# A client that is away for longer starts anew.
SESSION_EXPIRY_S: Final = 86_400


@dataclass
class Policy:
    """What the plugin and the broker look at: who is admitted, and with which will.

    Attributes:
        admissions: The table of the gate.
        wills: Client id → the will it may leave behind; no entry, no will.
        owners: Client id → the key whose client has, or had last, its place in amqtt.
        retained: Who published what is retained.
    """

    admissions: Admissions
    wills: dict[str, Will] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    retained: RetainedTopics = field(default_factory=RetainedTopics)

    def allows(self, client_id: str, topic: str, action: Action) -> bool:
        """Answer one question of amqtt's from memory."""
        match action:
            case Action.PUBLISH:
                return self.admissions.may_publish(client_id, topic)
            case Action.SUBSCRIBE:
                return self.admissions.may_subscribe(client_id, topic)
            case Action.RECEIVE:
                return self.admissions.may_receive(client_id, topic)
            case _:
                assert_never(action)

    def keep_will(self, client_id: str, will: Will | None) -> bool:
        """Keep a will if the client may publish it; say whether one is kept."""
        if will is None or not self.admissions.may_publish(client_id, will.topic):
            self.wills.pop(client_id, None)
            return False
        self.wills[client_id] = will
        return True


class AdmissionPlugin(BaseAuthPlugin, BaseTopicPlugin):
    """Tells amqtt what the gate has settled; it does no input or output itself."""

    @dataclass
    class Config:
        """The object it answers from, handed over by `CheckedBroker`."""

        policy: Policy

    def __init__(self, context: BaseContext) -> None:
        """Take the policy out of the configuration."""
        super().__init__(context)
        self._policy: Policy = self.config.policy

    async def authenticate(self, *, session: Session) -> bool:
        """Accept exactly the clients that the gate has admitted, with the will it has kept."""
        client_id = session.client_id or ""
        _set_will(session, self._policy.wills.get(client_id))
        return self._policy.admissions.is_current(client_id)

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,
        topic: str | None = None,
        action: Action | None = None,
    ) -> bool:
        """Answer from memory; anything missing is a no."""
        if session is None or session.client_id is None or topic is None or action is None:
            return False
        return self._policy.allows(session.client_id, topic, action)


class CheckedBroker(Broker):
    """amqtt's broker without a listener of its own: connections are handed to it."""

    def __init__(self, policy: Policy) -> None:
        """Build it around ``policy``; must run inside an event loop."""
        plugin = f"{AdmissionPlugin.__module__}.{AdmissionPlugin.__qualname__}"
        super().__init__(
            {
                "listeners": {LISTENER: {"type": "external"}},
                "session_expiry_interval": SESSION_EXPIRY_S,
                "plugins": {plugin: {"policy": policy}},
            },
        )
        self._policy = policy

    def handler_of(self, client_id: str) -> BrokerProtocolHandler | None:
        """Find what serves a client, connected or not."""
        return self._sessions.get(client_id, (None, None))[1]

    def prune(self, client_id: str) -> None:
        """Drop what the client's rights no longer cover: subscriptions, messages under way."""
        session = self._sessions.get(client_id, (None, None))[0]
        if session is None:
            return
        for topic_filter in self._filters_of(session):
            if not self._policy.admissions.may_subscribe(client_id, topic_filter):
                self._del_subscription(topic_filter, session)
        for packet_id, message in tuple(session.inflight_out.items()):
            if not self._policy.admissions.may_receive(client_id, message.topic):
                del session.inflight_out[packet_id]

    async def detach(self, client_id: str) -> None:
        """Let go of a connection that amqtt may have left half open."""
        session, handler = self._sessions.get(client_id, (None, None))
        if session is not None and handler is not None and session.transitions.is_connected():
            await self._stop_handler(handler)
            session.transitions.disconnect()

    async def forget(self, client_id: str) -> None:
        """End a client's durable state: subscriptions and what was kept for it."""
        self._policy.wills.pop(client_id, None)
        await self._delete_session(client_id)

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        """Subscribe if the plugin allows it and the client has not too many."""
        if len(self._filters_of(session)) >= MAX_SUBSCRIPTIONS:
            return REFUSED_SUBSCRIPTION
        return await super().add_subscription(subscription, session)

    async def retain_message(
        self,
        source_session: Session | None,
        topic_name: str | None,
        data: bytes | bytearray | None,
        qos: int | None = None,
    ) -> None:
        """Keep a retained message while there is room."""
        if (
            topic_name not in self._retained_messages
            and len(self._retained_messages) >= MAX_RETAINED
        ):
            _log.warning("retained_message_dropped", limit=MAX_RETAINED)
            return
        await super().retain_message(source_session, topic_name, data, qos)
        if topic_name is not None:
            self._policy.retained.forget(topic_name)
            owner = self._owner(source_session)
            if owner is not None and topic_name in self._retained_messages:
                self._policy.retained.note(topic_name, owner)

    def _owner(self, session: Session | None) -> Owner | None:
        client_id = None if session is None else session.client_id
        key_id = None if client_id is None else self._policy.owners.get(client_id)
        return None if client_id is None or key_id is None else (client_id, key_id)

    def _filters_of(self, session: Session) -> list[str]:
        return [
            topic_filter
            for topic_filter, entries in self._subscriptions.items()
            if any(held.client_id == session.client_id for held, _ in entries)
        ]

    async def _handle_disconnect(
        self,
        client_session: Session,
        handler: BrokerProtocolHandler,
        disconnect_waiter: asyncio.Future[Any],
    ) -> None:
        # The plugin is not asked about wills: what the gate keeps now is what may be published.
        _set_will(client_session, self._policy.wills.pop(client_session.client_id or "", None))
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)

    async def _publish_retained_messages_for_subscription(
        self,
        subscription: tuple[str, int],
        session: Session,
    ) -> None:
        topic_filter, qos = subscription
        client_id = session.client_id or ""
        handler = self._get_handler(session)
        if handler is None or topic_filter not in self._filters_of(session):
            return
        sending = [
            handler.mqtt_publish(topic, kept.data or b"", min(qos, kept.qos or qos), retain=True)
            for topic, kept in self._retained_messages.items()
            if topics.matches(topic_filter, topic)
            and self._policy.admissions.may_receive(client_id, topic)
        ]
        # One that fails, for example for want of an acknowledgement, is not sent again.
        await asyncio.gather(*sending, return_exceptions=True)

    async def _publish_session_retained_messages(self, session: Session) -> None:
        kept: list[ApplicationMessage] = []
        while not session.retained_messages.empty():
            kept.append(session.retained_messages.get_nowait())
        for message in kept:
            if self._policy.admissions.may_receive(session.client_id or "", message.topic):
                session.retained_messages.put_nowait(message)
        await super()._publish_session_retained_messages(session)

    async def _retain_broadcast_message(
        self,
        broadcast: dict[str, Any],
        qos: int,
        target_session: Session,
    ) -> None:
        if target_session.retained_messages.qsize() < MAX_KEPT_MESSAGES:
            await super()._retain_broadcast_message(broadcast, qos, target_session)


def _set_will(session: Session, will: Will | None) -> None:
    session.will_flag = will is not None
    session.will_topic = None if will is None else will.topic
    session.will_message = None if will is None else will.message
    session.will_qos = None if will is None else will.qos
    session.will_retain = None if will is None else will.retain
