/* The `plugin_opt_authd_…` lines of mosquitto.conf. */
#ifndef AUTHD_OPTIONS_H
#define AUTHD_OPTIONS_H

#include <stdbool.h>

#include "grammar.h"

enum { SOCKET_PATH_MAX_BYTES = 107, PROBLEM_MAX_CHARS = 255 }; /* sun_path of Linux, less the final NUL */

struct options {
	char socket_path[SOCKET_PATH_MAX_BYTES + 1];
	char broker[BROKER_NAME_MAX_CHARS + 1];
	int rate; /* connects a second that one address may make; three times that at once */
};

struct mosquitto_opt;

/* Read all options. False: `problem` says what to write instead. */
bool options_read(struct options *options, const struct mosquitto_opt *given, int count,
		  char problem[PROBLEM_MAX_CHARS + 1]);

#endif
