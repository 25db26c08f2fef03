/* ACL_CHECK: from memory only, and only the two answers that cannot hurt a third client. */
#ifndef AUTHD_ACL_H
#define AUTHD_ACL_H

#include "context.h"

/* MOSQ_ERR_SUCCESS or MOSQ_ERR_ACL_DENIED, never anything else: other codes on a READ disconnect the publisher. */
int acl_check(struct authd *authd, const struct mosquitto_evt_acl_check *event);

#endif
