"""The broker that runs in the daemon's process: amqtt behind a gate that asks over gRPC."""
