#include "memo.h"

#include <string.h>

static uint64_t load(const char *bytes, size_t length)
{
	uint64_t word = 0;

	memcpy(&word, bytes, length);
	return word;
}

/* Who makes names collide makes them slower to check, no more. */
static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9E3779B97F4A7C15;
	return hash ^ hash >> 29;
}

struct memo_slot **memo_latest(struct memo *memo, uint64_t version, unsigned action)
{
	return &memo->latest[(version * 2 + action) % MEMO_LATEST];
}

struct memo_slot *memo_slot(struct memo *memo, uint64_t version, unsigned action, const char *name, size_t length)
{
	uint64_t hash = mix(version, (uint64_t)action << 32 | length);

	if (length > MEMO_NAME_MAX_BYTES) {
		return NULL;
	}
	for (; length > 8; name += 8, length -= 8) {
		hash = mix(hash, load(name, 8));
	}
	hash = mix(hash, load(name, length));
	return &memo->slots[hash % MEMO_SLOTS];
}

bool memo_allows(const struct memo_slot *slot, uint64_t version, unsigned action, const char *name, size_t length,
		 int64_t now_ms)
{
	return slot->version == version && slot->action == action && slot->length == length &&
	       now_ms < slot->ends_at_ms && memcmp(slot->name, name, length) == 0;
}

void memo_keep(struct memo_slot *slot, uint64_t version, unsigned action, const char *name, size_t length,
	       int64_t ends_at_ms)
{
	slot->version = version;
	slot->action = action;
	slot->length = (unsigned)length;
	slot->ends_at_ms = ends_at_ms;
	memcpy(slot->name, name, length);
}
