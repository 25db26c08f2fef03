#include "apply.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"

static bool late(int64_t until_us)
{
	return clock_us() >= until_us;
}

/* Whether `event` may be newer than an answer. It is not if it was here before the question went out, or if the daemon,
 * in the same run, numbered it no higher; numbers of different runs tell nothing. */
static bool is_newer(const struct event *event, const struct origin *answer, int64_t asked_at_us)
{
	bool one_run = strcmp(event->origin.run, answer->run) == 0;

	return event->arrived_us >= asked_at_us && (!one_run || event->origin.n > answer->n);
}

/* Than the answer that made this session. */
static bool concerns(const struct event *event, const struct entry *entry)
{
	return is_newer(event, &entry->origin, entry->asked_at_us);
}

static bool same_session(const struct terms *a, const struct terms *b)
{
	return strcmp(a->client_id, b->client_id) == 0 && strcmp(a->key, b->key) == 0;
}

void apply_cut(struct authd *authd, struct entry *entry, bool with_will, const char *reason)
{
	if (!entry->denied) {
		mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: cut client %s, session %s (%s)", entry->terms.client_id,
				     entry->terms.session, reason);
	}
	table_deny(&authd->table, entry);
	table_queue_kick(&authd->table, entry, KICK_CUT, with_will);
}

/* --- snapshot --- */

static void list_session(struct authd *authd, const struct event *event, struct terms *terms)
{
	struct entry *entry = table_find_session(&authd->table, terms->session);

	if (entry == NULL && terms->offline) {
		(void)table_restore(&authd->table, terms, &event->origin); /* else it is asked about when it comes */
		entry = table_find_session(&authd->table, terms->session);
	}
	if (entry == NULL || !same_session(&entry->terms, terms)) {
		return;
	}
	entry->snapshot_mark = event->mark;
	if (!concerns(event, entry)) {
		return; /* re-authenticated while the snapshot was being written, which may tell of before */
	}
	entry->origin = event->origin;
	if (terms->rights != NULL) { /* not if they were taken over above */
		table_update(&authd->table, entry, terms);
	}
}

/* The daemon names no times: each may be a minute ahead. Before the sessions, so that none can be judged without. */
static bool apply_seen(struct authd *authd, struct event *event, int64_t until_us)
{
	int64_t latest_s = clock_wall_s() + NONCE_WINDOW_S;

	for (; event->cursor < event->seen_count; event->cursor++) {
		if (event->cursor % 64 == 63 && late(until_us)) {
			return false;
		}
		nonces_remember(&authd->nonces, &event->seen[event->cursor], latest_s, false);
	}
	return true;
}

static void sweep_bucket(struct authd *authd, const struct event *event, struct entry *entry)
{
	for (; entry != NULL; entry = entry->chain[BY_CLIENT].next) {
		if (entry->snapshot_mark != event->mark && !entry->denied && concerns(event, entry)) {
			apply_cut(authd, entry, entry->terms.will_publish, "not in the snapshot");
		}
	}
}

static void begin_sync(struct authd *authd)
{
	reports_sync_restart(&authd->reports);
	authd->syncing = true;
	authd->sync_bucket = 0;
}

static bool apply_sessions(struct authd *authd, struct event *event, int64_t until_us)
{
	for (; event->cursor < event->count; event->cursor++) {
		struct terms *terms = &event->sessions[event->cursor];

		if (event->cursor % 8 == 7 && late(until_us)) {
			return false;
		}
		list_session(authd, event, terms);
		terms_free(terms); /* here and not all of them at once */
	}
	return true;
}

/* A table that grows between two slices only makes the sweep see some entries twice. */
static bool apply_sweep(struct authd *authd, struct event *event, int64_t until_us)
{
	const struct index *clients = &authd->table.indexes[BY_CLIENT];

	for (; event->cursor < clients->size; event->cursor++) {
		if (event->cursor % 64 == 63 && late(until_us)) {
			return false;
		}
		sweep_bucket(authd, event, clients->buckets[event->cursor]);
	}
	return true;
}

static bool apply_snapshot(struct authd *authd, struct event *event, int64_t until_us)
{
	static bool (*const stages[])(struct authd *, struct event *, int64_t) = {
		[SNAPSHOT_SEEN] = apply_seen, [SNAPSHOT_SESSIONS] = apply_sessions, [SNAPSHOT_SWEEP] = apply_sweep};

	if (event->mark == 0) {
		event->mark = ++authd->marks;
		nonces_sweep(&authd->nonces, clock_wall_s());
	}
	while (stages[event->stage](authd, event, until_us)) {
		event->cursor = 0;
		if (event->stage == SNAPSHOT_SWEEP) {
			authd->had_snapshot = true;
			begin_sync(authd);
			mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: event stream open, snapshot of %zu sessions",
					     event->count);
			return true;
		}
		event->stage++;
	}
	return false;
}

/* --- set, lease, cut, drop --- */

static void apply_set(struct authd *authd, struct event *event)
{
	struct terms *terms = &event->sessions[0];
	struct entry *entry = table_find_session(&authd->table, terms->session);

	if (entry == NULL || !concerns(event, entry)) {
		return;
	}
	if (!same_session(&entry->terms, terms)) {
		stream_resync(&authd->stream); /* the two tables disagree about what this session is */
		return;
	}
	table_update(&authd->table, entry, terms);
}

static bool apply_leases(struct authd *authd, struct event *event, int64_t until_us)
{
	for (; event->cursor < event->count; event->cursor++) {
		const struct renewal *renewal = &event->renewals[event->cursor];
		struct entry *entry;

		if (event->cursor % 64 == 63 && late(until_us)) {
			return false;
		}
		entry = table_find_session(&authd->table, renewal->session);
		if (entry != NULL && concerns(event, entry)) {
			table_set_lease(&authd->table, entry, renewal->ends_at_ms);
		}
	}
	return true;
}

static void cut_session(struct authd *authd, const struct event *event)
{
	const struct terms *named = &event->sessions[0];
	struct entry *entry = table_find_session(&authd->table, named->session);

	if (entry == NULL) {
		reports_add(&authd->reports, REPORT_NOT_FOUND, named->client_id, named->session);
		return;
	}
	apply_cut(authd, entry, named->will_publish, event->reason);
}

/* A client the table does not know has no rights already, and kicking it could hit a session restored from disk,
 * which 2.0 brokers do not survive: it is only reported. */
static void cut_key(struct authd *authd, const struct event *event)
{
	const struct terms *named = &event->sessions[0];
	struct entry *entry = NULL;

	while ((entry = table_next_of_key(&authd->table, named->key, entry)) != NULL) {
		if (concerns(event, entry)) {
			apply_cut(authd, entry, named->will_publish, event->reason);
		}
	}
	if (named->client_id[0] != '\0' && table_find_client(&authd->table, named->client_id) == NULL) {
		reports_add(&authd->reports, REPORT_NOT_FOUND, named->client_id, "");
	}
}

void apply_drop(struct authd *authd, const struct event *event)
{
	for (size_t i = 0; i < event->count; i++) {
		struct entry *entry = table_find_client(&authd->table, event->sessions[i].client_id);

		if (entry != NULL && strcmp(entry->terms.session, event->sessions[i].session) == 0) {
			apply_cut(authd, entry, entry->terms.will_publish, "dropped by sync");
		}
	}
}

/* True if `event` is done with, false to go on with it later. */
static bool apply_one(struct authd *authd, struct event *event, int64_t until_us)
{
	switch (event->kind) {
	case EVENT_SNAPSHOT:
		return apply_snapshot(authd, event, until_us);
	case EVENT_SET:
		apply_set(authd, event);
		return true;
	case EVENT_LEASE:
		return apply_leases(authd, event, until_us);
	case EVENT_CUT:
		(event->sessions[0].session[0] != '\0' ? cut_session : cut_key)(authd, event);
		return true;
	default:
		return true;
	}
}

/* An answer that is on its way into the table; NULL if there is none. */
struct answered {
	const struct origin *origin;
	int64_t asked_at_us;
};

/* A session that is not in the table yet cannot be found by what ends or changes it. */
static bool must_wait(const struct event *event, const struct answered *answered)
{
	return event != NULL && answered != NULL && is_newer(event, answered->origin, answered->asked_at_us);
}

static void apply_queue(struct authd *authd, const struct answered *answered, int64_t until_us)
{
	while (authd->todo.first != NULL && !late(until_us) && !must_wait(authd->todo.first, answered) &&
	       apply_one(authd, authd->todo.first, until_us)) {
		queue_drop_first(&authd->todo);
	}
}

/* Nothing is read while something waits: what we have no time for waits in the socket. */
static void read_and_apply(struct authd *authd, const struct answered *answered, int64_t until_us)
{
	bool more;

	do {
		apply_queue(authd, answered, until_us);
		more = authd->todo.first != NULL || stream_read(&authd->stream);
	} while (more && !late(until_us) && !must_wait(authd->todo.first, answered));
	authd->caught_up = !more;
}

void apply_news(struct authd *authd, int64_t until_us)
{
	read_and_apply(authd, NULL, until_us);
}

void apply_older(struct authd *authd, const struct origin *origin, int64_t asked_at_us, int64_t until_us)
{
	read_and_apply(authd, &(struct answered){origin, asked_at_us}, until_us);
}

/* --- kicks --- */

void apply_lease_ends(struct authd *authd, int64_t now_ms)
{
	struct entry *entry;

	while ((entry = table_next_ended(&authd->table, now_ms)) != NULL) {
		table_queue_kick(&authd->table, entry, KICK_LEASE, entry->terms.will_publish);
	}
}

static enum report_what kick_result(int rc, bool was_online)
{
	if (rc == MOSQ_ERR_SUCCESS) {
		return was_online ? REPORT_KICKED : REPORT_CUT_OFFLINE;
	}
	return rc == MOSQ_ERR_NOT_FOUND ? REPORT_NOT_FOUND : REPORT_KICK_FAILED;
}

/* Online: the will goes out only if asked for. Offline: always "with will", because 2.0 brokers put a session that
 * is kicked without it on their expiry list twice and later use it after it was freed; the will's own check stops
 * the will. A session restored from disk survives neither: it stays denied, and that is all. */
static void kick(struct authd *authd, struct entry *entry)
{
	bool was_online = entry->online;
	bool with_will = !was_online || entry->kick_with_will;
	enum report_what what;

	if (entry->restored) {
		reports_add(&authd->reports, REPORT_CUT_OFFLINE, entry->terms.client_id, entry->terms.session);
		return;
	}
	authd->will_pass = was_online && entry->kick_with_will ? entry : NULL;
	what = kick_result(mosquitto_kick_client_by_clientid(entry->terms.client_id, with_will), was_online);
	authd->will_pass = NULL;
	if (what == REPORT_NOT_FOUND) {
		entry->connection = NULL;
		table_set_offline(&authd->table, entry);
	}
	reports_add(&authd->reports, what, entry->terms.client_id, entry->terms.session);
}

static bool still_due(const struct entry *entry, enum kick_cause cause)
{
	if (cause == KICK_CUT) {
		return true;
	}
	return entry->online && clock_ms() >= entry->terms.lease_ends_at_ms;
}

void apply_kicks(struct authd *authd, int64_t until_us)
{
	enum kick_cause cause = KICK_NONE;
	struct entry *entry;

	while (!late(until_us) && (entry = table_next_kick(&authd->table, &cause)) != NULL) {
		if (!still_due(entry, cause)) {
			continue;
		}
		if (cause == KICK_LEASE) {
			mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: lease of client %s, session %s has ended",
					     entry->terms.client_id, entry->terms.session);
		}
		kick(authd, entry);
	}
}

/* --- sync --- */

static void add_client(struct sync_chunk *chunk, const struct entry *entry)
{
	struct sync_client *client = &chunk->clients[chunk->count++];

	strcpy(client->client_id, entry->terms.client_id);
	strcpy(client->session, entry->terms.session);
	strcpy(client->key, entry->terms.key);
	client->online = entry->online;
	chunk->bytes += reports_sync_bytes(client->client_id);
}

/* Whether all of a bucket still fits; a bucket holds a few entries, a chunk hundreds. */
static bool bucket_fits(const struct sync_chunk *chunk, const struct entry *entry)
{
	size_t count = chunk->count, bytes = chunk->bytes;

	for (; entry != NULL; entry = entry->chain[BY_CLIENT].next) {
		count++;
		bytes += reports_sync_bytes(entry->terms.client_id);
	}
	return count <= BATCH_MAX && bytes <= BATCH_MAX_BYTES;
}

static void fill_chunk(struct authd *authd, struct sync_chunk *chunk)
{
	const struct index *clients = &authd->table.indexes[BY_CLIENT];

	for (; authd->sync_bucket < clients->size; authd->sync_bucket++) {
		const struct entry *entry = clients->buckets[authd->sync_bucket];

		if (!bucket_fits(chunk, entry)) {
			return;
		}
		for (; entry != NULL; entry = entry->chain[BY_CLIENT].next) {
			if (!entry->denied) {
				add_client(chunk, entry);
			}
		}
	}
	authd->syncing = false;
}

void apply_sync(struct authd *authd)
{
	struct sync_chunk *chunk;

	if (!authd->syncing || !reports_sync_room(&authd->reports)) {
		return;
	}
	chunk = calloc(1, sizeof(*chunk));
	if (chunk == NULL) {
		return; /* later */
	}
	fill_chunk(authd, chunk);
	reports_sync_add(&authd->reports, chunk);
}
