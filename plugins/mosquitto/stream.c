#include "stream.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "clock.h"
#include "compat.h"
#include "threads.h"
#include "wire.h"

void stream_init(struct stream *stream, const struct options *options, const char *boot, struct inbox *inbox)
{
	memset(stream, 0, sizeof(*stream));
	stream->options = options;
	stream->boot = boot;
	stream->inbox = inbox;
}

void stream_resync(struct stream *stream)
{
	atomic_store(&stream->resync, true);
}

/* --- lines --- */

/* The line in the log follows the snapshot, so it says that the snapshot has been applied. */
static bool push_snapshot(struct stream *stream, struct event *event)
{
	size_t count = event->count;

	stream->failures = 0;
	if (!inbox_push(stream->inbox, event)) {
		return false;
	}
	inbox_note(stream->inbox, MOSQ_LOG_NOTICE, "authd: event stream open, snapshot of %zu sessions", count);
	return true;
}

static bool take_line(struct stream *stream, const char *line, size_t length)
{
	struct event *event = wire_parse_event(line, length, clock_ms());

	if (event == NULL) {
		stream->fault = "a line is malformed";
		return false;
	}
	if (!order_accepts(&stream->order, event)) {
		stream->fault = "an event is missing or out of order";
		event_free(event);
		return false;
	}
	event->arrived_us = clock_us();
	switch (event->kind) {
	case EVENT_BEAT:
		event_free(event);
		return true;
	case EVENT_SNAPSHOT:
		return push_snapshot(stream, event);
	default:
		return inbox_push(stream->inbox, event);
	}
}

static bool append(struct stream *stream, const char *data, size_t length)
{
	size_t room = stream->room > 0 ? stream->room : 4096;
	char *grown;

	if (stream->length + length > LINE_MAX_BYTES) {
		stream->fault = "a line is longer than 16 MiB";
		return false;
	}
	while (room < stream->length + length) {
		room *= 2;
	}
	grown = room == stream->room ? stream->line : realloc(stream->line, room);
	if (grown == NULL) {
		stream->fault = "memory is short";
		return false;
	}
	stream->line = grown;
	stream->room = room;
	memcpy(stream->line + stream->length, data, length);
	stream->length += length;
	return true;
}

/* Bytes up to and with a newline make one line; what follows waits for the next call. */
static size_t receive(char *data, size_t unit, size_t count, void *userdata)
{
	struct stream *stream = userdata;
	size_t left = unit * count;

	while (left > 0) {
		const char *newline = memchr(data, '\n', left);
		size_t part = newline == NULL ? left : (size_t)(newline - data) + 1;

		if (!append(stream, data, part)) {
			return 0;
		}
		data += part;
		left -= part;
		if (newline != NULL) {
			if (!take_line(stream, stream->line, stream->length - 1)) {
				return 0;
			}
			stream->length = 0;
		}
	}
	stream->heard_ms = clock_ms(); /* after waiting for room, so that our own slowness is not taken for silence */
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
			     !SET(CURLOPT_CONNECTTIMEOUT_MS, 2000L) || !SET(CURLOPT_FRESH_CONNECT, 1L))) {
		curl_easy_cleanup(easy);
		return NULL;
	}
	return easy;
}

/* True while the stream is good: neither ended nor silent nor told to stop. */
static bool step(struct stream *stream)
{
	int running = 0;
	if (curl_multi_perform(stream->multi, &running) != CURLM_OK || running == 0) {
		stream->fault = stream->fault != NULL ? stream->fault : "the daemon does not answer or closed it";
		return false;
	}
	if (clock_ms() - stream->heard_ms >= SILENCE_MAX_MS) {
		stream->fault = "12 seconds of silence";
		return false;
	}
	if (atomic_exchange(&stream->resync, false)) {
		stream->fault = "a new snapshot is needed";
		return false;
	}
	curl_multi_poll(stream->multi, NULL, 0, INTERRUPT_MS, NULL);
	return !atomic_load(&stream->stop);
}

static void read_stream(struct stream *stream)
{
	CURL *easy = open_handle(stream);

	stream->multi = stream->multi != NULL ? stream->multi : curl_multi_init();
	memset(&stream->order, 0, sizeof(stream->order));
	stream->length = 0;
	stream->fault = NULL;
	stream->heard_ms = clock_ms();
	atomic_store(&stream->resync, false);
	if (easy == NULL || stream->multi == NULL) {
		stream->fault = "memory is short";
		curl_easy_cleanup(easy);
		return;
	}
	if (curl_multi_add_handle(stream->multi, easy) == CURLM_OK) {
		while (step(stream)) {
		}
		curl_multi_remove_handle(stream->multi, easy);
	}
	curl_easy_cleanup(easy);
}

static void pause_until(const struct stream *stream, int64_t until_ms)
{
	int64_t left_ms;

	while (!atomic_load(&stream->stop) && (left_ms = until_ms - clock_ms()) > 0) {
		threads_pause(left_ms < INTERRUPT_MS ? (int)left_ms : INTERRUPT_MS);
	}
}

/* Full jitter: anything between the least wait and a bound that doubles up to the most. */
static void wait_before_retry(struct stream *stream)
{
	uint32_t bound = RETRY_LEAST_MS;

	for (unsigned i = 0; i < stream->failures && bound < RETRY_MOST_MS; i++) {
		bound *= 2;
	}
	bound = bound < RETRY_MOST_MS ? bound : RETRY_MOST_MS;
	pause_until(stream, clock_ms() + RETRY_LEAST_MS + randombytes_uniform(bound - RETRY_LEAST_MS + 1));
}

static void *run(void *userdata)
{
	struct stream *stream = userdata;

	threads_own_files();
	while (!atomic_load(&stream->stop)) {
		read_stream(stream);
		if (stream->failures++ % 50 == 0 && !atomic_load(&stream->stop)) {
			inbox_note(stream->inbox, MOSQ_LOG_WARNING,
				   "authd: event stream lost (%s), opening a new one; sessions go on to the end of their leases",
				   stream->fault != NULL ? stream->fault : "stopped");
		}
		wait_before_retry(stream);
	}
	if (stream->multi != NULL) {
		curl_multi_cleanup(stream->multi);
	}
	free(stream->line);
	return NULL;
}

bool stream_start(struct stream *stream)
{
	stream->running = stream->running || threads_start(&stream->thread, run, stream);
	return stream->running;
}

void stream_stop(struct stream *stream)
{
	atomic_store(&stream->stop, true);
	if (stream->running) {
		pthread_join(stream->thread, NULL);
	}
	memset(stream, 0, sizeof(*stream));
}
