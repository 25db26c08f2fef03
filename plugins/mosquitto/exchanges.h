/* Open challenges of enhanced authentication: one a connection, each answered once.
 *
 * Bounded: a new one takes the place of one whose time is over, or has to wait. Whoever has no session yet leaves some
 * room to those who have. The connection is a handle to compare, never looked into. */
#ifndef AUTHD_EXCHANGES_H
#define AUTHD_EXCHANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "grammar.h"

enum {
	EXCHANGES_MAX = 256,
	EXCHANGES_OF_NEWCOMERS_MAX = 192,
	EXCHANGE_MAX_MS = 10000 /* from challenge to response */
};

struct exchange {
	const void *connection;
	char client_id[CLIENT_ID_MAX_BYTES + 1];
	char session[SESSION_ID_CHARS + 1]; /* the one that authenticates again, empty at CONNECT */
	char key[KEY_ID_CHARS + 1];         /* that the hello claims */
	unsigned char hello[AUTH_DATA_MAX_BYTES];
	size_t hello_length;
	unsigned char nonce[EXCHANGE_NONCE_BYTES];
	int64_t opened_ms;
};

struct exchanges {
	struct exchange open[EXCHANGES_MAX];
	size_t count;
};

/* Keep a copy of `exchange`, in place of an older one of the same connection. False if there is no room now. */
bool exchanges_open(struct exchanges *exchanges, const struct exchange *exchange);

/* Move the exchange of `connection` out. False if there is none. It may be out of time. */
bool exchanges_take(struct exchanges *exchanges, const void *connection, struct exchange *exchange);

/* The connection is gone. */
void exchanges_forget(struct exchanges *exchanges, const void *connection);

#endif
