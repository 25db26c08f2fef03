#include "clock.h"

#include <time.h>

static int64_t read_us(clockid_t which)
{
	struct timespec now;

	if (clock_gettime(which, &now) != 0) {
		return INT64_MAX; /* every lease has ended: deny */
	}
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_us(void)
{
	return read_us(CLOCK_BOOTTIME);
}

int64_t clock_ms(void)
{
	return clock_us() / 1000;
}

int64_t clock_cached_ms(struct clock_cache *cache)
{
	struct timespec coarse;

	cache->asked = true;
	if (clock_gettime(CLOCK_REALTIME_COARSE, &coarse) != 0) {
		return cache->now_ms = INT64_MAX;
	}
	if (coarse.tv_nsec != cache->coarse_ns || coarse.tv_sec != cache->coarse_s || cache->now_ms == 0) {
		*cache = (struct clock_cache){coarse.tv_sec, coarse.tv_nsec, clock_ms(), true};
	}
	return cache->now_ms;
}

int64_t clock_pass_ms(struct clock_cache *cache)
{
	int64_t now_ms = cache->asked ? cache->now_ms : clock_cached_ms(cache);

	cache->asked = false;
	return now_ms;
}

int64_t clock_wall_s(void)
{
	return read_us(CLOCK_REALTIME) / 1000000;
}
