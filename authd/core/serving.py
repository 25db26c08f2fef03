"""Serving: whether a key may announce a broker for the topics it names.

A broker statement (`docs/spec/broker.md`) counts while it has not expired, and only if the key's
rights include ``serve`` for every prefix it names. ``serve`` is never implied by ``pub`` or
``sub``, and a locally guarded prefix asks for as many disjoint paths as it does of a client.
"""

from authd.core.disjoint import Question, disjoint_paths
from authd.core.formation import Failure, Formation
from authd.core.paths import Evaluation
from authd.core.policy import Policy
from authd.core.statements import Broker
from authd.core.topics import AUTHD_PREFIX, Action, covers, is_topic_filter
from authd.core.trust import Freshness
from authd.errors import ReasonCode


def refused_service(
    broker: Broker,
    evaluation: Evaluation,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
) -> Failure | None:
    """Say why an announcement does not count; None if it does.

    Args:
        broker: Verified.
        evaluation: The paths to ``broker.issuer`` (`find_paths`).
        policy: Which prefixes are guarded here.
        freshness: Until when each domain is fresh.
        now: Seconds since the Unix epoch.
    """
    if not broker.issued_at <= now < broker.expires_at:
        return Failure(ReasonCode.EXPIRED, f"broker `{broker.broker_id}`: not of this moment")
    for prefix in broker.prefixes:
        if not _served(prefix, evaluation, policy=policy, freshness=freshness, now=now):
            sentence = f"broker `{broker.broker_id}`: its key may not serve `{prefix}`"
            return Failure(ReasonCode.NOT_GRANTED, sentence)
    return None


def _served(
    prefix: str,
    evaluation: Evaluation,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
) -> bool:
    if not is_topic_filter(prefix) or prefix.startswith((AUTHD_PREFIX, "$share")):
        return False
    wanted = max((guard.k for guard in policy.guards_of(prefix)), default=1)
    if wanted == 1:
        return any(
            Action.SERVE in entry.actions and covers(entry.topic_filter, prefix)
            for path in evaluation.paths
            for entry in path.scope
        )
    if evaluation.ground is None:
        return False
    paths = disjoint_paths(
        Formation(state=evaluation.ground.state, policy=policy, freshness=freshness, now=now),
        evaluation.ground.chains,
        evaluation.ground.subject,
        Question(
            topic_filter=prefix,
            actions=Action.SERVE,
            admits=lambda _grant, _last: True,
            holds=lambda _path: True,
        ),
        wanted=wanted,
    )
    return len(paths) >= wanted
