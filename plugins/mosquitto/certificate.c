#include "certificate.h"

#include <openssl/x509.h>
#include <sodium.h>

#include "grammar.h"

/* OpenSSL takes the structure apart and puts the key together again; it judges nothing. */
static bool digest_key(X509 *certificate, char digest[CERTIFICATE_CHARS + 1])
{
	unsigned char *encoded = NULL;
	int length = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &encoded);
	unsigned char hash[crypto_hash_sha256_BYTES];

	if (length <= 0) {
		return false;
	}
	crypto_hash_sha256(hash, encoded, (unsigned long long)length);
	OPENSSL_free(encoded);
	grammar_encode(hash, sizeof(hash), digest);
	return true;
}

bool certificate_digest(const struct mosquitto *client, char digest[CERTIFICATE_CHARS + 1])
{
	X509 *certificate = mosquitto_client_certificate(client);
	bool found = certificate != NULL && digest_key(certificate, digest);

	X509_free(certificate);
	return found;
}

bool certificate_is_shown(const struct mosquitto *client)
{
	X509 *certificate = mosquitto_client_certificate(client);

	X509_free(certificate);
	return certificate != NULL;
}
