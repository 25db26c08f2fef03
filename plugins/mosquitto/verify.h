/* Judging a plain pop of a session that the daemon has allowed before.
 *
 * libsodium alone decides: OpenSSL accepts signatures that nobody made, for public keys of small order. */
#ifndef AUTHD_VERIFY_H
#define AUTHD_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grammar.h"

enum {
	ENDPOINT_MAX_BYTES = 128,
	POP_MESSAGE_MAX_BYTES = 512
};

/* A key and the audience it was proven for. One block of memory; release with free(). */
struct verifier {
	unsigned char public[PUBLIC_KEY_BYTES];
	bool sound; /* passed the point check */
	unsigned char domain[ID_BYTES];
	char endpoint[];
};

/* From the members of `verify` and the session's key id. NULL if any is ill-formed, if `public` has another id
 * than `key`, or if memory is short. */
struct verifier *verifier_new(const char *public, const char *domain, const char *endpoint, const char *key);

/* Whether `public` is a point of the prime-order group. Takes as long as a signature, so each key is looked at when it is
 * used for the first time: a snapshot brings thousands that never are. */
bool verifier_is_sound(struct verifier *verifier);

/* True if `password` is a plain pop (form 1) that `verifier` signed for `client_id`, with a sound key. Time and nonce are
 * not judged. */
bool verify_pop(struct verifier *verifier, const char *client_id, const char *password);

/* Whether a signature counts: the point check, then libsodium's strict verification. */
bool verify_signature(const unsigned char public[PUBLIC_KEY_BYTES], const unsigned char *message, size_t length,
		      const unsigned char signature[SIGNATURE_BYTES]);

#endif
