#include "readmit.h"

#include <string.h>

#include "clock.h"
#include "verify.h"

/* The session that this attempt would go on with, NULL if there is none or its terms do not hold now. */
static struct entry *live_session(const struct attempt *attempt)
{
	struct entry *entry = table_find_client(&attempt->authd->table, attempt->client_id);

	if (entry == NULL || entry->denied || entry->terms.verifier == NULL ||
	    clock_ms() >= entry->terms.lease_ends_at_ms) {
		return NULL;
	}
	return strcmp(entry->terms.key, attempt->claimed_key) == 0 ? entry : NULL;
}

static bool in_window(int64_t time_s)
{
	int64_t now_s = clock_wall_s();

	return time_s >= now_s - NONCE_WINDOW_S && time_s <= now_s + NONCE_JUDGED_AHEAD_S;
}

/* Only what may be judged here: everything the daemon has said is carried out, and no snapshot is missing. */
static bool may_judge(const struct attempt *attempt)
{
	const struct authd *authd = attempt->authd;

	return attempt->plain && authd->had_snapshot && authd->caught_up && in_window(attempt->time_s);
}

/* Version is the first byte, time and nonce the next thirteen: from the second byte on, so it is encoded anew. */
static void write_proof(const char *password, char proof[PROOF_CHARS + 1])
{
	unsigned char head[15];

	grammar_decode(password, 20, head);
	grammar_encode(head + 1, 13, proof);
}

static bool go_on(struct attempt *attempt, struct entry *entry)
{
	struct authd *authd = attempt->authd;
	char proof[PROOF_CHARS + 1];

	if (!table_readmit(&authd->table, entry, attempt->client)) {
		return false;
	}
	write_proof(attempt->shown.password, proof);
	reports_add_readmitted(&authd->reports, entry->terms.client_id, entry->terms.session, proof,
			       mosquitto_client_clean_session(attempt->client));
	return true;
}

enum readmission readmit(struct attempt *attempt)
{
	struct nonces *nonces = &attempt->authd->nonces;
	struct entry *entry;
	enum nonce_state state;

	nonces_note_clock(nonces, clock_wall_s(), clock_ms() / 1000);
	nonces_sweep(nonces, clock_wall_s());
	state = nonces_judge(nonces, &attempt->proof, attempt->time_s);
	if (state == NONCE_ACCEPTED) {
		return READMIT_REPLAY;
	}
	entry = state == NONCE_FRESH && may_judge(attempt) ? live_session(attempt) : NULL;
	if (entry == NULL || !verify_pop(entry->terms.verifier, attempt->client_id, attempt->shown.password)) {
		return READMIT_ASK;
	}
	nonces_remember(nonces, &attempt->proof, attempt->time_s, true);
	if (nonces_judge(nonces, &attempt->proof, attempt->time_s) != NONCE_ACCEPTED || !go_on(attempt, entry)) {
		return READMIT_ASK; /* memory is short */
	}
	return READMIT_ALLOW;
}
