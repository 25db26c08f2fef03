"""The demonstration: real daemons, brokers and clients on loopback, narrated."""
