/* The proofs that went through this plugin and whose time has not run out, so that none is accepted twice.
 *
 * Times are seconds since the Unix epoch, as proofs carry them. What is not known here is not for the plugin to judge:
 * `nonces_judge` says so for every proof that could be among those it has forgotten, never held or could not hold. */
#ifndef AUTHD_NONCES_H
#define AUTHD_NONCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grammar.h"

enum {
	NONCES_MAX = 200000,
	NONCE_WINDOW_S = 60,  /* how far off a proof's time may be */
	/* The plugin itself judges no proof that is further ahead. The less this is, the sooner a new run of the broker is
	 * past all that an earlier one may have let in; the more, the more devices with a wrong clock are served quickly. */
	NONCE_JUDGED_AHEAD_S = 5,
	NONCE_KEEP_S = 121,   /* a proof is remembered for this long after its time */
	NONCE_AHEAD_S = 600,  /* a proof dated further ahead than this cannot be remembered */
	NONCE_WHEEL = 1024,   /* a power of two, more than both together */
	PROOF_ID_BYTES = ID_BYTES + NONCE_BYTES
};

/* Key id and nonce. */
struct proof_id {
	unsigned char bytes[PROOF_ID_BYTES];
};

enum nonce_state {
	NONCE_FRESH,    /* never seen: the plugin may judge it */
	NONCE_PASSED,   /* the daemon was asked about it, or named it: it knows */
	NONCE_ACCEPTED, /* the plugin itself let it in: a replay */
	NONCE_UNKNOWN   /* may have been forgotten: ask the daemon */
};

struct nonce {
	struct proof_id id;
	uint32_t chain; /* next of the same bucket; places count from 1 */
	uint32_t due;   /* next of the same second */
	bool accepted;
};

struct nonces {
	unsigned char hash_key[16];
	struct nonce *places; /* [1..NONCES_MAX] */
	uint32_t *buckets;
	uint32_t wheel[NONCE_WHEEL]; /* by the second in which they are forgotten */
	uint32_t spare, used;        /* places given back; places ever used */
	size_t count;
	int64_t swept_s; /* what was due in this second and before is gone */
	int64_t floor_s; /* proofs with this time or an older one may have been forgotten */
	int64_t offset_s; /* of the wall clock from one that no one sets */
};

/* What an earlier run of the broker accepted is not known: `now_s` + 5 is the first floor. False if memory is short. */
bool nonces_init(struct nonces *nonces, int64_t now_s);
void nonces_free(struct nonces *nonces);

/* `key` is a key id as text. */
struct proof_id nonces_id(const char *key, const unsigned char nonce[NONCE_BYTES]);

/* Say what a clock that no one sets tells at `now_s`. A wall clock that was set ahead was behind at the start too, so the
 * floor rises as if this run began now. At the first call nothing does. */
void nonces_note_clock(struct nonces *nonces, int64_t now_s, int64_t unset_s);

/* Forget what is out of time. */
void nonces_sweep(struct nonces *nonces, int64_t now_s);

enum nonce_state nonces_judge(const struct nonces *nonces, const struct proof_id *id, int64_t time_s);

/* Remember a proof of the time `time_s`; once accepted it stays so. Where there is no room the floor rises instead.
 * False if the time is too far ahead for either. */
bool nonces_remember(struct nonces *nonces, const struct proof_id *id, int64_t time_s, bool accepted);

#endif
