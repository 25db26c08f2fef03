/* The sessions this broker run has accepted, by client id, session id and key.
 *
 * An entry outlives its connection: the broker asks about wills after DISCONNECT, about durable sessions while they
 * are offline, and about the publisher of a retained message at any time. Offline entries are kept in a bounded list,
 * the oldest goes first. Only the broker thread touches the table. */
#ifndef AUTHD_TABLE_H
#define AUTHD_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grammar.h"
#include "retained.h"
#include "rights.h"
#include "verify.h"

enum {
	LIVE_MAX = 200000,
	OFFLINE_MAX = 100000,
	RECENT_SLOTS = 256
};

/* Where a number comes from: numbers of different runs of the daemon cannot be compared. */
struct origin {
	char run[RUN_ID_CHARS + 1];
	uint64_t n;
};

/* What the daemon granted to one session. Owns `rights` and `verifier`. */
struct terms {
	char client_id[CLIENT_ID_MAX_BYTES + 1];
	char session[SESSION_ID_CHARS + 1];
	char key[KEY_ID_CHARS + 1];
	int64_t lease_ends_at_ms;
	struct rights *rights;
	struct verifier *verifier; /* NULL: every CONNECT is the daemon's to judge */
	bool will_publish;
	bool offline; /* in a snapshot: of an earlier run of the broker, not back yet */
};

void terms_free(struct terms *terms);

enum which_index { BY_CLIENT, BY_SESSION, BY_KEY, INDEXES };

enum kick_cause { KICK_NONE, KICK_CUT, KICK_LEASE };

struct entry {
	struct terms terms;
	struct origin origin;
	uint64_t version;    /* of its rights; no other rights ever have the same */
	int64_t asked_at_us; /* when the question went out that this session is the answer to */
	/* The broker's handle of the connection, never looked into. It tells this connection from an older one with the
	 * same client id, and from one that came in without asking us. */
	const void *connection;
	const void *previous_connection; /* taken over by this one and not cut, until it is gone */
	bool online;
	bool may_outlive;      /* away: the broker may keep what it had, under the same handle */
	uint64_t left_at_pass; /* away: in this pass of the broker's loop its will may still be sent */
	bool restored; /* of an earlier run of the broker: known from a snapshot alone, no connection in this run yet */
	bool enhanced; /* came in by enhanced authentication, so it may do so again */
	bool denied; /* for good: only a new CONNECT brings the client back */
	enum kick_cause kick;
	bool kick_with_will;
	uint32_t snapshot_mark;
	struct retained retained; /* also of earlier sessions of the same client id and key */
	struct {
		uint64_t hash;
		struct entry *next;
	} chain[INDEXES];
	struct entry *older, *newer; /* offline list */
	struct entry *kick_next, *kick_previous;
	size_t heap_at; /* place in the lease heap, 0 = not in it */
};

struct index {
	struct entry **buckets;
	size_t size; /* power of two */
};

struct table {
	unsigned char hash_key[16];
	struct index indexes[INDEXES];
	size_t count, offline, offline_max, live_max;
	size_t retained; /* topics in the lists of all entries */
	struct entry *oldest, *newest;
	struct entry *kick_first, *kick_last;
	struct entry **heap; /* [1..heap_count], earliest lease end first */
	size_t heap_count, heap_size;
	uint64_t versions;    /* of rights, ever */
	uint64_t generation;  /* grows when an entry comes or goes */
	struct {
		uint64_t generation;
		const void *connection;
		struct entry *entry;
	} recent[RECENT_SLOTS]; /* answers of table_find_connection */
};

/* False if memory is short. */
bool table_init(struct table *table);
void table_clear(struct table *table);

struct entry *table_find_client(const struct table *table, const char *client_id);
/* The same, quicker for a connection that asked before. `connection` is a hint only: the name decides. */
struct entry *table_find_connection(struct table *table, const void *connection, const char *client_id);
struct entry *table_find_session(const struct table *table, const char *session);
/* The next entry of `key` after `previous` (NULL: the first). */
struct entry *table_next_of_key(const struct table *table, const char *key, const struct entry *previous);

/* True if no further client may come online. */
bool table_full(const struct table *table);

/* Insert a session that is online from now on, in place of an older one of the same client id. Takes over
 * what `terms` own in every case. NULL if memory is short. */
struct entry *table_put(struct table *table, struct terms *terms, const struct origin *origin, const void *connection);

/* Insert a session of an earlier run of the broker, offline and without a connection; nothing happens if the client id
 * is taken. Takes over what `terms` own in every case. False if memory is short. */
bool table_restore(struct table *table, struct terms *terms, const struct origin *origin);

/* The session goes on under a new connection. False if memory is short. */
bool table_readmit(struct table *table, struct entry *entry, const void *connection);

/* The broker has another connection under this client id, so what was away is no more. */
void table_note_other(struct entry *entry, const void *connection);

/* The connection of this entry ended. May release the oldest offline entries, never `entry`. */
void table_set_offline(struct table *table, struct entry *entry);

/* New rights, verifier, lease end and will policy for a session. Takes over what `terms` own. */
void table_update(struct table *table, struct entry *entry, struct terms *terms);
void table_set_lease(struct table *table, struct entry *entry, int64_t ends_at_ms);

/* Refuse every message of this session from now on. */
void table_deny(struct table *table, struct entry *entry);

/* Queue a kick; `table_next_kick` hands them out in order and forgets them. */
void table_queue_kick(struct table *table, struct entry *entry, enum kick_cause cause, bool with_will);
struct entry *table_next_kick(struct table *table, enum kick_cause *cause);

/* An online entry whose lease has ended, taken out of the heap; NULL if there is none. */
struct entry *table_next_ended(struct table *table, int64_t now_ms);

#endif
