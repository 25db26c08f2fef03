"""A proxy on the client's own host that puts a fresh proof into each CONNECT."""

from authd.shim.proxy import Ended, Login, Shim, ShimLimits, ShimReport

__all__ = ["Ended", "Login", "Shim", "ShimLimits", "ShimReport"]
