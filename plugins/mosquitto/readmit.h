/* Letting a client back in without asking: the daemon's word about its session still holds. */
#ifndef AUTHD_READMIT_H
#define AUTHD_READMIT_H

#include "attempt.h"

enum readmission {
	READMIT_ASK,   /* not for the plugin to judge */
	READMIT_ALLOW, /* the session goes on under this connection, and the daemon is told */
	READMIT_REPLAY /* the plugin itself accepted this proof before */
};

/* Events that wait must have been applied before. */
enum readmission readmit(struct attempt *attempt);

#endif
