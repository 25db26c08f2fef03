/* One try to get in, or to authenticate again: what it shows, what is known about it, and the verdict.
 *
 * Both ways in, BASIC_AUTH (connect.c) and enhanced authentication (auth.c), fill in an attempt and call
 * `attempt_decide`; it alone puts a session into the table. */
#ifndef AUTHD_ATTEMPT_H
#define AUTHD_ATTEMPT_H

#include "context.h"
#include "wire.h"

enum verdict { VERDICT_ALLOW, VERDICT_REFUSE, VERDICT_LATER };

struct attempt {
	struct authd *authd;
	struct mosquitto *client;
	const char *client_id, *username, *address;
	int protocol;
	struct shown shown;
	const char *claimed_key; /* that the answer must be about; NULL: whichever was proven */
	bool has_proof;          /* of a time and with a nonce, the next three */
	bool plain;              /* and of the form that the plugin may judge */
	int64_t time_s;
	struct proof_id proof;
	bool enhanced;
	char reauthenticates[SESSION_ID_CHARS + 1]; /* session id, empty at CONNECT */
	int64_t asked_at_us;
	struct answer answer;
	const char *why; /* of a refusal; a literal or inside `answer` */
};

struct attempt attempt_of(struct authd *authd, struct mosquitto *client);

/* What every attempt has to pass before it may cost anything. */
enum verdict attempt_check(struct attempt *attempt);

/* The verdict, which is carried out: after VERDICT_ALLOW the session is in the table. */
enum verdict attempt_decide(struct attempt *attempt);

/* Make the proven key the connection's user name, where the client chose another without proving anything by it. If
 * that fails the session ends before it began. */
enum verdict attempt_name_by_key(struct attempt *attempt);

/* Release it and write a refusal to the log. */
void attempt_end(struct attempt *attempt, enum verdict verdict);

enum verdict attempt_refuse(struct attempt *attempt, const char *why);
enum verdict attempt_later(struct attempt *attempt, const char *why);

#endif
