/* BASIC_AUTH: cheap checks first, then one bounded question to the daemon. */
#ifndef AUTHD_CONNECT_H
#define AUTHD_CONNECT_H

#include "context.h"

/* MOSQ_ERR_SUCCESS, MOSQ_ERR_AUTH (refused for good) or another code (refused for now, closed without CONNACK). */
int connect_check(struct authd *authd, const struct mosquitto_evt_basic_auth *event);

#endif
