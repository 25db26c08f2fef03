/* Unit tests of the plugin's parts that need no broker. Usage: unit [topics.txt]
 *
 * Prints one line for each claim that fails and the number of claims checked; exits 1 if any failed. */
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "events.h"
#include "exchanges.h"
#include "grammar.h"
#include "line.h"
#include "memo.h"
#include "nonces.h"
#include "rights.h"
#include "table.h"
#include "topics.h"
#include "verify.h"
#include "wire.h"

static int checked, failed;

#define CHECK(claim) check((claim), #claim, __LINE__)

static void check(bool holds, const char *claim, int line)
{
	checked++;
	if (!holds) {
		failed++;
		printf("line %d: %s\n", line, claim);
	}
}

/* --- topics --- */

static void test_topics(void)
{
	static const char *const covered[][2] = {
		{"a", "a"}, {"a/#", "a"}, {"a/#", "a/b/c"}, {"a/+", "a/"}, {"#", "a/b"}, {"+/b", "/b"},
		{"a/#", "a/#"}, {"a/#", "a/+/c"}, {"a/+", "a/+"}, {"#", "#"}, {"#", "+/+"}, {"$SYS/#", "$SYS/x"},
		{"a/b", "$share/g/a/b"}, {"a/#", "$share/g/a/#"}, {"a//b", "a//b"}, {"/#", "/"}, {"a/+/#", "a/b"},
	};
	static const char *const refused[][2] = {
		{"a", "b"}, {"a", "a/b"}, {"a/b", "a"}, {"a/+", "a"}, {"a/+", "a/b/c"}, {"a/+", "a/#"}, {"a/b", "a/+"},
		{"a/b", "a/#"}, {"#", "$SYS/x"}, {"+/x", "$SYS/x"}, {"+/#", "$CONTROL/x"}, {"a", ""}, {"", "a"},
		{"a/#", "ab"}, {"a", "$share/g"}, {"#", "$share/g/"}, {"#", "$share//x"}, {"#", "$shareX/a"},
		{"#", "$share/g+/x"}, {"#", "$share"}, {"#", "$share/g/$share/h/a"}, {"$share/g/a", "$share/g/a"},
		{"a/#/b", "a/x/b"}, {"a#", "a#"}, {"a/b+", "a/b+"}, {"#", "a/#/b"}, {"#", "a\nb"}, {"+/+/b", "a/b"},
	};

	for (size_t i = 0; i < sizeof(covered) / sizeof(covered[0]); i++) {
		check(topics_covers(covered[i][0], covered[i][1]), covered[i][1], __LINE__);
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		check(!topics_covers(refused[i][0], refused[i][1]), refused[i][1], __LINE__);
	}
	CHECK(topics_matches("a/+", "a/b"));
	CHECK(topics_matches("a/#", "a"));
	CHECK(!topics_matches("#", "a/+"));
	CHECK(!topics_matches("#", "$share/g/a"));
	CHECK(!topics_matches("a/#", "$share/g/a/b"));
	CHECK(!topics_matches("#", "$SYS/broker/connection/x/state"));
}

static void test_vector(const char *function, const char *first, const char *second, const char *expected)
{
	char claim[600];
	bool want = strcmp(expected, "true") == 0;
	bool got;

	if (strcmp(function, "matches") == 0) {
		got = topics_matches(first, second);
	} else if (strcmp(function, "covers") == 0) {
		got = topics_covers(first, second);
	} else {
		return; /* other functions exist in Python only */
	}
	snprintf(claim, sizeof(claim), "vector: %s %.200s %.200s is %s", function, first, second, expected);
	check(got == want && (want || strcmp(expected, "false") == 0), claim, __LINE__);
}

/* `<function> TAB <first> TAB <second> TAB <true|false>`; blank lines and lines that begin with "# " are comments. */
static void test_vectors(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[2048];
	int before = checked;

	CHECK(file != NULL);
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		char *fields[4];
		char *rest = line;
		size_t count = 0;

		line[strcspn(line, "\r\n")] = '\0';
		if (line[0] == '\0' || strncmp(line, "# ", 2) == 0) {
			continue;
		}
		while (count < 4 && rest != NULL) {
			fields[count++] = strsep(&rest, "\t");
		}
		CHECK(count == 4 && rest == NULL);
		if (count == 4) {
			test_vector(fields[0], fields[1], fields[2], fields[3]);
		}
	}
	if (file != NULL) {
		fclose(file);
	}
	CHECK(checked > before + 1);
}

/* --- grammar --- */

static void make_pop(char *text, size_t chars, unsigned char version, int64_t time_s)
{
	unsigned char bytes[94] = {0};
	size_t length = chars == POP_CHARS ? 78 : 94;

	bytes[0] = version;
	for (int i = 0; i < 5; i++) {
		bytes[1 + i] = (unsigned char)(time_s >> (8 * (4 - i)));
	}
	sodium_bin2base64(text, chars + 1, bytes, length, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static enum credential_form form(const char *username, const char *password)
{
	return grammar_credential(username, password).form;
}

static void test_pop_grammar(void)
{
	static const char key[] = "Cn3-8sxTqXbL0Zr5dJ1aTw";
	char pop[POP_WITH_HINT_CHARS + PATH_MAX_CHARS + 10];

	make_pop(pop, POP_CHARS, 1, 1700000000);
	CHECK(form(key, pop) == CREDENTIAL_POP);
	CHECK(grammar_credential(key, pop).time_s == 1700000000);
	CHECK(form("Cn3-8sxTqXbL0Zr5dJ1aTx", pop) == CREDENTIAL_REFUSED); /* not canonical */
	CHECK(form("kitchen", pop) == CREDENTIAL_REFUSED);
	for (size_t cut = 0; cut < POP_CHARS; cut++) {
		char shorter[POP_CHARS + 1];

		memcpy(shorter, pop, cut);
		shorter[cut] = '\0';
		check((form(key, shorter) == CREDENTIAL_REFUSED) == (cut != DEVICE_PASSWORD_CHARS), "truncated", (int)cut);
	}
	pop[50] = '=';
	CHECK(form(key, pop) == CREDENTIAL_REFUSED);
	make_pop(pop, POP_CHARS, 2, 1700000000);
	CHECK(form(key, pop) == CREDENTIAL_REFUSED);
	make_pop(pop, POP_WITH_HINT_CHARS, 1, 1700000000);
	CHECK(form(key, pop) == CREDENTIAL_POP);
	pop[POP_WITH_HINT_CHARS - 1] = 'B'; /* unused bits set */
	CHECK(form(key, pop) == CREDENTIAL_REFUSED);
}

static void test_path_grammar(void)
{
	static const char key[] = "Cn3-8sxTqXbL0Zr5dJ1aTw";
	char pop[POP_CHARS + PATH_MAX_CHARS + 10];

	make_pop(pop, POP_CHARS, 1, 1700000000);
	strcat(pop, ".");
	CHECK(form(key, pop) == CREDENTIAL_REFUSED);
	strcat(pop, "gQ");
	CHECK(form(key, pop) == CREDENTIAL_POP_PATH);
	strcat(pop, "-_A");
	CHECK(form(key, pop) == CREDENTIAL_REFUSED); /* 5 characters encode no whole bytes */
	strcpy(pop + POP_CHARS + 1, "gR");
	CHECK(form(key, pop) == CREDENTIAL_REFUSED);
	memset(pop + POP_CHARS + 1, 'A', PATH_MAX_CHARS);
	pop[POP_CHARS + 1 + PATH_MAX_CHARS] = '\0';
	CHECK(form(key, pop) == CREDENTIAL_POP_PATH);
	strcat(pop, "A");
	CHECK(form(key, pop) == CREDENTIAL_REFUSED);
	strcpy(pop + POP_CHARS + 1, "gQ.gQ");
	CHECK(form(key, pop) == CREDENTIAL_REFUSED);
}

static void test_password_grammar(void)
{
	static const char password[] = "AAECAwQFBgcICQoLDA0ODw";

	CHECK(form("kitchen-sensor_1.x", password) == CREDENTIAL_DEVICE_PASSWORD);
	CHECK(form("Cn3-8sxTqXbL0Zr5dJ1aTw", password) == CREDENTIAL_DEVICE_PASSWORD);
	CHECK(form("authd-evict", password) == CREDENTIAL_REFUSED);
	CHECK(form("", password) == CREDENTIAL_REFUSED);
	CHECK(form("a/b", password) == CREDENTIAL_REFUSED);
	CHECK(form("a+", password) == CREDENTIAL_REFUSED);
	CHECK(form("#", password) == CREDENTIAL_REFUSED);
	CHECK(form("\xC3\xBC", password) == CREDENTIAL_REFUSED);
	CHECK(form("0123456789012345678901234567890123456789012345678901234567890123", password) ==
	      CREDENTIAL_DEVICE_PASSWORD);
	CHECK(form("01234567890123456789012345678901234567890123456789012345678901234", password) ==
	      CREDENTIAL_REFUSED);
	CHECK(form("kitchen", "AAECAwQFBgcICQoLDA0ODx") == CREDENTIAL_REFUSED);
	CHECK(form("kitchen", "AAECAwQFBgcICQoLDA0OD") == CREDENTIAL_REFUSED);
	CHECK(form("kitchen", "AAECAwQFBgcICQoLDA0ODw=") == CREDENTIAL_REFUSED);
	CHECK(form("kitchen", "AAECAwQFBgcICQoLDA0O w") == CREDENTIAL_REFUSED);
	CHECK(form(NULL, password) == CREDENTIAL_REFUSED);
	CHECK(form("kitchen", NULL) == CREDENTIAL_REFUSED);
	CHECK(form("kitchen", "") == CREDENTIAL_REFUSED);
}

static void test_client_ids(void)
{
	char longest[CLIENT_ID_MAX_BYTES + 2];

	memset(longest, 'x', sizeof(longest));
	longest[CLIENT_ID_MAX_BYTES + 1] = '\0';
	CHECK(!grammar_client_id(longest));
	longest[CLIENT_ID_MAX_BYTES] = '\0';
	CHECK(grammar_client_id(longest));
	CHECK(grammar_client_id("kitchen sensor $x %c"));
	CHECK(!grammar_client_id(""));
	CHECK(!grammar_client_id("a/b"));
	CHECK(!grammar_client_id("a+"));
	CHECK(!grammar_client_id("#"));
	CHECK(!grammar_client_id("a\n"));
	CHECK(!grammar_client_id("a\x7F"));
	CHECK(!grammar_client_id("\xC3\xBC"));
	CHECK(!grammar_client_id("http-api"));
}

/* Any counter from 0 to 2^63 - 1, with or without a hint, and nothing stapled to it. */
static void test_counter_grammar(void)
{
	static const char key[] = "Cn3-8sxTqXbL0Zr5dJ1aTw";
	static const struct {
		size_t bytes;
		unsigned char version, top;
		enum credential_form form;
	} cases[] = {
		{73, 2, 0, CREDENTIAL_COUNTER},  {89, 2, 0x7F, CREDENTIAL_COUNTER}, {73, 2, 0x80, CREDENTIAL_REFUSED},
		{73, 1, 0, CREDENTIAL_REFUSED},  {73, 3, 0, CREDENTIAL_REFUSED},    {72, 2, 0, CREDENTIAL_REFUSED},
		{74, 2, 0, CREDENTIAL_REFUSED},  {88, 2, 0, CREDENTIAL_REFUSED},    {78, 2, 0, CREDENTIAL_REFUSED},
		{94, 2, 0, CREDENTIAL_REFUSED},
	};
	char text[200];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned char bytes[100] = {cases[i].version, cases[i].top};

		grammar_encode(bytes, cases[i].bytes, text);
		check(form(key, text) == cases[i].form, text, (int)i);
		if (cases[i].form == CREDENTIAL_COUNTER) {
			CHECK(form("kitchen", text) == CREDENTIAL_REFUSED);
			strcat(text, ".gQ");
			CHECK(form(key, text) == CREDENTIAL_REFUSED);
		}
	}
}

static void test_base64url(void)
{
	unsigned char bytes[64], back[64];
	char text[100], other[100];

	for (size_t length = 1; length < sizeof(bytes); length++) {
		randombytes_buf(bytes, length);
		grammar_encode(bytes, length, text);
		sodium_bin2base64(other, sizeof(other), bytes, length, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
		CHECK(strcmp(text, other) == 0 && grammar_base64url(text, strlen(text)));
		CHECK(grammar_decode(text, strlen(text), back) == length && memcmp(back, bytes, length) == 0);
	}
}

static void test_auth_grammar(void)
{
	unsigned char data[200] = {0};

	for (size_t length = 0; length < sizeof(data); length++) {
		for (unsigned char first = 0; first < 6; first++) {
			enum auth_kind expected = AUTH_ODD;

			data[0] = first;
			if (first == 1 && (length == 94 || length == 110)) {
				expected = AUTH_SINGLE_STEP;
			} else if (first == 2 && (length == 33 || length == 49)) {
				expected = AUTH_HELLO;
			} else if (first == 4 && length == 65) {
				expected = AUTH_RESPONSE;
			}
			CHECK(grammar_auth(data, length).kind == expected);
		}
	}
	CHECK(grammar_auth(NULL, 0).kind == AUTH_ODD);
}

/* --- nonces --- */

static struct proof_id proof(uint64_t number)
{
	struct proof_id id = {{0}};

	memcpy(id.bytes, &number, sizeof(number));
	return id;
}

static enum nonce_state state_of(const struct nonces *nonces, uint64_t number, int64_t time_s)
{
	struct proof_id id = proof(number);

	return nonces_judge(nonces, &id, time_s);
}

static bool keep(struct nonces *nonces, uint64_t number, int64_t time_s, bool accepted)
{
	struct proof_id id = proof(number);

	return nonces_remember(nonces, &id, time_s, accepted);
}

static void test_nonces(void)
{
	struct nonces nonces;
	int64_t now = 1800000000;

	CHECK(nonces_init(&nonces, now));
	CHECK(state_of(&nonces, 1, now + 5) == NONCE_UNKNOWN); /* an earlier run may have let it in */
	CHECK(state_of(&nonces, 1, now + 6) == NONCE_FRESH);
	CHECK(state_of(&nonces, 1, now + 61) == NONCE_FRESH);
	CHECK(keep(&nonces, 1, now + 61, false) && state_of(&nonces, 1, now + 61) == NONCE_PASSED);
	CHECK(keep(&nonces, 1, now + 61, true) && state_of(&nonces, 1, now + 61) == NONCE_ACCEPTED);
	CHECK(keep(&nonces, 1, now + 61, false) && state_of(&nonces, 1, now + 61) == NONCE_ACCEPTED);
	nonces_sweep(&nonces, now + 181);
	CHECK(state_of(&nonces, 1, now + 61) == NONCE_ACCEPTED);
	nonces_sweep(&nonces, now + 182);
	CHECK(state_of(&nonces, 1, now + 61) == NONCE_UNKNOWN && nonces.count == 0);
	CHECK(state_of(&nonces, 1, now + 62) == NONCE_FRESH);
	CHECK(keep(&nonces, 2, now, false) && nonces.count == 0); /* too old to be judged, so not kept */
	CHECK(keep(&nonces, 3, now + 182 + NONCE_AHEAD_S, false) && !keep(&nonces, 4, now + 183 + NONCE_AHEAD_S, false));
	nonces_free(&nonces);
}

/* Whatever the clock does, nothing that was kept is fresh again. */
static void test_nonces_over_clock_steps(void)
{
	struct nonces nonces;
	int64_t start = 1800000000, now = start;
	static int64_t times[20000];
	uint64_t made = 0;

	CHECK(nonces_init(&nonces, now));
	for (int round = 0; round < 2000; round++) {
		now += round % 97 == 0 ? 5000 : round % 89 == 0 ? -3000 : (int)randombytes_uniform(4);
		nonces_sweep(&nonces, now);
		for (int i = 0; i < 10; i++, made++) {
			times[made] = now - 60 + (int)randombytes_uniform(121);
			CHECK(keep(&nonces, made, times[made], true) || times[made] > nonces.swept_s);
		}
	}
	for (uint64_t i = 0; i < made; i++) {
		CHECK(state_of(&nonces, i, times[i]) != NONCE_FRESH);
	}
	nonces_free(&nonces);
}

/* A clock that was behind at the start says nothing about what an earlier run may have taken. */
static void test_nonces_of_a_clock_that_is_set(void)
{
	struct nonces nonces;
	int64_t now = 1800000000;

	CHECK(nonces_init(&nonces, now));
	nonces_note_clock(&nonces, now, 50);
	nonces_note_clock(&nonces, now + 21, 70);
	CHECK(state_of(&nonces, 1, now + 6) == NONCE_FRESH);
	nonces_note_clock(&nonces, now - 100, 71);
	CHECK(state_of(&nonces, 1, now + 6) == NONCE_FRESH);
	nonces_note_clock(&nonces, now + 3600, 72);
	CHECK(state_of(&nonces, 1, now + 3605) == NONCE_UNKNOWN);
	CHECK(state_of(&nonces, 1, now + 3606) == NONCE_FRESH);
	nonces_free(&nonces);
}

static void test_nonces_are_bounded(void)
{
	struct nonces nonces;
	int64_t now = 1800000000;

	CHECK(nonces_init(&nonces, now - 1000));
	nonces_sweep(&nonces, now);
	for (uint64_t i = 0; i < NONCES_MAX; i++) {
		keep(&nonces, i, now + 10, false);
	}
	CHECK(nonces.count == NONCES_MAX && state_of(&nonces, NONCES_MAX, now + 10) == NONCE_FRESH);
	CHECK(keep(&nonces, NONCES_MAX, now + 10, true) && nonces.count == NONCES_MAX);
	CHECK(state_of(&nonces, NONCES_MAX, now + 10) == NONCE_UNKNOWN);
	CHECK(state_of(&nonces, NONCES_MAX + 1, now + 11) == NONCE_FRESH);
	CHECK(state_of(&nonces, 5, now + 10) == NONCE_PASSED);
	nonces_sweep(&nonces, now + 131);
	CHECK(nonces.count == 0 && keep(&nonces, 5, now + 100, true) && nonces.count == 1);
	CHECK(state_of(&nonces, 5, now + 100) == NONCE_ACCEPTED);
	nonces_free(&nonces);
}

/* --- exchanges --- */

static void test_exchanges(void)
{
	static struct exchanges exchanges;
	static char connections[EXCHANGES_MAX + 1];
	struct exchange exchange = {0}, taken;

	for (size_t i = 0; i <= EXCHANGES_MAX; i++) {
		exchange.connection = &connections[i];
		exchange.opened_ms = (int64_t)i;
		CHECK(exchanges_open(&exchanges, &exchange) == (i < EXCHANGES_OF_NEWCOMERS_MAX));
	}
	strcpy(exchange.session, "5kq1Yw2f0bU");
	for (size_t i = EXCHANGES_OF_NEWCOMERS_MAX; i <= EXCHANGES_MAX; i++) {
		exchange.connection = &connections[i];
		CHECK(exchanges_open(&exchanges, &exchange) == (i < EXCHANGES_MAX));
	}
	CHECK(exchanges.count == EXCHANGES_MAX);
	exchange.connection = &connections[EXCHANGES_MAX];
	exchange.opened_ms = EXCHANGE_MAX_MS; /* the time of the oldest is over, of no other */
	CHECK(exchanges_open(&exchanges, &exchange) && exchanges.count == EXCHANGES_MAX);
	CHECK(!exchanges_take(&exchanges, &connections[0], &taken));
	exchange.session[0] = '\0';
	exchange.connection = &connections[0];
	exchange.opened_ms = EXCHANGE_MAX_MS - 1;
	CHECK(!exchanges_open(&exchanges, &exchange));
	strcpy(exchange.session, "5kq1Yw2f0bU");
	CHECK(exchanges_take(&exchanges, &connections[1], &taken) && taken.opened_ms == 1);
	CHECK(!exchanges_take(&exchanges, &connections[1], &taken));
	exchange.connection = &connections[2];
	exchange.opened_ms = 99;
	exchanges_open(&exchanges, &exchange);
	CHECK(exchanges.count == EXCHANGES_MAX - 1);
	CHECK(exchanges_take(&exchanges, &connections[2], &taken) && taken.opened_ms == 99);
	exchanges_forget(&exchanges, &connections[3]);
	exchanges_forget(&exchanges, &connections[3]);
	CHECK(!exchanges_take(&exchanges, &connections[3], &taken) && exchanges.count == EXCHANGES_MAX - 3);
}

/* --- limits --- */

static void test_budget(void)
{
	struct budget budget = {0};
	int64_t second = 1000000;
	int64_t now_us = 5 * second;

	CHECK(budget_allows_ms(&budget, now_us) == BUDGET_CALL_MS);
	budget_charge(&budget, now_us, now_us + 50000);
	CHECK(budget_allows_ms(&budget, now_us + 50000) == 50);
	budget_charge(&budget, now_us + 50000, now_us + 85000);
	CHECK(budget_allows_ms(&budget, now_us + 85000) == 15);
	budget_charge(&budget, now_us + 85000, now_us + 93000);
	CHECK(budget_allows_ms(&budget, now_us + 93000) == 0);
	CHECK(budget_allows_ms(&budget, now_us + 900000) == 0);
	CHECK(budget_allows_ms(&budget, now_us + 1030000) > 0);
	CHECK(budget_allows_ms(&budget, now_us + 2 * second) == BUDGET_CALL_MS);
}

/* Whatever a caller does that asks whenever it may, no second holds more than 100 ms (and the last call's overrun). */
static void test_budget_in_any_second(void)
{
	struct budget budget = {0};
	static int64_t waits[100000]; /* in ms, by ms */
	int64_t now_ms = 0, most = 0, sum = 0;

	while (now_ms < 99000) {
		long allowed = budget_allows_ms(&budget, now_ms * 1000);

		if (allowed > 0) {
			budget_charge(&budget, now_ms * 1000, (now_ms + allowed) * 1000);
			for (long i = 0; i < allowed; i++) {
				waits[now_ms + i] = 1;
			}
			now_ms += allowed;
		}
		now_ms += 7;
	}
	for (int i = 0; i < 99000; i++) {
		sum += waits[i] - (i >= 1000 ? waits[i - 1000] : 0);
		most = sum > most ? sum : most;
	}
	CHECK(most <= BUDGET_SECOND_MS);
	CHECK(most >= BUDGET_SECOND_MS - BUDGET_LEAST_MS);
}

static void test_rates(void)
{
	static struct rates rates;
	int taken = 0;

	rates_init(&rates, 10);
	while (rates_take(&rates, "192.0.2.1", 1, 1000)) {
		taken++;
	}
	CHECK(taken == 30);
	CHECK(!rates_take(&rates, "192.0.2.1", 1, 1050));
	CHECK(rates_take(&rates, "192.0.2.2", 1, 1050));
	CHECK(rates_take(&rates, "192.0.2.1", 1, 1150));
	CHECK(!rates_take(&rates, "::ffff:192.0.2.1", 1, 1150));
	CHECK(rates_take(&rates, "192.0.2.1", 5, 2000));
	for (taken = 0; rates_take(&rates, "2001:db8::1", 1, 1000); taken++) {
	}
	CHECK(!rates_take(&rates, "2001:db8::2", 1, 1000));
	CHECK(rates_take(&rates, "2001:db8:0:1::1", 1, 1000));
	CHECK(rates_take(&rates, NULL, 1, 1000));
	CHECK(rates_take(&rates, "not an address", 1, 1000));
}

/* A quarter of the time at a rate of 50, more at a higher one; each address has its own. */
static void test_shares(void)
{
	static struct rates rates;

	rates_init(&rates, 50);
	CHECK(!rates_had_share(&rates, "192.0.2.1", 1000));
	rates_charge(&rates, "192.0.2.1", 24999, 1000);
	CHECK(!rates_had_share(&rates, "192.0.2.1", 1000));
	rates_charge(&rates, "192.0.2.1", 50001, 1000);
	CHECK(rates_had_share(&rates, "192.0.2.1", 1000) && !rates_had_share(&rates, "192.0.2.2", 1000));
	CHECK(rates_had_share(&rates, "192.0.2.1", 2999) && !rates_had_share(&rates, "192.0.2.1", 3001));
	CHECK(rates_take(&rates, "192.0.2.1", 150, 3001));
	rates_init(&rates, 200);
	rates_charge(&rates, "192.0.2.1", 99999, 1000);
	CHECK(!rates_had_share(&rates, "192.0.2.1", 1000));
}

/* --- wire --- */

#define TERMS                                                                                                          \
	"\"session\":\"5kq1Yw2f0bU\",\"key\":\"Cn3-8sxTqXbL0Zr5dJ1aTw\",\"lease_ms\":5000,\"will\":\"suppress\","       \
	"\"rights\":[{\"filter\":\"a/b\",\"actions\":1},{\"filter\":\"c/#\",\"actions\":6,\"ms\":1000}]"
#define ALLOW "{\"verdict\":\"allow\",\"n\":41,\"run\":\"03b7a1c95e6d2f48\",\"new\":[1]," TERMS "}"

#define DENY "{\"verdict\":\"deny\",\"reason\":\"stale\",\"detail\":\"d\\u001b\\n\",\"temporary\":true}"

static bool parses(const char *text)
{
	struct answer answer;
	bool valid = wire_parse_answer(text, strlen(text), 1000, &answer);

	terms_free(&answer.terms);
	return valid;
}

static void test_answer(void)
{
	struct answer answer;

	CHECK(wire_parse_answer(ALLOW, strlen(ALLOW), 1000, &answer));
	CHECK(answer.allow && answer.origin.n == 41 && strcmp(answer.origin.run, "03b7a1c95e6d2f48") == 0);
	CHECK(answer.terms.lease_ends_at_ms == 6000 && !answer.terms.will_publish);
	CHECK(answer.terms.rights->count == 2 && answer.terms.rights->items[1].actions == ACTION_SUB);
	CHECK(rights_allow_name(answer.terms.rights, ACTION_PUB, "a/b", 1000));
	CHECK(!rights_allow_name(answer.terms.rights, ACTION_SUB, "a/b", 1000));
	CHECK(rights_allow_name(answer.terms.rights, ACTION_SUB, "c/d", 1999));
	CHECK(!rights_allow_name(answer.terms.rights, ACTION_SUB, "c/d", 2000));
	CHECK(!rights_allow_name(NULL, ACTION_SUB, "c/d", 0));
	terms_free(&answer.terms);
	CHECK(wire_parse_answer(DENY, strlen(DENY), 0, &answer));
	CHECK(!answer.allow && answer.temporary && strcmp(answer.detail, "d??") == 0);
}

static void test_odd_answers(void)
{
	static const char *const odd[] = {
		"", "{}", "[]", "null", "{\"verdict\":\"allow\"}", "{\"verdict\":\"deny\"}", "{\"verdict\":true}",
		"{\"verdict\":\"ALLOW\",\"n\":1,\"run\":\"03b7a1c95e6d2f48\"," TERMS "}",
		ALLOW ALLOW, ALLOW "x",
		"{\"verdict\":\"allow\",\"verdict\":\"deny\",\"n\":1,\"run\":\"03b7a1c95e6d2f48\"," TERMS "}",
		"{\"verdict\":\"allow\",\"n\":-1,\"run\":\"03b7a1c95e6d2f48\"," TERMS "}",
		"{\"verdict\":\"allow\",\"n\":1.5,\"run\":\"03b7a1c95e6d2f48\"," TERMS "}",
		"{\"verdict\":\"allow\",\"n\":\"1\",\"run\":\"03b7a1c95e6d2f48\"," TERMS "}",
		"{\"verdict\":\"allow\",\"n\":1,\"run\":\"03B7A1C95E6D2F48\"," TERMS "}",
		"{\"verdict\":\"allow\",\"n\":1,\"run\":\"03b7a1c95e6d2f48\",\"lease_ms\":9," TERMS "}",
		"{\"verdict\":\"deny\",\"reason\":\"stale\",\"detail\":\"d\",\"temporary\":1}",
	};
	static const char *const terms[][2] = {
		{"5kq1Yw2f0bU", "5kq1Yw2f0b"}, {"Cn3-8sxTqXbL0Zr5dJ1aTw", "x"}, {"5000", "1e300"}, {"5000", "null"},
		{"5000", "-1"}, {"suppress", "maybe"}, {"a/b", "a/#/b"}, {"a/b", ""}, {"a/b", "a\\u0000b"},
		{"a/b", "$share/g/a"}, {"\"actions\":1", "\"actions\":\"1\""}, {"\"actions\":1", "\"x\":1"},
		{"\"ms\":1000", "\"ms\":\"\""}, {"[{\"filter\"", "[5,{\"filter\""},
	};

	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		check(!parses(odd[i]), odd[i], __LINE__);
	}
	CHECK(parses(ALLOW) && parses(ALLOW "\r\n"));
	for (size_t i = 0; i < sizeof(terms) / sizeof(terms[0]); i++) {
		char text[1024];
		const char *at = strstr(ALLOW, terms[i][0]);

		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - ALLOW), ALLOW, terms[i][1], at + strlen(terms[i][0]));
		check(!parses(text), text, __LINE__);
	}
}

/* Take a line in, so many bytes at a time, and a newline. */
static struct event *event_in_parts(const char *text, size_t length, size_t part)
{
	struct line line = {0};
	struct event *event = NULL;
	const char *newline = "\n";
	size_t one = 1;
	bool good = true;

	while (good && event == NULL && length > 0) {
		size_t left = part < length ? part : length;

		length -= left;
		while (good && event == NULL && left > 0) {
			good = line_take(&line, &text, &left, 1000000, &event);
		}
	}
	if (good && event == NULL) {
		good = line_take(&line, &newline, &one, 1000000, &event);
	}
	check(good || event == NULL, "an event of a bad line", __LINE__);
	line_free(&line);
	return event;
}

static struct event *event_of(const char *text)
{
	return event_in_parts(text, strlen(text), strlen(text));
}

static bool is_kind(const char *text, enum event_kind kind)
{
	struct event *event = event_of(text);
	bool same = event != NULL && event->kind == kind;

	event_free(event);
	return same;
}

#define SNAPSHOT                                                                                                       \
	"{\"type\":\"snapshot\",\"n\":7,\"run\":\"03b7a1c95e6d2f48\",\"sessions\":[{\"client_id\":\"c1\"," TERMS "}]}"
#define CUT                                                                                                            \
	"{\"type\":\"cut\",\"n\":8,\"key\":\"Cn3-8sxTqXbL0Zr5dJ1aTw\",\"client_id\":\"\",\"session\":\"\","             \
	"\"will\":\"publish\",\"reason\":\"revoked\"}"

static void test_events(void)
{
	CHECK(is_kind(SNAPSHOT, EVENT_SNAPSHOT));
	CHECK(is_kind("{\"type\":\"set\",\"n\":8,\"client_id\":\"c1\"," TERMS "}", EVENT_SET));
	CHECK(is_kind("{\"type\":\"lease\",\"n\":8,\"leases\":[[\"5kq1Yw2f0bU\",5],[\"5kq1Yw2f0bU\",0]]}", EVENT_LEASE));
	CHECK(is_kind(CUT, EVENT_CUT));
	CHECK(is_kind("{\"type\":\"beat\",\"n\":8,\"run\":\"03b7a1c95e6d2f48\"}", EVENT_BEAT));
	CHECK(event_of("{\"type\":\"beat\",\"n\":8}") == NULL);
	CHECK(event_of("{\"type\":\"drop\",\"n\":8}") == NULL);
	CHECK(event_of("{\"type\":\"note\",\"n\":8}") == NULL);
	CHECK(event_of("{\"type\":\"lease\",\"n\":8,\"leases\":[[\"5kq1Yw2f0bU\"]]}") == NULL);
	CHECK(event_of("{\"type\":\"lease\",\"n\":8,\"leases\":[[\"5kq1Yw2f0bU\",\"5\"]]}") == NULL);
	CHECK(event_of("{\"type\":\"set\",\"n\":8,\"client_id\":\"a/b\"," TERMS "}") == NULL);
	CHECK(event_of("{\"type\":\"set\",\"n\":8," TERMS "}") == NULL);
	CHECK(event_of("{\"type\":\"cut\",\"n\":8}") == NULL);
	CHECK(event_of("") == NULL);
	CHECK(event_of("\"") == NULL);
}

/* Empty lines are signs of life alone: what comes after them has not come with them. */
static void test_empty_lines(void)
{
	struct line line = {0};
	struct event *event = NULL;
	const char *early = "\n\n", *late = "\n" CUT "\n\n";
	size_t left = strlen(early);

	CHECK(line_take(&line, &early, &left, 1000000, &event) && event == NULL && left == 0);
	left = strlen(late);
	CHECK(line_take(&line, &late, &left, 2000000, &event) && event != NULL && left == 1);
	CHECK(event != NULL && event->kind == EVENT_CUT && event->arrived_us == 2000000);
	event_free(event);
	CHECK(line_take(&line, &late, &left, 3000000, &event) && event == NULL && left == 0);
	line_free(&line);
	CHECK(event_of(" ") == NULL);
}

static bool same_events(const struct event *a, const struct event *b)
{
	if (a == NULL || b == NULL) {
		return a == b;
	}
	return a->kind == b->kind && a->origin.n == b->origin.n && a->count == b->count &&
	       a->seen_count == b->seen_count;
}

static void same_in_parts(const char *text, size_t length, size_t part)
{
	struct event *whole = event_in_parts(text, length, length), *parts = event_in_parts(text, length, part);

	check(same_events(whole, parts), text, __LINE__);
	event_free(whole);
	event_free(parts);
}

#define HEAD "{\"type\":\"snapshot\",\"n\":7,\"run\":\"03b7a1c95e6d2f48\","
#define ONE "{\"client_id\":\"c1\"," TERMS "}"
#define SEEN "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""

/* What lists hold is read apart from the line: both together must be what JSON says. */
static void test_lists(void)
{
	static const char *const good[] = {
		HEAD "\"sessions\":[" ONE "," ONE "]}",
		HEAD "\"sessions\":[ " ONE "\t,\r" ONE " ] , \"seen\":[" SEEN "," SEEN "]}",
		HEAD "\"seen\":[" SEEN "],\"sessions\":[" ONE "," ONE "]}",
		"{\"sessions\":[" ONE "," ONE "],\"n\":7,\"run\":\"03b7a1c95e6d2f48\",\"type\":\"snapshot\"}",
		HEAD "\"x\":{\"sessions\":[1,2]},\"y\":[[\"]\"],\"}\\\"\"],\"sessions\":[" ONE "," ONE "]}",
		HEAD "\"sessions\":[" ONE ",{\"x\":\"]}\\\"\",\"client_id\":\"c1\"," TERMS "}]}",
		"{\"type\":\"lease\",\"n\":7,\"leases\":[[\"5kq1Yw2f0bU\",5],[\"5kq1Yw2f0bU\",0]]}",
	};
	static const char *const bad[] = {
		HEAD "\"sessions\":[" ONE " " ONE "]}",
		HEAD "\"sessions\":[" ONE ",," ONE "]}",
		HEAD "\"sessions\":[," ONE "]}",
		HEAD "\"sessions\":[" ONE ",]}",
		HEAD "\"sessions\":[" ONE "}}",
		HEAD "\"sessions\":[" ONE "]",
		HEAD "\"sessions\":[" ONE,
		HEAD "\"sessions\":[5]}",
		HEAD "\"sessions\":[null]}",
		HEAD "\"sessions\":[[]]}",
		HEAD "\"sessions\":[{]]}",
		HEAD "\"sessions\":[" ONE "],\"sessions\":[]}",
		HEAD "\"sessi\\u006fns\":[" ONE "]}",
		HEAD "\"sessions\":[" ONE "],\"leases\":[[\"5kq1Yw2f0bU\",5]]}",
		HEAD "\"sessions\":[],\"leases\":[[\"5kq1Yw2f0bU\",5]]}",
		HEAD "\"x\":\"sessions\",[" ONE "]}",
		HEAD "\"x\":\"sessions\"[" ONE "]}",
		"[\"sessions\",[" ONE "]]",
		HEAD "\"sessions\":{\"a\":" ONE "}}",
		"]" HEAD "\"sessions\":[]}",
		"{\"type\":\"lease\",\"n\":7,\"leases\":[[\"5kq1Yw2f0bU\",5]],\"seen\":[" SEEN "]}",
		"{\"type\":\"set\",\"n\":8,\"sessions\":[" ONE "],\"client_id\":\"c1\"," TERMS "}",
		"{\"type\":\"beat\",\"n\":8,\"run\":\"03b7a1c95e6d2f48\",\"seen\":[" SEEN "]}",
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct event *event = event_of(good[i]);

		check(event != NULL && event->count == 2 && event->origin.n == 7, good[i], __LINE__);
		event_free(event);
		same_in_parts(good[i], strlen(good[i]), 1 + i % 3);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		check(event_of(bad[i]) == NULL, bad[i], __LINE__);
		same_in_parts(bad[i], strlen(bad[i]), 1);
	}
}

static bool takes(struct line *line, char byte, size_t count)
{
	struct event *event;
	bool good = true;

	for (size_t i = 0; good && i < count; i++) {
		const char *at = &byte;
		size_t left = 1;

		good = line_take(line, &at, &left, 0, &event);
	}
	return good;
}

/* One entry, and all but the entries, is bounded by 1 MiB, the whole line by 128 MiB. */
static void test_a53_lines_are_bounded(void)
{
	static const char open[] = "{\"sessions\":[";
	struct line line = {0};
	struct event *event;

	CHECK(takes(&line, ' ', PIECE_MAX_BYTES) && !takes(&line, ' ', 1));
	line_reset(&line);
	for (int in_entry = 0; in_entry < 2; in_entry++) {
		const char *at = open;
		size_t left = strlen(open), more = in_entry ? PIECE_MAX_BYTES : LINE_MAX_BYTES - left;

		CHECK(line_take(&line, &at, &left, 0, &event));
		CHECK(takes(&line, in_entry ? '{' : ' ', more) && !takes(&line, ' ', 1));
		line_reset(&line);
	}
	CHECK(line.event == NULL && line.frame.room <= PIECE_MAX_BYTES && line.entry.room <= PIECE_MAX_BYTES);
	line_free(&line);
}

/* Any bytes give an event or NULL. The text has no NUL behind it, so a reader that needs one is found out. */
static void test_noise(void)
{
	static const char *const seeds[] = {SNAPSHOT, CUT, ALLOW};

	for (uint32_t round = 0; round < 20000; round++) {
		const char *seed = seeds[round % 3];
		uint32_t length = (uint32_t)strlen(seed) - randombytes_uniform(2) * randombytes_uniform(100);
		char *text = malloc(length);
		struct answer answer;

		if (text == NULL) {
			return;
		}
		memcpy(text, seed, length);
		for (uint32_t i = 0; i < 1 + round % 3; i++) {
			text[randombytes_uniform(length)] = (char)randombytes_uniform(256);
		}
		same_in_parts(text, length, 1 + randombytes_uniform(9));
		wire_parse_answer(text, length, 0, &answer);
		terms_free(&answer.terms);
		event_free(wire_parse_sync(text, length));
		free(text);
	}
	CHECK(true);
}

static bool accepts(struct order *order, enum event_kind kind, uint64_t n, const char *run)
{
	struct event event = {.kind = kind, .origin = {.n = n}};

	strcpy(event.origin.run, run);
	return order_accepts(order, &event) && strcmp(event.origin.run, order->last.run) == 0;
}

/* The verifier of the RFC 8032 test key, its id made the same way as anywhere else. */
#define PUBLIC "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
#define VERIFY(public, endpoint)                                                                                       \
	"\"verify\":{\"public\":\"" public "\",\"domain\":\"AAECAwQFBgcICQoLDA0ODw\",\"endpoint\":\"" endpoint "\"}"

static void make_id(const char *public, char key[KEY_ID_CHARS + 1])
{
	unsigned char labelled[43] = "authd/id/v1";
	unsigned char digest[crypto_hash_sha256_BYTES];

	grammar_decode(public, PUBLIC_KEY_CHARS, labelled + 11);
	crypto_hash_sha256(digest, labelled, sizeof(labelled));
	grammar_encode(digest, ID_BYTES, key);
}

static bool has_verifier(const char *verify, const char *key)
{
	char text[1024];
	struct event *event;
	bool has;

	snprintf(text, sizeof(text),
		 "{\"type\":\"snapshot\",\"n\":7,\"run\":\"03b7a1c95e6d2f48\",\"sessions\":[{\"client_id\":\"c1\","
		 "\"session\":\"5kq1Yw2f0bU\",\"key\":\"%s\",\"lease_ms\":5000,\"will\":\"suppress\",\"rights\":[],"
		 "\"offline\":true,%s}],\"seen\":[\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]}",
		 key, verify);
	event = event_of(text);
	has = event != NULL && event->sessions[0].verifier != NULL && event->sessions[0].offline &&
	      event->seen_count == 1 && strcmp(event->sessions[0].verifier->endpoint, "h:1") == 0;
	event_free(event);
	return has;
}

#define WEAK "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

/* Twice the same: the second answer is remembered. */
static bool is_sound(const char *public, const char *key)
{
	struct verifier *verifier = verifier_new(public, "AAECAwQFBgcICQoLDA0ODw", "h:1", key);
	bool sound = verifier != NULL && verifier_is_sound(verifier);

	CHECK(verifier != NULL && verifier_is_sound(verifier) == sound);
	free(verifier);
	return sound;
}

static void test_a1_verifiers(void)
{
	char key[KEY_ID_CHARS + 1], weak[KEY_ID_CHARS + 1];

	make_id(PUBLIC, key);
	make_id(WEAK, weak);
	CHECK(has_verifier(VERIFY(PUBLIC, "h:1"), key));
	CHECK(!has_verifier(VERIFY(PUBLIC, "h:1"), weak));
	CHECK(has_verifier(VERIFY(WEAK, "h:1"), weak) && !is_sound(WEAK, weak) && is_sound(PUBLIC, key));
	CHECK(!has_verifier(VERIFY(PUBLIC, ""), key));
	CHECK(!has_verifier("\"verify\":{}", key));
	CHECK(!has_verifier("\"verify\":null", key));
	CHECK(!has_verifier(VERIFY(PUBLIC, "h:1") "," VERIFY(PUBLIC, "h:1"), key));
	CHECK(event_of("{\"type\":\"snapshot\",\"n\":7,\"run\":\"03b7a1c95e6d2f48\",\"sessions\":[],\"seen\":[5]}") == NULL);
	CHECK(event_of("{\"type\":\"snapshot\",\"n\":7,\"run\":\"03b7a1c95e6d2f48\",\"sessions\":[],\"seen\":[\"A\"]}") == NULL);
	CHECK(event_of("{\"type\":\"snapshot\",\"n\":7,\"run\":\"03b7a1c95e6d2f48\",\"sessions\":[],\"seen\":{}}") == NULL);
}

static void test_question(void)
{
	struct question question = {.broker = "hall", .boot = "0", .client_id = "c1", .protocol = 5,
				    .shown = {.hello = "aa", .nonce = "bb", .response = "cc"},
				    .reauthenticates = "5kq1Yw2f0bU"};
	char *text = wire_write_question(&question);

	CHECK(text != NULL && strcmp(text, "{\"broker\":\"hall\",\"boot\":\"0\",\"client_id\":\"c1\",\"username\":\"\","
					   "\"password\":\"\",\"exchange\":{\"hello\":\"aa\",\"nonce\":\"bb\","
					   "\"response\":\"cc\"},\"reauthenticates\":\"5kq1Yw2f0bU\",\"address\":\"\","
					   "\"protocol\":5,\"clean\":false,\"enforces\":[\"rights\",\"lease\","
					   "\"kick\",\"will\"]}") == 0);
	wire_forget(text);
}

static void test_order(void)
{
	struct order order = {0};

	CHECK(!accepts(&order, EVENT_CUT, 1, ""));
	CHECK(!accepts(&order, EVENT_BEAT, 0, ""));
	CHECK(accepts(&order, EVENT_SNAPSHOT, 7, "03b7a1c95e6d2f48"));
	CHECK(!accepts(&order, EVENT_SNAPSHOT, 8, "03b7a1c95e6d2f48"));
	CHECK(accepts(&order, EVENT_BEAT, 7, "03b7a1c95e6d2f48"));
	CHECK(!accepts(&order, EVENT_BEAT, 8, "03b7a1c95e6d2f48"));
	CHECK(!accepts(&order, EVENT_BEAT, 7, "13b7a1c95e6d2f48"));
	CHECK(!accepts(&order, EVENT_CUT, 7, ""));
	CHECK(!accepts(&order, EVENT_CUT, 9, ""));
	CHECK(accepts(&order, EVENT_CUT, 8, ""));
	CHECK(accepts(&order, EVENT_LEASE, 9, ""));
	CHECK(accepts(&order, EVENT_BEAT, 9, "03b7a1c95e6d2f48"));
}

/* --- table --- */

static struct entry *put(struct table *table, int client, int key, int64_t lease_ends_at_ms)
{
	struct terms terms = {.lease_ends_at_ms = lease_ends_at_ms};
	struct origin origin = {.n = 1};
	static unsigned serial;

	snprintf(terms.client_id, sizeof(terms.client_id), "client-%d", client);
	snprintf(terms.session, sizeof(terms.session), "%011u", ++serial);
	snprintf(terms.key, sizeof(terms.key), "%022d", key);
	terms.rights = calloc(1, sizeof(struct rights));
	return table_put(table, &terms, &origin, &serial);
}

static void test_table_bounds(void)
{
	struct table table;
	char client_id[32];

	CHECK(table_init(&table));
	table.offline_max = 100;
	table.live_max = 5000;
	for (int i = 0; i < 5000; i++) {
		CHECK(!table_full(&table) && put(&table, i, i % 10, 1000 + i % 77) != NULL);
	}
	CHECK(table_full(&table));
	for (int i = 0; i < 5000; i++) {
		snprintf(client_id, sizeof(client_id), "client-%d", i);
		table_set_offline(&table, table_find_client(&table, client_id));
	}
	CHECK(table.count == 100 && table.offline == 100 && table.heap_count == 0);
	CHECK(table_find_client(&table, "client-4899") == NULL);
	CHECK(table_find_client(&table, "client-4900") != NULL);
	CHECK(put(&table, 4950, 1, 1) != NULL && table.count == 100 && table.offline == 99);
	table_clear(&table);
}

static void test_table_leases(void)
{
	struct table table;
	struct entry *entry;
	int64_t last = 0;
	int ended = 0;

	CHECK(table_init(&table));
	for (int i = 0; i < 3000; i++) {
		entry = put(&table, i, 1, (i * 7919) % 3001);
		if (i % 3 == 0) {
			table_set_lease(&table, entry, (i * 104729) % 3001);
		}
		if (i % 5 == 0) {
			table_deny(&table, entry);
		}
	}
	while ((entry = table_next_ended(&table, 3001)) != NULL) {
		CHECK(entry->terms.lease_ends_at_ms >= last && !entry->denied);
		last = entry->terms.lease_ends_at_ms;
		ended++;
	}
	CHECK(ended == 2400);
	entry = table_find_client(&table, "client-1");
	table_set_lease(&table, entry, 9000);
	CHECK(table_next_ended(&table, 8999) == NULL && table_next_ended(&table, 9000) == entry);
	table_clear(&table);
}

static void test_table_keys_and_kicks(void)
{
	struct table table;
	struct entry *entry = NULL;
	enum kick_cause cause = KICK_NONE;
	char key[KEY_ID_CHARS + 1];
	int found = 0;

	CHECK(table_init(&table));
	for (int i = 0; i < 2000; i++) {
		put(&table, i, i % 4, 1000);
	}
	snprintf(key, sizeof(key), "%022d", 2);
	while ((entry = table_next_of_key(&table, key, entry)) != NULL) {
		table_queue_kick(&table, entry, KICK_CUT, true);
		table_queue_kick(&table, entry, KICK_CUT, false);
		found++;
	}
	CHECK(found == 500);
	put(&table, 2, 2, 1000); /* a new session of the same client is not kicked */
	for (found = 0; (entry = table_next_kick(&table, &cause)) != NULL; found++) {
		CHECK(cause == KICK_CUT && !entry->kick_with_will && entry->kick == KICK_NONE);
	}
	CHECK(found == 499);
	table_clear(&table);
}

/* The quick way finds what the slow one does, whatever came and went in between, also at a reused address. */
static void test_a38_table_recent(void)
{
	struct table table;
	struct entry *entry;
	char client_id[32];

	CHECK(table_init(&table));
	table.offline_max = 3;
	for (int round = 0; round < 5000; round++) {
		int client = (int)randombytes_uniform(12);
		uintptr_t connection = (1 + randombytes_uniform(4)) << 6;

		snprintf(client_id, sizeof(client_id), "client-%d", client);
		entry = table_find_client(&table, client_id);
		CHECK(table_find_connection(&table, (void *)connection, client_id) == entry);
		if (entry == NULL || randombytes_uniform(3) == 0) {
			put(&table, client, 1, 1000);
		} else if (entry->online) {
			table_set_offline(&table, entry);
		}
	}
	table_clear(&table);
}

static void test_a38_memo(void)
{
	static struct memo memo;
	struct memo_slot *slot = memo_slot(&memo, 1, ACTION_PUB, "a/b", 3);
	char longest[MEMO_NAME_MAX_BYTES + 1];

	CHECK(!memo_allows(slot, 1, ACTION_PUB, "a/b", 3, 0));
	memo_keep(slot, 1, ACTION_PUB, "a/b", 3, 1000);
	CHECK(memo_allows(slot, 1, ACTION_PUB, "a/b", 3, 999) && !memo_allows(slot, 1, ACTION_PUB, "a/b", 3, 1000));
	CHECK(!memo_allows(slot, 2, ACTION_PUB, "a/b", 3, 0) && !memo_allows(slot, 1, ACTION_SUB, "a/b", 3, 0));
	CHECK(!memo_allows(slot, 1, ACTION_PUB, "a/bc", 4, 0) && !memo_allows(slot, 1, ACTION_PUB, "a/c", 3, 0));
	memset(longest, 'x', sizeof(longest));
	slot = memo_slot(&memo, 1, ACTION_PUB, longest, MEMO_NAME_MAX_BYTES);
	CHECK(slot != NULL && memo_slot(&memo, 1, ACTION_PUB, longest, sizeof(longest)) == NULL);
	memo_keep(slot, 1, ACTION_PUB, longest, MEMO_NAME_MAX_BYTES, 1000);
	CHECK(memo_allows(slot, 1, ACTION_PUB, longest, MEMO_NAME_MAX_BYTES, 0));
	longest[MEMO_NAME_MAX_BYTES - 1] = 'y';
	CHECK(!memo_allows(slot, 1, ACTION_PUB, longest, MEMO_NAME_MAX_BYTES, 0));
}

/* Sessions of an earlier run come and go within the bounds, and go on under a connection. */
static void test_table_restores(void)
{
	struct table table;
	struct origin origin = {.n = 1};
	struct entry *entry;

	CHECK(table_init(&table));
	table.offline_max = 100;
	for (int i = 0; i < 300; i++) {
		struct terms terms = {.lease_ends_at_ms = 1000 + i};

		snprintf(terms.client_id, sizeof(terms.client_id), "client-%d", i % 200);
		snprintf(terms.session, sizeof(terms.session), "%011d", 500000 + i);
		terms.rights = calloc(1, sizeof(struct rights));
		CHECK(table_restore(&table, &terms, &origin) && terms.rights == NULL);
	}
	CHECK(table.count == 100 && table.offline == 100 && table.heap_count == 0);
	entry = table_find_client(&table, "client-99");
	CHECK(entry != NULL && entry->restored && !entry->online && strcmp(entry->terms.session, "00000500299") == 0);
	CHECK(table_readmit(&table, entry, &origin) && entry->online && !entry->restored && table.heap_count == 1);
	CHECK(table.offline == 99 && entry->connection == &origin && entry->previous_connection == NULL);
	CHECK(table_readmit(&table, entry, &table) && table.heap_count == 1 && entry->previous_connection == &origin);
	CHECK(table_next_ended(&table, 2000) == entry);
	table_set_offline(&table, entry);
	CHECK(table.offline == 100 && table.count == 100);
	table_clear(&table);
}

int main(int argc, char **argv)
{
	if (sodium_init() < 0) {
		return 1;
	}
	test_topics();
	test_pop_grammar();
	test_path_grammar();
	test_password_grammar();
	test_client_ids();
	test_counter_grammar();
	test_base64url();
	test_auth_grammar();
	test_nonces();
	test_nonces_over_clock_steps();
	test_nonces_of_a_clock_that_is_set();
	test_nonces_are_bounded();
	test_exchanges();
	test_budget();
	test_budget_in_any_second();
	test_rates();
	test_shares();
	test_answer();
	test_odd_answers();
	test_events();
	test_empty_lines();
	test_lists();
	test_a53_lines_are_bounded();
	test_a1_verifiers();
	test_question();
	test_noise();
	test_order();
	test_table_bounds();
	test_table_leases();
	test_table_restores();
	test_a38_table_recent();
	test_a38_memo();
	test_table_keys_and_kicks();
	for (int i = 1; i < argc; i++) {
		test_vectors(argv[i]);
	}
	printf("%d checked, %d failed\n", checked, failed);
	return failed == 0 ? 0 : 1;
}
