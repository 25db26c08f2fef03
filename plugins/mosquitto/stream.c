#include "stream.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "client.h"
#include "clock.h"
#include "compat.h"

bool stream_init(struct stream *stream, const struct options *options, const char *boot, struct queue *queue)
{
	memset(stream, 0, sizeof(*stream));
	stream->options = options;
	stream->boot = boot;
	stream->queue = queue;
	stream->multi = curl_multi_init();
	return stream->multi != NULL;
}

void stream_resync(struct stream *stream)
{
	stream->resync = true;
}

/* --- what comes --- */

static bool take_event(struct stream *stream, struct event *event)
{
	if (!order_accepts(&stream->order, event)) {
		stream->fault = "an event is missing or out of order";
		event_free(event);
		return false;
	}
	if (event->kind == EVENT_BEAT) {
		event_free(event);
		return true;
	}
	if (event->kind == EVENT_SNAPSHOT) {
		stream->failures = 0;
	}
	queue_add(stream->queue, event);
	return true;
}

static size_t receive(char *data, size_t unit, size_t count, void *userdata)
{
	struct stream *stream = userdata;
	const char *at = data;
	size_t left = unit * count;
	int64_t now_us = clock_us();

	stream->received = true;
	stream->heard_ms = now_us / 1000;
	while (left > 0) {
		struct event *event;

		if (!line_take(&stream->line, &at, &left, now_us, &event)) {
			stream->fault = stream->line.fault;
			return 0;
		}
		if (event != NULL && !take_event(stream, event)) {
			return 0;
		}
	}
	return unit * count;
}

/* --- one stream --- */

#define SET(option, value) (curl_easy_setopt(easy, (option), (value)) == CURLE_OK)

static CURL *open_handle(struct stream *stream)
{
	CURL *easy = http_handle(stream->options->socket_path);
	char url[URL_MAX_CHARS + 1];

	/* Name and boot id are of alphabets that need no escaping. */
	snprintf(url, sizeof(url), "http://authd/v1/plugin/events?broker=%s&boot=%s", stream->options->broker,
		 stream->boot);
	if (easy != NULL && (!SET(CURLOPT_URL, url) || !SET(CURLOPT_WRITEFUNCTION, receive) ||
			     !SET(CURLOPT_WRITEDATA, stream) || !SET(CURLOPT_FAILONERROR, 1L) ||
			     !SET(CURLOPT_CONNECTTIMEOUT_MS, 2000L) || !SET(CURLOPT_FRESH_CONNECT, 1L) || !SET(CURLOPT_FORBID_REUSE, 1L) ||
			     curl_multi_add_handle(stream->multi, easy) != CURLM_OK)) {
		curl_easy_cleanup(easy);
		return NULL;
	}
	return easy;
}

/* Full jitter: anything between the least wait and a bound that doubles up to the most. */
static int64_t pause_ms(unsigned failures)
{
	uint32_t bound = RETRY_LEAST_MS;

	for (unsigned i = 0; i < failures && bound < RETRY_MOST_MS; i++) {
		bound *= 2;
	}
	bound = bound < RETRY_MOST_MS ? bound : RETRY_MOST_MS;
	return RETRY_LEAST_MS + randombytes_uniform(bound - RETRY_LEAST_MS + 1);
}

static void close_stream(struct stream *stream)
{
	if (stream->easy != NULL) {
		curl_multi_remove_handle(stream->multi, stream->easy);
		curl_easy_cleanup(stream->easy);
		stream->easy = NULL;
	}
	line_reset(&stream->line);
}

static void give_up(struct stream *stream)
{
	close_stream(stream);
	if (stream->failures % 50 == 0) {
		mosquitto_log_printf(MOSQ_LOG_WARNING,
				     "authd: event stream lost (%s), opening a new one; sessions go on to the end of their leases",
				     stream->fault);
	}
	stream->failures++;
	stream->retry_at_ms = clock_ms() + pause_ms(stream->failures);
}

static bool open_stream(struct stream *stream)
{
	if (clock_ms() < stream->retry_at_ms) {
		return false;
	}
	memset(&stream->order, 0, sizeof(stream->order));
	stream->fault = NULL;
	stream->resync = false;
	stream->heard_ms = clock_ms();
	stream->easy = open_handle(stream);
	if (stream->easy == NULL) {
		stream->fault = "memory is short";
		give_up(stream);
	}
	return stream->easy != NULL;
}

/* True while the stream is good. */
static bool step(struct stream *stream)
{
	int running = 0;

	stream->received = false;
	if (curl_multi_perform(stream->multi, &running) != CURLM_OK || running == 0) {
		stream->fault = stream->fault != NULL ? stream->fault : "the daemon does not answer or closed it";
		return false;
	}
	if (clock_ms() - stream->heard_ms >= SILENCE_MAX_MS) {
		stream->fault = "12 seconds of silence";
		return false;
	}
	if (stream->resync) {
		stream->fault = "a new snapshot is needed";
		return false;
	}
	return true;
}

bool stream_read(struct stream *stream)
{
	if (stream->easy == NULL && !open_stream(stream)) {
		return false;
	}
	if (!step(stream)) {
		give_up(stream);
		return false;
	}
	return stream->received;
}

void stream_free(struct stream *stream)
{
	if (stream->multi != NULL) {
		close_stream(stream);
		curl_multi_cleanup(stream->multi);
	}
	line_free(&stream->line);
	memset(stream, 0, sizeof(*stream));
}
