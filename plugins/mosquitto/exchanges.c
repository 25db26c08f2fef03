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

void exchanges_open(struct exchanges *exchanges, const struct exchange *exchange)
{
	exchanges_forget(exchanges, exchange->connection);
	if (exchanges->count == EXCHANGES_MAX) {
		remove_at(exchanges, oldest(exchanges));
	}
	exchanges->open[exchanges->count++] = *exchange;
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
