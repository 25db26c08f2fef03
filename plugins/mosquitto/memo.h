/* Topic names that rights were found to allow, so that a busy client's next message costs one comparison.
 *
 * A hit needs the same version of the same session's rights, the same action and the whole same name: versions are
 * never used twice, so there is nothing to invalidate. Only what was allowed is kept, and until when. Bounded: names
 * that fall on one slot push each other out. */
#ifndef AUTHD_MEMO_H
#define AUTHD_MEMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MEMO_SLOTS = 4096, MEMO_LATEST = 1024, MEMO_NAME_MAX_BYTES = 96 };

struct memo_slot {
	uint64_t version;
	int64_t ends_at_ms;
	unsigned action;
	unsigned length;
	char name[MEMO_NAME_MAX_BYTES];
};

struct memo {
	struct memo_slot slots[MEMO_SLOTS];
	struct memo_slot *latest[MEMO_LATEST]; /* a guess at the slot, NULL at first */
};

/* Where the latest allowed question of such rights was kept: most clients say the same again. */
struct memo_slot **memo_latest(struct memo *memo, uint64_t version, unsigned action);

/* Where a question belongs; NULL if its name is too long to be kept. */
struct memo_slot *memo_slot(struct memo *memo, uint64_t version, unsigned action, const char *name, size_t length);

/* Whether `slot` says yes to it at `now_ms`. */
bool memo_allows(const struct memo_slot *slot, uint64_t version, unsigned action, const char *name, size_t length,
		 int64_t now_ms);

void memo_keep(struct memo_slot *slot, uint64_t version, unsigned action, const char *name, size_t length,
	       int64_t ends_at_ms);

#endif
