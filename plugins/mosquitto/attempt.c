#include "attempt.h"

#include <string.h>

#include "apply.h"
#include "clock.h"
#include "grammar.h"
#include "readmit.h"

enum {
	APPLY_US = 2000,     /* for events that wait when a client comes */
	TIME_WINDOW_S = 65,  /* the daemon's 60, and the time on the way */
	COST_OUT_OF_TIME = 4 /* such a proof cannot succeed, but only the daemon can say why: it costs more */
};

static const int64_t TIME_ABSURD_S = 8000000000; /* the year 2223: no clock says that */

enum verdict attempt_refuse(struct attempt *attempt, const char *why)
{
	attempt->why = why;
	return VERDICT_REFUSE;
}

enum verdict attempt_later(struct attempt *attempt, const char *why)
{
	attempt->why = why;
	return VERDICT_LATER;
}

struct attempt attempt_of(struct authd *authd, struct mosquitto *client)
{
	return (struct attempt){
		.authd = authd,
		.client = client,
		.client_id = mosquitto_client_id(client),
		.address = mosquitto_client_address(client),
		.protocol = mosquitto_client_protocol_version(client),
	};
}

/* --- before any I/O --- */

/* Without TICK nothing is ever cut. 2.0 brokers before 2.0.15 never call it under `per_listener_settings true`. */
static bool can_cut(const struct authd *authd, int64_t now_ms)
{
	return authd->ticked_at_ms != 0 && now_ms - authd->ticked_at_ms < TICK_MISSING_MS;
}

enum verdict attempt_check(struct attempt *attempt)
{
	struct authd *authd = attempt->authd;
	int64_t now_ms = clock_ms();

	if (!can_cut(authd, now_ms)) {
		return attempt_later(attempt, "the broker does not call TICK; set per_listener_settings false or use "
					      "Mosquitto 2.0.15");
	}
	if (!rates_take(&authd->rates, attempt->address, 1, now_ms)) {
		return attempt_later(attempt, "too many attempts from this address");
	}
	if (attempt->client_id == NULL || !grammar_client_id(attempt->client_id)) {
		attempt->client_id = NULL; /* not fit for the log */
		return attempt_refuse(attempt, "the client id is empty, too long or has a character that is not allowed");
	}
	return VERDICT_ALLOW;
}

static enum verdict check_time(struct attempt *attempt)
{
	int64_t now_s = clock_wall_s();
	bool in_time = attempt->time_s >= now_s - TIME_WINDOW_S && attempt->time_s <= now_s + TIME_WINDOW_S;

	if (!attempt->has_proof || in_time) {
		return VERDICT_ALLOW;
	}
	if (attempt->time_s > TIME_ABSURD_S) {
		return attempt_refuse(attempt, "the time in the proof is absurd");
	}
	if (!rates_take(&attempt->authd->rates, attempt->address, COST_OUT_OF_TIME, clock_ms())) {
		return attempt_later(attempt, "too many attempts from this address");
	}
	return VERDICT_ALLOW;
}

static bool again(const struct attempt *attempt)
{
	return attempt->reauthenticates[0] != '\0';
}

/* --- the question --- */

static char *write_question(const struct attempt *attempt)
{
	struct question question = {
		.broker = attempt->authd->options.broker,
		.boot = attempt->authd->boot,
		.client_id = attempt->client_id,
		.username = attempt->username,
		.shown = attempt->shown,
		.reauthenticates = again(attempt) ? attempt->reauthenticates : NULL,
		.address = attempt->address,
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
			http_post(http, "/v1/plugin/connect", body, timeout_ms) == STATUS_OK &&
			wire_parse_answer(http->body, http->length, attempt->asked_at_us / 1000, &attempt->answer);

	wire_forget(body);
	return answered;
}

/* Milliseconds, 0 = do not ask. An address that has had its share leaves half of the time to all others. */
static long time_for_question(const struct attempt *attempt, int64_t now_us)
{
	struct authd *authd = attempt->authd;
	long allowed_ms = budget_allows_ms(&authd->budget, now_us);
	bool must_leave_some = allowed_ms < BUDGET_CALL_MS;

	return must_leave_some && rates_had_share(&authd->rates, attempt->address, now_us / 1000) ? 0 : allowed_ms;
}

static void charge(const struct attempt *attempt, int64_t start_us, int64_t end_us)
{
	budget_charge(&attempt->authd->budget, start_us, end_us);
	rates_charge(&attempt->authd->rates, attempt->address, end_us - start_us, end_us / 1000);
}

static enum verdict ask_daemon(struct attempt *attempt)
{
	int64_t start_us = attempt->asked_at_us = clock_us();
	long timeout_ms = time_for_question(attempt, start_us);
	bool answered;

	if (timeout_ms == 0) {
		return attempt_later(attempt, "the time for questions to authd is used up for this second");
	}
	answered = ask(attempt, timeout_ms);
	charge(attempt, start_us, clock_us());
	if (!answered) {
		return attempt_later(attempt, "authd gave no usable answer in time");
	}
	if (!attempt->answer.allow) {
		return (attempt->answer.temporary ? attempt_later : attempt_refuse)(attempt, attempt->answer.reason);
	}
	return VERDICT_ALLOW;
}

/* --- after an allow --- */

/* A re-authentication goes on under its own session id, any other answer brings a new one. That both have one key is
 * checked for every live session. */
static bool session_fits(const struct attempt *attempt)
{
	const struct terms *terms = &attempt->answer.terms;
	const struct entry *entry = table_find_session(&attempt->authd->table, terms->session);

	if (!again(attempt)) {
		return entry == NULL;
	}
	return entry != NULL && entry->connection == attempt->client && !entry->denied &&
	       strcmp(terms->session, attempt->reauthenticates) == 0;
}

/* What the daemon should never do: name another key than the one proven, or give a client id away that a live
 * session of another key holds. Told apart from a wrong password, because a rotated key gets through once the old
 * connection is gone. */
static enum verdict check_answer(struct attempt *attempt)
{
	const struct terms *terms = &attempt->answer.terms;
	const struct entry *same_id = table_find_client(&attempt->authd->table, attempt->client_id);

	if (attempt->claimed_key != NULL && strcmp(terms->key, attempt->claimed_key) != 0) {
		return attempt_later(attempt, "authd answered about another key");
	}
	if (same_id != NULL && same_id->online && !same_id->denied && strcmp(same_id->terms.key, terms->key) != 0) {
		return attempt_later(attempt, "a live session of another key holds this client id");
	}
	if (!session_fits(attempt)) {
		return attempt_later(attempt, "authd answered about another session, or gave out a session id twice");
	}
	if (clock_ms() >= terms->lease_ends_at_ms) {
		return attempt_later(attempt, "the lease ended before it began");
	}
	return VERDICT_ALLOW;
}

static bool remember_new(struct attempt *attempt)
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
	entry->enhanced = attempt->enhanced;
	reports_add(&authd->reports, REPORT_ONLINE, attempt->client_id, terms->session);
	return true;
}

static bool remember_again(struct attempt *attempt)
{
	struct table *table = &attempt->authd->table;
	struct entry *entry = table_find_session(table, attempt->reauthenticates);

	table_update(table, entry, &attempt->answer.terms);
	entry->origin = attempt->answer.origin;
	entry->asked_at_us = attempt->asked_at_us;
	return true;
}

/* Asks, and takes the session into the table. A session that the daemon began and we do not want has ended. */
static enum verdict judge_by_daemon(struct attempt *attempt)
{
	struct authd *authd = attempt->authd;
	enum verdict verdict = ask_daemon(attempt);

	if (verdict != VERDICT_ALLOW) {
		return verdict;
	}
	/* Some of what came while we waited is older than the answer and some is newer, a cut of this session perhaps. */
	apply_older(authd, &attempt->answer.origin, attempt->asked_at_us, clock_us() + APPLY_US);
	verdict = check_answer(attempt);
	if (verdict == VERDICT_ALLOW && !(again(attempt) ? remember_again : remember_new)(attempt)) {
		verdict = attempt_later(attempt, "memory is short");
	}
	apply_news(authd, clock_us() + APPLY_US);
	if (verdict != VERDICT_ALLOW && !again(attempt)) {
		reports_add(&authd->reports, REPORT_OFFLINE, attempt->client_id, attempt->answer.terms.session);
	}
	return verdict;
}

enum verdict attempt_decide(struct attempt *attempt)
{
	struct authd *authd = attempt->authd;
	enum verdict verdict = check_time(attempt);

	if (verdict == VERDICT_ALLOW && !again(attempt) && table_full(&authd->table)) {
		return attempt_later(attempt, "too many live sessions");
	}
	if (verdict != VERDICT_ALLOW) {
		return verdict;
	}
	apply_news(authd, clock_us() + APPLY_US);
	if (!attempt->has_proof) {
		return judge_by_daemon(attempt);
	}
	switch (readmit(attempt)) {
	case READMIT_ALLOW:
		return VERDICT_ALLOW;
	case READMIT_REPLAY:
		return attempt_refuse(attempt, "the proof was used before");
	default:
		break;
	}
	if (!nonces_remember(&authd->nonces, &attempt->proof, attempt->time_s, false)) {
		return attempt_refuse(attempt, "the time in the proof is far ahead of this host's clock");
	}
	return judge_by_daemon(attempt);
}

enum verdict attempt_name_by_key(struct attempt *attempt)
{
	struct authd *authd = attempt->authd;
	struct entry *entry = table_find_client(&authd->table, attempt->client_id);
	const char *username = mosquitto_client_username(attempt->client);

	if (username != NULL && strcmp(username, entry->terms.key) == 0) {
		return VERDICT_ALLOW;
	}
	if (mosquitto_set_username(attempt->client, entry->terms.key) == MOSQ_ERR_SUCCESS) {
		return VERDICT_ALLOW;
	}
	table_deny(&authd->table, entry);
	table_set_offline(&authd->table, entry);
	reports_add(&authd->reports, REPORT_OFFLINE, attempt->client_id, entry->terms.session);
	return attempt_later(attempt, "the user name cannot be set");
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

void attempt_end(struct attempt *attempt, enum verdict verdict)
{
	terms_free(&attempt->answer.terms);
	if (verdict != VERDICT_ALLOW) {
		log_refusal(attempt, verdict);
	}
}
