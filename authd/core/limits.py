"""Every bound of the core, with its unit in the name and its reason beside it."""

from typing import Final

# --- encoding ---------------------------------------------------------------------------------
# Deepest format is a root: map > authorities > entry > scope > item > actions. Two levels of room.
MAX_CBOR_DEPTH: Final = 8

# --- statements -------------------------------------------------------------------------------
# Four sealed grants must fit one DHT record; a grant of 16 short filters stays below this.
MAX_GRANT_BYTES: Final = 600
# A root payload fits one BEP 44 value (1 000 B) with room for the record's own framing.
MAX_ROOT_PAYLOAD_BYTES: Final = 850
# Five Ed25519 signatures in each of two lists, with framing, beside the payload.
MAX_ROOT_BYTES: Final = 1_600
# A revocation may carry the grant that makes its signer a revoker.
MAX_REVOKE_BYTES: Final = 900
# Sixteen ids of 16 B, head, domain and times.
MAX_HEARTBEAT_BYTES: Final = 600
MAX_BROKER_BYTES: Final = 900
# The largest of the above: what a peer may send as one statement.
MAX_STATEMENT_BYTES: Final = 1_600

MAX_ROOT_KEYS: Final = 5
# Three keys survive the loss of one, five of two; more only costs bytes in every evaluation.
HEARTBEAT_KEY_COUNTS: Final = (1, 3, 5)
MAX_AUTHORITIES: Final = 16
# More filters than this in one grant is a sign of a missing topic hierarchy.
MAX_FILTERS_PER_GRANT: Final = 16
# MQTT allows 65 535; a grant must stay small enough for a DHT record.
MAX_FILTER_BYTES: Final = 256
# A depth above this never matters: paths have at most MAX_PATH_GRANTS grants.
MAX_DEPTH: Final = 8
# What a daemon can audit, and what keeps a path's evidence readable.
MAX_PATH_GRANTS: Final = 4
# A sealed record holds this many.
MAX_GRANTS_PER_PAIR: Final = 4
MAX_COMPILED_FILTERS: Final = 64
MAX_AUDIENCES: Final = 8
MAX_AUDIENCE_BYTES: Final = 128
# MQTT 5 §3.1.3.1 asks servers for 23 bytes at least; many clients use up to 64.
MAX_CLIENT_ID_BYTES: Final = 128
MAX_REASON_BYTES: Final = 64
# Devices are renewed at half-life; a year and a month covers yearly visits.
MAX_GRANT_LIFE_S: Final = 400 * 86_400
# A domain must outlive its devices, and a stolen old root must end some day.
MAX_ROOT_LIFE_S: Final = 11 * 366 * 86_400
# Two hosts with NTP differ by far less; a statement from further ahead is refused.
MAX_ISSUED_AHEAD_S: Final = 60

# --- proofs -----------------------------------------------------------------------------------
# Small boards drift by seconds a day between synchronisations.
PROOF_WINDOW_S: Final = 60
# A stapled path of four grants of common size; four of the largest size do not fit a small client.
MAX_STAPLED_BYTES: Final = 2_048
MAX_PASSWORD_CHARS: Final = 3_200
MAX_USERNAME_CHARS: Final = 64

# --- heartbeats -------------------------------------------------------------------------------
HEARTBEAT_LIFE_S: Final = 60
# A head from further ahead than this is not counted: clocks of a domain are kept closer.
HEARTBEAT_AHEAD_S: Final = 5
MAX_RECENT_IDS: Final = 16
MAX_CHAIN_ENTRIES: Final = 1_000_000
# A revocation of a grant is needed for so long after the grant has ended: clocks of a domain differ
# by far less, and the time below which a host's clock never falls is on disk every few seconds.
REVOCATION_KEPT_S: Final = 86_400
# And it is forgotten only after a process has seen for so long, by a clock that cannot be set, that
# it is needed no more: a host whose clock is ahead for an hour must not forget what is needed.
SPENT_FOR_S: Final = 86_400
# Everybody fetches a new list whole: a shorter one is not worth it, nor is one a month not enough.
# A quarter of the smallest quota of revocations, so that few branches fall by what is long over.
MIN_CLOSED_ENTRIES: Final = 64
NEW_LIST_EVERY_S: Final = 30 * 86_400
# A full list stops its key. 16 MB a day for each daemon, and room for 100 000 until then.
NEARLY_FULL_ENTRIES: Final = 900_000
NEARLY_FULL_EVERY_S: Final = 86_400
# One that is full again at once must not be fetched again at once.
FULL_EVERY_S: Final = 3_600
# Keys of a domain begin new lists at different times, so that one is fetched and proven everywhere
# before the next is begun: a million entries are 500 round trips.
NEW_LIST_SLOT_S: Final = 1_800
# Whoever was away for as many new lists, half a year at the usual pace, can follow.
MAX_TOLD_HEADS: Final = 6
# What a fork is known by: a key that begins as many lists as it may needs days to be rid of them.
MAX_CLOSED_HEADS: Final = 64
# New lists of one key that are taken: all that whoever was away is told, and the one that is begun
# meanwhile; then one an hour, which even a full list does not exceed.
NEW_LISTS_BURST: Final = 8.0
NEW_LISTS_PER_S: Final = 1 / 3_600
# What a key's heads need is fetched in seconds. For longer than this its missing entries keep
# nobody from forgetting, and the operator is told that its heads are not taken.
KEY_AMISS_S: Final = 600.0

# --- trust ------------------------------------------------------------------------------------
# Counted steps of one evaluation; an honest graph needs tens. Never bound by wall clock.
MAX_EVALUATION_STEPS: Final = 10_000
# Chains that are turned into paths: intersecting scopes costs more than a step.
MAX_CHAINS: Final = 128
MAX_PATHS: Final = 64
# Chains that disjoint paths are looked for in, and grants looked at for each right asked about.
MAX_GROUND_CHAINS: Final = 512
MAX_GUARD_STEPS: Final = 2_000
# Rights that are asked about in one CONNECT because they reach into a guarded prefix.
MAX_GUARD_QUESTIONS: Final = 32

# --- quotas -----------------------------------------------------------------------------------
# By level: an entry of a listed domain, then keys one, two, and three or more grants below it.
# A level has at most an eighth of the one above; five heartbeat lists may each name other
# revocations of one branch, so that a sixth would be the most that leaves the one above standing.
# A million devices, each with the grant that ends and the one that renews it, at 550 B each.
GRANTS_PER_BRANCH: Final = (2_000_000, 65_536, 4_096, 512)
# Keys with a grant of depth: gateways. Each is looked at when somebody's place is looked for.
ISSUERS_PER_BRANCH: Final = (4_096, 512, 64, 8)
# Twice the revocations a domain is built for, at 1 kB each in memory.
REVOCATIONS_PER_BRANCH: Final = (200_000, 16_384, 2_048, 256)
# A revocation says all there is to say; a second may give a reason.
MAX_REVOCATIONS_PER_PAIR: Final = 4
# What one heartbeat list may make a daemon hold beyond the quotas: lists are to be held whole, and
# an honest one names at most a few branches' quotas beyond what is held here.
MAX_LISTED_SURPLUS: Final = 200_000
# Explains why a device is refused; after this an ended grant is forgotten.
GRANT_KEPT_S: Final = 30 * 86_400
# A burst is a gateway with 2 000 sensors; 50 a second is 30 ms of verifying a second.
ISSUER_STATEMENTS_PER_S: Final = 50.0
ISSUER_BURST: Final = 2_000.0
# Below an entry there are many issuers: eight of them at full speed leave room for a ninth's burst.
ENTRY_STATEMENTS_PER_S: Final = 400.0
ENTRY_BURST: Final = 16_000.0
# Versions of another domain's root: each is kept for ever, and every session is looked at anew. A
# burst is years of honest ones; who has to catch up with more takes ten minutes for each.
ROOT_BURST: Final = 64.0
ROOTS_PER_S: Final = 1 / 600

# --- records ----------------------------------------------------------------------------------
# BEP 44: 1 000 B bencoded; ours stay below it with the framing.
MAX_RECORD_VALUE_BYTES: Final = 900
# seq is microseconds; a clock further ahead than this is broken.
MAX_RECORD_AHEAD_S: Final = 3_600
