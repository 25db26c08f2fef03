"""Which grants say that their subject's key replaces another one."""

from collections.abc import Iterable

from authd.core.grants import Grant
from authd.core.identity import PublicKey, StatementId
from authd.core.trust import subject_id


class Replacements:
    """The subjects that an issuer named for a former key; as many as there are such grants."""

    def __init__(self) -> None:
        """Start empty."""
        self._named: dict[tuple[PublicKey, PublicKey], dict[StatementId, bytes]] = {}

    def add(self, grant: Grant) -> None:
        """Note a grant, if it replaces a key."""
        if grant.replaces is not None:
            named = self._named.setdefault((grant.issuer, grant.replaces), {})
            named[grant.statement_id] = subject_id(grant.subject)

    def remove(self, grant: Grant) -> None:
        """Take out a grant that is forgotten."""
        if grant.replaces is None:
            return
        place = grant.issuer, grant.replaces
        named = self._named.get(place, {})
        named.pop(grant.statement_id, None)
        if not named:
            self._named.pop(place, None)

    def of(self, issuer: PublicKey, former: PublicKey) -> Iterable[bytes]:
        """Return the ids of the subjects that an issuer's grants name for a former key."""
        return dict.fromkeys(self._named.get((issuer, former), {}).values())
