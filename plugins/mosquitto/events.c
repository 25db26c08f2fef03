#include "events.h"

#include <stdlib.h>
#include <string.h>

enum { ROOM_AT_START = 16 };

struct event *event_new(int64_t arrived_us)
{
	struct event *event = calloc(1, sizeof(*event));

	if (event != NULL) {
		event->arrived_us = arrived_us;
	}
	return event;
}

void event_free(struct event *event)
{
	if (event == NULL) {
		return;
	}
	for (size_t i = 0; event->sessions != NULL && i < event->count; i++) {
		terms_free(&event->sessions[i]);
	}
	free(event->sessions);
	free(event->renewals);
	free(event->seen);
	free(event);
}

/* The array with room for one more after `count`, NULL if memory is short. */
static void *with_room(void *array, size_t count, size_t *room, size_t bytes)
{
	size_t more = *room > 0 ? *room * 2 : ROOM_AT_START;
	void *grown;

	if (count < *room) {
		return array;
	}
	grown = reallocarray(array, more, bytes);
	*room = grown == NULL ? *room : more;
	return grown;
}

bool event_add_session(struct event *event)
{
	struct terms *grown = with_room(event->sessions, event->count, &event->room, sizeof(*grown));

	if (grown == NULL) {
		return false;
	}
	event->sessions = grown;
	memset(&grown[event->count++], 0, sizeof(*grown));
	return true;
}

bool event_add_renewal(struct event *event)
{
	struct renewal *grown = with_room(event->renewals, event->count, &event->room, sizeof(*grown));

	if (grown == NULL) {
		return false;
	}
	event->renewals = grown;
	memset(&grown[event->count++], 0, sizeof(*grown));
	return true;
}

bool event_add_seen(struct event *event)
{
	struct proof_id *grown = with_room(event->seen, event->seen_count, &event->seen_room, sizeof(*grown));

	if (grown == NULL) {
		return false;
	}
	event->seen = grown;
	memset(&grown[event->seen_count++], 0, sizeof(*grown));
	return true;
}

static bool number_fits(const struct order *order, const struct event *event)
{
	if (event->kind == EVENT_SNAPSHOT) {
		return !order->started;
	}
	if (!order->started) {
		return false;
	}
	if (event->kind == EVENT_BEAT) {
		return event->origin.n == order->last.n && strcmp(event->origin.run, order->last.run) == 0;
	}
	return event->origin.n == order->last.n + 1;
}

bool order_accepts(struct order *order, struct event *event)
{
	if (!number_fits(order, event)) {
		return false;
	}
	if (event->kind == EVENT_SNAPSHOT) {
		order->started = true;
		order->last = event->origin;
	}
	order->last.n = event->origin.n;
	event->origin = order->last;
	return true;
}

void queue_add(struct queue *queue, struct event *event)
{
	event->next = NULL;
	*(queue->last != NULL ? &queue->last->next : &queue->first) = event;
	queue->last = event;
}

void queue_drop_first(struct queue *queue)
{
	struct event *event = queue->first;

	queue->first = event->next;
	queue->last = event->next == NULL ? NULL : queue->last;
	event_free(event);
}

void queue_clear(struct queue *queue)
{
	while (queue->first != NULL) {
		queue_drop_first(queue);
	}
}
