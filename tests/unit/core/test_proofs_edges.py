"""Proofs at the edge of their bounds."""

import pytest

from authd.core import limits
from authd.core.proofs import DevicePassword, parse_credentials
from authd.errors import FormatError, LimitError


def test_the_longest_password_is_read_and_one_character_more_is_not() -> None:
    longest = "A" * limits.MAX_PASSWORD_CHARS
    with pytest.raises(FormatError):
        parse_credentials("lamp", longest)
    with pytest.raises(LimitError):
        parse_credentials("lamp", longest + "A")


def test_the_longest_user_name_is_taken_and_one_character_more_is_not() -> None:
    longest = "l" * limits.MAX_USERNAME_CHARS
    taken = parse_credentials(longest, "A" * 22)
    assert isinstance(taken, DevicePassword)
    assert taken.username == longest
    with pytest.raises(LimitError):
        parse_credentials(longest + "l", "A" * 22)
