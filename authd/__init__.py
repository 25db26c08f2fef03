"""authd: decentralized identity and authorization for MQTT brokers."""

from authd.errors import AuthdError, ReasonCode

__version__ = "0.1.0"

__all__ = ["AuthdError", "ReasonCode", "__version__"]
