/* On which topics a session left retained messages: the broker goes on delivering them after their publisher is cut, so
 * the daemon tells the operator what to clear. Nothing is decided by it. */
#ifndef AUTHD_RETAINED_H
#define AUTHD_RETAINED_H

#include <stddef.h>
#include <stdint.h>

enum {
	RETAINED_MAX = 32,           /* topics a session */
	RETAINED_IN_ALL_MAX = 16384, /* topics of all sessions: 5 MB; then a new one takes the place of one of its own */
	RETAINED_MORE_MAX = 1000000
};

struct left_topic {
	struct left_topic *newer;
	char name[];
};

/* All zero at first. Owns the list. */
struct retained {
	struct left_topic *oldest;
	uint32_t count;
	uint32_t more; /* how often a topic was not kept, or made room for another */
};

/* `topic`, a legal name that the rights allow (so at most 256 bytes), is the newest of the list. `in_all` counts the topics
 * of all lists. */
void retained_note(struct retained *retained, size_t *in_all, const char *topic);

/* There is nothing on `topic` any more. One that the list does not name still counts among the others: they are unknown. */
void retained_forget(struct retained *retained, size_t *in_all, const char *topic);

void retained_clear(struct retained *retained, size_t *in_all);

/* JSON bytes that the list takes at most. */
size_t retained_json_bytes(const struct retained *retained);

#endif
