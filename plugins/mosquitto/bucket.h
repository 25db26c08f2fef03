/* Two limits that keep the broker's only thread free: how long it may wait for authd, and how often one address may
 * make it ask. Both are plain arithmetic on times that the caller passes in. */
#ifndef AUTHD_BUCKET_H
#define AUTHD_BUCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BUDGET_CALL_MS = 50,    /* longest wait for one answer */
	BUDGET_SECOND_MS = 100, /* longest wait in any second, all answers together */
	BUDGET_LEAST_MS = 10,   /* with less than this left a call is not worth starting */
	BUDGET_SLOTS = 101,     /* of 10 ms each: one more than a second, so the sum is never too small */
	SHARE_US = 500,         /* of waiting that an attempt of one address a second is worth */
	RATE_SLOTS = 4096,
	RATE_WAYS = 4
};

/* Time spent waiting, in slots of 10 ms. */
struct budget {
	int64_t slot[BUDGET_SLOTS]; /* number of the slot that the sum below belongs to */
	int64_t spent_us[BUDGET_SLOTS];
};

/* Milliseconds that a call starting at `now_us` may take: 0 (do not ask) or 10 to 50. */
long budget_allows_ms(const struct budget *budget, int64_t now_us);

/* Book a wait from `start_us` to `end_us`. */
void budget_charge(struct budget *budget, int64_t start_us, int64_t end_us);

struct rate_slot {
	uint64_t address;
	int64_t updated_ms;
	int64_t tokens_milli;
	int64_t waited_us; /* for answers about it; falls by `share_us` a second */
};

/* Token buckets per remote address, in a table of fixed size: a full set forgets its fullest bucket. Beside the tokens
 * the time that was spent waiting for answers about the address. */
struct rates {
	unsigned char hash_key[16];
	int64_t per_second;
	int64_t burst;
	int64_t share_us; /* of waiting, in any second: a quarter of all, or more if the rate is higher than 50 */
	struct rate_slot slots[RATE_SLOTS];
};

/* `per_second` in [1, 10000]; a bucket holds three times that. */
void rates_init(struct rates *rates, int64_t per_second);

/* Take `cost` whole tokens for `address` (text, may be NULL; IPv6 counts by /64). False: too many attempts. */
bool rates_take(struct rates *rates, const char *address, int64_t cost, int64_t now_ms);

/* True if `address` has had its share of the waiting. */
bool rates_had_share(struct rates *rates, const char *address, int64_t now_ms);

/* Book `waited_us` of waiting to `address`. */
void rates_charge(struct rates *rates, const char *address, int64_t waited_us, int64_t now_ms);

#endif
