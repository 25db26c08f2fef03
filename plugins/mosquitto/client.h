/* HTTP/1.1 over the broker socket by libcurl, one kept-alive connection for each `struct http`. */
#ifndef AUTHD_CLIENT_H
#define AUTHD_CLIENT_H

#include <curl/curl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	ANSWER_MAX_BYTES = 1 << 20,     /* of a connect or session answer; more is "cannot decide" */
	URL_MAX_CHARS = 255,
	STATUS_OK = 200,
	INTERRUPT_MS = 100 /* how long a thread may overlook that it is told to stop */
};

struct http {
	CURL *easy;
	CURLM *multi; /* NULL: calls block and cannot be interrupted */
	struct curl_slist *headers;
	char *body; /* of the last answer */
	size_t length, room;
};

/* An easy handle bound to the socket: no proxy, no redirect, no signal, no other protocol. NULL on failure. */
CURL *http_handle(const char *socket_path);

/* `interruptible` calls look at `stop` every INTERRUPT_MS. False if memory is short. */
bool http_init(struct http *http, const char *socket_path, bool interruptible);
void http_free(struct http *http);

/* POST `json` to `path`. The status of a complete answer (its body in `http->body`), or 0 if there was none in time.
 * `stop` may be NULL for a blocking handle. */
long http_post(struct http *http, const char *path, const char *json, long timeout_ms, const atomic_bool *stop);

#endif
