/* One line of the event stream, taken in byte by byte as it comes.
 *
 * A snapshot of all the sessions that the table holds may be 100 MiB long, and the broker serves nobody while it is
 * read. So what may hold any number of entries is never kept as text: each entry is read as soon as its last byte is
 * here, and the line without them, its frame, at the end. Where an entry begins and ends is found by brackets and
 * quotes alone; that entry and frame are JSON is the reader's to judge (wire.h), so nothing is taken that the whole line
 * would not have been. */
#ifndef AUTHD_LINE_H
#define AUTHD_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

enum {
	LINE_MAX_BYTES = 128 << 20,
	PIECE_MAX_BYTES = 1 << 20 /* of an entry, and of a frame */
};

struct piece {
	char *text;
	size_t length, room;
};

struct line {
	struct event *event; /* with the entries so far; NULL between lines */
	size_t bytes;        /* of this line, so far */
	struct piece frame, entry;
	enum wire_list list; /* that we are in */
	enum { ENTRY_MAY_BEGIN, ENTRY_MUST_BEGIN, ENTRY_ENDED, ENTRY_OPEN } step; /* in a list */
	unsigned depth;      /* of brackets, in the frame */
	unsigned entry_depth;
	bool quoted, escaped;
	size_t name_at, name_end; /* in the frame: the last string at depth 1 */
	const char *fault;
};

/* Take bytes from `*data` up to and with the first newline; `now_us` (clock_us()) is when they came. False if the line
 * cannot be an event: `fault` says why. `*event` is what a line that is now complete says, else NULL. Empty lines are
 * passed over. */
bool line_take(struct line *line, const char **data, size_t *left, int64_t now_us, struct event **event);

/* Forget what has come of a line. */
void line_reset(struct line *line);
void line_free(struct line *line);

#endif
