#include "table.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS_AT_START = 1024, HEAP_AT_START = 1024 };

void terms_free(struct terms *terms)
{
	free(terms->rights);
	free(terms->verifier);
	terms->rights = NULL;
	terms->verifier = NULL;
}

static uint64_t hash_text(const struct table *table, const char *text)
{
	unsigned char digest[crypto_shorthash_BYTES];
	uint64_t value;

	crypto_shorthash(digest, (const unsigned char *)text, strlen(text), table->hash_key);
	memcpy(&value, digest, sizeof(value));
	return value;
}

/* --- hash chains --- */

static const char *name_of(const struct entry *entry, enum which_index which)
{
	switch (which) {
	case BY_CLIENT:
		return entry->terms.client_id;
	case BY_SESSION:
		return entry->terms.session;
	default:
		return entry->terms.key;
	}
}

static struct entry **bucket(const struct index *index, uint64_t hash)
{
	return &index->buckets[hash & (index->size - 1)];
}

static void chain_add(struct index *index, enum which_index which, struct entry *entry)
{
	struct entry **head = bucket(index, entry->chain[which].hash);

	entry->chain[which].next = *head;
	*head = entry;
}

static void chain_remove(struct index *index, enum which_index which, struct entry *entry)
{
	struct entry **at = bucket(index, entry->chain[which].hash);

	while (*at != entry) {
		at = &(*at)->chain[which].next;
	}
	*at = entry->chain[which].next;
}

/* `entry` itself or the next of its chain that has this name. */
static struct entry *chain_seek(struct entry *entry, enum which_index which, const char *name)
{
	while (entry != NULL && strcmp(name_of(entry, which), name) != 0) {
		entry = entry->chain[which].next;
	}
	return entry;
}

static bool index_init(struct index *index)
{
	index->buckets = calloc(BUCKETS_AT_START, sizeof(struct entry *));
	index->size = BUCKETS_AT_START;
	return index->buckets != NULL;
}

static bool index_grow(struct index *index, enum which_index which)
{
	struct index grown = {calloc(index->size * 2, sizeof(struct entry *)), index->size * 2};

	if (grown.buckets == NULL) {
		return false;
	}
	for (size_t i = 0; i < index->size; i++) {
		struct entry *next;

		for (struct entry *entry = index->buckets[i]; entry != NULL; entry = next) {
			next = entry->chain[which].next;
			chain_add(&grown, which, entry);
		}
	}
	free(index->buckets);
	*index = grown;
	return true;
}

/* Each index grows when it alone is full, so a failure half way leaves all of them usable. */
static bool indexes_reserve(struct table *table)
{
	for (enum which_index which = 0; which < INDEXES; which++) {
		struct index *index = &table->indexes[which];

		if (table->count >= index->size && !index_grow(index, which)) {
			return false;
		}
	}
	return true;
}

/* --- lease heap --- */

static bool earlier(const struct table *table, size_t a, size_t b)
{
	return table->heap[a]->terms.lease_ends_at_ms < table->heap[b]->terms.lease_ends_at_ms;
}

static void heap_swap(struct table *table, size_t a, size_t b)
{
	struct entry *entry = table->heap[a];

	table->heap[a] = table->heap[b];
	table->heap[b] = entry;
	table->heap[a]->heap_at = a;
	table->heap[b]->heap_at = b;
}

static void heap_settle(struct table *table, size_t at)
{
	while (at > 1 && earlier(table, at, at / 2)) {
		heap_swap(table, at, at / 2);
		at /= 2;
	}
	for (;;) {
		size_t least = at;

		for (size_t child = at * 2; child <= at * 2 + 1 && child <= table->heap_count; child++) {
			least = earlier(table, child, least) ? child : least;
		}
		if (least == at) {
			return;
		}
		heap_swap(table, at, least);
		at = least;
	}
}

/* Room for every live entry and one more; place 0 is not used. */
static bool heap_reserve(struct table *table)
{
	struct entry **grown;

	if (table->count - table->offline + 2 <= table->heap_size) {
		return true;
	}
	grown = realloc(table->heap, table->heap_size * 2 * sizeof(*grown));
	if (grown == NULL) {
		return false;
	}
	table->heap = grown;
	table->heap_size *= 2;
	return true;
}

static void heap_add(struct table *table, struct entry *entry)
{
	entry->heap_at = ++table->heap_count; /* room was reserved by table_put */
	table->heap[entry->heap_at] = entry;
	heap_settle(table, entry->heap_at);
}

static void heap_remove(struct table *table, struct entry *entry)
{
	size_t at = entry->heap_at;

	if (at == 0) {
		return;
	}
	heap_swap(table, at, table->heap_count);
	table->heap_count--;
	entry->heap_at = 0;
	if (at <= table->heap_count) {
		heap_settle(table, at);
	}
}

/* --- offline list and kick list --- */

static void offline_add(struct table *table, struct entry *entry)
{
	entry->older = table->newest;
	entry->newer = NULL;
	if (table->newest != NULL) {
		table->newest->newer = entry;
	} else {
		table->oldest = entry;
	}
	table->newest = entry;
	table->offline++;
}

static void offline_remove(struct table *table, struct entry *entry)
{
	*(entry->older != NULL ? &entry->older->newer : &table->oldest) = entry->newer;
	*(entry->newer != NULL ? &entry->newer->older : &table->newest) = entry->older;
	entry->older = entry->newer = NULL;
	table->offline--;
}

static void kick_remove(struct table *table, struct entry *entry)
{
	if (entry->kick == KICK_NONE) {
		return;
	}
	*(entry->kick_previous != NULL ? &entry->kick_previous->kick_next : &table->kick_first) = entry->kick_next;
	*(entry->kick_next != NULL ? &entry->kick_next->kick_previous : &table->kick_last) = entry->kick_previous;
	entry->kick_next = entry->kick_previous = NULL;
	entry->kick = KICK_NONE;
}

void table_queue_kick(struct table *table, struct entry *entry, enum kick_cause cause, bool with_will)
{
	kick_remove(table, entry);
	entry->kick = cause;
	entry->kick_with_will = with_will;
	entry->kick_previous = table->kick_last;
	entry->kick_next = NULL;
	*(table->kick_last != NULL ? &table->kick_last->kick_next : &table->kick_first) = entry;
	table->kick_last = entry;
}

struct entry *table_next_kick(struct table *table, enum kick_cause *cause)
{
	struct entry *entry = table->kick_first;

	if (entry != NULL) {
		*cause = entry->kick;
		kick_remove(table, entry);
	}
	return entry;
}

/* --- the table --- */

bool table_init(struct table *table)
{
	memset(table, 0, sizeof(*table));
	randombytes_buf(table->hash_key, sizeof(table->hash_key));
	table->live_max = LIVE_MAX;
	table->offline_max = OFFLINE_MAX;
	table->heap_size = HEAP_AT_START;
	table->heap = calloc(table->heap_size, sizeof(*table->heap));
	return table->heap != NULL && index_init(&table->indexes[BY_CLIENT]) &&
	       index_init(&table->indexes[BY_SESSION]) && index_init(&table->indexes[BY_KEY]);
}

static void release(struct table *table, struct entry *entry)
{
	terms_free(&entry->terms);
	retained_clear(&entry->retained, &table->retained);
	free(entry);
}

void table_clear(struct table *table)
{
	const struct index *clients = &table->indexes[BY_CLIENT];

	for (size_t i = 0; clients->buckets != NULL && i < clients->size; i++) {
		struct entry *next;

		for (struct entry *entry = clients->buckets[i]; entry != NULL; entry = next) {
			next = entry->chain[BY_CLIENT].next;
			release(table, entry);
		}
	}
	for (enum which_index which = 0; which < INDEXES; which++) {
		free(table->indexes[which].buckets);
	}
	free(table->heap);
	memset(table, 0, sizeof(*table));
}

static void drop(struct table *table, struct entry *entry)
{
	if (!entry->online) {
		offline_remove(table, entry);
	}
	kick_remove(table, entry);
	heap_remove(table, entry);
	for (enum which_index which = 0; which < INDEXES; which++) {
		chain_remove(&table->indexes[which], which, entry);
	}
	table->count--;
	table->generation++;
	release(table, entry);
}

static struct entry *find(const struct table *table, enum which_index which, const char *name)
{
	return chain_seek(*bucket(&table->indexes[which], hash_text(table, name)), which, name);
}

struct entry *table_find_client(const struct table *table, const char *client_id)
{
	return find(table, BY_CLIENT, client_id);
}

/* INVARIANT: while the generation is the same, no entry has been released. */
struct entry *table_find_connection(struct table *table, const void *connection, const char *client_id)
{
	size_t at = ((uintptr_t)connection >> 6) % RECENT_SLOTS;
	struct entry *entry = table->recent[at].entry;

	if (table->recent[at].connection == connection && table->recent[at].generation == table->generation &&
	    entry != NULL && strcmp(entry->terms.client_id, client_id) == 0) {
		return entry;
	}
	entry = table_find_client(table, client_id);
	table->recent[at].connection = connection;
	table->recent[at].generation = table->generation;
	table->recent[at].entry = entry;
	return entry;
}

struct entry *table_find_session(const struct table *table, const char *session)
{
	return find(table, BY_SESSION, session);
}

struct entry *table_next_of_key(const struct table *table, const char *key, const struct entry *previous)
{
	return previous == NULL ? find(table, BY_KEY, key) : chain_seek(previous->chain[BY_KEY].next, BY_KEY, key);
}

bool table_full(const struct table *table)
{
	return table->count - table->offline >= table->live_max;
}

/* Takes over what `terms` own in every case. */
static struct entry *make_entry(struct table *table, struct terms *terms, const struct origin *origin)
{
	struct entry *entry = indexes_reserve(table) && heap_reserve(table) ? calloc(1, sizeof(*entry)) : NULL;

	if (entry == NULL) {
		terms_free(terms);
		return NULL;
	}
	entry->terms = *terms;
	entry->origin = *origin;
	entry->version = ++table->versions;
	terms->rights = NULL;
	terms->verifier = NULL;
	for (enum which_index which = 0; which < INDEXES; which++) {
		entry->chain[which].hash = hash_text(table, name_of(entry, which));
	}
	return entry;
}

static void insert(struct table *table, struct entry *entry)
{
	for (enum which_index which = 0; which < INDEXES; which++) {
		chain_add(&table->indexes[which], which, entry);
	}
	table->count++;
	table->generation++;
}

/* What a key left under a client id stays on its list; what another key left there is not the newcomer's. */
static void take_over_retained(struct entry *entry, struct entry *old)
{
	if (strcmp(entry->terms.key, old->terms.key) == 0) {
		entry->retained = old->retained;
		memset(&old->retained, 0, sizeof(old->retained));
	}
}

struct entry *table_put(struct table *table, struct terms *terms, const struct origin *origin, const void *connection)
{
	struct entry *old = table_find_client(table, terms->client_id);
	struct entry *entry = make_entry(table, terms, origin);

	if (entry == NULL) {
		return NULL;
	}
	entry->connection = connection;
	entry->online = true;
	if (old != NULL) {
		entry->previous_connection = old->online && !old->denied ? old->connection : NULL;
		take_over_retained(entry, old);
		drop(table, old);
	}
	insert(table, entry);
	heap_add(table, entry);
	return entry;
}

static void drop_oldest(struct table *table, const struct entry *kept)
{
	while (table->offline > table->offline_max && table->oldest != kept) {
		drop(table, table->oldest);
	}
}

bool table_restore(struct table *table, struct terms *terms, const struct origin *origin)
{
	struct entry *entry;

	if (table_find_client(table, terms->client_id) != NULL) {
		terms_free(terms);
		return true;
	}
	entry = make_entry(table, terms, origin);
	if (entry == NULL) {
		return false;
	}
	entry->restored = true;
	insert(table, entry);
	offline_add(table, entry);
	drop_oldest(table, entry);
	return true;
}

bool table_readmit(struct table *table, struct entry *entry, const void *connection)
{
	if (!heap_reserve(table)) {
		return false;
	}
	kick_remove(table, entry);
	entry->previous_connection = entry->online ? entry->connection : NULL;
	if (!entry->online) {
		offline_remove(table, entry);
	}
	heap_remove(table, entry);
	entry->connection = connection;
	entry->online = true;
	entry->restored = false;
	entry->enhanced = false;
	heap_add(table, entry);
	return true;
}

void table_note_other(struct entry *entry, const void *connection)
{
	if (!entry->online && entry->connection != connection) {
		entry->connection = NULL;
	}
}

void table_set_offline(struct table *table, struct entry *entry)
{
	if (!entry->online) {
		return;
	}
	entry->online = false;
	heap_remove(table, entry);
	offline_add(table, entry);
	drop_oldest(table, entry);
}

void table_update(struct table *table, struct entry *entry, struct terms *terms)
{
	terms_free(&entry->terms);
	entry->version = ++table->versions;
	entry->terms.rights = terms->rights;
	entry->terms.verifier = terms->verifier;
	terms->rights = NULL;
	terms->verifier = NULL;
	entry->terms.will_publish = terms->will_publish;
	table_set_lease(table, entry, terms->lease_ends_at_ms);
}

void table_set_lease(struct table *table, struct entry *entry, int64_t ends_at_ms)
{
	heap_remove(table, entry);
	entry->terms.lease_ends_at_ms = ends_at_ms;
	if (entry->online && !entry->denied) {
		heap_add(table, entry);
	}
}

void table_deny(struct table *table, struct entry *entry)
{
	entry->denied = true;
	heap_remove(table, entry);
}

struct entry *table_next_ended(struct table *table, int64_t now_ms)
{
	struct entry *entry = table->heap_count > 0 ? table->heap[1] : NULL;

	if (entry == NULL || now_ms < entry->terms.lease_ends_at_ms) {
		return NULL;
	}
	heap_remove(table, entry);
	return entry;
}
