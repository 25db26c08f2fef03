#include "acl.h"

#include <string.h>

#include "certificate.h"

/* Two clients look like this: the zeroed one that has nothing but an id, a user name and a listener, with which the
 * broker asks about the publisher of a retained message; and a session restored from disk that is still away. No
 * connection does: each has a protocol version. */
static bool was_never_connected(const struct mosquitto *client)
{
	return mosquitto_client_address(client) == NULL && mosquitto_client_protocol_version(client) == 0;
}

/* Who was let in has the key for a user name, whatever it chose. */
static bool has_name(const struct entry *entry, const struct mosquitto *client)
{
	const char *name = mosquitto_client_username(client);

	return name != NULL && strcmp(name, entry->terms.key) == 0;
}

/* Whether `client` is the one that we let in as this session. Its handle alone does not tell: the broker frees the
 * handle of a session that is away when it forgets it, without a word, and the next connection may get the same. That one
 * may have come in without asking us, under any client id, with a user name out of a certificate; but what is away
 * has no certificate, for the broker asks about it when the connection is closed. */
static bool is_own(const struct authd *authd, const struct entry *entry, const struct mosquitto *client)
{
	if (entry->connection != client || !has_name(entry, client)) {
		return false;
	}
	return entry->online || entry->left_at_pass == authd->passes ||
	       (entry->may_outlive && !certificate_is_shown(client));
}

/* A connection that came in without asking us (a listener that takes certificates for names, another plugin) does
 * not inherit the rights of the client id it chose. */
static bool is_connection_of(const struct authd *authd, const struct entry *entry, const struct mosquitto *client)
{
	return is_own(authd, entry, client) || (entry->restored && was_never_connected(client));
}

/* The will of a connection that this session took over is sent while both exist. */
static bool is_publisher(const struct authd *authd, const struct entry *entry, const struct mosquitto *client)
{
	bool taken_over = entry->previous_connection == client && has_name(entry, client);

	return taken_over || is_own(authd, entry, client);
}

static bool may_go_on(const struct entry *entry, int64_t now_ms)
{
	return !entry->denied && now_ms < entry->terms.lease_ends_at_ms;
}

static bool allows_name(struct authd *authd, const struct entry *entry, unsigned action, const char *topic,
			int64_t now_ms)
{
	size_t length = strlen(topic);
	struct memo_slot **latest = memo_latest(&authd->memo, entry->version, action);
	struct memo_slot *slot = *latest;
	int64_t ends_at_ms;

	if (slot != NULL && memo_allows(slot, entry->version, action, topic, length, now_ms)) {
		return true;
	}
	slot = memo_slot(&authd->memo, entry->version, action, topic, length);
	*latest = slot;
	if (slot != NULL && memo_allows(slot, entry->version, action, topic, length, now_ms)) {
		return true;
	}
	ends_at_ms = rights_name_ends(entry->terms.rights, action, topic, now_ms);
	if (slot != NULL && ends_at_ms > now_ms) {
		memo_keep(slot, entry->version, action, topic, length, ends_at_ms);
	}
	return ends_at_ms > now_ms;
}

static bool may_publish(struct authd *authd, const struct entry *entry,
			const struct mosquitto_evt_acl_check *event, int64_t now_ms)
{
	bool in_time;

	if (is_publisher(authd, entry, event->client)) {
		in_time = may_go_on(entry, now_ms) || authd->will_pass == entry;
	} else {
		/* What was retained stays while its publisher is not cut, lease or not. */
		in_time = !entry->denied && was_never_connected(event->client) && has_name(entry, event->client);
	}
	return in_time && allows_name(authd, entry, ACTION_PUB, event->topic, now_ms);
}

static bool may_receive(struct authd *authd, const struct entry *entry, const struct mosquitto_evt_acl_check *event,
			int64_t now_ms)
{
	return may_go_on(entry, now_ms) && is_connection_of(authd, entry, event->client) &&
	       allows_name(authd, entry, ACTION_SUB, event->topic, now_ms);
}

static bool may_subscribe(const struct authd *authd, const struct entry *entry,
			  const struct mosquitto_evt_acl_check *event, int64_t now_ms)
{
	return may_go_on(entry, now_ms) && is_connection_of(authd, entry, event->client) &&
	       rights_allow_filter(entry->terms.rights, event->topic, now_ms);
}

static bool is_stranger(const struct authd *authd, const struct entry *entry, const struct mosquitto *client)
{
	return !was_never_connected(client) && (entry == NULL || !is_publisher(authd, entry, client));
}

/* Only a listener or another plugin that decides by itself lets such a client in; nobody would know why it is mute. */
static void note_stranger(struct authd *authd, const struct mosquitto *client, int64_t now_ms)
{
	if (authd->stranger_logged_ms != 0 && now_ms - authd->stranger_logged_ms < STRANGER_LOG_MS) {
		return;
	}
	authd->stranger_logged_ms = now_ms;
	mosquitto_log_printf(MOSQ_LOG_WARNING,
			     "authd: client %s came in without a question to authd, so it has no rights; remove "
			     "use_identity_as_username and use_subject_as_username from the listener, and other "
			     "plugins and password files",
			     mosquitto_client_id(client));
}

static bool may(struct authd *authd, const struct entry *entry, const struct mosquitto_evt_acl_check *event,
		int64_t now_ms)
{
	switch (event->access) {
	case MOSQ_ACL_READ:
		return may_receive(authd, entry, event, now_ms);
	case MOSQ_ACL_WRITE:
		return may_publish(authd, entry, event, now_ms);
	case MOSQ_ACL_SUBSCRIBE:
		return may_subscribe(authd, entry, event, now_ms);
	default:
		return false;
	}
}

/* Only what its publisher says: when the broker asks about one of its retained messages again, that is nothing new. A
 * will may come when the end of the connection is reported already. */
static void note_retained(struct authd *authd, struct entry *entry, const struct mosquitto_evt_acl_check *event)
{
	if (!is_publisher(authd, entry, event->client)) {
		return;
	}
	if (event->payloadlen == 0) {
		retained_forget(&entry->retained, &authd->table.retained, event->topic);
		return;
	}
	retained_note(&entry->retained, &authd->table.retained, event->topic);
	if (!entry->online) {
		reports_add(&authd->reports, REPORT_RETAINED, entry->terms.client_id, entry->terms.session);
	}
}

static bool allowed(struct authd *authd, const struct mosquitto_evt_acl_check *event)
{
	const char *client_id = event->client == NULL ? NULL : mosquitto_client_id(event->client);
	struct entry *entry;
	int64_t now_ms;

	if (event->access == MOSQ_ACL_UNSUBSCRIBE) {
		return true; /* a client may always drop what it has */
	}
	if (client_id == NULL || event->topic == NULL) {
		return false;
	}
	entry = table_find_connection(&authd->table, event->client, client_id);
	now_ms = clock_cached_ms(&authd->clock);
	if (entry != NULL && may(authd, entry, event, now_ms)) {
		if (event->retain && event->access == MOSQ_ACL_WRITE) {
			note_retained(authd, entry, event);
		}
		return true;
	}
	if (is_stranger(authd, entry, event->client)) {
		note_stranger(authd, event->client, now_ms);
		if (entry != NULL) {
			table_note_other(entry, event->client);
		}
	}
	return false;
}

int acl_check(struct authd *authd, const struct mosquitto_evt_acl_check *event)
{
	return allowed(authd, event) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
}
