#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "version.h"

#define SET(option, value) (curl_easy_setopt(easy, (option), (value)) == CURLE_OK)

static bool configure(CURL *easy, const char *socket_path)
{
	return SET(CURLOPT_UNIX_SOCKET_PATH, socket_path) && SET(CURLOPT_NOSIGNAL, 1L) && SET(CURLOPT_PROXY, "") &&
	       SET(CURLOPT_FOLLOWLOCATION, 0L) && SET(CURLOPT_PROTOCOLS_STR, "http") &&
	       SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) && SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED) &&
	       SET(CURLOPT_USERAGENT, PLUGIN_VERSION);
}

CURL *http_handle(const char *socket_path)
{
	CURL *easy = curl_easy_init();

	if (easy != NULL && !configure(easy, socket_path)) {
		curl_easy_cleanup(easy);
		return NULL;
	}
	return easy;
}

static bool reserve(struct http *http, size_t needed)
{
	size_t room = http->room > 0 ? http->room : 4096;
	char *grown;

	if (needed > ANSWER_MAX_BYTES) {
		return false;
	}
	while (room < needed) {
		room *= 2;
	}
	if (room == http->room) {
		return true;
	}
	grown = realloc(http->body, room);
	if (grown == NULL) {
		return false;
	}
	http->body = grown;
	http->room = room;
	return true;
}

static size_t receive(char *data, size_t unit, size_t count, void *userdata)
{
	struct http *http = userdata;
	size_t length = unit * count;

	if (!reserve(http, http->length + length)) {
		return 0; /* ends the transfer with an error */
	}
	memcpy(http->body + http->length, data, length);
	http->length += length;
	return length;
}

/* Two headers; an empty `Expect:` keeps libcurl from waiting for "100 Continue". */
static bool add_headers(struct http *http)
{
	struct curl_slist *longer;

	http->headers = curl_slist_append(NULL, "Content-Type: application/json");
	longer = http->headers == NULL ? NULL : curl_slist_append(http->headers, "Expect:");
	return longer != NULL;
}

static bool prepare(struct http *http)
{
	CURL *easy = http->easy;

	return SET(CURLOPT_WRITEFUNCTION, receive) && SET(CURLOPT_WRITEDATA, http) &&
	       SET(CURLOPT_HTTPHEADER, http->headers) && SET(CURLOPT_POST, 1L);
}

bool http_init(struct http *http, const char *socket_path)
{
	memset(http, 0, sizeof(*http));
	http->easy = http_handle(socket_path);
	http->multi = curl_multi_init();
	if (http->easy == NULL || http->multi == NULL || !add_headers(http) || !prepare(http)) {
		http_free(http);
		return false;
	}
	return true;
}

void http_free(struct http *http)
{
	if (http->under_way) {
		curl_multi_remove_handle(http->multi, http->easy);
	}
	if (http->easy != NULL) {
		curl_easy_cleanup(http->easy);
	}
	if (http->multi != NULL) {
		curl_multi_cleanup(http->multi);
	}
	curl_slist_free_all(http->headers);
	free(http->body);
	memset(http, 0, sizeof(*http));
}

static bool address(struct http *http, const char *path, const char *json, long timeout_ms)
{
	CURL *easy = http->easy;
	char url[URL_MAX_CHARS + 1];

	http->length = 0;
	snprintf(url, sizeof(url), "http://authd%s", path);
	return SET(CURLOPT_URL, url) && SET(CURLOPT_POSTFIELDS, json) &&
	       SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(json)) && SET(CURLOPT_TIMEOUT_MS, timeout_ms);
}

static long status_of(const struct http *http, CURLcode result)
{
	long status = 0;

	if (result != CURLE_OK || curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK) {
		return 0;
	}
	return status;
}

long http_post(struct http *http, const char *path, const char *json, long timeout_ms)
{
	return address(http, path, json, timeout_ms) ? status_of(http, curl_easy_perform(http->easy)) : 0;
}

bool http_begin(struct http *http, const char *path, const char *json, long timeout_ms)
{
	int running;

	http->under_way = address(http, path, json, timeout_ms) &&
			  curl_multi_add_handle(http->multi, http->easy) == CURLM_OK;
	if (http->under_way) {
		(void)curl_multi_perform(http->multi, &running); /* what fails here fails again in http_step() */
	}
	return http->under_way;
}

/* The result of the transfer, or CURLE_AGAIN while it is under way. */
static CURLcode step(struct http *http)
{
	int running = 0, left = 0;
	CURLMsg *message;

	if (curl_multi_perform(http->multi, &running) != CURLM_OK) {
		return CURLE_FAILED_INIT;
	}
	message = curl_multi_info_read(http->multi, &left);
	if (message != NULL && message->msg == CURLMSG_DONE) {
		return message->data.result;
	}
	return running > 0 ? CURLE_AGAIN : CURLE_FAILED_INIT;
}

bool http_step(struct http *http, long *status)
{
	CURLcode result = step(http);

	if (result == CURLE_AGAIN) {
		return false;
	}
	*status = status_of(http, result);
	curl_multi_remove_handle(http->multi, http->easy);
	http->under_way = false;
	return true;
}
