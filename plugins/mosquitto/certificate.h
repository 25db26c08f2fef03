/* The key of the client certificate that a TLS handshake proved. */
#ifndef AUTHD_CERTIFICATE_H
#define AUTHD_CERTIFICATE_H

#include <stdbool.h>

#include "compat.h"

enum { CERTIFICATE_CHARS = 43 };

/* SHA-256 of its SubjectPublicKeyInfo (DER), as base64url. False if there is no certificate. Names are not looked at. */
bool certificate_digest(const struct mosquitto *client, char digest[CERTIFICATE_CHARS + 1]);

/* Whether the connection has one now. */
bool certificate_is_shown(const struct mosquitto *client);

#endif
