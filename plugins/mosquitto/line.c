#include "line.h"

#include <stdlib.h>
#include <string.h>

static bool fail(struct line *line, const char *fault)
{
	line->fault = fault;
	return false;
}

static bool malformed(struct line *line)
{
	return fail(line, "a line is malformed");
}

static bool grow(struct line *line, struct piece *piece)
{
	size_t room = piece->room > 0 ? piece->room * 2 : 4096;
	char *grown = room > PIECE_MAX_BYTES ? NULL : realloc(piece->text, room);

	if (grown == NULL) {
		return fail(line, room > PIECE_MAX_BYTES ? "a line is too long without its lists" : "memory is short");
	}
	piece->text = grown;
	piece->room = room;
	return true;
}

static bool append(struct line *line, struct piece *piece, char byte)
{
	if (piece->length == piece->room && !grow(line, piece)) {
		return false;
	}
	piece->text[piece->length++] = byte;
	return true;
}

/* Whether `byte` belongs to a string, the last quote included. The first one is the caller's. */
static bool goes_on_string(struct line *line, char byte)
{
	if (!line->quoted) {
		return false;
	}
	if (line->escaped) {
		line->escaped = false;
	} else if (byte == '\\') {
		line->escaped = true;
	} else if (byte == '"') {
		line->quoted = false;
	}
	return true;
}

/* --- entries --- */

static bool end_entry(struct line *line)
{
	line->step = ENTRY_ENDED;
	return wire_parse_entry(line->list, line->entry.text, line->entry.length, line->event) || malformed(line);
}

static bool take_entry(struct line *line, char byte)
{
	if (!append(line, &line->entry, byte)) {
		return false;
	}
	if (goes_on_string(line, byte)) {
		return line->quoted || line->entry_depth > 0 || end_entry(line);
	}
	switch (byte) {
	case '"':
		line->quoted = true;
		return true;
	case '{':
	case '[':
		line->entry_depth++;
		return true;
	case '}':
	case ']':
		return --line->entry_depth > 0 || end_entry(line);
	default:
		return true;
	}
}

static bool begin_entry(struct line *line, char byte)
{
	if (line->step == ENTRY_ENDED) {
		return malformed(line);
	}
	line->step = ENTRY_OPEN;
	line->entry.length = 0;
	line->entry_depth = 0;
	return take_entry(line, byte);
}

/* Between entries. */
static bool take_list(struct line *line, char byte)
{
	switch (byte) {
	case ' ':
	case '\t':
	case '\r':
		return true;
	case '{':
	case '[':
	case '"':
		return begin_entry(line, byte);
	case ',':
		if (line->step != ENTRY_ENDED) {
			return malformed(line);
		}
		line->step = ENTRY_MUST_BEGIN;
		return true;
	case ']':
		if (line->step == ENTRY_MUST_BEGIN) {
			return malformed(line);
		}
		line->list = LIST_NONE;
		return append(line, &line->frame, byte);
	default:
		return malformed(line);
	}
}

/* --- the frame --- */

static bool open_bracket(struct line *line, char byte)
{
	if (byte == '[' && line->depth == 1 && line->name_end > line->name_at) {
		line->list = wire_list_of(line->frame.text + line->name_at, line->name_end - line->name_at);
		line->step = ENTRY_MAY_BEGIN;
	}
	line->depth += line->list == LIST_NONE;
	return append(line, &line->frame, byte);
}

static bool take_frame(struct line *line, char byte)
{
	if (line->quoted) {
		line->name_end = line->depth == 1 ? line->frame.length : line->name_end;
		return goes_on_string(line, byte) && append(line, &line->frame, byte);
	}
	switch (byte) {
	case '"':
		line->quoted = true;
		line->name_at = line->depth == 1 ? line->frame.length + 1 : line->name_at;
		return append(line, &line->frame, byte);
	case '{':
	case '[':
		return open_bracket(line, byte);
	case '}':
	case ']':
		if (line->depth == 0) {
			return malformed(line);
		}
		line->depth--;
		return append(line, &line->frame, byte);
	default:
		return append(line, &line->frame, byte);
	}
}

static bool take_byte(struct line *line, char byte)
{
	if (line->list == LIST_NONE) {
		return take_frame(line, byte);
	}
	return line->step == ENTRY_OPEN ? take_entry(line, byte) : take_list(line, byte);
}

/* --- the line --- */

static bool begin(struct line *line, int64_t now_us)
{
	if (line->event == NULL) {
		line->event = event_new(now_us);
	}
	return line->event != NULL || fail(line, "memory is short");
}

static bool end(struct line *line, struct event **event)
{
	bool good = line->list == LIST_NONE &&
		    wire_parse_frame(line->frame.text, line->frame.length, line->event);

	if (good) {
		*event = line->event;
		line->event = NULL;
	}
	line_reset(line);
	return good || malformed(line);
}

bool line_take(struct line *line, const char **data, size_t *left, int64_t now_us, struct event **event)
{
	*event = NULL;
	/* An empty line says that the daemon lives. The one after it has not begun, and did not come with it. */
	while (line->bytes == 0 && *left > 0 && **data == '\n') {
		++*data;
		--*left;
	}
	if (*left == 0) {
		return true;
	}
	if (!begin(line, now_us)) {
		return false;
	}
	while (*left > 0) {
		char byte = *(*data)++;

		--*left;
		if (byte == '\n') {
			return end(line, event);
		}
		if (++line->bytes > LINE_MAX_BYTES) {
			return fail(line, "a line is longer than 128 MiB");
		}
		if (!take_byte(line, byte)) {
			return false;
		}
	}
	return true;
}

void line_reset(struct line *line)
{
	event_free(line->event);
	*line = (struct line){.frame = line->frame, .entry = line->entry};
	line->frame.length = line->entry.length = 0;
}

void line_free(struct line *line)
{
	line_reset(line);
	free(line->frame.text);
	free(line->entry.text);
	*line = (struct line){0};
}
