/* HTTP/1.1 over the broker socket by libcurl, one kept-alive connection for each `struct http`. */
#ifndef AUTHD_CLIENT_H
#define AUTHD_CLIENT_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	ANSWER_MAX_BYTES = 1 << 20,     /* of a connect or session answer; more is "cannot decide" */
	URL_MAX_CHARS = 255,
	STATUS_OK = 200
};

struct http {
	CURL *easy;
	CURLM *multi;
	bool under_way;
	struct curl_slist *headers;
	char *body; /* of the last answer */
	size_t length, room;
};

/* An easy handle bound to the socket: no proxy, no redirect, no signal, no other protocol. NULL on failure. */
CURL *http_handle(const char *socket_path);

/* False if memory is short. */
bool http_init(struct http *http, const char *socket_path);
void http_free(struct http *http);

/* POST `json` to `path` and wait. The status of a complete answer (its body in `http->body`), or 0 if there was none in
 * time. */
long http_post(struct http *http, const char *path, const char *json, long timeout_ms);

/* The same without waiting: begin it, then call http_step() now and then until it is true and `*status` is the above.
 * `json` must live until then. False if memory is short. */
bool http_begin(struct http *http, const char *path, const char *json, long timeout_ms);
bool http_step(struct http *http, long *status);

#endif
