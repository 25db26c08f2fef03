"""`RecordNetwork` within one process: for tests and demos without sockets."""

from authd.core.identity import PublicKey
from authd.core.records import Record, encode_record, newest, record_target, verify_record
from authd.errors import (
    EquivocationError,
    FormatError,
    LimitError,
    NotFoundError,
    ReasonCode,
    RejectedError,
    StaleRecordError,
    VerificationError,
)
from authd.service.ports import Clock, NetworkStats


class MemoryRecordNetwork:
    """Holds records in a mapping that several of them may share."""

    def __init__(self, *, clock: Clock, shared: dict[bytes, Record] | None = None) -> None:
        """Use ``shared`` for what others put and get as well."""
        self._clock = clock
        self._records = {} if shared is None else shared

    async def put(self, record: Record) -> int:
        """Store a record; return 1.

        Raises:
            RejectedError: Older than the one held, past its end of life, or it does not verify.
        """
        try:
            verified = verify_record(encode_record(record), now=self._clock.now())
            held = self._records.get(record.target)
            self._records[record.target] = newest(held, verified)
        except (FormatError, LimitError, VerificationError) as error:
            stale = isinstance(error, StaleRecordError | EquivocationError)
            reason = ReasonCode.STALE_RECORD if stale else error.reason
            raise RejectedError(str(error), reason=reason) from error
        return 1

    async def get(self, publisher: PublicKey, salt: bytes) -> Record:
        """Find the newest record.

        Raises:
            NotFoundError: There is none, or it died.
        """
        record = self._records.get(record_target(publisher, salt))
        if record is None or record.expires_at <= self._clock.now():
            raise NotFoundError("no such record")
        return record

    def neighbours(self) -> list[str]:
        """Return nothing: there are no other nodes."""
        return []

    def stats(self) -> NetworkStats:
        """Return how many records are held."""
        return NetworkStats(peers=0, records=len(self._records))
