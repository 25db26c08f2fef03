"""Gossip: how statements reach every daemon that must know them at once, over gRPC streams.

``messages``, ``views`` and ``reconcile`` are pure; ``transport``, ``handshake``, ``peer`` and
``node`` do the input and output. The frames are described in ``docs/spec/gossip.md``.
"""
