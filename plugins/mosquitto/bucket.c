#include "bucket.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <string.h>

static const int64_t SLOT_US = 10000;

long budget_allows_ms(const struct budget *budget, int64_t now_us)
{
	int64_t newest = now_us / SLOT_US;
	int64_t spent_us = 0;
	int64_t left_ms;

	for (size_t i = 0; i < BUDGET_SLOTS; i++) {
		if (budget->slot[i] > newest - BUDGET_SLOTS) {
			spent_us += budget->spent_us[i];
		}
	}
	left_ms = (BUDGET_SECOND_MS * 1000 - spent_us) / 1000;
	if (left_ms < BUDGET_LEAST_MS) {
		return 0;
	}
	return left_ms < BUDGET_CALL_MS ? (long)left_ms : BUDGET_CALL_MS;
}

void budget_charge(struct budget *budget, int64_t start_us, int64_t end_us)
{
	while (start_us < end_us) {
		int64_t slot = start_us / SLOT_US;
		int64_t slot_end_us = (slot + 1) * SLOT_US;
		int64_t until_us = end_us < slot_end_us ? end_us : slot_end_us;
		size_t at = (size_t)(slot % BUDGET_SLOTS);

		if (budget->slot[at] != slot) {
			budget->slot[at] = slot;
			budget->spent_us[at] = 0;
		}
		budget->spent_us[at] += until_us - start_us;
		start_us = until_us;
	}
}

void rates_init(struct rates *rates, int64_t per_second)
{
	memset(rates, 0, sizeof(*rates));
	randombytes_buf(rates->hash_key, sizeof(rates->hash_key));
	rates->per_second = per_second;
	rates->burst = per_second * 3;
	rates->share_us = per_second * SHARE_US;
}

/* IPv6 hosts choose their lower 64 bits freely, so only the upper half tells them apart. */
static uint64_t hash_address(const struct rates *rates, const char *address)
{
	unsigned char canonical[16] = {0};
	unsigned char digest[crypto_shorthash_BYTES];
	uint64_t value;
	static const unsigned char mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

	if (address == NULL) {
		memset(canonical, 0xFF, sizeof(canonical));
	} else if (inet_pton(AF_INET, address, canonical) == 1) {
		memmove(canonical + 12, canonical, 4);
		memcpy(canonical, mapped_prefix, sizeof(mapped_prefix));
	} else if (inet_pton(AF_INET6, address, canonical) == 1) {
		if (memcmp(canonical, mapped_prefix, sizeof(mapped_prefix)) != 0) {
			memset(canonical + 8, 0, 8);
		}
	} else {
		memset(canonical, 0xFE, sizeof(canonical)); /* a name we cannot read: all such share one bucket */
	}
	crypto_shorthash(digest, canonical, sizeof(canonical), rates->hash_key);
	memcpy(&value, digest, sizeof(value));
	return value;
}

static int64_t refilled_milli(const struct rates *rates, const struct rate_slot *slot, int64_t now_ms)
{
	int64_t elapsed_ms = now_ms - slot->updated_ms;
	int64_t tokens_milli;

	if (slot->updated_ms == 0 || elapsed_ms > 10000) {
		return rates->burst * 1000;
	}
	tokens_milli = slot->tokens_milli + elapsed_ms * rates->per_second;
	return tokens_milli < rates->burst * 1000 ? tokens_milli : rates->burst * 1000;
}

static struct rate_slot *slot_for(struct rates *rates, uint64_t address, int64_t now_ms)
{
	struct rate_slot *set = &rates->slots[(address % (RATE_SLOTS / RATE_WAYS)) * RATE_WAYS];
	struct rate_slot *fullest = &set[0];

	for (size_t i = 0; i < RATE_WAYS; i++) {
		if (set[i].updated_ms != 0 && set[i].address == address) {
			return &set[i];
		}
		if (refilled_milli(rates, &set[i], now_ms) > refilled_milli(rates, fullest, now_ms)) {
			fullest = &set[i];
		}
	}
	fullest->address = address;
	fullest->updated_ms = 0;
	return fullest;
}

static int64_t still_waited_us(const struct rates *rates, const struct rate_slot *slot, int64_t now_ms)
{
	int64_t elapsed_ms = now_ms - slot->updated_ms;
	int64_t left_us = slot->waited_us - elapsed_ms * rates->share_us / 1000;

	return slot->updated_ms == 0 || elapsed_ms > 10000 || left_us < 0 ? 0 : left_us;
}

/* The bucket of `address`, brought up to now. */
static struct rate_slot *current_slot(struct rates *rates, const char *address, int64_t now_ms)
{
	struct rate_slot *slot = slot_for(rates, hash_address(rates, address), now_ms);

	slot->tokens_milli = refilled_milli(rates, slot, now_ms);
	slot->waited_us = still_waited_us(rates, slot, now_ms);
	slot->updated_ms = now_ms;
	return slot;
}

bool rates_take(struct rates *rates, const char *address, int64_t cost, int64_t now_ms)
{
	struct rate_slot *slot = current_slot(rates, address, now_ms);

	if (slot->tokens_milli < cost * 1000) {
		return false;
	}
	slot->tokens_milli -= cost * 1000;
	return true;
}

bool rates_had_share(struct rates *rates, const char *address, int64_t now_ms)
{
	return current_slot(rates, address, now_ms)->waited_us >= rates->share_us;
}

void rates_charge(struct rates *rates, const char *address, int64_t waited_us, int64_t now_ms)
{
	current_slot(rates, address, now_ms)->waited_us += waited_us;
}
