#include "events.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct event *event_new(enum event_kind kind)
{
	struct event *event = calloc(1, sizeof(*event));

	if (event != NULL) {
		event->kind = kind;
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

bool inbox_init(struct inbox *inbox)
{
	memset(inbox, 0, sizeof(*inbox));
	if (pthread_mutex_init(&inbox->lock, NULL) != 0) {
		return false;
	}
	if (pthread_cond_init(&inbox->room, NULL) != 0) {
		pthread_mutex_destroy(&inbox->lock);
		return false;
	}
	return true;
}

void inbox_destroy(struct inbox *inbox)
{
	struct event *next;

	for (struct event *event = inbox->first; event != NULL; event = next) {
		next = event->next;
		event_free(event);
	}
	pthread_cond_destroy(&inbox->room);
	pthread_mutex_destroy(&inbox->lock);
}

/* With the lock held. */
static void append(struct inbox *inbox, struct event *event)
{
	event->next = NULL;
	if (inbox->last != NULL) {
		inbox->last->next = event;
	} else {
		inbox->first = event;
	}
	inbox->last = event;
	atomic_fetch_add(&inbox->waiting, 1);
}

bool inbox_push(struct inbox *inbox, struct event *event)
{
	bool open;

	pthread_mutex_lock(&inbox->lock);
	while (!inbox->closed && atomic_load(&inbox->waiting) >= INBOX_MAX) {
		pthread_cond_wait(&inbox->room, &inbox->lock);
	}
	open = !inbox->closed;
	if (open) {
		append(inbox, event);
	}
	pthread_mutex_unlock(&inbox->lock);
	if (!open) {
		event_free(event);
	}
	return open;
}

void inbox_offer(struct inbox *inbox, struct event *event)
{
	bool fits;

	pthread_mutex_lock(&inbox->lock);
	fits = !inbox->closed && atomic_load(&inbox->waiting) < INBOX_MAX;
	if (fits) {
		append(inbox, event);
	}
	pthread_mutex_unlock(&inbox->lock);
	if (!fits) {
		event_free(event);
	}
}

struct event *inbox_take(struct inbox *inbox)
{
	struct event *events;

	if (atomic_load(&inbox->waiting) == 0) {
		return NULL;
	}
	pthread_mutex_lock(&inbox->lock);
	events = inbox->first;
	inbox->first = inbox->last = NULL;
	pthread_mutex_unlock(&inbox->lock);
	return events;
}

void inbox_done(struct inbox *inbox, struct event *event)
{
	event_free(event);
	pthread_mutex_lock(&inbox->lock);
	if (atomic_fetch_sub(&inbox->waiting, 1) == INBOX_MAX) {
		pthread_cond_broadcast(&inbox->room);
	}
	pthread_mutex_unlock(&inbox->lock);
}

void inbox_close(struct inbox *inbox)
{
	pthread_mutex_lock(&inbox->lock);
	inbox->closed = true;
	pthread_cond_broadcast(&inbox->room);
	pthread_mutex_unlock(&inbox->lock);
}

void inbox_note(struct inbox *inbox, int level, const char *format, ...)
{
	struct event *event = event_new(EVENT_NOTE);
	va_list arguments;

	if (event == NULL) {
		return;
	}
	event->note_level = level;
	va_start(arguments, format);
	vsnprintf(event->note, sizeof(event->note), format, arguments);
	va_end(arguments);
	inbox_offer(inbox, event);
}
