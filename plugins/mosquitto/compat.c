#include "compat.h"

#include <dlfcn.h>
#include <stddef.h>

enum { EVENT_CLIENT_OFFLINE = 28, REASON_SERVER_UNAVAILABLE = 136, PROTOCOL_MQTT_5 = 5 };

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

void compat_next_tick(struct mosquitto_evt_tick *tick, long next_ms)
{
	tick->next_s = 0;
#if defined(__has_include) && __has_include(<mosquitto/broker_plugin.h>)
	tick->next_ms = next_ms;
#else
	tick->next_ns = next_ms; /* the slot that 2.1 reads as next_ms; unused by 2.0 */
#endif
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
