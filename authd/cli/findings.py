"""What a probe finds: one sentence a check, and what to do about it."""

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    FINDING = "finding"
    NOTE = "note"  # worth knowing, and no fault
    UNKNOWN = "unknown"  # could not be looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The end of one check.

    Attributes:
        check: What was looked at; stable, for programs.
        sentence: What is so.
        advice: What to do about it; empty where nothing is to be done.
    """

    check: str
    state: State
    sentence: str
    advice: str = ""


def fine(check: str, sentence: str) -> Finding:
    """Report a check that ended well."""
    return Finding(check=check, state=State.OK, sentence=sentence)


def fault(check: str, sentence: str, advice: str) -> Finding:
    """Report a fault and what to do about it."""
    return Finding(check=check, state=State.FINDING, sentence=sentence, advice=advice)


def note(check: str, sentence: str, advice: str = "") -> Finding:
    """Report what is no fault and worth knowing."""
    return Finding(check=check, state=State.NOTE, sentence=sentence, advice=advice)


def unknown(check: str, sentence: str, advice: str = "") -> Finding:
    """Report a check that could not be made."""
    return Finding(check=check, state=State.UNKNOWN, sentence=sentence, advice=advice)
