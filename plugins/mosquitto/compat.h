/* Broker headers, and the few things that differ between Mosquitto 2.0 and 2.1.
 *
 * Built against either header set: 2.0 wants `mosquitto_broker.h` before `mosquitto_plugin.h`, 2.1 wants
 * `mosquitto.h` alone. Nothing outside compat.[ch] knows which of the two it is. */
#ifndef AUTHD_COMPAT_H
#define AUTHD_COMPAT_H

#if defined(__has_include) && __has_include(<mosquitto/broker_plugin.h>)
#include <mosquitto.h>
#else
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#ifndef LIBMOSQUITTO_MAJOR
#include <mosquitto.h>
#endif
#endif

#include <stdbool.h>

/* True if the running broker is 2.1 or newer (judged by a symbol that only 2.1 exports). */
bool compat_is_2_1(void);

/* What BASIC_AUTH returns so that a refusal does not look like a wrong password: 2.0 closes without CONNACK on any
 * code but MOSQ_ERR_AUTH; 2.1 passes 136 (server unavailable) on to MQTT 5 clients. */
int compat_temporary_refusal(bool is_2_1, int protocol);

/* What RELOAD returns: 2.0 goes on to other plugins only after "no opinion", 2.1 only after success. */
int compat_reload_done(bool is_2_1);

/* Ask to be called in each turn of the broker's loop, and to be called after `next_ms` at the latest. 2.0 does so by
 * itself (100 ms) and ignores it. */
void compat_next_tick(struct mosquitto_evt_tick *tick, long next_ms);

/* False if this may be a CONNECT although the broker reloads: 2.1 knows by its id whom it serves already. 2.0 reads no
 * packet between RELOAD and the next TICK, so there this is always true. */
bool compat_is_served(bool is_2_1, const struct mosquitto *client);

/* 2.1 tells the end of a connection of a durable session by an event of its own (28). 2.0 answers "not supported",
 * which is fine: there DISCONNECT covers it. */
int compat_register_offline(mosquitto_plugin_id_t *id, MOSQ_FUNC_generic_callback callback, void *userdata);
void compat_unregister_offline(mosquitto_plugin_id_t *id, MOSQ_FUNC_generic_callback callback);

#endif
