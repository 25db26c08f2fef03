/* The plugin's verdicts on published vectors, for comparison with Python's.
 *
 * Usage: vectors FILE…     one line a file: its path, a tab, the verdict
 *        vectors -         reads lines of `public message signature` in hex; prints `ok` or `bad_signature` for each
 *
 * `ask` stands for "not for the plugin to judge": well-formed, of a form that only the daemon judges. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar.h"
#include "nonces.h"
#include "verify.h"

enum { BODY_MAX = 8192 };

struct vector {
	char kind[32], username[128], client_id[256], domain[64], endpoint[256], key[128];
	long long now;
	unsigned char body[BODY_MAX];
	size_t length;
};

static void read_header(struct vector *vector, char *line)
{
	char *value = strstr(line, ": ");
	static const char key_name[] = "key";

	if (value == NULL) {
		return;
	}
	*value = '\0';
	value += 2;
	value[strcspn(value, "\n")] = '\0';
	if (strcmp(line, "kind") == 0) {
		snprintf(vector->kind, sizeof(vector->kind), "%s", value);
	} else if (strcmp(line, "username") == 0) {
		snprintf(vector->username, sizeof(vector->username), "%s", value);
	} else if (strcmp(line, "client-id") == 0) {
		snprintf(vector->client_id, sizeof(vector->client_id), "%s", value);
	} else if (strcmp(line, key_name) == 0) {
		snprintf(vector->key, sizeof(vector->key), "%s", value);
	} else if (strcmp(line, "now") == 0) {
		vector->now = atoll(value);
	} else if (strcmp(line, "audience") == 0) {
		snprintf(vector->domain, sizeof(vector->domain), "%.*s", (int)strcspn(value, "/"), value);
		snprintf(vector->endpoint, sizeof(vector->endpoint), "%s", value + strcspn(value, "/") + 1);
	}
}

static void read_body(struct vector *vector, const char *line)
{
	size_t length = 0;

	sodium_hex2bin(vector->body + vector->length, sizeof(vector->body) - vector->length - 1, line, strlen(line), "\n",
		       &length, NULL);
	vector->length += length;
}

static bool read_vector(struct vector *vector, const char *path)
{
	FILE *file = fopen(path, "r");
	char line[4096];
	bool in_body = false;

	memset(vector, 0, sizeof(*vector));
	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		if (line[0] == '\n') {
			in_body = true;
		} else if (in_body) {
			read_body(vector, line);
		} else {
			read_header(vector, line);
		}
	}
	return file != NULL && fclose(file) == 0;
}

/* As the session's terms bring it. */
static struct verifier *make_verifier(const struct vector *vector)
{
	unsigned char public[PUBLIC_KEY_BYTES];
	char text[PUBLIC_KEY_CHARS + 1];

	sodium_hex2bin(public, sizeof(public), vector->key, strlen(vector->key), NULL, NULL, NULL);
	grammar_encode(public, sizeof(public), text);
	return verifier_new(text, vector->domain, vector->endpoint, vector->username);
}

static const char *judge_pop(const struct vector *vector, const char *password, const struct credential *pop)
{
	struct verifier *verifier = make_verifier(vector);
	bool verified = verifier != NULL && verify_pop(verifier, vector->client_id, password);

	free(verifier);
	if (!verified) {
		return "bad_signature";
	}
	return pop->time_s < vector->now - NONCE_WINDOW_S || pop->time_s > vector->now + NONCE_WINDOW_S ? "clock_skew"
													: "ok";
}

static const char *judge_password(const struct vector *vector)
{
	const char *password = (const char *)vector->body; /* as a broker hands it over: cut at the first NUL */
	struct credential credential = grammar_credential(vector->username, password);

	switch (credential.form) {
	case CREDENTIAL_REFUSED:
		return "malformed";
	case CREDENTIAL_POP:
		return judge_pop(vector, password, &credential);
	default:
		return "ask";
	}
}

static const char *judge_auth(const struct vector *vector, enum auth_kind wanted)
{
	return grammar_auth(vector->body, vector->length).kind == wanted ? "ask" : "malformed";
}

static const char *judge(const struct vector *vector)
{
	if (strcmp(vector->kind, "single") == 0) {
		return judge_auth(vector, AUTH_SINGLE_STEP);
	}
	if (strcmp(vector->kind, "response") == 0) {
		return judge_auth(vector, AUTH_RESPONSE);
	}
	return judge_password(vector);
}

static void judge_signatures(void)
{
	char line[4096];

	while (fgets(line, sizeof(line), stdin) != NULL) {
		char *rest = line, *fields[3];
		unsigned char bytes[3][1024];
		size_t lengths[3] = {0};

		for (int i = 0; i < 3; i++) {
			fields[i] = strsep(&rest, " \n");
			sodium_hex2bin(bytes[i], sizeof(bytes[i]), fields[i], strlen(fields[i]), NULL, &lengths[i], NULL);
		}
		puts(lengths[0] == PUBLIC_KEY_BYTES && lengths[2] == SIGNATURE_BYTES &&
				     verify_signature(bytes[0], bytes[1], lengths[1], bytes[2])
			     ? "ok"
			     : "bad_signature");
	}
}

int main(int argc, char **argv)
{
	static struct vector vector;

	if (sodium_init() < 0) {
		return 1;
	}
	if (argc == 2 && strcmp(argv[1], "-") == 0) {
		judge_signatures();
		return 0;
	}
	for (int i = 1; i < argc; i++) {
		if (!read_vector(&vector, argv[i])) {
			return 1;
		}
		printf("%s\t%s\n", argv[i], judge(&vector));
	}
	return 0;
}
