"""The `kademlia` engine: a network of admitted nodes that stores and finds signed records.

``messages``, ``lookup``, ``table``, ``shelf``, ``seals``, ``rates`` and ``responder`` are pure;
``dialogue``, ``node`` and ``udp`` do the input and output. The wire form is in
``docs/spec/dht.md``.
"""
