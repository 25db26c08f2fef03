"""The gRPC edge: go-auth's contract and ``authd.v1.Decider``, over TLS with client certificates."""
