/* The reporter thread: tells the daemon what became of sessions, and asks it to compare tables after a snapshot. */
#ifndef AUTHD_REPORTS_H
#define AUTHD_REPORTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "client.h"
#include "events.h"
#include "options.h"
#include "stream.h"

enum {
	REPORTS_MAX = 10000,       /* waiting; one more drops them all and asks for a new snapshot */
	BATCH_MAX = 500,           /* reports or clients in one request */
	BATCH_MAX_BYTES = 60000,   /* of JSON, so that a request stays below 64 KiB */
	SYNC_CHUNKS_MAX = 4,       /* waiting; the broker thread makes the next ones later */
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
	REPORT_READMITTED
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
	struct inbox *inbox;
	struct stream *stream;
	struct http http; /* the reporter thread's own */
	pthread_t thread;
	bool ready, running;
	bool unsent; /* the broker thread's own: added since the last reports_send() */
	atomic_bool stop;
	pthread_mutex_t lock; /* never held during I/O */
	pthread_cond_t wake;
	struct report *ring; /* REPORTS_MAX of them */
	size_t first, count;
	uint64_t added, taken; /* reports, ever */
	struct sync_chunk *chunk_first, *chunk_last;
	size_t chunks;
};

bool reports_init(struct reports *reports, const struct options *options, const char *boot, struct inbox *inbox,
		  struct stream *stream);
bool reports_start(struct reports *reports);
void reports_stop(struct reports *reports);

/* From the broker thread, like all below. Never waits for the daemon. What is added is sent after the next
 * reports_send(), so that whoever caused it has got the broker's answer by then. */
void reports_add(struct reports *reports, enum report_what what, const char *client_id, const char *session);

/* Wake the reporter thread if anything was added. Cheap if not. */
void reports_send(struct reports *reports);

/* The plugin judged a CONNECT of this session by itself. */
void reports_add_readmitted(struct reports *reports, const char *client_id, const char *session, const char *proof,
			    bool clean);

/* JSON bytes that one client with this id takes at most. */
size_t reports_sync_bytes(const char *client_id);
bool reports_sync_room(struct reports *reports);
/* Takes over `chunk` (from malloc). */
void reports_sync_add(struct reports *reports, struct sync_chunk *chunk);
/* Forget chunks of an older snapshot. */
void reports_sync_restart(struct reports *reports);

#endif
