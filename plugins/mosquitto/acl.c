#include "acl.h"

/* The broker asks about the publisher of a retained message with a zeroed client that has nothing but an id, a user
 * name and a listener. No connection looks like that: each has an address and a protocol version. */
static bool is_retained_source(const struct mosquitto *client)
{
	return mosquitto_client_address(client) == NULL && mosquitto_client_protocol_version(client) == 0;
}

/* A connection that came in without asking us (a listener that takes certificates for names, another plugin) does
 * not inherit the rights of the client id it chose. */
static bool is_connection_of(const struct entry *entry, const struct mosquitto *client)
{
	return entry->connection == client;
}

/* The will of a connection that this session took over is sent while both exist. */
static bool is_publisher(const struct entry *entry, const struct mosquitto *client)
{
	return is_connection_of(entry, client) || entry->previous_connection == client;
}

static bool may_go_on(const struct entry *entry, int64_t now_ms)
{
	return !entry->denied && now_ms < entry->terms.lease_ends_at_ms;
}

static bool may_publish(const struct authd *authd, const struct entry *entry,
			const struct mosquitto_evt_acl_check *event, int64_t now_ms)
{
	bool in_time;

	if (is_publisher(entry, event->client)) {
		in_time = may_go_on(entry, now_ms) || authd->will_pass == entry;
	} else {
		/* What was retained stays while its publisher is not cut, lease or not. */
		in_time = !entry->denied && is_retained_source(event->client);
	}
	return in_time && rights_allow_name(entry->terms.rights, ACTION_PUB, event->topic, now_ms);
}

static bool may_receive(const struct entry *entry, const struct mosquitto_evt_acl_check *event, int64_t now_ms)
{
	return may_go_on(entry, now_ms) && is_connection_of(entry, event->client) &&
	       rights_allow_name(entry->terms.rights, ACTION_SUB, event->topic, now_ms);
}

static bool may_subscribe(const struct entry *entry, const struct mosquitto_evt_acl_check *event, int64_t now_ms)
{
	return may_go_on(entry, now_ms) && is_connection_of(entry, event->client) &&
	       rights_allow_filter(entry->terms.rights, event->topic, now_ms);
}

static bool allowed(struct authd *authd, const struct mosquitto_evt_acl_check *event)
{
	const char *client_id = event->client == NULL ? NULL : mosquitto_client_id(event->client);
	const struct entry *entry;
	int64_t now_ms;

	if (event->access == MOSQ_ACL_UNSUBSCRIBE) {
		return true; /* a client may always drop what it has */
	}
	if (client_id == NULL || event->topic == NULL) {
		return false;
	}
	entry = table_find_client(&authd->table, client_id);
	if (entry == NULL) {
		return false;
	}
	now_ms = clock_cached_ms(&authd->clock);
	switch (event->access) {
	case MOSQ_ACL_READ:
		return may_receive(entry, event, now_ms);
	case MOSQ_ACL_WRITE:
		return may_publish(authd, entry, event, now_ms);
	case MOSQ_ACL_SUBSCRIBE:
		return may_subscribe(entry, event, now_ms);
	default:
		return false;
	}
}

int acl_check(struct authd *authd, const struct mosquitto_evt_acl_check *event)
{
	return allowed(authd, event) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
}
