#include "retained.h"

#include <stdlib.h>
#include <string.h>

enum { JSON_FRAME_BYTES = 48, JSON_NAME_FRAME_BYTES = 3 };

/* The link that leads to `topic`, or to the end of the list. */
static struct left_topic **seek(struct retained *retained, const char *topic)
{
	struct left_topic **at = &retained->oldest;

	while (*at != NULL && strcmp((*at)->name, topic) != 0) {
		at = &(*at)->newer;
	}
	return at;
}

static void append(struct retained *retained, struct left_topic **at, struct left_topic *left)
{
	while (*at != NULL) {
		at = &(*at)->newer;
	}
	left->newer = NULL;
	*at = left;
	retained->count++;
}

static struct left_topic *take_out(struct retained *retained, struct left_topic **at)
{
	struct left_topic *left = *at;

	*at = left->newer;
	retained->count--;
	return left;
}

static void drop(struct retained *retained, size_t *in_all, struct left_topic **at)
{
	free(take_out(retained, at));
	(*in_all)--;
}

static void count_other(struct retained *retained)
{
	retained->more += retained->more < RETAINED_MORE_MAX;
}

static struct left_topic *new_topic(const char *topic)
{
	size_t size = strlen(topic) + 1;
	struct left_topic *left = malloc(sizeof(*left) + size);

	if (left != NULL) {
		memcpy(left->name, topic, size);
	}
	return left;
}

static void add(struct retained *retained, size_t *in_all, const char *topic)
{
	struct left_topic *left = NULL;

	if (retained->count == RETAINED_MAX || (*in_all >= RETAINED_IN_ALL_MAX && retained->count > 0)) {
		drop(retained, in_all, &retained->oldest);
		count_other(retained);
	}
	if (*in_all < RETAINED_IN_ALL_MAX) {
		left = new_topic(topic);
	}
	if (left == NULL) {
		count_other(retained);
		return;
	}
	append(retained, &retained->oldest, left);
	(*in_all)++;
}

void retained_note(struct retained *retained, size_t *in_all, const char *topic)
{
	struct left_topic **at = seek(retained, topic);

	if (*at == NULL) {
		add(retained, in_all, topic);
	} else if ((*at)->newer != NULL) { /* the same topic again and again costs no more than being found */
		append(retained, at, take_out(retained, at));
	}
}

void retained_forget(struct retained *retained, size_t *in_all, const char *topic)
{
	struct left_topic **at = seek(retained, topic);

	if (*at != NULL) {
		drop(retained, in_all, at);
	}
}

void retained_clear(struct retained *retained, size_t *in_all)
{
	while (retained->oldest != NULL) {
		drop(retained, in_all, &retained->oldest);
	}
	retained->more = 0;
}

/* Every character of a name may need a backslash; control characters, which need more, are in no legal name. */
size_t retained_json_bytes(const struct retained *retained)
{
	size_t bytes = JSON_FRAME_BYTES;

	for (const struct left_topic *left = retained->oldest; left != NULL; left = left->newer) {
		bytes += strlen(left->name) * 2 + JSON_NAME_FRAME_BYTES;
	}
	return bytes;
}
