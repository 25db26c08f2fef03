/* What the daemon says, as it waits to be carried out, and the rules of its numbering. */
#ifndef AUTHD_EVENTS_H
#define AUTHD_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nonces.h"
#include "table.h"

enum { REASON_MAX_CHARS = 63 };

enum event_kind {
	EVENT_SNAPSHOT,
	EVENT_SET,
	EVENT_LEASE,
	EVENT_CUT,
	EVENT_BEAT, /* never queued */
	EVENT_DROP  /* answer to a sync */
};

struct renewal {
	char session[SESSION_ID_CHARS + 1];
	int64_t ends_at_ms;
};

/* Owns `sessions` (and what they own), `renewals` and `seen`. */
struct event {
	struct event *next;
	enum event_kind kind;
	struct origin origin;
	int64_t arrived_us; /* its first byte, on clock_us() */
	struct terms *sessions; /* snapshot: all, set: one, cut: `session`, `key`, `client_id` and `will_publish` of one,
	                           drop: `client_id` and `session` of each */
	struct renewal *renewals;
	size_t count, room; /* of either array */
	struct proof_id *seen; /* snapshot: proofs that the daemon knows */
	size_t seen_count, seen_room;
	char reason[REASON_MAX_CHARS + 1];
	size_t cursor; /* how far it has been carried out */
	uint32_t mark; /* snapshot: the mark of the sessions it lists, 0 until it is begun */
	enum { SNAPSHOT_SEEN, SNAPSHOT_SESSIONS, SNAPSHOT_SWEEP } stage;
};

struct event *event_new(int64_t arrived_us);
void event_free(struct event *event);

/* Make room for one more, all zero, and count it. False if memory is short. */
bool event_add_session(struct event *event);
bool event_add_renewal(struct event *event);
bool event_add_seen(struct event *event);

/* What a stream must look like: first a snapshot, then numbers rising by one, beats repeating the last. */
struct order {
	bool started;
	struct origin last;
};

/* True if `event` may come next; remembers its number. Fills in the run of events that do not carry one. */
bool order_accepts(struct order *order, struct event *event);

/* Events in their order. */
struct queue {
	struct event *first, *last;
};

/* Takes over `event`. */
void queue_add(struct queue *queue, struct event *event);
void queue_drop_first(struct queue *queue);
void queue_clear(struct queue *queue);

#endif
