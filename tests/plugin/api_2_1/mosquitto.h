/* What Mosquitto 2.1 declares otherwise than 2.0, as far as the plugin sees it: one header to include, and a TICK
 * event whose third member has another name. The rest comes from the installed headers of 2.0. With these the plugin
 * is compiled as it would be against 2.1; only a broker of 2.1 can show that it runs there. */
#ifndef AUTHD_API_2_1_H
#define AUTHD_API_2_1_H

#define mosquitto_evt_tick mosquitto_evt_tick_2_0
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include_next <mosquitto.h>
#undef mosquitto_evt_tick

#include <stddef.h>

struct mosquitto_evt_tick {
	void *future;
	long now_ns, next_ms;
	time_t now_s, next_s;
	void *future2[4];
};

_Static_assert(offsetof(struct mosquitto_evt_tick, next_ms) == offsetof(struct mosquitto_evt_tick_2_0, next_ns), "slot");
_Static_assert(offsetof(struct mosquitto_evt_tick, next_s) == offsetof(struct mosquitto_evt_tick_2_0, next_s), "slot");
_Static_assert(sizeof(struct mosquitto_evt_tick) == sizeof(struct mosquitto_evt_tick_2_0), "size");

#endif
