/* Carrying out what the daemon says, on the broker thread. */
#ifndef AUTHD_APPLY_H
#define AUTHD_APPLY_H

#include "context.h"

/* Read what the daemon says and carry it out, in order, until there is no more or `until_us` (clock_us()) has come. Denies
 * at once, kicks later: safe inside any callback. */
void apply_news(struct authd *authd, int64_t until_us);

/* The same, but only up to what may be newer than the answer `origin` to a question of `asked_at_us`: that has to wait
 * until the answer is in the table. Then call apply_news(). */
void apply_older(struct authd *authd, const struct origin *origin, int64_t asked_at_us, int64_t until_us);

/* Cut the sessions that the answer to a sync names. */
void apply_drop(struct authd *authd, const struct event *event);

/* Deny every message of this session at once and queue its kick. Safe inside any callback. */
void apply_cut(struct authd *authd, struct entry *entry, bool with_will, const char *reason);

/* Queue the kick of online sessions whose lease has ended; their messages are denied by the clock alone. */
void apply_lease_ends(struct authd *authd, int64_t now_ms);

/* Carry out queued kicks. Only from TICK: the broker frees the client that it kicks. */
void apply_kicks(struct authd *authd, int64_t until_us);

/* Hand the next part of the table to the reporter if a snapshot asked for it and there is room. */
void apply_sync(struct authd *authd);

#endif
