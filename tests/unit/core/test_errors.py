"""The exception tree and the reason codes."""

import pytest

from authd import errors
from authd.errors import AuthdError, ProofError, ReasonCode


def classes() -> list[type[AuthdError]]:
    found: list[type[AuthdError]] = []
    todo: list[type[AuthdError]] = [AuthdError]
    while todo:
        found.append(todo.pop())
        todo += found[-1].__subclasses__()
    return [one for one in found if one.__module__ == errors.__name__]


@pytest.mark.parametrize("error", classes())
def test_every_error_has_a_docstring_a_reason_and_a_place_in_the_drawing(
    error: type[AuthdError],
) -> None:
    assert error.__doc__
    assert error("sentence").reason is error.default_reason
    assert error.default_reason is not ReasonCode.OK
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__


def test_the_reason_of_one_error_can_be_narrowed() -> None:
    assert ProofError("x", reason=ReasonCode.REPLAYED).reason is ReasonCode.REPLAYED


def test_only_what_may_pass_by_itself_is_temporary() -> None:
    temporary = {code for code in ReasonCode if code.temporary}
    assert ReasonCode.STALE in temporary
    assert not temporary & {
        ReasonCode.OK,
        ReasonCode.REVOKED,
        ReasonCode.BAD_SIGNATURE,
        ReasonCode.REPLAYED,
        ReasonCode.UNKNOWN_KEY,
        ReasonCode.EXPIRED,
    }
