#include "exchanges.h"

#include <sodium.h>

static size_t find(const struct exchanges *exchanges, const void *connection)
{
	size_t at = 0;

	while (at < exchanges->count && exchanges->open[at].connection != connection) {
		at++;
	}
	return at;
}

static void remove_at(struct exchanges *exchanges, size_t at)
{
	struct exchange *last = &exchanges->open[--exchanges->count];

	exchanges->open[at] = *last;
	sodium_memzero(last, sizeof(*last));
}

static size_t oldest(const struct exchanges *exchanges)
{
	size_t oldest = 0;

	for (size_t i = 1; i < exchanges->count; i++) {
		oldest = exchanges->open[i].opened_ms < exchanges->open[oldest].opened_ms ? i : oldest;
	}
	return oldest;
}

/* A response to one that is out of time ends its connection, known here or not. One that is younger is somebody's way in. */
static void make_room(struct exchanges *exchanges, int64_t now_ms)
{
	size_t at = oldest(exchanges);

	if (now_ms - exchanges->open[at].opened_ms >= EXCHANGE_MAX_MS) {
		remove_at(exchanges, at);
	}
}

bool exchanges_open(struct exchanges *exchanges, const struct exchange *exchange)
{
	size_t room = exchange->session[0] != '\0' ? EXCHANGES_MAX : EXCHANGES_OF_NEWCOMERS_MAX;

	exchanges_forget(exchanges, exchange->connection);
	if (exchanges->count >= room) {
		make_room(exchanges, exchange->opened_ms);
	}
	if (exchanges->count >= room) {
		return false;
	}
	exchanges->open[exchanges->count++] = *exchange;
	return true;
}

bool exchanges_take(struct exchanges *exchanges, const void *connection, struct exchange *exchange)
{
	size_t at = find(exchanges, connection);

	if (at == exchanges->count) {
		return false;
	}
	*exchange = exchanges->open[at];
	remove_at(exchanges, at);
	return true;
}

void exchanges_forget(struct exchanges *exchanges, const void *connection)
{
	size_t at = find(exchanges, connection);

	if (at < exchanges->count) {
		remove_at(exchanges, at);
	}
}
