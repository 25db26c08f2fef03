#include "compat.h"

#include <dlfcn.h>
#include <stddef.h>

#if defined(__has_include) && __has_include(<mosquitto/broker_plugin.h>)
#define NEXT_MS next_ms
#else
#define NEXT_MS next_ns /* the slot that 2.1 reads as next_ms; unused by 2.0 */
#endif

enum { EVENT_CLIENT_OFFLINE = 28, REASON_SERVER_UNAVAILABLE = 136, PROTOCOL_MQTT_5 = 5 };

/* One binary serves both generations: what is read and written here lies at the same place in the headers of either,
 * and the events have the same numbers. A header that moves anything does not compile. */
#define SLOT(index) ((index) * sizeof(void *))
#define LIES_AT(event, member, offset) _Static_assert(offsetof(struct event, member) == (offset), #event "." #member)

LIES_AT(mosquitto_evt_basic_auth, client, SLOT(1));
LIES_AT(mosquitto_evt_basic_auth, username, SLOT(2));
LIES_AT(mosquitto_evt_basic_auth, password, SLOT(3));
LIES_AT(mosquitto_evt_extended_auth, client, SLOT(1));
LIES_AT(mosquitto_evt_extended_auth, data_in, SLOT(2));
LIES_AT(mosquitto_evt_extended_auth, data_out, SLOT(3));
LIES_AT(mosquitto_evt_extended_auth, data_in_len, SLOT(4));
LIES_AT(mosquitto_evt_extended_auth, data_out_len, SLOT(4) + 2);
LIES_AT(mosquitto_evt_extended_auth, auth_method, SLOT(5));
LIES_AT(mosquitto_evt_acl_check, client, SLOT(1));
LIES_AT(mosquitto_evt_acl_check, topic, SLOT(2));
LIES_AT(mosquitto_evt_acl_check, access, SLOT(5));
LIES_AT(mosquitto_evt_disconnect, client, SLOT(1));
LIES_AT(mosquitto_evt_tick, now_ns, SLOT(1));
LIES_AT(mosquitto_evt_tick, NEXT_MS, SLOT(1) + sizeof(long));
_Static_assert(MOSQ_EVT_RELOAD == 1 && MOSQ_EVT_ACL_CHECK == 2 && MOSQ_EVT_BASIC_AUTH == 3, "events");
_Static_assert(MOSQ_EVT_EXT_AUTH_START == 4 && MOSQ_EVT_EXT_AUTH_CONTINUE == 5, "events");
_Static_assert(MOSQ_EVT_TICK == 9 && MOSQ_EVT_DISCONNECT == 10, "events");

bool compat_is_2_1(void)
{
	return dlsym(RTLD_DEFAULT, "mosquitto_persist_client_delete") != NULL;
}

int compat_temporary_refusal(bool is_2_1, int protocol)
{
	if (is_2_1 && protocol == PROTOCOL_MQTT_5) {
		return REASON_SERVER_UNAVAILABLE;
	}
	return MOSQ_ERR_UNKNOWN;
}

int compat_reload_done(bool is_2_1)
{
	return is_2_1 ? MOSQ_ERR_SUCCESS : MOSQ_ERR_PLUGIN_DEFER;
}

/* 2.1 reckons the next call from the time of this one, and a packet that comes before it is due makes it forget when
 * to wake: the loop then sleeps for seconds. A call that was due long ago is made in each turn. */
void compat_next_tick(struct mosquitto_evt_tick *tick, long next_ms)
{
	tick->now_s = 0;
	tick->now_ns = 0;
	tick->next_s = 0;
	tick->NEXT_MS = next_ms;
}

bool compat_is_served(bool is_2_1, const struct mosquitto *client)
{
	struct mosquitto *(*find)(const char *) = NULL;
	const char *client_id = mosquitto_client_id(client);

	if (!is_2_1) {
		return true;
	}
	*(void **)&find = dlsym(RTLD_DEFAULT, "mosquitto_client");
	return find != NULL && client_id != NULL && find(client_id) == client;
}

int compat_register_offline(mosquitto_plugin_id_t *id, MOSQ_FUNC_generic_callback callback, void *userdata)
{
	int rc = mosquitto_callback_register(id, EVENT_CLIENT_OFFLINE, callback, NULL, userdata);

	return rc == MOSQ_ERR_NOT_SUPPORTED ? MOSQ_ERR_SUCCESS : rc;
}

void compat_unregister_offline(mosquitto_plugin_id_t *id, MOSQ_FUNC_generic_callback callback)
{
	mosquitto_callback_unregister(id, EVENT_CLIENT_OFFLINE, callback, NULL);
}
