/* Enhanced authentication (MQTT 5 section 4.12), method `authd-1`: at CONNECT and again on a live connection. */
#ifndef AUTHD_AUTH_H
#define AUTHD_AUTH_H

#include "context.h"

/* For MOSQ_EVT_EXT_AUTH_START and _CONTINUE: what these shall return. */
int auth_start(struct authd *authd, struct mosquitto_evt_extended_auth *event);
int auth_continue(struct authd *authd, struct mosquitto_evt_extended_auth *event);

#endif
