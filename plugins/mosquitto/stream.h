/* The event stream, read on the broker's own thread without ever waiting for it. */
#ifndef AUTHD_STREAM_H
#define AUTHD_STREAM_H

#include <curl/curl.h>
#include <stdbool.h>

#include "events.h"
#include "line.h"
#include "options.h"

enum {
	SILENCE_MAX_MS = 12000,
	RETRY_LEAST_MS = 100,
	RETRY_MOST_MS = 2000
};

struct stream {
	const struct options *options;
	const char *boot;
	struct queue *queue; /* where events go */
	CURLM *multi;
	CURL *easy; /* NULL between two streams */
	struct order order;
	struct line line;
	int64_t heard_ms, retry_at_ms;
	bool received; /* anything in the step under way */
	bool resync;
	const char *fault; /* why the stream was given up, NULL while it is good */
	unsigned failures;
};

/* False if memory is short. Nothing is opened before the first stream_read(). */
bool stream_init(struct stream *stream, const struct options *options, const char *boot, struct queue *queue);
void stream_free(struct stream *stream);

/* Take in what has come, one buffer of libcurl's (16 KiB) at most; open a stream if there is none and it is time. True
 * if there may be more: then call it again, best after the queue has been worked off. */
bool stream_read(struct stream *stream);

/* Drop the stream and open a new one, which begins with a snapshot. */
void stream_resync(struct stream *stream);

#endif
