#include "rights.h"

#include "topics.h"

/* INVARIANT: every filter in `rights` was found legal when it arrived (wire.c). */
static const struct right *find(const struct rights *rights, unsigned action, const char *requested, int64_t now_ms)
{
	for (size_t i = 0; i < rights->count; i++) {
		const struct right *right = &rights->items[i];

		if ((right->actions & action) != 0 && topics_allows(right->filter, requested) &&
		    now_ms < right->ends_at_ms) {
			return right;
		}
	}
	return NULL;
}

int64_t rights_name_ends(const struct rights *rights, unsigned action, const char *topic, int64_t now_ms)
{
	const struct right *right =
		rights != NULL && topics_name_valid(topic) ? find(rights, action, topic, now_ms) : NULL;

	return right == NULL ? 0 : right->ends_at_ms;
}

bool rights_allow_name(const struct rights *rights, unsigned action, const char *topic, int64_t now_ms)
{
	return rights_name_ends(rights, action, topic, now_ms) > now_ms;
}

bool rights_allow_filter(const struct rights *rights, const char *requested, int64_t now_ms)
{
	const char *inner = topics_requested(requested);

	return rights != NULL && inner != NULL && find(rights, ACTION_SUB, inner, now_ms) != NULL;
}
