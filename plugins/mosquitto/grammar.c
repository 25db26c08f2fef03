#include "grammar.h"

#include <string.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const unsigned char POP_VERSION = 1;
static const char EVICTOR[] = "authd-evict";
static const char HTTP_API[] = "http-api";

static int sextet(char symbol)
{
	const char *at = symbol == '\0' ? NULL : strchr(ALPHABET, symbol);

	return at == NULL ? -1 : (int)(at - ALPHABET);
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

bool grammar_hex(const char *text, size_t length)
{
	return strnlen(text, length + 1) == length && strspn(text, "0123456789abcdef") == length;
}

/* The first six bytes: version, then the time, big endian. */
static int64_t leading_bytes(const char *pop)
{
	int64_t value = 0;

	for (size_t i = 0; i < 8; i++) {
		value = value << 6 | sextet(pop[i]);
	}
	return value;
}

static bool path_valid(const char *path)
{
	size_t length = strnlen(path, PATH_MAX_CHARS + 1);

	return length <= PATH_MAX_CHARS && grammar_base64url(path, length);
}

static struct credential read_pop(const char *password)
{
	struct credential refused = {CREDENTIAL_REFUSED, 0};
	size_t length = strcspn(password, ".");
	int64_t leading;

	if ((length != POP_CHARS && length != POP_WITH_HINT_CHARS) || !grammar_base64url(password, length)) {
		return refused;
	}
	if (password[length] == '.' && !path_valid(password + length + 1)) {
		return refused;
	}
	leading = leading_bytes(password);
	if (leading >> 40 != POP_VERSION) {
		return refused;
	}
	return (struct credential){CREDENTIAL_POP, leading & 0xFFFFFFFFFF};
}

struct credential grammar_credential(const char *username, const char *password)
{
	struct credential refused = {CREDENTIAL_REFUSED, 0};

	if (username == NULL || password == NULL || !grammar_plain_name(username, USERNAME_MAX_CHARS)) {
		return refused;
	}
	if (strcmp(username, EVICTOR) == 0) {
		return refused;
	}
	if (strnlen(password, DEVICE_PASSWORD_CHARS + 1) == DEVICE_PASSWORD_CHARS) {
		bool valid = grammar_base64url(password, DEVICE_PASSWORD_CHARS);

		return valid ? (struct credential){CREDENTIAL_DEVICE_PASSWORD, 0} : refused;
	}
	return grammar_key_id(username) ? read_pop(password) : refused;
}
