/* The reader thread: holds the event stream open, checks its order, hands events to the broker thread. */
#ifndef AUTHD_STREAM_H
#define AUTHD_STREAM_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "events.h"
#include "options.h"

enum {
	LINE_MAX_BYTES = 16 << 20,
	SILENCE_MAX_MS = 12000,
	RETRY_LEAST_MS = 100,
	RETRY_MOST_MS = 2000
};

struct stream {
	const struct options *options;
	const char *boot;
	struct inbox *inbox;
	pthread_t thread;
	bool running;
	atomic_bool stop;
	atomic_bool resync;
	/* Below: the reader thread's own. */
	CURLM *multi;
	struct order order;
	char *line;
	size_t length, room;
	int64_t heard_ms;
	const char *fault; /* why the stream was given up, NULL while it is good */
	unsigned failures;
};

/* The thread starts with stream_start(), called on the broker thread when the broker has settled. */
void stream_init(struct stream *stream, const struct options *options, const char *boot, struct inbox *inbox);
bool stream_start(struct stream *stream);

/* Drop the stream and open a new one, which begins with a snapshot. From any thread. */
void stream_resync(struct stream *stream);

/* Join the thread and release everything. The inbox must be closed before. */
void stream_stop(struct stream *stream);

#endif
