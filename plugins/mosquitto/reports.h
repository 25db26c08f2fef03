/* Tells the daemon what became of sessions, and asks it to compare tables after a snapshot, without waiting for it. */
#ifndef AUTHD_REPORTS_H
#define AUTHD_REPORTS_H

#include <stdbool.h>

#include "client.h"
#include "events.h"
#include "options.h"
#include "stream.h"
#include "table.h"

enum {
	REPORTS_MAX = 10000,       /* waiting; one more drops them all and asks for a new snapshot */
	BATCH_MAX = 500,           /* reports or clients in one request */
	BATCH_MAX_BYTES = 60000,   /* of JSON, so that a request stays below 64 KiB */
	SYNC_CHUNKS_MAX = 4,       /* waiting; the next ones are made later */
	SYNC_TRIES = 5,            /* then a new snapshot is asked for */
	COLLECT_MS = 20,           /* between two requests, so that a storm makes few */
	POST_TIMEOUT_MS = 5000
};

enum report_what {
	REPORT_ONLINE,
	REPORT_OFFLINE,
	REPORT_KICKED,
	REPORT_CUT_OFFLINE,
	REPORT_NOT_FOUND,
	REPORT_KICK_FAILED,
	REPORT_READMITTED,
	REPORT_RETAINED
};

enum { PROOF_CHARS = 18 }; /* time and nonce of a pop */

struct report {
	char client_id[CLIENT_ID_MAX_BYTES + 1];
	char session[SESSION_ID_CHARS + 1];
	enum report_what what;
	char proof[PROOF_CHARS + 1]; /* readmitted */
	bool clean;                  /* readmitted */
	int64_t at_ms;
};

struct sync_client {
	char client_id[CLIENT_ID_MAX_BYTES + 1];
	char session[SESSION_ID_CHARS + 1];
	char key[KEY_ID_CHARS + 1];
	bool online;
};

struct sync_chunk {
	struct sync_chunk *next;
	uint64_t after; /* goes out once this many reports have, so that both tell one story in order */
	size_t count, bytes;
	struct sync_client clients[BATCH_MAX];
};

struct reports {
	const struct options *options;
	const char *boot;
	struct stream *stream;
	const struct table *table;
	struct http http;
	struct report *ring; /* REPORTS_MAX of them */
	size_t first, count;
	uint64_t added, taken; /* reports, ever */
	struct sync_chunk *chunk_first, *chunk_last;
	size_t chunks;
	char *body;               /* of the request under way, NULL if there is none */
	size_t in_request;        /* reports at the head of the ring that it carries */
	struct sync_chunk *chunk; /* that it carries, or will when it is tried again */
	int64_t not_before_ms;
	unsigned failures;
};

/* What sessions of `table` left behind is read when a report is written. False if memory is short; then, too,
 * reports_free(). */
bool reports_init(struct reports *reports, const struct options *options, const char *boot, struct stream *stream,
		  const struct table *table);
void reports_free(struct reports *reports);

/* What is added is sent by later calls of reports_step(), so that whoever caused it has got the broker's answer by
 * then. */
void reports_add(struct reports *reports, enum report_what what, const char *client_id, const char *session);

/* Go on with the request under way, or begin the next. Never waits. Returns what is to be dropped if the daemon has
 * compared tables (release it with event_free()), else NULL. Cheap if there is nothing to do. */
struct event *reports_step(struct reports *reports);

/* The plugin judged a CONNECT of this session by itself. */
void reports_add_readmitted(struct reports *reports, const char *client_id, const char *session, const char *proof,
			    bool clean);

/* JSON bytes that one client with this id takes at most. */
size_t reports_sync_bytes(const char *client_id);
bool reports_sync_room(const struct reports *reports);
/* Takes over `chunk` (from malloc). */
void reports_sync_add(struct reports *reports, struct sync_chunk *chunk);
/* Forget chunks of an older snapshot. */
void reports_sync_restart(struct reports *reports);

#endif
