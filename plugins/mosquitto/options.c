#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"

static const char SOCKET_DEFAULT[] = "/run/authd-mqtt/broker.sock";
enum { RATE_DEFAULT = 50, RATE_MAX = 10000 };

static const char *set_socket(struct options *options, const char *value)
{
	if (value[0] != '/' || strlen(value) > SOCKET_PATH_MAX_BYTES) {
		return "write an absolute path of at most 107 bytes, such as `/run/authd-mqtt/broker.sock`";
	}
	strcpy(options->socket_path, value);
	return NULL;
}

static const char *set_broker(struct options *options, const char *value)
{
	if (!grammar_plain_name(value, BROKER_NAME_MAX_CHARS)) {
		return "write the name of a [[broker]] entry of authd.toml: 1 to 64 letters, digits, `_`, `.` or `-`";
	}
	strcpy(options->broker, value);
	return NULL;
}

static const char *set_rate(struct options *options, const char *value)
{
	char *end;
	long rate = strtol(value, &end, 10);

	if (value[0] < '0' || value[0] > '9' || *end != '\0' || rate < 1 || rate > RATE_MAX) {
		return "write how many connects a second one address may make, 1 to 10000";
	}
	options->rate = (int)rate;
	return NULL;
}

static const struct known {
	const char *key;
	const char *(*set)(struct options *options, const char *value);
} KNOWN[] = {{"authd_socket", set_socket}, {"authd_broker", set_broker}, {"authd_rate", set_rate}};

enum { KNOWN_COUNT = sizeof(KNOWN) / sizeof(KNOWN[0]) };

/* What is wrong with one option, NULL if nothing is. */
static const char *read_one(struct options *options, const struct mosquitto_opt *option, bool seen[KNOWN_COUNT])
{
	for (size_t i = 0; i < KNOWN_COUNT; i++) {
		if (strcmp(option->key, KNOWN[i].key) != 0) {
			continue;
		}
		if (seen[i]) {
			return "write it once";
		}
		seen[i] = true;
		return KNOWN[i].set(options, option->value == NULL ? "" : option->value);
	}
	return "it is unknown: write `authd_socket`, `authd_broker` or `authd_rate`";
}

bool options_read(struct options *options, const struct mosquitto_opt *given, int count,
		  char problem[PROBLEM_MAX_CHARS + 1])
{
	bool seen[KNOWN_COUNT] = {false};

	memset(options, 0, sizeof(*options));
	strcpy(options->socket_path, SOCKET_DEFAULT);
	options->rate = RATE_DEFAULT;
	for (int i = 0; i < count; i++) {
		const char *advice = read_one(options, &given[i], seen);

		if (advice != NULL) {
			snprintf(problem, PROBLEM_MAX_CHARS + 1, "`plugin_opt_%.80s`: %s", given[i].key, advice);
			return false;
		}
	}
	if (options->broker[0] == '\0') {
		snprintf(problem, PROBLEM_MAX_CHARS + 1,
			 "`plugin_opt_authd_broker` is missing: write the name of this broker's entry in authd.toml");
		return false;
	}
	return true;
}
