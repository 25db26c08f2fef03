#include "grammar.h"

#include <string.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
enum { POP_VERSION = 1, COUNTER_VERSION = 2, TIME_BYTES = 5 };
static const char EVICTOR[] = "authd-evict";
static const char HTTP_API[] = "http-api";

static int sextet(char symbol)
{
	if (symbol >= 'A' && symbol <= 'Z') {
		return symbol - 'A';
	}
	if (symbol >= 'a' && symbol <= 'z') {
		return symbol - 'a' + 26;
	}
	if (symbol >= '0' && symbol <= '9') {
		return symbol - '0' + 52;
	}
	return symbol == '-' ? 62 : symbol == '_' ? 63 : -1;
}

bool grammar_base64url(const char *text, size_t length)
{
	int value = 0;
	int unused = length % 4 == 2 ? 0x0F : length % 4 == 3 ? 0x03 : 0;

	if (length == 0 || length % 4 == 1) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		value = sextet(text[i]);
		if (value < 0) {
			return false;
		}
	}
	return (value & unused) == 0;
}

bool grammar_client_id(const char *client_id)
{
	size_t length = strnlen(client_id, CLIENT_ID_MAX_BYTES + 1);

	if (length == 0 || length > CLIENT_ID_MAX_BYTES || strcmp(client_id, HTTP_API) == 0) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)client_id[i];

		if (byte < 0x20 || byte > 0x7E || byte == '+' || byte == '#' || byte == '/') {
			return false;
		}
	}
	return true;
}

bool grammar_key_id(const char *text)
{
	return strnlen(text, KEY_ID_CHARS + 1) == KEY_ID_CHARS && grammar_base64url(text, KEY_ID_CHARS);
}

static bool plain(char symbol)
{
	return sextet(symbol) >= 0 || symbol == '.';
}

bool grammar_plain_name(const char *text, size_t max)
{
	size_t length = strnlen(text, max + 1);

	if (length == 0 || length > max) {
		return false;
	}
	for (size_t i = 0; i < length; i++) {
		if (!plain(text[i])) {
			return false;
		}
	}
	return true;
}

bool grammar_username(const char *username)
{
	return grammar_plain_name(username, USERNAME_MAX_CHARS) && strcmp(username, EVICTOR) != 0;
}

bool grammar_hex(const char *text, size_t length)
{
	return strnlen(text, length + 1) == length && strspn(text, "0123456789abcdef") == length;
}

size_t grammar_decode(const char *text, size_t length, unsigned char *bytes)
{
	uint32_t bits = 0;
	size_t count = 0;

	for (size_t i = 0; i < length; i++) {
		bits = (bits & 0xFFFF) << 6 | (uint32_t)sextet(text[i]);
		if (i % 4 != 0) {
			bytes[count++] = (unsigned char)(bits >> (2 * (3 - i % 4)));
		}
	}
	return count;
}

void grammar_encode(const unsigned char *bytes, size_t length, char *text)
{
	uint32_t bits = 0;
	unsigned held = 0;

	for (size_t i = 0; i < length; i++) {
		bits = bits << 8 | bytes[i];
		for (held += 8; held >= 6; held -= 6) {
			*text++ = ALPHABET[bits >> (held - 6) & 0x3F];
		}
	}
	if (held > 0) {
		*text++ = ALPHABET[bits << (6 - held) & 0x3F];
	}
	*text = '\0';
}

static int64_t read_number(const unsigned char *bytes, size_t length)
{
	int64_t value = 0;

	for (size_t i = 0; i < length; i++) {
		value = value << 8 | bytes[i];
	}
	return value;
}

static bool path_valid(const char *path)
{
	size_t length = strnlen(path, PATH_MAX_CHARS + 1);

	return length <= PATH_MAX_CHARS && grammar_base64url(path, length);
}

/* Version, time and nonce are the first 14 bytes; 20 characters hold 15. */
static struct credential read_pop(const char *password, size_t length)
{
	struct credential pop = {.form = CREDENTIAL_POP};
	unsigned char head[15];

	if (password[length] == '.') {
		if (!path_valid(password + length + 1)) {
			return (struct credential){.form = CREDENTIAL_REFUSED};
		}
		pop.form = CREDENTIAL_POP_PATH;
	}
	grammar_decode(password, 20, head);
	if (head[0] != POP_VERSION) {
		return (struct credential){.form = CREDENTIAL_REFUSED};
	}
	pop.time_s = read_number(head + 1, TIME_BYTES);
	memcpy(pop.nonce, head + 1 + TIME_BYTES, NONCE_BYTES);
	return pop;
}

/* Version and the upper byte of the counter, which is at most 2^63 - 1. Grants are never stapled to it. */
static bool is_counter(const char *password, size_t length)
{
	unsigned char head[3];

	grammar_decode(password, 4, head);
	return password[length] == '\0' && head[0] == COUNTER_VERSION && head[1] < 0x80;
}

static struct credential read_proof(const char *password)
{
	struct credential refused = {.form = CREDENTIAL_REFUSED};
	size_t length = strcspn(password, ".");

	if (!grammar_base64url(password, length)) {
		return refused;
	}
	switch (length) {
	case POP_CHARS:
	case POP_WITH_HINT_CHARS:
		return read_pop(password, length);
	case COUNTER_CHARS:
	case COUNTER_WITH_HINT_CHARS:
		return is_counter(password, length) ? (struct credential){.form = CREDENTIAL_COUNTER} : refused;
	default:
		return refused;
	}
}

struct credential grammar_credential(const char *username, const char *password)
{
	struct credential refused = {.form = CREDENTIAL_REFUSED};

	if (username == NULL || password == NULL || !grammar_username(username)) {
		return refused;
	}
	if (strnlen(password, DEVICE_PASSWORD_CHARS + 1) == DEVICE_PASSWORD_CHARS) {
		bool valid = grammar_base64url(password, DEVICE_PASSWORD_CHARS);

		return valid ? (struct credential){.form = CREDENTIAL_DEVICE_PASSWORD} : refused;
	}
	return grammar_key_id(username) ? read_proof(password) : refused;
}

static enum auth_kind auth_kind_of(const unsigned char *data, size_t length)
{
	enum { SINGLE = 1 + ID_BYTES + TIME_BYTES + NONCE_BYTES + SIGNATURE_BYTES };
	enum { HELLO = 1 + ID_BYTES + EXCHANGE_NONCE_BYTES };
	static const struct {
		enum auth_kind kind;
		size_t length;
	} kinds[] = {
		{AUTH_SINGLE_STEP, SINGLE}, {AUTH_SINGLE_STEP, SINGLE + ID_BYTES},
		{AUTH_HELLO, HELLO},        {AUTH_HELLO, HELLO + ID_BYTES},
		{AUTH_RESPONSE, 1 + SIGNATURE_BYTES},
	};

	for (size_t i = 0; data != NULL && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (length == kinds[i].length && data[0] == (unsigned char)kinds[i].kind) {
			return kinds[i].kind;
		}
	}
	return AUTH_ODD; /* a challenge, too: only the plugin sends that */
}

struct auth_message grammar_auth(const void *data, size_t length)
{
	const unsigned char *bytes = data;
	struct auth_message message = {.kind = auth_kind_of(bytes, length)};

	if (message.kind == AUTH_SINGLE_STEP || message.kind == AUTH_HELLO) {
		grammar_encode(bytes + 1, ID_BYTES, message.key);
	}
	if (message.kind == AUTH_SINGLE_STEP) {
		message.time_s = read_number(bytes + 1 + ID_BYTES, TIME_BYTES);
		memcpy(message.nonce, bytes + 1 + ID_BYTES + TIME_BYTES, NONCE_BYTES);
	}
	return message;
}
