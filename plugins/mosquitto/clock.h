/* The only reader of clocks. */
#ifndef AUTHD_CLOCK_H
#define AUTHD_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds that no one can set back; counts on while the host sleeps, so that a lease cannot outlive a suspend. */
int64_t clock_ms(void);

/* The same in microseconds, for measuring how long something took. */
int64_t clock_us(void);

/* clock_ms() for callers that ask millions of times a second: read anew whenever the kernel's coarse wall clock has
 * moved, which it does at least every 10 ms, and whenever the host wakes up. */
struct clock_cache {
	int64_t coarse_s;
	long coarse_ns;
	int64_t now_ms;
	bool asked; /* since the last clock_pass_ms() */
};

int64_t clock_cached_ms(struct clock_cache *cache);

/* The same for the end of a pass of the broker's loop, in which somebody may have asked already. */
int64_t clock_pass_ms(struct clock_cache *cache);

/* Seconds since the Unix epoch. Never decides anything but how many calls an address may make. */
int64_t clock_wall_s(void);

#endif
