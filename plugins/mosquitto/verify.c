#include "verify.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static const char KEY_LABEL[] = "authd/id/v1";
static const char POP_LABEL[] = "authd/pop/1";
enum { FORM_POP = 1, CBOR_UINT = 0x00, CBOR_BYTES = 0x40, CBOR_TEXT = 0x60, CBOR_ARRAY = 0x80 };

/* --- deterministic CBOR (RFC 8949 section 4.2.1) --- */

struct writer {
	unsigned char bytes[POP_MESSAGE_MAX_BYTES];
	size_t length;
	bool full;
};

static void put_bytes(struct writer *writer, const void *bytes, size_t length)
{
	if (length > sizeof(writer->bytes) - writer->length) {
		writer->full = true;
		return;
	}
	memcpy(writer->bytes + writer->length, bytes, length);
	writer->length += length;
}

/* Type and number in the fewest bytes. */
static void put_head(struct writer *writer, unsigned char type, uint64_t number)
{
	unsigned char head[9];
	size_t bytes = number < 24 ? 0 : number <= 0xFF ? 1 : number <= 0xFFFF ? 2 : number <= 0xFFFFFFFF ? 4 : 8;
	static const unsigned char marks[] = {[1] = 24, [2] = 25, [4] = 26, [8] = 27};

	head[0] = (unsigned char)(type | (bytes == 0 ? number : marks[bytes]));
	for (size_t i = 0; i < bytes; i++) {
		head[1 + i] = (unsigned char)(number >> (8 * (bytes - 1 - i)));
	}
	put_bytes(writer, head, 1 + bytes);
}

static void put_string(struct writer *writer, unsigned char type, const void *bytes, size_t length)
{
	put_head(writer, type, length);
	put_bytes(writer, bytes, length);
}

static void put_text(struct writer *writer, const char *text)
{
	put_string(writer, CBOR_TEXT, text, strlen(text));
}

static void put_pop(struct writer *writer, const struct verifier *verifier, const char *client_id,
		    const struct credential *pop)
{
	put_head(writer, CBOR_ARRAY, 7);
	put_text(writer, POP_LABEL);
	put_head(writer, CBOR_UINT, FORM_POP);
	put_string(writer, CBOR_BYTES, verifier->domain, sizeof(verifier->domain));
	put_text(writer, verifier->endpoint);
	put_text(writer, client_id);
	put_head(writer, CBOR_UINT, (uint64_t)pop->time_s);
	put_string(writer, CBOR_BYTES, pop->nonce, sizeof(pop->nonce));
}

/* --- keys and signatures --- */

bool verify_signature(const unsigned char public[PUBLIC_KEY_BYTES], const unsigned char *message, size_t length,
		      const unsigned char signature[SIGNATURE_BYTES])
{
	return crypto_core_ed25519_is_valid_point(public) == 1 &&
	       crypto_sign_verify_detached(signature, message, length, public) == 0;
}

/* The first 16 bytes of SHA-256(label, key). */
static void make_key_id(const unsigned char public[PUBLIC_KEY_BYTES], char text[KEY_ID_CHARS + 1])
{
	unsigned char labelled[sizeof(KEY_LABEL) - 1 + PUBLIC_KEY_BYTES];
	unsigned char digest[crypto_hash_sha256_BYTES];

	memcpy(labelled, KEY_LABEL, sizeof(KEY_LABEL) - 1);
	memcpy(labelled + sizeof(KEY_LABEL) - 1, public, PUBLIC_KEY_BYTES);
	crypto_hash_sha256(digest, labelled, sizeof(labelled));
	grammar_encode(digest, ID_BYTES, text);
}

static bool endpoint_valid(const char *endpoint)
{
	size_t length = strnlen(endpoint, ENDPOINT_MAX_BYTES + 1);

	for (size_t i = 0; i < length; i++) {
		if ((unsigned char)endpoint[i] <= 0x20 || (unsigned char)endpoint[i] > 0x7E) {
			return false;
		}
	}
	return length > 0 && length <= ENDPOINT_MAX_BYTES;
}

static bool texts_valid(const char *public, const char *domain, const char *endpoint)
{
	return strnlen(public, PUBLIC_KEY_CHARS + 1) == PUBLIC_KEY_CHARS &&
	       grammar_base64url(public, PUBLIC_KEY_CHARS) && grammar_key_id(domain) && endpoint_valid(endpoint);
}

struct verifier *verifier_new(const char *public, const char *domain, const char *endpoint, const char *key)
{
	struct verifier *verifier;
	char id[KEY_ID_CHARS + 1];

	if (!texts_valid(public, domain, endpoint)) {
		return NULL;
	}
	verifier = malloc(sizeof(*verifier) + strlen(endpoint) + 1);
	if (verifier == NULL) {
		return NULL;
	}
	verifier->sound = false;
	grammar_decode(public, PUBLIC_KEY_CHARS, verifier->public);
	grammar_decode(domain, KEY_ID_CHARS, verifier->domain);
	strcpy(verifier->endpoint, endpoint);
	make_key_id(verifier->public, id);
	if (strcmp(id, key) != 0) {
		free(verifier);
		return NULL;
	}
	return verifier;
}

bool verifier_is_sound(struct verifier *verifier)
{
	verifier->sound = verifier->sound || crypto_core_ed25519_is_valid_point(verifier->public) == 1;
	return verifier->sound;
}

bool verify_pop(struct verifier *verifier, const char *client_id, const char *password)
{
	struct writer writer = {.length = 0};
	unsigned char bytes[POP_WITH_HINT_CHARS];
	size_t chars = strnlen(password, POP_WITH_HINT_CHARS + 1);
	size_t length;
	char key[KEY_ID_CHARS + 1];
	struct credential pop;

	make_key_id(verifier->public, key);
	pop = grammar_credential(key, password);
	if (pop.form != CREDENTIAL_POP) {
		return false;
	}
	length = grammar_decode(password, chars, bytes);
	put_pop(&writer, verifier, client_id, &pop);
	return verifier_is_sound(verifier) && !writer.full && length > SIGNATURE_BYTES &&
	       crypto_sign_verify_detached(bytes + length - SIGNATURE_BYTES, writer.bytes, writer.length,
					   verifier->public) == 0;
}
