#include "nonces.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1 << 18 };

bool nonces_init(struct nonces *nonces, int64_t now_s)
{
	memset(nonces, 0, sizeof(*nonces));
	randombytes_buf(nonces->hash_key, sizeof(nonces->hash_key));
	nonces->swept_s = now_s;
	nonces->floor_s = now_s + NONCE_JUDGED_AHEAD_S;
	nonces->offset_s = INT64_MAX; /* not known */
	nonces->places = calloc(NONCES_MAX + 1, sizeof(*nonces->places));
	nonces->buckets = calloc(BUCKETS, sizeof(*nonces->buckets));
	return nonces->places != NULL && nonces->buckets != NULL;
}

void nonces_free(struct nonces *nonces)
{
	free(nonces->places);
	free(nonces->buckets);
	memset(nonces, 0, sizeof(*nonces));
}

struct proof_id nonces_id(const char *key, const unsigned char nonce[NONCE_BYTES])
{
	struct proof_id id;

	grammar_decode(key, KEY_ID_CHARS, id.bytes);
	memcpy(id.bytes + ID_BYTES, nonce, NONCE_BYTES);
	return id;
}

void nonces_note_clock(struct nonces *nonces, int64_t now_s, int64_t unset_s)
{
	bool was_set_ahead = nonces->offset_s < now_s - unset_s - 1;

	nonces->offset_s = now_s - unset_s;
	if (was_set_ahead && nonces->floor_s < now_s + NONCE_JUDGED_AHEAD_S) {
		nonces->floor_s = now_s + NONCE_JUDGED_AHEAD_S;
	}
}

static uint32_t *bucket(const struct nonces *nonces, const struct proof_id *id)
{
	unsigned char digest[crypto_shorthash_BYTES];
	uint32_t value;

	crypto_shorthash(digest, id->bytes, sizeof(id->bytes), nonces->hash_key);
	memcpy(&value, digest, sizeof(value));
	return &nonces->buckets[value % BUCKETS];
}

/* The link that leads to `id`, or to the end of its chain. */
static uint32_t *seek(const struct nonces *nonces, const struct proof_id *id)
{
	uint32_t *link = bucket(nonces, id);

	while (*link != 0 && memcmp(&nonces->places[*link].id, id, sizeof(*id)) != 0) {
		link = &nonces->places[*link].chain;
	}
	return link;
}

static void forget_second(struct nonces *nonces, int64_t second)
{
	uint32_t *due = &nonces->wheel[(uint64_t)second % NONCE_WHEEL];

	while (*due != 0) {
		uint32_t place = *due;
		struct nonce *nonce = &nonces->places[place];
		uint32_t *link = seek(nonces, &nonce->id);

		*due = nonce->due;
		*link = nonce->chain;
		nonce->chain = nonces->spare;
		nonces->spare = place;
		nonces->count--;
	}
}

/* A clock that is set back forgets nothing anew; one that jumps ahead turns the wheel once around, no more. */
void nonces_sweep(struct nonces *nonces, int64_t now_s)
{
	int64_t from_s = nonces->swept_s;

	if (now_s <= from_s) {
		return;
	}
	if (now_s - from_s > NONCE_WHEEL) {
		from_s = now_s - NONCE_WHEEL;
	}
	while (from_s < now_s) {
		forget_second(nonces, ++from_s);
	}
	nonces->swept_s = now_s;
	if (nonces->floor_s < now_s - NONCE_KEEP_S) {
		nonces->floor_s = now_s - NONCE_KEEP_S;
	}
}

enum nonce_state nonces_judge(const struct nonces *nonces, const struct proof_id *id, int64_t time_s)
{
	uint32_t place = *seek(nonces, id);

	if (place != 0) {
		return nonces->places[place].accepted ? NONCE_ACCEPTED : NONCE_PASSED;
	}
	return time_s <= nonces->floor_s ? NONCE_UNKNOWN : NONCE_FRESH;
}

static uint32_t take_place(struct nonces *nonces)
{
	uint32_t place = nonces->spare;

	if (place != 0) {
		nonces->spare = nonces->places[place].chain;
		return place;
	}
	return nonces->used < NONCES_MAX ? ++nonces->used : 0;
}

static void insert(struct nonces *nonces, uint32_t *link, const struct proof_id *id, int64_t due_s, bool accepted)
{
	uint32_t place = take_place(nonces);
	uint32_t *due = &nonces->wheel[(uint64_t)due_s % NONCE_WHEEL];

	if (place == 0) {
		nonces->floor_s = due_s - NONCE_KEEP_S > nonces->floor_s ? due_s - NONCE_KEEP_S : nonces->floor_s;
		return;
	}
	nonces->places[place] = (struct nonce){.id = *id, .due = *due, .accepted = accepted};
	*due = place;
	*link = place;
	nonces->count++;
}

bool nonces_remember(struct nonces *nonces, const struct proof_id *id, int64_t time_s, bool accepted)
{
	int64_t due_s = time_s + NONCE_KEEP_S;
	uint32_t *link = seek(nonces, id);

	if (*link != 0) {
		nonces->places[*link].accepted |= accepted;
		return true;
	}
	if (due_s <= nonces->swept_s) {
		return true; /* at or below the floor */
	}
	if (due_s - nonces->swept_s > NONCE_KEEP_S + NONCE_AHEAD_S) {
		return false;
	}
	insert(nonces, link, id, due_s, accepted);
	return true;
}
