"""Which broker entry is calling: told by its client certificate, and by nothing else."""

import hashlib
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import grpc
import grpc.aio

from authd.errors import ReasonCode
from authd.grpc_api.answers import STATUS

_PEER_CERTIFICATE: Final = "x509_pem_cert"

BrokerNames = Callable[[], Mapping[bytes, str]]
"""Gives SHA-256 of a client certificate's DER → broker entry name; asked at every call."""

# The request and response types of a context differ by method; nothing here depends on them.
Context = grpc.aio.ServicerContext[Any, Any]


async def identify(context: Context, names: BrokerNames) -> str:
    """Name the broker entry that is calling.

    Raises:
        grpc.aio.AbortError: The certificate is not listed; the call ends UNAUTHENTICATED.
    """
    name = _name_of(context.auth_context().get(_PEER_CERTIFICATE, ()), names())
    if name is None:
        await context.abort(STATUS[ReasonCode.UNKNOWN_BROKER], "unknown client certificate")
    return name


def _name_of(certificates: Iterable[bytes], names: Mapping[bytes, str]) -> str | None:
    for pem in certificates:
        name = names.get(_mark_of(pem))
        if name is not None:
            return name
    return None


@lru_cache(maxsize=256)
def _mark_of(pem: bytes) -> bytes:
    """Hash a certificate's DER; a broker shows the same one with every call."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))).digest()
