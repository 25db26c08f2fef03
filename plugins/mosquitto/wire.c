#include "wire.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "topics.h"

static const double NUMBER_MAX = 9007199254740991.0;          /* exact in a double */
static const int64_t LEASE_MAX_MS = 400LL * 24 * 3600 * 1000; /* no statement lives longer */

/* --- members --- */

struct member {
	const char *name;
	const cJSON *value;
};

/* Fill in `members` from `object`. False if it is no object or names one of them twice. */
static bool pick(const cJSON *object, struct member *members, size_t count)
{
	const cJSON *child;

	if (!cJSON_IsObject(object)) {
		return false;
	}
	cJSON_ArrayForEach(child, object) {
		for (size_t i = 0; i < count; i++) {
			if (strcmp(child->string, members[i].name) != 0) {
				continue;
			}
			if (members[i].value != NULL) {
				return false;
			}
			members[i].value = child;
		}
	}
	return true;
}

static bool read_whole(const cJSON *value, int64_t *number)
{
	if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0) || value->valuedouble > NUMBER_MAX ||
	    floor(value->valuedouble) != value->valuedouble) {
		return false;
	}
	*number = (int64_t)value->valuedouble;
	return true;
}

static bool read_text(const cJSON *value, char *text, size_t size)
{
	if (!cJSON_IsString(value) || strlen(value->valuestring) >= size) {
		return false;
	}
	memcpy(text, value->valuestring, strlen(value->valuestring) + 1);
	return true;
}

static bool read_end(const cJSON *value, int64_t from_ms, int64_t *ends_at_ms)
{
	int64_t left_ms;

	if (!read_whole(value, &left_ms)) {
		return false;
	}
	*ends_at_ms = from_ms + (left_ms < LEASE_MAX_MS ? left_ms : LEASE_MAX_MS);
	return true;
}

static bool read_session_id(const cJSON *value, char session[SESSION_ID_CHARS + 1])
{
	return read_text(value, session, SESSION_ID_CHARS + 1) && strlen(session) == SESSION_ID_CHARS &&
	       grammar_base64url(session, SESSION_ID_CHARS);
}

static bool read_key_id(const cJSON *value, char key[KEY_ID_CHARS + 1])
{
	return read_text(value, key, KEY_ID_CHARS + 1) && grammar_key_id(key);
}

static bool read_client_id(const cJSON *value, char client_id[CLIENT_ID_MAX_BYTES + 1])
{
	return read_text(value, client_id, CLIENT_ID_MAX_BYTES + 1) && grammar_client_id(client_id);
}

static bool read_run(const cJSON *value, char run[RUN_ID_CHARS + 1])
{
	return read_text(value, run, RUN_ID_CHARS + 1) && grammar_hex(run, RUN_ID_CHARS);
}

static bool read_will(const cJSON *value, bool *publish)
{
	if (!cJSON_IsString(value)) {
		return false;
	}
	*publish = strcmp(value->valuestring, "publish") == 0;
	return *publish || strcmp(value->valuestring, "suppress") == 0;
}

/* Reason codes and sentences go to the log, so they must not bring line breaks or terminal codes along. */
static void make_printable(char *text)
{
	for (; *text != '\0'; text++) {
		if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7E) {
			*text = '?';
		}
	}
}

static bool read_label(const cJSON *value, char *text, size_t size)
{
	if (!cJSON_IsString(value)) {
		return false;
	}
	strncpy(text, value->valuestring, size - 1);
	text[size - 1] = '\0';
	make_printable(text);
	return true;
}

/* A JSON text and nothing after it. `\u0000` would cut a filter short and so widen it: refuse it anywhere. */
static cJSON *parse_text(const char *text, size_t length)
{
	static const char nul_escape[] = "\\u0000";
	const char *end = NULL;
	cJSON *json;

	if (memchr(text, '\0', length) != NULL || memmem(text, length, nul_escape, sizeof(nul_escape) - 1) != NULL) {
		return NULL;
	}
	json = cJSON_ParseWithLengthOpts(text, length, &end, false);
	while (json != NULL && end < text + length) {
		if (strchr(" \t\r\n", *end++) == NULL) {
			cJSON_Delete(json);
			return NULL;
		}
	}
	return json;
}

/* --- rights and terms --- */

static bool read_right(const cJSON *value, int64_t from_ms, struct right *right)
{
	struct member members[] = {{"filter", NULL}, {"actions", NULL}, {"ms", NULL}};
	int64_t actions;

	if (!pick(value, members, 3) || !cJSON_IsString(members[0].value) || !read_whole(members[1].value, &actions)) {
		return false;
	}
	right->filter = members[0].value->valuestring;
	right->actions = (unsigned)actions & (ACTION_PUB | ACTION_SUB);
	right->ends_at_ms = RIGHT_NEVER_ENDS;
	if (members[2].value != NULL && !read_end(members[2].value, from_ms, &right->ends_at_ms)) {
		return false;
	}
	return topics_filter_valid(right->filter);
}

/* Move the filters, which still belong to the JSON tree, behind the items. */
static struct rights *pack_rights(struct rights *loose, size_t text_bytes)
{
	size_t head_bytes = sizeof(*loose) + loose->count * sizeof(loose->items[0]);
	struct rights *packed = realloc(loose, head_bytes + text_bytes);
	char *at;

	if (packed == NULL) {
		free(loose);
		return NULL;
	}
	at = (char *)packed + head_bytes;
	for (size_t i = 0; i < packed->count; i++) {
		size_t bytes = strlen(packed->items[i].filter) + 1;

		memcpy(at, packed->items[i].filter, bytes);
		packed->items[i].filter = at;
		at += bytes;
	}
	return packed;
}

static struct rights *read_rights(const cJSON *value, int64_t from_ms)
{
	int count = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : -1;
	struct rights *rights;
	const cJSON *child;
	size_t text_bytes = 0;

	if (count < 0 || count > RIGHTS_MAX) {
		return NULL;
	}
	rights = calloc(1, sizeof(*rights) + (size_t)count * sizeof(rights->items[0]));
	if (rights == NULL) {
		return NULL;
	}
	cJSON_ArrayForEach(child, value) {
		struct right *right = &rights->items[rights->count++];

		if (!read_right(child, from_ms, right)) {
			free(rights);
			return NULL;
		}
		text_bytes += strlen(right->filter) + 1;
	}
	return pack_rights(rights, text_bytes);
}

/* Leaves `verifier` NULL where there is no such member. */
static bool read_verifier(const cJSON *value, const char *key, struct verifier **verifier)
{
	struct member members[] = {{"public", NULL}, {"domain", NULL}, {"endpoint", NULL}};

	if (value == NULL) {
		return true;
	}
	if (!pick(value, members, 3) || !cJSON_IsString(members[0].value) || !cJSON_IsString(members[1].value) ||
	    !cJSON_IsString(members[2].value)) {
		return false;
	}
	*verifier = verifier_new(members[0].value->valuestring, members[1].value->valuestring,
				 members[2].value->valuestring, key);
	return *verifier != NULL;
}

/* The members that answers, snapshots and `set` share. Whoever made `terms` releases it, also after false. */
static bool read_terms(const struct member members[6], int64_t from_ms, struct terms *terms)
{
	if (!read_session_id(members[0].value, terms->session) || !read_key_id(members[1].value, terms->key) ||
	    !read_end(members[2].value, from_ms, &terms->lease_ends_at_ms) ||
	    !read_will(members[4].value, &terms->will_publish) ||
	    !read_verifier(members[5].value, terms->key, &terms->verifier)) {
		return false;
	}
	terms->rights = read_rights(members[3].value, from_ms);
	return terms->rights != NULL;
}

enum { TERMS_COUNT = 6, SEEN_CHARS = 32 };
#define TERMS_MEMBERS                                                                                                  \
	{"session", NULL}, {"key", NULL}, {"lease_ms", NULL}, {"rights", NULL}, {"will", NULL}, {"verify", NULL}

static bool read_flag(const cJSON *value, bool *flag)
{
	*flag = cJSON_IsTrue(value);
	return value == NULL || cJSON_IsBool(value);
}

static bool read_session(const cJSON *value, int64_t from_ms, struct terms *terms)
{
	struct member members[] = {TERMS_MEMBERS, {"client_id", NULL}, {"offline", NULL}};

	return pick(value, members, TERMS_COUNT + 2) && read_client_id(members[TERMS_COUNT].value, terms->client_id) &&
	       read_flag(members[TERMS_COUNT + 1].value, &terms->offline) && read_terms(members, from_ms, terms);
}

/* --- the answer to a connect --- */

static bool read_allow(const cJSON *json, int64_t from_ms, struct answer *answer)
{
	struct member members[] = {TERMS_MEMBERS, {"n", NULL}, {"run", NULL}};
	int64_t n;

	if (!pick(json, members, TERMS_COUNT + 2) || !read_whole(members[TERMS_COUNT].value, &n) ||
	    !read_run(members[TERMS_COUNT + 1].value, answer->origin.run)) {
		return false;
	}
	answer->origin.n = (uint64_t)n;
	return read_terms(members, from_ms, &answer->terms);
}

static bool read_deny(const cJSON *json, struct answer *answer)
{
	struct member members[] = {{"reason", NULL}, {"detail", NULL}, {"temporary", NULL}};

	if (!pick(json, members, 3) || !cJSON_IsBool(members[2].value)) {
		return false;
	}
	answer->temporary = cJSON_IsTrue(members[2].value);
	return read_label(members[0].value, answer->reason, sizeof(answer->reason)) &&
	       read_label(members[1].value, answer->detail, sizeof(answer->detail));
}

static bool read_answer(const cJSON *json, int64_t from_ms, struct answer *answer)
{
	struct member verdict[] = {{"verdict", NULL}};

	if (!pick(json, verdict, 1) || !cJSON_IsString(verdict[0].value)) {
		return false;
	}
	if (strcmp(verdict[0].value->valuestring, "deny") == 0) {
		return read_deny(json, answer);
	}
	answer->allow = strcmp(verdict[0].value->valuestring, "allow") == 0 && read_allow(json, from_ms, answer);
	return answer->allow;
}

bool wire_parse_answer(const char *text, size_t length, int64_t asked_at_ms, struct answer *answer)
{
	cJSON *json = parse_text(text, length);
	bool valid;

	memset(answer, 0, sizeof(*answer));
	valid = json != NULL && read_answer(json, asked_at_ms, answer);
	cJSON_Delete(json);
	if (!valid) {
		terms_free(&answer->terms);
	}
	return valid;
}

/* --- events --- */

static bool read_proof_id(const cJSON *value, struct proof_id *id)
{
	if (!cJSON_IsString(value) || strlen(value->valuestring) != SEEN_CHARS ||
	    !grammar_base64url(value->valuestring, SEEN_CHARS)) {
		return false;
	}
	grammar_decode(value->valuestring, SEEN_CHARS, id->bytes);
	return true;
}

static bool read_renewal(const cJSON *pair, int64_t from_ms, struct renewal *renewal)
{
	return cJSON_IsArray(pair) && cJSON_GetArraySize(pair) == 2 &&
	       read_session_id(cJSON_GetArrayItem(pair, 0), renewal->session) &&
	       read_end(cJSON_GetArrayItem(pair, 1), from_ms, &renewal->ends_at_ms);
}

/* Sessions and renewals share one counter: no line has both. */
static bool read_entry(enum wire_list list, const cJSON *json, struct event *event)
{
	int64_t from_ms = event->arrived_us / 1000;

	switch (list) {
	case LIST_SESSIONS:
		return event->renewals == NULL && event_add_session(event) &&
		       read_session(json, from_ms, &event->sessions[event->count - 1]);
	case LIST_LEASES:
		return event->sessions == NULL && event_add_renewal(event) &&
		       read_renewal(json, from_ms, &event->renewals[event->count - 1]);
	case LIST_SEEN:
		return event_add_seen(event) && read_proof_id(json, &event->seen[event->seen_count - 1]);
	default:
		return false;
	}
}

enum wire_list wire_list_of(const char *name, size_t length)
{
	static const char *const names[] = {
		[LIST_SESSIONS] = "sessions", [LIST_LEASES] = "leases", [LIST_SEEN] = "seen"};

	for (enum wire_list list = LIST_SESSIONS; list <= LIST_SEEN; list++) {
		if (strlen(names[list]) == length && memcmp(names[list], name, length) == 0) {
			return list;
		}
	}
	return LIST_NONE;
}

bool wire_parse_entry(enum wire_list list, const char *text, size_t length, struct event *event)
{
	cJSON *json = parse_text(text, length);
	bool valid = json != NULL && read_entry(list, json, event);

	cJSON_Delete(json);
	return valid;
}

/* A list of a frame; what was in it has been read already. */
static bool is_emptied(const cJSON *value)
{
	return cJSON_IsArray(value) && value->child == NULL;
}

static bool has_entries(const struct event *event)
{
	return event->count > 0 || event->seen_count > 0;
}

static bool read_snapshot(const cJSON *json, struct event *event)
{
	struct member members[] = {{"run", NULL}, {"sessions", NULL}, {"seen", NULL}};

	return pick(json, members, 3) && read_run(members[0].value, event->origin.run) &&
	       is_emptied(members[1].value) && (members[2].value == NULL || is_emptied(members[2].value)) &&
	       event->renewals == NULL;
}

static bool read_set(const cJSON *json, struct event *event)
{
	return !has_entries(event) && event_add_session(event) &&
	       read_session(json, event->arrived_us / 1000, &event->sessions[0]);
}

static bool read_lease(const cJSON *json, const struct event *event)
{
	struct member members[] = {{"leases", NULL}};

	return pick(json, members, 1) && is_emptied(members[0].value) && event->sessions == NULL &&
	       event->seen == NULL;
}

static bool is_empty(const cJSON *value)
{
	return cJSON_IsString(value) && value->valuestring[0] == '\0';
}

static bool read_cut(const cJSON *json, struct event *event)
{
	struct member members[] = {
		{"key", NULL}, {"client_id", NULL}, {"session", NULL}, {"will", NULL}, {"reason", NULL}};
	struct terms *cut;

	if (has_entries(event) || !event_add_session(event) || !pick(json, members, 5)) {
		return false;
	}
	cut = &event->sessions[0];
	return read_key_id(members[0].value, cut->key) &&
	       (is_empty(members[1].value) || read_client_id(members[1].value, cut->client_id)) &&
	       (is_empty(members[2].value) || read_session_id(members[2].value, cut->session)) &&
	       read_will(members[3].value, &cut->will_publish) &&
	       read_label(members[4].value, event->reason, sizeof(event->reason));
}

static bool read_beat(const cJSON *json, struct event *event)
{
	struct member members[] = {{"run", NULL}};

	return pick(json, members, 1) && read_run(members[0].value, event->origin.run) && !has_entries(event);
}

static bool read_body(const cJSON *json, struct event *event)
{
	switch (event->kind) {
	case EVENT_SNAPSHOT:
		return read_snapshot(json, event);
	case EVENT_SET:
		return read_set(json, event);
	case EVENT_LEASE:
		return read_lease(json, event);
	case EVENT_CUT:
		return read_cut(json, event);
	case EVENT_BEAT:
		return read_beat(json, event);
	default:
		return false;
	}
}

static bool read_kind(const cJSON *value, enum event_kind *kind)
{
	static const char *const names[] = {
		[EVENT_SNAPSHOT] = "snapshot", [EVENT_SET] = "set",   [EVENT_LEASE] = "lease",
		[EVENT_CUT] = "cut",           [EVENT_BEAT] = "beat",
	};

	for (size_t i = 0; cJSON_IsString(value) && i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(value->valuestring, names[i]) == 0) {
			*kind = (enum event_kind)i;
			return true;
		}
	}
	return false;
}

static bool read_frame(const cJSON *json, struct event *event)
{
	struct member members[] = {{"type", NULL}, {"n", NULL}};
	int64_t n;

	if (!pick(json, members, 2) || !read_kind(members[0].value, &event->kind) ||
	    !read_whole(members[1].value, &n)) {
		return false;
	}
	event->origin.n = (uint64_t)n;
	return read_body(json, event);
}

bool wire_parse_frame(const char *text, size_t length, struct event *event)
{
	cJSON *json = text == NULL ? NULL : parse_text(text, length);
	bool valid = json != NULL && read_frame(json, event);

	cJSON_Delete(json);
	return valid;
}

/* --- sync --- */

static bool read_drops(const cJSON *list, struct event *event)
{
	const cJSON *child;

	cJSON_ArrayForEach(child, list) {
		if (!event_add_session(event) ||
		    !read_client_id(child, event->sessions[event->count - 1].client_id)) {
			return false;
		}
	}
	return true;
}

struct event *wire_parse_sync(const char *text, size_t length)
{
	struct member members[] = {{"drop", NULL}};
	cJSON *json = parse_text(text, length);
	struct event *event = NULL;

	if (json != NULL && pick(json, members, 1) && cJSON_IsArray(members[0].value)) {
		event = event_new(0);
	}
	if (event != NULL && !read_drops(members[0].value, event)) {
		event_free(event);
		event = NULL;
	}
	if (event != NULL) {
		event->kind = EVENT_DROP;
	}
	cJSON_Delete(json);
	return event;
}

/* --- the connect request --- */

static bool add_enforces(cJSON *json)
{
	static const char *const enforces[] = {"rights", "lease", "kick", "will"};
	cJSON *list = cJSON_CreateStringArray(enforces, 4);

	if (list == NULL || !cJSON_AddItemToObject(json, "enforces", list)) {
		cJSON_Delete(list);
		return false;
	}
	return true;
}

/* A member only where there is something to say. */
static bool add_optional(cJSON *json, const char *name, const char *text)
{
	return text == NULL || cJSON_AddStringToObject(json, name, text) != NULL;
}

static bool add_exchange(cJSON *json, const struct shown *shown)
{
	cJSON *exchange = shown->hello == NULL ? json : cJSON_AddObjectToObject(json, "exchange");

	return exchange != NULL && add_optional(exchange, "hello", shown->hello) &&
	       add_optional(exchange, "nonce", shown->nonce) && add_optional(exchange, "response", shown->response);
}

static bool add_shown(cJSON *json, const struct shown *shown)
{
	const char *password = shown->password == NULL ? "" : shown->password;

	return cJSON_AddStringToObject(json, "password", password) != NULL &&
	       add_optional(json, "auth", shown->auth) && add_exchange(json, shown) &&
	       add_optional(json, "certificate", shown->certificate);
}

char *wire_write_question(const struct question *question)
{
	const char *username = question->username == NULL ? "" : question->username;
	const char *address = question->address == NULL ? "" : question->address;
	cJSON *json = cJSON_CreateObject();
	char *text = NULL;

	if (json != NULL && cJSON_AddStringToObject(json, "broker", question->broker) != NULL &&
	    cJSON_AddStringToObject(json, "boot", question->boot) != NULL &&
	    cJSON_AddStringToObject(json, "client_id", question->client_id) != NULL &&
	    cJSON_AddStringToObject(json, "username", username) != NULL && add_shown(json, &question->shown) &&
	    add_optional(json, "reauthenticates", question->reauthenticates) &&
	    cJSON_AddStringToObject(json, "address", address) != NULL &&
	    cJSON_AddNumberToObject(json, "protocol", question->protocol) != NULL &&
	    cJSON_AddBoolToObject(json, "clean", question->clean) != NULL && add_enforces(json)) {
		text = cJSON_PrintUnformatted(json);
	}
	cJSON_Delete(json);
	return text;
}

void wire_forget(char *text)
{
	if (text != NULL) {
		sodium_memzero(text, strlen(text));
		cJSON_free(text);
	}
}
