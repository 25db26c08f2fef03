/* The JSON of the broker socket: strict about the members it reads, indifferent to those it does not know.
 *
 * Anything odd (a wrong type, a member twice, an illegal filter, an id of another shape) makes the whole text
 * malformed; there is no partly read answer. */
#ifndef AUTHD_WIRE_H
#define AUTHD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "events.h"

enum { DETAIL_MAX_CHARS = 200 };

/* The answer to POST /v1/plugin/connect. `terms.client_id` is empty: the answer does not repeat it. */
struct answer {
	bool allow;
	bool temporary;
	struct origin origin;
	struct terms terms;
	char reason[REASON_MAX_CHARS + 1];
	char detail[DETAIL_MAX_CHARS + 1];
};

/* What one CONNECT or one re-authentication shows; exactly one of the four kinds. AUTH data is base64url. */
struct shown {
	const char *password;
	const char *auth;
	const char *hello, *nonce, *response;
	const char *certificate;
};

/* What goes into a connect request. Strings are valid UTF-8 that grammar.h has seen; NULL where there is none. */
struct question {
	const char *broker, *boot, *client_id, *username, *address, *reauthenticates;
	struct shown shown;
	int protocol;
	bool clean;
};

/* `asked_at_ms`: clock_ms() before the request was sent; the lease counts from there. False if malformed. */
bool wire_parse_answer(const char *text, size_t length, int64_t asked_at_ms, struct answer *answer);

/* Members of an event that may hold any number of entries. */
enum wire_list { LIST_NONE, LIST_SESSIONS, LIST_LEASES, LIST_SEEN };

enum wire_list wire_list_of(const char *name, size_t length);

/* Read one entry of such a list into `event`, whose `arrived_us` is set. False if malformed or memory is short. */
bool wire_parse_entry(enum wire_list list, const char *text, size_t length, struct event *event);

/* Read an event whose lists have been emptied into `event`, which has their entries. False as above. */
bool wire_parse_frame(const char *text, size_t length, struct event *event);

/* Client ids of a sync answer, as a drop event without session ids; NULL if malformed. */
struct event *wire_parse_sync(const char *text, size_t length);

/* The body of a connect request; wipe and free it with wire_forget(). NULL if memory is short. */
char *wire_write_question(const struct question *question);
void wire_forget(char *text);

#endif
