#include "connect.h"

#include <string.h>

#include "attempt.h"
#include "certificate.h"

/* Without a password a TLS client may be known by its certificate. Its user name proves nothing. */
static bool show_certificate(struct attempt *attempt, char digest[CERTIFICATE_CHARS + 1])
{
	if (attempt->username != NULL && !grammar_username(attempt->username)) {
		return false;
	}
	if (!certificate_digest(attempt->client, digest)) {
		return false;
	}
	attempt->shown.certificate = digest;
	return true;
}

static bool show_password(struct attempt *attempt, const char *password)
{
	struct credential credential = grammar_credential(attempt->username, password);

	if (credential.form == CREDENTIAL_REFUSED) {
		return false;
	}
	attempt->shown.password = password;
	attempt->plain = credential.form == CREDENTIAL_POP;
	attempt->has_proof = attempt->plain || credential.form == CREDENTIAL_POP_PATH;
	attempt->claimed_key = credential.form == CREDENTIAL_DEVICE_PASSWORD ? NULL : attempt->username;
	if (attempt->has_proof) {
		attempt->time_s = credential.time_s;
		attempt->proof = nonces_id(attempt->username, credential.nonce);
	}
	return true;
}

static enum verdict decide(struct attempt *attempt, const char *password)
{
	char digest[CERTIFICATE_CHARS + 1];
	enum verdict verdict = attempt_check(attempt);
	bool shown;

	if (verdict != VERDICT_ALLOW) {
		return verdict;
	}
	shown = password == NULL ? show_certificate(attempt, digest) : show_password(attempt, password);
	if (!shown) {
		return attempt_refuse(attempt, "user name and password have the form of no credential");
	}
	return attempt_decide(attempt);
}

int connect_check(struct authd *authd, const struct mosquitto_evt_basic_auth *event)
{
	struct attempt attempt = attempt_of(authd, event->client);
	enum verdict verdict;

	if (authd->ticked_at_ms != 0 && authd->reloading && compat_is_served(authd->is_2_1, event->client)) {
		/* Not a CONNECT. It gives nobody a session and so nobody a right: the table says who may do what. To refuse
		 * would disconnect sessions that are away once more, which 2.0 brokers do not survive. Without a TICK it would
		 * never end, but then nobody was ever let in. */
		return MOSQ_ERR_SUCCESS;
	}
	attempt.username = event->username;
	verdict = decide(&attempt, event->password);
	if (verdict == VERDICT_ALLOW) {
		verdict = attempt_name_by_key(&attempt);
	}
	attempt_end(&attempt, verdict);
	switch (verdict) {
	case VERDICT_ALLOW:
		return MOSQ_ERR_SUCCESS;
	case VERDICT_REFUSE:
		return MOSQ_ERR_AUTH;
	default:
		return compat_temporary_refusal(authd->is_2_1, attempt.protocol);
	}
}
