/* Everything one loaded plugin knows. The broker hands it to each callback; nothing lives outside of it. */
#ifndef AUTHD_CONTEXT_H
#define AUTHD_CONTEXT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "bucket.h"
#include "client.h"
#include "clock.h"
#include "compat.h"
#include "events.h"
#include "exchanges.h"
#include "memo.h"
#include "nonces.h"
#include "options.h"
#include "reports.h"
#include "stream.h"
#include "table.h"

enum {
	BOOT_ID_CHARS = 16,
	TICK_MISSING_MS = 5000, /* without a TICK for this long nobody can be cut, so nobody is let in */
	LOG_LINES_PER_SECOND = 20,
	STRANGER_LOG_MS = 60000
};

struct log_limit {
	int64_t second;
	int lines, dropped;
};

struct authd {
	mosquitto_plugin_id_t *id;
	pthread_t thread; /* the broker's own; forking leaves it as it is */
	struct options options;
	char boot[BOOT_ID_CHARS + 1];
	bool is_2_1;
	int64_t ticked_at_ms; /* 0 = never */
	uint64_t passes;      /* of the broker's loop, by its TICKs */
	int64_t worked_at_ms, rest_until_ms;
	struct clock_cache clock;
	struct table table;
	struct memo memo;
	struct queue todo;   /* said by the daemon, not carried out yet */
	bool caught_up;      /* and at the last look there was nothing more to read */
	uint32_t marks;     /* snapshots begun */
	bool had_snapshot;  /* one has been applied as a whole */
	struct nonces nonces;
	struct exchanges exchanges;
	bool reloading;     /* from SIGHUP to the next TICK, between which no packet is read */
	bool syncing;
	size_t sync_bucket;
	const struct entry *will_pass; /* the session whose will the running kick may publish */
	struct budget budget;
	struct rates rates;
	struct log_limit log_limit; /* refusals */
	int64_t stranger_logged_ms; /* 0 = never */
	struct http http;
	struct stream stream;
	struct reports reports;
};

#endif
