#include "topics.h"

#include <stddef.h>
#include <string.h>

enum { TOPIC_MAX_BYTES = 256 };
static const char SHARE[] = "$share";

static size_t level_length(const char *text)
{
	return strcspn(text, "/");
}

static bool level_is(const char *level, size_t length, char wildcard)
{
	return length == 1 && level[0] == wildcard;
}

/* Also `$shareX/a`: whatever begins like a share and is none is better left alone. */
static bool is_share(const char *text)
{
	return strncmp(text, SHARE, sizeof(SHARE) - 1) == 0;
}

static bool text_valid(const char *text)
{
	size_t length = strnlen(text, TOPIC_MAX_BYTES + 1);

	for (size_t i = 0; i < length; i++) {
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F) {
			return false;
		}
	}
	return length > 0 && length <= TOPIC_MAX_BYTES;
}

static bool levels_valid(const char *filter)
{
	for (;;) {
		size_t length = level_length(filter);
		size_t plain = strcspn(filter, "+#");
		bool last = filter[length] == '\0';

		if (plain < length && length != 1) {
			return false;
		}
		if (level_is(filter, length, '#') && !last) {
			return false;
		}
		if (last) {
			return true;
		}
		filter += length + 1;
	}
}

bool topics_filter_valid(const char *filter)
{
	return text_valid(filter) && !is_share(filter) && levels_valid(filter);
}

/* Both are legal, so `#` and `+` stand alone in their level and `#` is the last one: a level is told by its first
 * character. */
static bool walk(const char *granted, const char *requested)
{
	if ((*granted == '+' || *granted == '#') && *requested == '$') {
		return false; /* a wildcard never reaches a first level that begins with `$` */
	}
	for (;; granted++, requested++) {
		if (*granted == '#') {
			return true;
		}
		if (*requested == '#') {
			return false;
		}
		if (*granted == '+') {
			granted++;
			while (*requested != '\0' && *requested != '/') {
				requested++;
			}
		} else {
			while (*granted == *requested && *granted != '\0' && *granted != '/') {
				granted++;
				requested++;
			}
		}
		if ((*granted != '\0' && *granted != '/') || (*requested != '\0' && *requested != '/')) {
			return false; /* the levels differ; so does a `+` asked for under a literal level */
		}
		if (*requested == '\0') {
			return *granted == '\0' || strcmp(granted, "/#") == 0; /* `a/#` covers `a` */
		}
		if (*granted == '\0') {
			return false;
		}
	}
}

/* The filter behind `$share/<group>/`, the text itself if it has no share prefix, NULL if the prefix is malformed. */
static const char *unwrap_share(const char *requested)
{
	const char *group;
	size_t length;

	if (!is_share(requested)) {
		return requested;
	}
	group = requested + sizeof(SHARE); /* behind the slash, if there is one */
	if (group[-1] != '/') {
		return NULL;
	}
	length = level_length(group);
	if (length == 0 || group[length] == '\0' || strcspn(group, "+#") < length) {
		return NULL;
	}
	return group + length + 1;
}

bool topics_name_valid(const char *name)
{
	size_t length = 0;

	for (; name[length] != '\0'; length++) {
		unsigned char byte = (unsigned char)name[length];

		if (byte < 0x20 || byte == 0x7F || byte == '+' || byte == '#' || length == TOPIC_MAX_BYTES) {
			return false;
		}
	}
	return length > 0 && !is_share(name);
}

const char *topics_requested(const char *requested)
{
	const char *inner = unwrap_share(requested);

	return inner != NULL && topics_filter_valid(inner) ? inner : NULL;
}

bool topics_allows(const char *granted, const char *requested)
{
	return walk(granted, requested);
}

bool topics_matches(const char *filter, const char *name)
{
	return topics_filter_valid(filter) && topics_name_valid(name) && walk(filter, name);
}

bool topics_covers(const char *granted, const char *requested)
{
	const char *inner = topics_requested(requested);

	return inner != NULL && topics_filter_valid(granted) && walk(granted, inner);
}
