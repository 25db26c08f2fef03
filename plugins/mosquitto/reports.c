#include "reports.h"

#include <cjson/cJSON.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "compat.h"
#include "wire.h"

static const char *const WHAT[] = {
	[REPORT_ONLINE] = "online",           [REPORT_OFFLINE] = "offline",     [REPORT_KICKED] = "kicked",
	[REPORT_CUT_OFFLINE] = "cut_offline", [REPORT_NOT_FOUND] = "not_found", [REPORT_KICK_FAILED] = "kick_failed",
	[REPORT_READMITTED] = "readmitted",   [REPORT_RETAINED] = "retained",
};

enum { ITEM_FRAME_BYTES = 160 }; /* names, punctuation, ids and a number of one item */

/* Every character of a client id may need a backslash. */
size_t reports_sync_bytes(const char *client_id)
{
	return strlen(client_id) * 2 + ITEM_FRAME_BYTES;
}

bool reports_init(struct reports *reports, const struct options *options, const char *boot, struct stream *stream,
		  const struct table *table)
{
	memset(reports, 0, sizeof(*reports));
	reports->options = options;
	reports->boot = boot;
	reports->stream = stream;
	reports->table = table;
	reports->ring = calloc(REPORTS_MAX, sizeof(*reports->ring));
	return reports->ring != NULL && http_init(&reports->http, options->socket_path);
}

/* --- what is to be said --- */

static void add(struct reports *reports, const struct report *report)
{
	if (reports->count == REPORTS_MAX) {
		reports->count = reports->in_request = 0;
		reports->taken = reports->added;
		stream_resync(reports->stream);
	}
	reports->ring[(reports->first + reports->count) % REPORTS_MAX] = *report;
	reports->count++;
	reports->added++;
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

bool reports_sync_room(const struct reports *reports)
{
	return reports->chunks < SYNC_CHUNKS_MAX;
}

void reports_sync_add(struct reports *reports, struct sync_chunk *chunk)
{
	chunk->next = NULL;
	chunk->after = reports->added;
	*(reports->chunk_last != NULL ? &reports->chunk_last->next : &reports->chunk_first) = chunk;
	reports->chunk_last = chunk;
	reports->chunks++;
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
	free_chunks(reports->chunk_first);
	reports->chunk_first = reports->chunk_last = NULL;
	reports->chunks = 0;
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

/* What the session of a report left behind, NULL if it is nothing or not to be told. */
static const struct retained *left_behind(const struct reports *reports, const struct report *report)
{
	const struct entry *entry;

	if (report->what == REPORT_ONLINE || report->what == REPORT_READMITTED) {
		return NULL;
	}
	entry = table_find_session(reports->table, report->session);
	return entry == NULL || entry->retained.count + entry->retained.more == 0 ? NULL : &entry->retained;
}

static bool fill_retained(cJSON *item, const struct retained *retained)
{
	cJSON *names = cJSON_AddArrayToObject(item, "retained");

	for (const struct left_topic *left = retained->oldest; left != NULL; left = left->newer) {
		cJSON *name = cJSON_CreateString(left->name);

		if (name == NULL || !cJSON_AddItemToArray(names, name)) {
			cJSON_Delete(name);
			return false;
		}
	}
	return names != NULL && cJSON_AddNumberToObject(item, "retained_more", retained->more) != NULL;
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

static char *write_reports(const struct reports *reports, size_t count)
{
	cJSON *list = NULL;
	cJSON *json = new_request(reports, "events", &list);
	int64_t now_ms = clock_ms();

	for (size_t i = 0; json != NULL && i < count; i++) {
		const struct report *report = &reports->ring[(reports->first + i) % REPORTS_MAX];
		const struct retained *retained = left_behind(reports, report);
		cJSON *item = add_item(list, report->client_id, report->session);

		if (!fill_report(item, report, now_ms) || (retained != NULL && !fill_retained(item, retained))) {
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

/* --- the request under way --- */

static const char SESSION_PATH[] = "/v1/plugin/session";
static const char SYNC_PATH[] = "/v1/plugin/sync";

static size_t report_bytes(const struct reports *reports, const struct report *report)
{
	const struct retained *retained = left_behind(reports, report);

	return reports_sync_bytes(report->client_id) + (retained == NULL ? 0 : retained_json_bytes(retained));
}

/* How many reports fit one request and come before the chunk whose turn is next. */
static size_t batch_size(const struct reports *reports)
{
	const struct sync_chunk *chunk = reports->chunk_first;
	size_t most = reports->count < BATCH_MAX ? reports->count : BATCH_MAX;
	size_t size = 0, bytes = 0;

	while (size < most && (chunk == NULL || reports->taken + size < chunk->after)) {
		bytes += report_bytes(reports, &reports->ring[(reports->first + size) % REPORTS_MAX]);
		if (bytes > BATCH_MAX_BYTES) {
			break;
		}
		size++;
	}
	return size;
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

/* Reports stay in the ring until the daemon has them. */
static void forget_sent(struct reports *reports)
{
	reports->first = (reports->first + reports->in_request) % REPORTS_MAX;
	reports->count -= reports->in_request;
	reports->taken += reports->in_request;
	reports->in_request = 0;
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

/* A request the daemon calls wrong would be wrong again: give it up and let a snapshot put both sides right. */
static void give_up(struct reports *reports, const char *path)
{
	mosquitto_log_printf(MOSQ_LOG_WARNING, "authd: the daemon refused a request to %s, asking for a new snapshot",
			     path);
	stream_resync(reports->stream);
}

static void retry_later(struct reports *reports)
{
	unsigned failures = reports->failures++;
	uint32_t bound_ms = RETRY_LEAST_MS << (failures < 5 ? failures : 5);

	bound_ms = bound_ms < RETRY_MOST_MS ? bound_ms : RETRY_MOST_MS;
	reports->in_request = 0;
	reports->not_before_ms = clock_ms() + RETRY_LEAST_MS + randombytes_uniform(bound_ms);
}

static struct event *end_sync(struct reports *reports, bool done)
{
	struct event *drop = done ? wire_parse_sync(reports->http.body, reports->http.length) : NULL;

	if (drop == NULL) {
		give_up(reports, SYNC_PATH);
	} else {
		bind_sessions(drop, reports->chunk);
	}
	free(reports->chunk);
	reports->chunk = NULL;
	return drop;
}

static struct event *end_request(struct reports *reports, long status)
{
	bool done = status == STATUS_OK, refused = status >= 400 && status < 500;
	bool sync = reports->chunk != NULL;

	cJSON_free(reports->body);
	reports->body = NULL;
	if (!done && !refused && !(sync && reports->failures + 1 >= SYNC_TRIES)) {
		retry_later(reports);
		return NULL;
	}
	reports->failures = 0;
	if (sync) {
		return end_sync(reports, done);
	}
	forget_sent(reports);
	reports->not_before_ms = clock_ms() + COLLECT_MS;
	if (refused) {
		give_up(reports, SESSION_PATH);
	}
	return NULL;
}

static void begin_request(struct reports *reports)
{
	size_t batch = reports->chunk == NULL ? batch_size(reports) : 0;
	const char *path = batch > 0 ? SESSION_PATH : SYNC_PATH;

	if (batch == 0 && reports->chunk == NULL) {
		reports->chunk = take_chunk(reports);
	}
	if (batch == 0 && reports->chunk == NULL) {
		return;
	}
	reports->in_request = batch;
	reports->body = batch > 0 ? write_reports(reports, batch) : write_sync(reports, reports->chunk);
	if (reports->body == NULL || !http_begin(&reports->http, path, reports->body, POST_TIMEOUT_MS)) {
		(void)end_request(reports, 0); /* memory is short: again later */
	}
}

struct event *reports_step(struct reports *reports)
{
	struct event *drop = NULL;
	long status;

	if (reports->body != NULL) {
		if (!http_step(&reports->http, &status)) {
			return NULL;
		}
		drop = end_request(reports, status);
	}
	if (reports->count + reports->chunks > 0 || reports->chunk != NULL) {
		if (clock_ms() >= reports->not_before_ms) {
			begin_request(reports);
		}
	}
	return drop;
}

void reports_free(struct reports *reports)
{
	http_free(&reports->http);
	cJSON_free(reports->body);
	free(reports->chunk);
	free_chunks(reports->chunk_first);
	free(reports->ring);
	memset(reports, 0, sizeof(*reports));
}
