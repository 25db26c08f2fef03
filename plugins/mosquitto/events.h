/* Events on their way from the reader and the reporter to the broker thread, and the rules of their numbering. */
#ifndef AUTHD_EVENTS_H
#define AUTHD_EVENTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nonces.h"
#include "table.h"

enum {
	INBOX_MAX = 1000, /* events waiting for the broker thread */
	REASON_MAX_CHARS = 63,
	NOTE_MAX_CHARS = 255
};

enum event_kind {
	EVENT_SNAPSHOT,
	EVENT_SET,
	EVENT_LEASE,
	EVENT_CUT,
	EVENT_BEAT, /* never queued */
	EVENT_DROP, /* answer to a sync */
	EVENT_NOTE  /* a line for the log: only the broker thread may write it */
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
	int64_t arrived_us; /* on clock_us() */
	struct terms *sessions; /* snapshot: all, set: one, cut: `session`, `key`, `client_id` and `will_publish` of one,
	                           drop: `client_id` and `session` of each */
	struct renewal *renewals;
	size_t count; /* of either array */
	struct proof_id *seen; /* snapshot: proofs that the daemon knows */
	size_t seen_count;
	char reason[REASON_MAX_CHARS + 1];
	char note[NOTE_MAX_CHARS + 1];
	int note_level;
	size_t cursor; /* how far the broker thread has got */
	uint32_t mark; /* snapshot: the mark of the sessions it lists, 0 until it is begun */
	enum { SNAPSHOT_SEEN, SNAPSHOT_SESSIONS, SNAPSHOT_SWEEP } stage;
};

struct event *event_new(enum event_kind kind);
void event_free(struct event *event);

/* What a stream must look like: first a snapshot, then numbers rising by one, beats repeating the last. */
struct order {
	bool started;
	struct origin last;
};

/* True if `event` may come next; remembers its number. Fills in the run of events that do not carry one. */
bool order_accepts(struct order *order, struct event *event);

/* A bounded queue with one reader. The lock is held for a few instructions only, never during I/O. */
struct inbox {
	pthread_mutex_t lock;
	pthread_cond_t room;
	struct event *first, *last;
	atomic_size_t waiting; /* queued or taken, and not yet done with */
	bool closed;
};

bool inbox_init(struct inbox *inbox);
void inbox_destroy(struct inbox *inbox);

/* Takes over `event`. Waits while the queue is full; false, and the event is gone, once the inbox is closed. */
bool inbox_push(struct inbox *inbox, struct event *event);

/* As above without waiting: a full queue loses the event. For notes. */
void inbox_offer(struct inbox *inbox, struct event *event);

/* All queued events in order, NULL if there are none; does not lock in that case. Call `inbox_done` for each. */
struct event *inbox_take(struct inbox *inbox);
void inbox_done(struct inbox *inbox, struct event *event);

/* Wake whoever waits for room and refuse from now on. */
void inbox_close(struct inbox *inbox);

/* Queue a line for the log from a thread that may not write it itself. */
void inbox_note(struct inbox *inbox, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
