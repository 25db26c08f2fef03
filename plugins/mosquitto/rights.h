/* What one session may do: a list of (filter, actions, end). Allow-list only, empty denies everything. */
#ifndef AUTHD_RIGHTS_H
#define AUTHD_RIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ACTION_PUB = 1, ACTION_SUB = 2 };
enum { RIGHTS_MAX = 1024 }; /* filters a session; the daemon compiles at most 64 */

#define RIGHT_NEVER_ENDS INT64_MAX

struct right {
	const char *filter; /* inside the same block of memory */
	int64_t ends_at_ms; /* on clock_ms(), exclusive */
	unsigned actions;
};

/* One block of memory; release with free(). */
struct rights {
	size_t count;
	struct right items[];
};

/* The end of an entry that has not ended and lets `action` (one bit) happen on the topic name `topic`; 0 if there is
 * none. NULL rights allow nothing. */
int64_t rights_name_ends(const struct rights *rights, unsigned action, const char *topic, int64_t now_ms);

/* True if there is such an entry. */
bool rights_allow_name(const struct rights *rights, unsigned action, const char *topic, int64_t now_ms);

/* True if one entry that has not ended covers the whole `requested` filter (`$share/…` included) for `sub`. */
bool rights_allow_filter(const struct rights *rights, const char *requested, int64_t now_ms);

#endif
