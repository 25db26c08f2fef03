#include "auth.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "attempt.h"
#include "clock.h"

static const char METHOD[] = "authd-1";
enum { TEXT_MAX_CHARS = AUTH_DATA_MAX_BYTES * 4 / 3 + 2 };

/* The session that lives on this very connection, NULL if none does. */
static struct entry *session_on(const struct authd *authd, const struct mosquitto *client)
{
	const char *client_id = mosquitto_client_id(client);
	struct entry *entry = client_id == NULL ? NULL : table_find_client(&authd->table, client_id);

	return entry != NULL && entry->online && entry->connection == client ? entry : NULL;
}

/* A session that came in by this method may show a proof again; the broker tells nothing of it. */
static void note_session(struct attempt *attempt)
{
	const struct entry *entry = session_on(attempt->authd, attempt->client);

	if (entry != NULL && entry->enhanced) {
		strcpy(attempt->reauthenticates, entry->terms.session);
	}
}

/* Release the attempt; what the broker is to be told. A refusal for now has no code of its own here. */
static int finish(struct attempt *attempt, enum verdict verdict)
{
	if (verdict == VERDICT_ALLOW) {
		verdict = attempt_name_by_key(attempt);
	}
	attempt_end(attempt, verdict);
	switch (verdict) {
	case VERDICT_ALLOW:
		return MOSQ_ERR_SUCCESS;
	case VERDICT_REFUSE:
		return MOSQ_ERR_AUTH;
	default:
		return MOSQ_ERR_UNKNOWN;
	}
}

static int single_step(struct attempt *attempt, const struct mosquitto_evt_extended_auth *event,
		       const struct auth_message *message)
{
	char text[TEXT_MAX_CHARS];

	grammar_encode(event->data_in, event->data_in_len, text);
	attempt->shown.auth = text;
	attempt->claimed_key = message->key;
	attempt->has_proof = true;
	attempt->time_s = message->time_s;
	attempt->proof = nonces_id(message->key, message->nonce);
	return finish(attempt, attempt_decide(attempt));
}

/* The broker releases this with free(), so it must come from plain malloc(). */
static bool write_challenge(struct mosquitto_evt_extended_auth *event, const unsigned char nonce[EXCHANGE_NONCE_BYTES])
{
	unsigned char *challenge = malloc(1 + EXCHANGE_NONCE_BYTES);

	if (challenge == NULL) {
		return false;
	}
	challenge[0] = AUTH_CHALLENGE;
	memcpy(challenge + 1, nonce, EXCHANGE_NONCE_BYTES);
	event->data_out = challenge;
	event->data_out_len = 1 + EXCHANGE_NONCE_BYTES;
	return true;
}

static int hello(struct attempt *attempt, struct mosquitto_evt_extended_auth *event, const struct auth_message *message)
{
	struct exchange exchange = {.connection = attempt->client, .opened_ms = clock_ms()};

	randombytes_buf(exchange.nonce, sizeof(exchange.nonce));
	strcpy(exchange.client_id, attempt->client_id);
	strcpy(exchange.session, attempt->reauthenticates);
	strcpy(exchange.key, message->key);
	memcpy(exchange.hello, event->data_in, event->data_in_len);
	exchange.hello_length = event->data_in_len;
	if (!exchanges_open(&attempt->authd->exchanges, &exchange)) {
		return finish(attempt, attempt_later(attempt, "too many challenges are open"));
	}
	if (!write_challenge(event, exchange.nonce)) {
		exchanges_forget(&attempt->authd->exchanges, attempt->client);
		return finish(attempt, attempt_later(attempt, "memory is short"));
	}
	return MOSQ_ERR_AUTH_CONTINUE;
}

/* The user name is not judged, but it reaches the daemon's log. */
static enum verdict check(struct attempt *attempt)
{
	enum verdict verdict = attempt_check(attempt);

	attempt->enhanced = true;
	attempt->username = mosquitto_client_username(attempt->client);
	if (verdict == VERDICT_ALLOW && attempt->username != NULL && !grammar_username(attempt->username)) {
		return attempt_refuse(attempt, "the user name is too long or has a character that is not allowed");
	}
	return verdict;
}

int auth_start(struct authd *authd, struct mosquitto_evt_extended_auth *event)
{
	struct attempt attempt = attempt_of(authd, event->client);
	struct auth_message message = grammar_auth(event->data_in, event->data_in_len);
	enum verdict verdict;

	if (event->auth_method == NULL || strcmp(event->auth_method, METHOD) != 0) {
		return MOSQ_ERR_NOT_SUPPORTED;
	}
	exchanges_forget(&authd->exchanges, event->client);
	verdict = check(&attempt);
	if (verdict != VERDICT_ALLOW) {
		return finish(&attempt, verdict);
	}
	note_session(&attempt);
	switch (message.kind) {
	case AUTH_SINGLE_STEP:
		return single_step(&attempt, event, &message);
	case AUTH_HELLO:
		return hello(&attempt, event, &message);
	default:
		return finish(&attempt, attempt_refuse(&attempt, "the authentication data is neither a single step nor a hello"));
	}
}

/* --- the answer to a challenge --- */

static int response(struct attempt *attempt, const struct mosquitto_evt_extended_auth *event,
		    const struct exchange *exchange)
{
	char hello_text[TEXT_MAX_CHARS], nonce[TEXT_MAX_CHARS], text[TEXT_MAX_CHARS];

	grammar_encode(exchange->hello, exchange->hello_length, hello_text);
	grammar_encode(exchange->nonce, sizeof(exchange->nonce), nonce);
	grammar_encode(event->data_in, event->data_in_len, text);
	attempt->shown.hello = hello_text;
	attempt->shown.nonce = nonce;
	attempt->shown.response = text;
	attempt->claimed_key = exchange->key;
	return finish(attempt, attempt_decide(attempt));
}

static enum verdict check_response(struct attempt *attempt, const struct mosquitto_evt_extended_auth *event,
				   const struct exchange *exchange)
{
	enum verdict verdict = check(attempt);

	if (verdict != VERDICT_ALLOW) {
		return verdict;
	}
	if (grammar_auth(event->data_in, event->data_in_len).kind != AUTH_RESPONSE) {
		return attempt_refuse(attempt, "the authentication data is no response");
	}
	if (strcmp(exchange->client_id, attempt->client_id) != 0 ||
	    strcmp(exchange->session, attempt->reauthenticates) != 0) {
		return attempt_refuse(attempt, "the challenge was for another session");
	}
	if (clock_ms() - exchange->opened_ms >= EXCHANGE_MAX_MS) {
		return attempt_refuse(attempt, "the challenge is older than 10 seconds");
	}
	return VERDICT_ALLOW;
}

/* An AUTH packet without a body reaches us on a connection that is accepted and in no exchange. Brokers up to 2.1 then
 * release the client's id while they still use it if we refuse, and crash if we agree. To ask for more is safe, and
 * so is to end the connection from TICK. */
static int stray(struct authd *authd, const struct mosquitto *client)
{
	struct entry *entry = session_on(authd, client);

	if (entry != NULL && !entry->denied) {
		apply_cut(authd, entry, false, "an authentication packet out of place");
	}
	return MOSQ_ERR_AUTH_CONTINUE;
}

int auth_continue(struct authd *authd, struct mosquitto_evt_extended_auth *event)
{
	struct exchange exchange;
	struct attempt attempt;
	enum verdict verdict;
	int rc;

	event->data_out = NULL;
	event->data_out_len = 0;
	if (!exchanges_take(&authd->exchanges, event->client, &exchange)) {
		return stray(authd, event->client);
	}
	attempt = attempt_of(authd, event->client);
	note_session(&attempt);
	verdict = check_response(&attempt, event, &exchange);
	rc = verdict == VERDICT_ALLOW ? response(&attempt, event, &exchange) : finish(&attempt, verdict);
	sodium_memzero(&exchange, sizeof(exchange));
	return rc;
}
