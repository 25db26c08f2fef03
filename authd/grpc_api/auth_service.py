"""``grpc.AuthService``: what mosquitto-go-auth's gRPC backend asks.

The caller sets no deadline, treats any status but OK as an error, and punishes the *publisher* of
a message when a check of its delivery errs: an undecidable delivery is therefore refused instead.
"""

from typing import Final

import grpc
from google.protobuf.empty_pb2 import Empty

from authd.core.decision import ConnectRequest, Decision, Operation
from authd.grpc_api.answers import decide_in_time, status_of
from authd.grpc_api.peers import BrokerNames, Context, identify
from authd.proto_stubs import grpc_auth_pb2, grpc_auth_pb2_grpc
from authd.service.ports import DecisionPoint

NAME: Final = "authd"

# 3 and 8 are never sent, and everything else is a mistake: refused.
OPERATIONS: Final = {1: Operation.RECEIVE, 2: Operation.PUBLISH, 4: Operation.SUBSCRIBE}

# The caller asks about every message, so rights and leases hold; it cannot end a session.
ENFORCES: Final = frozenset({"rights", "lease"})


class AuthService(grpc_auth_pb2_grpc.AuthServiceServicer):
    """Answers go-auth from a decision point."""

    def __init__(self, point: DecisionPoint, names: BrokerNames, *, deadline_s: float) -> None:
        """Answer from ``point`` within ``deadline_s`` seconds, for brokers in ``names``."""
        self._point = point
        self._names = names
        self._deadline_s = deadline_s

    async def GetUser(
        self,
        request: grpc_auth_pb2.GetUserRequest,
        context: Context,
    ) -> grpc_auth_pb2.AuthResponse:
        """Say whether a client may connect."""
        asked = ConnectRequest(
            broker=await identify(context, self._names),
            client_id=request.clientid,
            username=request.username,
            password=request.password,
            enforces=ENFORCES,
        )
        decision = await decide_in_time(
            lambda: self._point.connect(asked),
            deadline_s=self._deadline_s,
        )
        return await _answer(decision, context)

    async def GetSuperuser(
        self,
        _request: grpc_auth_pb2.GetSuperuserRequest,
        context: Context,
    ) -> grpc_auth_pb2.AuthResponse:
        """Say no: nobody is above the rules."""
        await identify(context, self._names)
        return grpc_auth_pb2.AuthResponse(ok=False)

    async def CheckAcl(
        self,
        request: grpc_auth_pb2.CheckAclRequest,
        context: Context,
    ) -> grpc_auth_pb2.AuthResponse:
        """Say whether a client may do something with a topic."""
        broker = await identify(context, self._names)
        operation = OPERATIONS.get(request.acc)
        if operation is None:
            return grpc_auth_pb2.AuthResponse(ok=False)

        decision = await decide_in_time(
            lambda: self._point.authorize(
                broker=broker,
                client_id=request.clientid,
                operation=operation,
                topic=request.topic,
                username=request.username,
            ),
            deadline_s=self._deadline_s,
        )
        if operation is Operation.RECEIVE:
            return grpc_auth_pb2.AuthResponse(ok=decision.allowed)
        return await _answer(decision, context)

    async def GetName(self, _request: Empty, context: Context) -> grpc_auth_pb2.NameResponse:
        """Give the backend's name for the caller's log."""
        await identify(context, self._names)
        return grpc_auth_pb2.NameResponse(name=NAME)

    async def Halt(self, _request: Empty, context: Context) -> Empty:
        """Do nothing: one broker that stops must not stop a daemon that others use."""
        await identify(context, self._names)
        return Empty()


async def _answer(decision: Decision, context: Context) -> grpc_auth_pb2.AuthResponse:
    if decision.allowed:
        return grpc_auth_pb2.AuthResponse(ok=True)
    status = status_of(decision.reason)
    if status is not grpc.StatusCode.OK:
        await context.abort(status, f"{decision.reason}: {decision.detail}")
    return grpc_auth_pb2.AuthResponse(ok=False)
