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
	POP_CHARS = 104,           /* version 1, time 5, nonce 8, signature 64 bytes */
	POP_WITH_HINT_CHARS = 126, /* the same with 16 bytes of issuer hint */
	COUNTER_CHARS = 98,        /* version 1, counter 8, signature 64 bytes */
	COUNTER_WITH_HINT_CHARS = 119,
	PATH_MAX_CHARS = 3000,
	ID_BYTES = 16,
	NONCE_BYTES = 8,
	SIGNATURE_BYTES = 64,
	PUBLIC_KEY_BYTES = 32,
	PUBLIC_KEY_CHARS = 43,
	EXCHANGE_NONCE_BYTES = 16,
	AUTH_DATA_MAX_BYTES = 110 /* single step with a hint */
};

enum credential_form {
	CREDENTIAL_REFUSED,
	CREDENTIAL_POP,
	CREDENTIAL_POP_PATH, /* a pop with grants stapled to it */
	CREDENTIAL_COUNTER,
	CREDENTIAL_DEVICE_PASSWORD
};

/* Nothing in it is verified. */
struct credential {
	enum credential_form form;
	int64_t time_s; /* pop: the seconds since the epoch that it claims */
	unsigned char nonce[NONCE_BYTES]; /* pop */
};

/* AUTH data of the method `authd-1`, told apart by first byte and exact length. */
enum auth_kind { AUTH_ODD, AUTH_SINGLE_STEP = 1, AUTH_HELLO = 2, AUTH_CHALLENGE = 3, AUTH_RESPONSE = 4 };

/* Nothing in it is verified. */
struct auth_message {
	enum auth_kind kind;
	char key[KEY_ID_CHARS + 1]; /* single step, hello: the key id it claims */
	int64_t time_s;             /* single step */
	unsigned char nonce[NONCE_BYTES];
};

/* True if `text` is `length` characters of canonical unpadded base64url (unused bits of the last one are zero). */
bool grammar_base64url(const char *text, size_t length);

/* True for 1 to 128 bytes of printable ASCII without `+`, `#` and `/`, other than `http-api`, the name that the
 * HTTP interface of Mosquitto 2.1 uses for itself. */
bool grammar_client_id(const char *client_id);

/* The whole bytes that `length` valid characters encode, into `bytes`. Returns their number. */
size_t grammar_decode(const char *text, size_t length, unsigned char *bytes);

/* True for a key id: 22 characters that encode 16 bytes. */
bool grammar_key_id(const char *text);

/* True for 1 to `max` characters of `[A-Za-z0-9_.-]`. */
bool grammar_plain_name(const char *text, size_t max);

/* True for 1 to 64 of these, other than the reserved `authd-evict`. */
bool grammar_username(const char *username);

/* Which form of credential these two are, or CREDENTIAL_REFUSED. NULL is allowed and refused. */
struct credential grammar_credential(const char *username, const char *password);

/* What a piece of AUTH data is; AUTH_ODD for every other length, first byte or NULL. */
struct auth_message grammar_auth(const void *data, size_t length);

/* `bytes` as canonical unpadded base64url with a final NUL; `text` has room for length * 4 / 3 + 2 characters. */
void grammar_encode(const unsigned char *bytes, size_t length, char *text);

/* True for `length` lower-case hexadecimal digits and nothing else. */
bool grammar_hex(const char *text, size_t length);

#endif
