#include "connect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apply.h"
#include "clock.h"
#include "grammar.h"
#include "wire.h"

enum {
	APPLY_US = 2000,       /* for events that wait when a client comes */
	TIME_WINDOW_S = 65,    /* the daemon's 60, and the time on the way */
	COST_OUT_OF_TIME = 4   /* such a proof cannot succeed, but only the daemon can say why: it costs more */
};

static const int64_t TIME_ABSURD_S = 8000000000; /* the year 2223: no clock says that */

enum verdict { VERDICT_ALLOW, VERDICT_REFUSE, VERDICT_LATER };

struct attempt {
	struct authd *authd;
	struct mosquitto *client;
	const char *client_id, *username, *password, *address;
	int protocol;
	struct credential credential;
	int64_t asked_at_us;
	struct answer answer;
	const char *why; /* of a refusal; a literal or inside `answer` */
};

static enum verdict refuse(struct attempt *attempt, const char *why)
{
	attempt->why = why;
	return VERDICT_REFUSE;
}

static enum verdict later(struct attempt *attempt, const char *why)
{
	attempt->why = why;
	return VERDICT_LATER;
}

/* --- before any I/O --- */

/* Without TICK nothing is ever cut. 2.0 brokers before 2.0.15 never call it under `per_listener_settings true`. */
static bool can_cut(const struct authd *authd, int64_t now_ms)
{
	return authd->ticked_at_ms != 0 && now_ms - authd->ticked_at_ms < TICK_MISSING_MS;
}

static bool out_of_time(const struct credential *credential)
{
	int64_t now_s = clock_wall_s();

	return credential->form == CREDENTIAL_POP &&
	       (credential->time_s < now_s - TIME_WINDOW_S || credential->time_s > now_s + TIME_WINDOW_S);
}

static enum verdict check_form(struct attempt *attempt)
{
	attempt->credential = grammar_credential(attempt->username, attempt->password);
	if (attempt->credential.form == CREDENTIAL_REFUSED) {
		return refuse(attempt, "user name and password have the form of no credential");
	}
	if (attempt->credential.time_s > TIME_ABSURD_S) {
		return refuse(attempt, "the time in the password is absurd");
	}
	return VERDICT_ALLOW;
}

static enum verdict check_locally(struct attempt *attempt)
{
	struct authd *authd = attempt->authd;
	int64_t now_ms = clock_ms();
	enum verdict form;

	if (!can_cut(authd, now_ms)) {
		return later(attempt, "the broker does not call TICK; set per_listener_settings false or use Mosquitto 2.0.15");
	}
	if (!rates_take(&authd->rates, attempt->address, 1, now_ms)) {
		return later(attempt, "too many attempts from this address");
	}
	if (attempt->client_id == NULL || !grammar_client_id(attempt->client_id)) {
		attempt->client_id = NULL; /* not fit for the log */
		return refuse(attempt, "the client id is empty, too long or has a character that is not allowed");
	}
	form = check_form(attempt);
	if (form == VERDICT_ALLOW && out_of_time(&attempt->credential) &&
	    !rates_take(&authd->rates, attempt->address, COST_OUT_OF_TIME, now_ms)) {
		return later(attempt, "too many attempts from this address");
	}
	if (form == VERDICT_ALLOW && table_full(&authd->table)) {
		return later(attempt, "too many live sessions");
	}
	return form;
}

/* --- the question --- */

static char *write_question(const struct attempt *attempt)
{
	struct question question = {
		.broker = attempt->authd->options.broker,
		.boot = attempt->authd->boot,
		.client_id = attempt->client_id,
		.username = attempt->username,
		.password = attempt->password,
		.address = attempt->address == NULL ? "" : attempt->address,
		.protocol = attempt->protocol,
		.clean = mosquitto_client_clean_session(attempt->client),
	};

	return wire_write_question(&question);
}

static bool ask(struct attempt *attempt, long timeout_ms)
{
	struct http *http = &attempt->authd->http;
	char *body = write_question(attempt);
	bool answered = body != NULL &&
			http_post(http, "/v1/plugin/connect", body, timeout_ms, NULL) == STATUS_OK &&
			wire_parse_answer(http->body, http->length, attempt->asked_at_us / 1000, &attempt->answer);

	wire_forget(body);
	return answered;
}

static enum verdict ask_daemon(struct attempt *attempt)
{
	struct budget *budget = &attempt->authd->budget;
	int64_t start_us = attempt->asked_at_us = clock_us();
	long timeout_ms = budget_allows_ms(budget, start_us);
	bool answered;

	if (timeout_ms == 0) {
		return later(attempt, "the time for questions to authd is used up for this second");
	}
	answered = ask(attempt, timeout_ms);
	budget_charge(budget, start_us, clock_us());
	if (!answered) {
		return later(attempt, "authd gave no usable answer in time");
	}
	if (!attempt->answer.allow) {
		return (attempt->answer.temporary ? later : refuse)(attempt, attempt->answer.reason);
	}
	return VERDICT_ALLOW;
}

/* --- after an allow --- */

/* What the daemon should never do: name another key than the one proven, or give a client id away that a live
 * session of another key holds. Told apart from a wrong password, because a rotated key gets through once the old
 * connection is gone. */
static enum verdict check_answer(struct attempt *attempt)
{
	const struct terms *terms = &attempt->answer.terms;
	const struct table *table = &attempt->authd->table;
	const struct entry *same_id = table_find_client(table, attempt->client_id);
	const struct entry *same_session = table_find_session(table, terms->session);

	if (attempt->credential.form == CREDENTIAL_POP && strcmp(terms->key, attempt->username) != 0) {
		return later(attempt, "authd answered about another key");
	}
	if (same_id != NULL && same_id->online && !same_id->denied && strcmp(same_id->terms.key, terms->key) != 0) {
		return later(attempt, "a live session of another key holds this client id");
	}
	if (same_session != NULL) {
		return later(attempt, "authd gave out a session id twice");
	}
	if (clock_ms() >= terms->lease_ends_at_ms) {
		return later(attempt, "the lease ended before it began");
	}
	return VERDICT_ALLOW;
}

static bool remember(struct attempt *attempt)
{
	struct authd *authd = attempt->authd;
	struct terms *terms = &attempt->answer.terms;
	const struct entry *old = table_find_client(&authd->table, attempt->client_id);
	struct entry *entry;

	strcpy(terms->client_id, attempt->client_id);
	if (old != NULL && old->online) {
		reports_add(&authd->reports, REPORT_OFFLINE, old->terms.client_id, old->terms.session);
	}
	entry = table_put(&authd->table, terms, &attempt->answer.origin, attempt->client);
	if (entry == NULL) {
		return false;
	}
	entry->asked_at_us = attempt->asked_at_us;
	reports_add(&authd->reports, REPORT_ONLINE, attempt->client_id, terms->session);
	return true;
}

static enum verdict decide(struct attempt *attempt)
{
	enum verdict verdict = check_locally(attempt);

	if (verdict == VERDICT_ALLOW) {
		verdict = ask_daemon(attempt);
	}
	if (verdict != VERDICT_ALLOW) {
		return verdict;
	}
	apply_events(attempt->authd, clock_us() + APPLY_US); /* what came while we waited is older than the answer */
	verdict = check_answer(attempt);
	if (verdict == VERDICT_ALLOW && !remember(attempt)) {
		verdict = later(attempt, "memory is short");
	}
	if (verdict != VERDICT_ALLOW) {
		reports_add(&attempt->authd->reports, REPORT_OFFLINE, attempt->client_id,
			    attempt->answer.terms.session);
	}
	return verdict;
}

/* --- the log --- */

/* A flood of refusals must not become a flood of lines. */
static bool may_log(struct log_limit *limit)
{
	int64_t second = clock_us() / 1000000;

	if (second != limit->second) {
		if (limit->dropped > 0) {
			mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: %d more refusals not logged", limit->dropped);
		}
		*limit = (struct log_limit){.second = second};
	}
	if (limit->lines >= LOG_LINES_PER_SECOND) {
		limit->dropped++;
		return false;
	}
	limit->lines++;
	return true;
}

static void log_refusal(const struct attempt *attempt, enum verdict verdict)
{
	if (!may_log(&attempt->authd->log_limit)) {
		return;
	}
	mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: refused client %s from %s%s: %s%s%s",
			     attempt->client_id == NULL ? "?" : attempt->client_id,
			     attempt->address == NULL ? "?" : attempt->address,
			     verdict == VERDICT_LATER ? " for now" : "", attempt->why,
			     attempt->answer.detail[0] == '\0' ? "" : ": ", attempt->answer.detail);
}

int connect_check(struct authd *authd, const struct mosquitto_evt_basic_auth *event)
{
	struct attempt attempt = {
		.authd = authd,
		.client = event->client,
		.client_id = mosquitto_client_id(event->client),
		.username = event->username,
		.password = event->password,
		.address = mosquitto_client_address(event->client),
		.protocol = mosquitto_client_protocol_version(event->client),
	};
	enum verdict verdict = decide(&attempt);

	free(attempt.answer.terms.rights);
	if (verdict == VERDICT_ALLOW) {
		return MOSQ_ERR_SUCCESS;
	}
	log_refusal(&attempt, verdict);
	return verdict == VERDICT_LATER ? compat_temporary_refusal(authd->is_2_1, attempt.protocol) : MOSQ_ERR_AUTH;
}
