#include "rights.h"

#include "topics.h"

/* INVARIANT: every filter in `rights` was found legal when it arrived (wire.c). */
static bool any_allows(const struct rights *rights, unsigned action, const char *requested, int64_t now_ms)
{
	for (size_t i = 0; i < rights->count; i++) {
		const struct right *right = &rights->items[i];

		if ((right->actions & action) != 0 && topics_allows(right->filter, requested) &&
		    now_ms < right->ends_at_ms) {
			return true;
		}
	}
	return false;
}

bool rights_allow_name(const struct rights *rights, unsigned action, const char *topic, int64_t now_ms)
{
	return rights != NULL && topics_name_valid(topic) && any_allows(rights, action, topic, now_ms);
}

bool rights_allow_filter(const struct rights *rights, const char *requested, int64_t now_ms)
{
	const char *inner = topics_requested(requested);

	return rights != NULL && inner != NULL && any_allows(rights, ACTION_SUB, inner, now_ms);
}
