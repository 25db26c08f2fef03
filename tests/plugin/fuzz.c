/* Any bytes through every parser that strangers or the socket feed. For libFuzzer, under the sanitizers.
 *
 * The first byte chooses the parser; the rest is its input. What comes out must be whole, and is released. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "exchanges.h"
#include "grammar.h"
#include "line.h"
#include "nonces.h"
#include "rights.h"
#include "topics.h"
#include "verify.h"
#include "wire.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct nonces nonces;

static void demand(int holds)
{
	if (!holds) {
		abort();
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	demand(sodium_init() >= 0 && nonces_init(&nonces, 0));
	return 0;
}

static void check_terms(const struct terms *terms)
{
	demand(terms->rights != NULL && terms->rights->count <= RIGHTS_MAX && grammar_key_id(terms->key));
	for (size_t i = 0; i < terms->rights->count; i++) {
		demand(topics_filter_valid(terms->rights->items[i].filter));
		rights_allow_name(terms->rights, ACTION_PUB, terms->rights->items[i].filter, 0);
	}
	demand(terms->verifier == NULL || strlen(terms->verifier->endpoint) > 0);
}

static void fuzz_answer(const char *text, size_t length)
{
	struct answer answer;

	if (wire_parse_answer(text, length, 0, &answer) && answer.allow) {
		check_terms(&answer.terms);
	} else {
		demand(answer.terms.rights == NULL && answer.terms.verifier == NULL);
	}
	terms_free(&answer.terms);
}

/* Take in whatever comes up to the first event or fault, `part` bytes at a time. */
static struct event *take(const char *text, size_t length, size_t part)
{
	struct line line = {0};
	struct event *event = NULL;
	const char *end = text + length;
	bool good = true;

	while (good && event == NULL && text < end) {
		size_t left = (size_t)(end - text) < part ? (size_t)(end - text) : part;

		while (good && event == NULL && left > 0) {
			good = line_take(&line, &text, &left, 0, &event);
		}
	}
	if (good && event == NULL) {
		const char *newline = "\n";
		size_t one = 1;

		(void)line_take(&line, &newline, &one, 0, &event);
	}
	demand(line.frame.room <= PIECE_MAX_BYTES && line.entry.room <= PIECE_MAX_BYTES);
	line_free(&line);
	return event;
}

static void fuzz_event(const char *text, size_t length)
{
	struct event *event = take(text, length, length), *again = take(text, length, 3);

	demand((event == NULL) == (again == NULL));
	demand(event == NULL || (event->kind == again->kind && event->count == again->count));
	event_free(again);
	if (event != NULL && (event->kind == EVENT_SNAPSHOT || event->kind == EVENT_SET)) {
		for (size_t i = 0; i < event->count; i++) {
			check_terms(&event->sessions[i]);
			demand(grammar_client_id(event->sessions[i].client_id));
		}
	}
	event_free(event);
}

/* User name, newline, password. */
static void fuzz_credential(char *text)
{
	char *password = text + strcspn(text, "\n");
	struct credential credential;

	if (*password == '\0') {
		demand(grammar_credential(text, NULL).form == CREDENTIAL_REFUSED);
		return;
	}
	*password++ = '\0';
	credential = grammar_credential(text, password);
	if (credential.form == CREDENTIAL_POP) {
		struct proof_id id = nonces_id(text, credential.nonce);

		demand(strlen(password) == POP_CHARS || strlen(password) == POP_WITH_HINT_CHARS);
		nonces_sweep(&nonces, credential.time_s % 100000);
		nonces_remember(&nonces, &id, credential.time_s % 100000, true);
		demand(nonces_judge(&nonces, &id, credential.time_s % 100000) != NONCE_FRESH ||
		       credential.time_s % 100000 > nonces.swept_s);
	}
}

/* Endpoint, newline, client id, newline, password; under a key whose holder nobody here is. */
static void fuzz_verify(char *text)
{
	static const char public[] = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
	static const char id[] = "w316iRDQLkShoIFwl5fZZQ";
	char *client_id = text + strcspn(text, "\n");
	char *password;
	struct verifier *verifier;

	if (*client_id == '\0') {
		return;
	}
	*client_id++ = '\0';
	password = client_id + strcspn(client_id, "\n");
	if (*password == '\0') {
		return;
	}
	*password++ = '\0';
	verifier = verifier_new(public, "AAECAwQFBgcICQoLDA0ODw", text, id);
	demand(verifier == NULL || !verify_pop(verifier, client_id, password));
	free(verifier);
}

static void fuzz_auth(const uint8_t *data, size_t length)
{
	struct auth_message message = grammar_auth(length == 0 ? NULL : data, length);
	static struct exchanges exchanges;
	struct exchange exchange = {.connection = data, .hello_length = length};

	if (message.kind == AUTH_HELLO) {
		memcpy(exchange.hello, data, length);
		demand(exchanges_open(&exchanges, &exchange));
		demand(exchanges_take(&exchanges, data, &exchange));
	}
	demand(message.kind == AUTH_ODD || length <= AUTH_DATA_MAX_BYTES);
}

/* Filter, newline, request. */
static void fuzz_topics(char *text)
{
	char *request = text + strcspn(text, "\n");

	if (*request == '\0') {
		return;
	}
	*request++ = '\0';
	topics_matches(text, request);
	/* What covers a filter matches whatever that matches; a name is its own only match. */
	demand(!topics_name_valid(request) || topics_covers(text, request) == topics_matches(text, request));
}

static void fuzz_text(uint8_t which, char *text)
{
	switch (which) {
	case 0:
		fuzz_credential(text);
		break;
	case 1:
		fuzz_verify(text);
		break;
	case 2:
		fuzz_topics(text);
		break;
	default:
		(void)grammar_client_id(text);
		(void)grammar_username(text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 1) {
		return 0;
	}
	text = malloc(size); /* exactly as long, so that reading past the end is found */
	demand(text != NULL);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0] % 8) {
	case 0:
		fuzz_answer((const char *)data + 1, size - 1);
		break;
	case 1:
	case 2:
		fuzz_event((const char *)data + 1, size - 1);
		break;
	case 3:
		event_free(wire_parse_sync((const char *)data + 1, size - 1));
		break;
	case 4:
		fuzz_auth(data + 1, size - 1);
		break;
	default:
		fuzz_text(data[0] % 8 - 5U + (data[0] > 127 ? 3U : 0U), text);
	}
	free(text);
	return 0;
}
