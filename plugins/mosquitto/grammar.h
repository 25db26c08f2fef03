/* What a CONNECT must look like before it may cost anything: alphabet, length, version, canonical base64url.
 *
 * Everything here reads NUL-terminated text that the broker may have cut at an embedded NUL; the exact lengths make
 * sure that no truncated credential has the form of a whole one. */
#ifndef AUTHD_GRAMMAR_H
#define AUTHD_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	CLIENT_ID_MAX_BYTES = 128,
	KEY_ID_CHARS = 22,
	SESSION_ID_CHARS = 11,
	RUN_ID_CHARS = 16,
	BROKER_NAME_MAX_CHARS = 64,
	USERNAME_MAX_CHARS = 64,
	DEVICE_PASSWORD_CHARS = 22,
	POP_CHARS = 104,          /* version 1, time 5, nonce 8, signature 64 bytes */
	POP_WITH_HINT_CHARS = 126, /* the same with 16 bytes of issuer hint */
	PATH_MAX_CHARS = 3000
};

enum credential_form {
	CREDENTIAL_REFUSED,
	CREDENTIAL_POP,
	CREDENTIAL_DEVICE_PASSWORD
};

struct credential {
	enum credential_form form;
	int64_t time_s; /* pop: the seconds since the epoch that it claims, unverified */
};

/* True if `text` is `length` characters of canonical unpadded base64url (unused bits of the last one are zero). */
bool grammar_base64url(const char *text, size_t length);

/* True for 1 to 128 bytes of printable ASCII without `+`, `#` and `/`, other than `http-api`, the name that the
 * HTTP interface of Mosquitto 2.1 uses for itself. */
bool grammar_client_id(const char *client_id);

/* True for a key id: 22 characters that encode 16 bytes. */
bool grammar_key_id(const char *text);

/* True for 1 to `max` characters of `[A-Za-z0-9_.-]`. */
bool grammar_plain_name(const char *text, size_t max);

/* Which form of credential these two are, or CREDENTIAL_REFUSED. NULL is allowed and refused. */
struct credential grammar_credential(const char *username, const char *password);

/* True for `length` lower-case hexadecimal digits and nothing else. */
bool grammar_hex(const char *text, size_t length);

#endif
