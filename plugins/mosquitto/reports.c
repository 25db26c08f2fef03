#include "reports.h"

#include <cjson/cJSON.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "compat.h"
#include "threads.h"
#include "wire.h"

static const char *const WHAT[] = {
	[REPORT_ONLINE] = "online",           [REPORT_OFFLINE] = "offline",     [REPORT_KICKED] = "kicked",
	[REPORT_CUT_OFFLINE] = "cut_offline", [REPORT_NOT_FOUND] = "not_found", [REPORT_KICK_FAILED] = "kick_failed",
	[REPORT_READMITTED] = "readmitted",
};

enum { ITEM_FRAME_BYTES = 160 }; /* names, punctuation, ids and a number of one item */

/* Every character of a client id may need a backslash. */
size_t reports_sync_bytes(const char *client_id)
{
	return strlen(client_id) * 2 + ITEM_FRAME_BYTES;
}

bool reports_init(struct reports *reports, const struct options *options, const char *boot, struct inbox *inbox,
		  struct stream *stream)
{
	memset(reports, 0, sizeof(*reports));
	reports->options = options;
	reports->boot = boot;
	reports->inbox = inbox;
	reports->stream = stream;
	if (pthread_mutex_init(&reports->lock, NULL) != 0) {
		return false;
	}
	if (pthread_cond_init(&reports->wake, NULL) != 0) {
		pthread_mutex_destroy(&reports->lock);
		return false;
	}
	reports->ready = true;
	reports->ring = calloc(REPORTS_MAX, sizeof(*reports->ring));
	if (reports->ring == NULL) {
		reports_stop(reports);
		return false;
	}
	return true;
}

/* --- the broker thread's side --- */

static void add(struct reports *reports, const struct report *report)
{
	bool overflow;

	pthread_mutex_lock(&reports->lock);
	overflow = reports->count == REPORTS_MAX;
	if (overflow) {
		reports->count = 0;
		reports->taken = reports->added;
	}
	reports->ring[(reports->first + reports->count) % REPORTS_MAX] = *report;
	reports->count++;
	reports->added++;
	pthread_mutex_unlock(&reports->lock);
	reports->unsent = true;
	if (overflow) {
		stream_resync(reports->stream);
	}
}

static struct report make_report(enum report_what what, const char *client_id, const char *session)
{
	struct report report = {.what = what, .at_ms = clock_ms()};

	strncpy(report.client_id, client_id, CLIENT_ID_MAX_BYTES);
	strncpy(report.session, session, SESSION_ID_CHARS);
	return report;
}

void reports_add(struct reports *reports, enum report_what what, const char *client_id, const char *session)
{
	struct report report = make_report(what, client_id, session);

	add(reports, &report);
}

void reports_add_readmitted(struct reports *reports, const char *client_id, const char *session, const char *proof,
			    bool clean)
{
	struct report report = make_report(REPORT_READMITTED, client_id, session);

	strncpy(report.proof, proof, PROOF_CHARS);
	report.clean = clean;
	add(reports, &report);
}

void reports_send(struct reports *reports)
{
	if (!reports->unsent) {
		return;
	}
	reports->unsent = false;
	pthread_mutex_lock(&reports->lock);
	pthread_cond_signal(&reports->wake);
	pthread_mutex_unlock(&reports->lock);
}

bool reports_sync_room(struct reports *reports)
{
	bool room;

	pthread_mutex_lock(&reports->lock);
	room = reports->chunks < SYNC_CHUNKS_MAX;
	pthread_mutex_unlock(&reports->lock);
	return room;
}

void reports_sync_add(struct reports *reports, struct sync_chunk *chunk)
{
	chunk->next = NULL;
	pthread_mutex_lock(&reports->lock);
	chunk->after = reports->added;
	if (reports->chunk_last != NULL) {
		reports->chunk_last->next = chunk;
	} else {
		reports->chunk_first = chunk;
	}
	reports->chunk_last = chunk;
	reports->chunks++;
	pthread_cond_signal(&reports->wake);
	pthread_mutex_unlock(&reports->lock);
}

static void free_chunks(struct sync_chunk *chunk)
{
	struct sync_chunk *next;

	for (; chunk != NULL; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
}

void reports_sync_restart(struct reports *reports)
{
	struct sync_chunk *stale;

	pthread_mutex_lock(&reports->lock);
	stale = reports->chunk_first;
	reports->chunk_first = reports->chunk_last = NULL;
	reports->chunks = 0;
	pthread_mutex_unlock(&reports->lock);
	free_chunks(stale);
}

/* --- requests --- */

static cJSON *new_request(const struct reports *reports, const char *list_name, cJSON **list)
{
	cJSON *json = cJSON_CreateObject();

	if (json == NULL || cJSON_AddStringToObject(json, "broker", reports->options->broker) == NULL ||
	    cJSON_AddStringToObject(json, "boot", reports->boot) == NULL ||
	    (*list = cJSON_AddArrayToObject(json, list_name)) == NULL) {
		cJSON_Delete(json);
		return NULL;
	}
	return json;
}

static cJSON *add_item(cJSON *list, const char *client_id, const char *session)
{
	cJSON *item = cJSON_CreateObject();

	if (item == NULL || !cJSON_AddItemToArray(list, item)) {
		cJSON_Delete(item);
		return NULL;
	}
	if (cJSON_AddStringToObject(item, "client_id", client_id) == NULL ||
	    cJSON_AddStringToObject(item, "session", session) == NULL) {
		return NULL; /* the list owns it */
	}
	return item;
}

static char *print_and_delete(cJSON *json)
{
	char *text = cJSON_PrintUnformatted(json);

	cJSON_Delete(json);
	return text;
}

static bool fill_report(cJSON *item, const struct report *report, int64_t now_ms)
{
	if (item == NULL || cJSON_AddStringToObject(item, "what", WHAT[report->what]) == NULL ||
	    cJSON_AddNumberToObject(item, "ms_ago", (double)(now_ms - report->at_ms)) == NULL) {
		return false;
	}
	return report->what != REPORT_READMITTED || (cJSON_AddStringToObject(item, "proof", report->proof) != NULL &&
						     cJSON_AddBoolToObject(item, "clean", report->clean) != NULL);
}

static char *write_reports(const struct reports *reports, const struct report *batch, size_t count)
{
	cJSON *list = NULL;
	cJSON *json = new_request(reports, "events", &list);
	int64_t now_ms = clock_ms();

	for (size_t i = 0; json != NULL && i < count; i++) {
		cJSON *item = add_item(list, batch[i].client_id, batch[i].session);

		if (!fill_report(item, &batch[i], now_ms)) {
			cJSON_Delete(json);
			json = NULL;
		}
	}
	return json == NULL ? NULL : print_and_delete(json);
}

static char *write_sync(const struct reports *reports, const struct sync_chunk *chunk)
{
	cJSON *list = NULL;
	cJSON *json = new_request(reports, "clients", &list);

	for (size_t i = 0; json != NULL && i < chunk->count; i++) {
		const struct sync_client *client = &chunk->clients[i];
		cJSON *item = add_item(list, client->client_id, client->session);

		if (item == NULL || cJSON_AddStringToObject(item, "key", client->key) == NULL ||
		    cJSON_AddBoolToObject(item, "online", client->online) == NULL) {
			cJSON_Delete(json);
			json = NULL;
		}
	}
	return json == NULL ? NULL : print_and_delete(json);
}

/* --- the reporter thread --- */

enum outcome { OUTCOME_DONE, OUTCOME_RETRY, OUTCOME_REFUSED };

static enum outcome post(struct reports *reports, const char *path, char *json)
{
	long status;

	if (json == NULL) {
		return OUTCOME_RETRY;
	}
	status = http_post(&reports->http, path, json, POST_TIMEOUT_MS, &reports->stop);
	cJSON_free(json);
	if (status == STATUS_OK) {
		return OUTCOME_DONE;
	}
	return status >= 400 && status < 500 ? OUTCOME_REFUSED : OUTCOME_RETRY;
}

/* A request the daemon calls wrong would be wrong again: give it up and let a snapshot put both sides right. */
static void give_up(struct reports *reports, const char *path)
{
	inbox_note(reports->inbox, MOSQ_LOG_WARNING, "authd: the daemon refused a request to %s, asking for a new snapshot",
		   path);
	stream_resync(reports->stream);
}

static void pause_before_retry(const struct reports *reports, unsigned failures)
{
	uint32_t bound_ms = RETRY_LEAST_MS << (failures < 5 ? failures : 5);
	int64_t until_ms = clock_ms() + RETRY_LEAST_MS +
			   randombytes_uniform(bound_ms < RETRY_MOST_MS ? bound_ms : RETRY_MOST_MS);

	while (!atomic_load(&reports->stop) && clock_ms() < until_ms) {
		threads_pause(INTERRUPT_MS);
	}
}

static void send_reports(struct reports *reports, const struct report *batch, size_t count)
{
	static const char path[] = "/v1/plugin/session";

	for (unsigned failures = 0; !atomic_load(&reports->stop); failures++) {
		switch (post(reports, path, write_reports(reports, batch, count))) {
		case OUTCOME_DONE:
			return;
		case OUTCOME_REFUSED:
			give_up(reports, path);
			return;
		case OUTCOME_RETRY:
			pause_before_retry(reports, failures);
		}
	}
}

/* The answer names clients; we asked about sessions. Bind them, so that a newer session is left alone. */
static void bind_sessions(struct event *drop, const struct sync_chunk *chunk)
{
	for (size_t i = 0; i < drop->count; i++) {
		for (size_t j = 0; j < chunk->count; j++) {
			if (strcmp(drop->sessions[i].client_id, chunk->clients[j].client_id) == 0) {
				strcpy(drop->sessions[i].session, chunk->clients[j].session);
			}
		}
	}
}

static void send_sync(struct reports *reports, const struct sync_chunk *chunk)
{
	static const char path[] = "/v1/plugin/sync";
	enum outcome outcome = OUTCOME_RETRY;
	struct event *drop;

	for (unsigned failures = 0; failures < 5 && outcome == OUTCOME_RETRY && !atomic_load(&reports->stop);
	     failures++) {
		outcome = post(reports, path, write_sync(reports, chunk));
		if (outcome == OUTCOME_RETRY) {
			pause_before_retry(reports, failures);
		}
	}
	if (atomic_load(&reports->stop)) {
		return;
	}
	drop = outcome == OUTCOME_DONE ? wire_parse_sync(reports->http.body, reports->http.length) : NULL;
	if (drop == NULL) {
		give_up(reports, path);
		return;
	}
	bind_sessions(drop, chunk);
	inbox_push(reports->inbox, drop);
}

static bool chunk_is_due(const struct reports *reports)
{
	return reports->chunk_first != NULL && reports->taken >= reports->chunk_first->after;
}

/* Move as many reports as fit one request out of the ring. With the lock held. */
static size_t take_batch(struct reports *reports, struct report batch[BATCH_MAX])
{
	size_t taken = 0, bytes = 0;

	while (taken < BATCH_MAX && reports->count > 0 && !chunk_is_due(reports)) {
		const struct report *next = &reports->ring[reports->first];

		bytes += reports_sync_bytes(next->client_id);
		if (bytes > BATCH_MAX_BYTES) {
			break;
		}
		batch[taken++] = *next;
		reports->first = (reports->first + 1) % REPORTS_MAX;
		reports->count--;
		reports->taken++;
	}
	return taken;
}

static struct sync_chunk *take_chunk(struct reports *reports)
{
	struct sync_chunk *chunk = reports->chunk_first;

	if (chunk != NULL) {
		reports->chunk_first = chunk->next;
		reports->chunk_last = chunk->next == NULL ? NULL : reports->chunk_last;
		reports->chunks--;
	}
	return chunk;
}

/* Wait for work and take it: a batch of reports, or the chunk whose turn it is. */
static size_t next_work(struct reports *reports, struct report batch[BATCH_MAX], struct sync_chunk **chunk)
{
	size_t taken;

	pthread_mutex_lock(&reports->lock);
	while (!atomic_load(&reports->stop) && reports->count == 0 && reports->chunk_first == NULL) {
		pthread_cond_wait(&reports->wake, &reports->lock);
	}
	taken = take_batch(reports, batch);
	*chunk = taken == 0 ? take_chunk(reports) : NULL;
	pthread_mutex_unlock(&reports->lock);
	return taken;
}

static void *run(void *userdata)
{
	struct reports *reports = userdata;
	struct report *batch = calloc(BATCH_MAX, sizeof(*batch));

	threads_own_files();
	while (!atomic_load(&reports->stop) && !http_init(&reports->http, reports->options->socket_path, true)) {
		threads_pause(INTERRUPT_MS);
	}
	while (batch != NULL && !atomic_load(&reports->stop)) {
		struct sync_chunk *chunk;
		size_t count = next_work(reports, batch, &chunk);

		if (count > 0) {
			send_reports(reports, batch, count);
			threads_pause(COLLECT_MS);
		}
		if (chunk != NULL) {
			send_sync(reports, chunk);
			free(chunk);
		}
	}
	http_free(&reports->http);
	free(batch);
	return NULL;
}

bool reports_start(struct reports *reports)
{
	reports->running = reports->running || threads_start(&reports->thread, run, reports);
	return reports->running;
}

void reports_stop(struct reports *reports)
{
	if (!reports->ready) {
		return;
	}
	pthread_mutex_lock(&reports->lock);
	atomic_store(&reports->stop, true);
	pthread_cond_signal(&reports->wake);
	pthread_mutex_unlock(&reports->lock);
	if (reports->running) {
		pthread_join(reports->thread, NULL);
	}
	free_chunks(reports->chunk_first);
	free(reports->ring);
	pthread_cond_destroy(&reports->wake);
	pthread_mutex_destroy(&reports->lock);
	memset(reports, 0, sizeof(*reports));
}
