/* authd for Mosquitto: plugin API v5, from Debian 12's 2.0.11 on.
 *
 * Asks the authd daemon once for each CONNECT, then answers every message from memory, and cuts sessions when the
 * daemon says so. Build: `make`. Configuration: `plugin /usr/lib/…/authd_mosquitto.so` and
 * `plugin_opt_authd_broker <name>`; see README.md. */
#include <curl/curl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "acl.h"
#include "apply.h"
#include "auth.h"
#include "clock.h"
#include "connect.h"
#include "context.h"
#include "neighbours.h"
#include "version.h"

#define EXPORTED __attribute__((visibility("default")))

enum {
	PLUGIN_API = 5,
	PROTOCOL_MQTT_5 = 5,
	SLICE_US = 20000, /* longest work on news in one TICK, and again on kicks, so that neither starves the other */
	NEXT_TICK_MS = 50,
	SOON_MS = 5 /* while there is more to read, or an answer to come */
};

EXPORTED int mosquitto_plugin_version(int supported_version_count, const int *supported_versions)
{
	for (int i = 0; i < supported_version_count; i++) {
		if (supported_versions[i] == PLUGIN_API) {
			return PLUGIN_API;
		}
	}
	return -1;
}

/* --- callbacks --- */

/* The HTTP listener of 2.1 asks from a thread of its own, for which nothing here is made: it gets no. */
static bool is_own_thread(const struct authd *authd)
{
	return pthread_equal(authd->thread, pthread_self()) != 0;
}

static int on_basic_auth(int event, void *event_data, void *userdata)
{
	(void)event;
	return is_own_thread(userdata) ? connect_check(userdata, event_data) : MOSQ_ERR_AUTH;
}

static int on_auth_start(int event, void *event_data, void *userdata)
{
	(void)event;
	return auth_start(userdata, event_data);
}

static int on_auth_continue(int event, void *event_data, void *userdata)
{
	(void)event;
	return auth_continue(userdata, event_data);
}

static int on_acl_check(int event, void *event_data, void *userdata)
{
	(void)event;
	return is_own_thread(userdata) ? acl_check(userdata, event_data) : MOSQ_ERR_ACL_DENIED;
}

/* Only MQTT 5 has sessions that begin clean and are kept all the same. */
static void leave(struct authd *authd, struct entry *entry, const struct mosquitto *client)
{
	entry->may_outlive = mosquitto_client_protocol_version(client) == PROTOCOL_MQTT_5 ||
			     !mosquitto_client_clean_session(client);
	entry->left_at_pass = authd->passes;
	table_set_offline(&authd->table, entry);
	reports_add(&authd->reports, REPORT_OFFLINE, entry->terms.client_id, entry->terms.session);
}

/* Also the end of the old connection when a client takes itself over: that one is not the entry's any more. */
static int on_disconnect(int event, void *event_data, void *userdata)
{
	const struct mosquitto_evt_disconnect *disconnect = event_data;
	struct authd *authd = userdata;
	const char *client_id = disconnect->client == NULL ? NULL : mosquitto_client_id(disconnect->client);
	struct entry *entry = client_id == NULL ? NULL : table_find_client(&authd->table, client_id);

	(void)event;
	exchanges_forget(&authd->exchanges, disconnect->client);
	if (entry == NULL) {
		return MOSQ_ERR_SUCCESS;
	}
	if (entry->previous_connection == disconnect->client) {
		entry->previous_connection = NULL;
	}
	if (entry->connection == disconnect->client && entry->online) {
		leave(authd, entry, disconnect->client);
	} else {
		table_note_other(entry, disconnect->client);
	}
	return MOSQ_ERR_SUCCESS;
}

/* After SIGHUP the broker asks about everybody who is in, and everybody who is away, with the proofs of then. */
static int on_reload(int event, void *event_data, void *userdata)
{
	struct authd *authd = userdata;

	(void)event;
	(void)event_data;
	authd->reloading = true;
	return compat_reload_done(authd->is_2_1);
}

/* At the first TICK and not in init: by now the broker has forked, given up its privileges and loaded all plugins. */
static void greet(const struct authd *authd)
{
	mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: broker `%s`, boot %s, socket %s", authd->options.broker,
			     authd->boot, authd->options.socket_path);
	mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: retained messages of cut publishers are held back only with "
					      "`check_retain_source true` in mosquitto.conf");
	neighbours_report();
}

static void report(struct authd *authd)
{
	struct event *drop = reports_step(&authd->reports);

	if (drop != NULL) {
		apply_drop(authd, drop);
		event_free(drop);
	}
}

/* All that is done without being asked. What took long is followed by a rest of the same length for the clients. */
static void work(struct authd *authd, int64_t now_ms)
{
	int64_t begun_us = clock_us(), ended_us;

	apply_news(authd, begun_us + SLICE_US);
	apply_lease_ends(authd, now_ms);
	if (authd->table.kick_first != NULL) {
		apply_kicks(authd, clock_us() + SLICE_US);
	}
	if (authd->syncing) {
		apply_sync(authd);
	}
	report(authd);
	ended_us = clock_us();
	authd->worked_at_ms = now_ms;
	authd->rest_until_ms = (ended_us + ended_us - begun_us) / 1000;
}

/* Called after each packet when traffic is heavy. Then most calls do nothing: nothing is looked for before the coarse
 * clock, which moves every 1 to 10 ms, has moved. */
static int on_tick(int event, void *event_data, void *userdata)
{
	struct authd *authd = userdata;
	int64_t now_ms = clock_pass_ms(&authd->clock);

	(void)event;
	authd->reloading = false;
	if (authd->ticked_at_ms == 0) {
		greet(authd);
	}
	authd->ticked_at_ms = now_ms;
	if (now_ms != authd->worked_at_ms && now_ms >= authd->rest_until_ms) {
		work(authd, now_ms);
	}
	authd->passes++;
	compat_next_tick(event_data, authd->caught_up && authd->reports.body == NULL ? NEXT_TICK_MS : SOON_MS);
	return MOSQ_ERR_SUCCESS;
}

/* --- init and cleanup --- */

/* One per process, so it can live nowhere but here: a second instance would hold half of the sessions. */
static bool loaded;

static void make_boot_id(char boot[BOOT_ID_CHARS + 1])
{
	unsigned char bytes[BOOT_ID_CHARS / 2];

	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2hex(boot, BOOT_ID_CHARS + 1, bytes, sizeof(bytes));
}

static const struct {
	int event;
	MOSQ_FUNC_generic_callback callback;
} CALLBACKS[] = {
	{MOSQ_EVT_BASIC_AUTH, on_basic_auth},
	{MOSQ_EVT_EXT_AUTH_START, on_auth_start},
	{MOSQ_EVT_EXT_AUTH_CONTINUE, on_auth_continue},
	{MOSQ_EVT_ACL_CHECK, on_acl_check},
	{MOSQ_EVT_DISCONNECT, on_disconnect},
	{MOSQ_EVT_RELOAD, on_reload},
	{MOSQ_EVT_TICK, on_tick},
};

enum { CALLBACKS_COUNT = sizeof(CALLBACKS) / sizeof(CALLBACKS[0]) };

static int register_all(struct authd *authd)
{
	for (size_t i = 0; i < CALLBACKS_COUNT; i++) {
		int rc = mosquitto_callback_register(authd->id, CALLBACKS[i].event, CALLBACKS[i].callback, NULL, authd);

		if (rc != MOSQ_ERR_SUCCESS) {
			return rc;
		}
	}
	return compat_register_offline(authd->id, on_disconnect, authd);
}

static void unregister_all(struct authd *authd)
{
	for (size_t i = 0; i < CALLBACKS_COUNT; i++) {
		mosquitto_callback_unregister(authd->id, CALLBACKS[i].event, CALLBACKS[i].callback, NULL);
	}
	compat_unregister_offline(authd->id, on_disconnect);
}

static void destroy(struct authd *authd)
{
	stream_free(&authd->stream);
	reports_free(&authd->reports);
	http_free(&authd->http);
	queue_clear(&authd->todo);
	table_clear(&authd->table);
	nonces_free(&authd->nonces);
	free(authd);
	curl_global_cleanup();
}

/* The parts that own memory; each may be released even if it or an earlier one could not be made. */
static bool make_parts(struct authd *authd)
{
	const struct options *options = &authd->options;

	return table_init(&authd->table) && nonces_init(&authd->nonces, clock_wall_s()) &&
	       http_init(&authd->http, options->socket_path) &&
	       stream_init(&authd->stream, options, authd->boot, &authd->todo) &&
	       reports_init(&authd->reports, options, authd->boot, &authd->stream, &authd->table);
}

static struct authd *create(mosquitto_plugin_id_t *identifier, const struct options *options)
{
	struct authd *authd = calloc(1, sizeof(*authd));

	if (authd == NULL) {
		curl_global_cleanup();
		return NULL;
	}
	authd->id = identifier;
	authd->thread = pthread_self();
	authd->options = *options;
	authd->is_2_1 = compat_is_2_1();
	make_boot_id(authd->boot);
	rates_init(&authd->rates, options->rate);
	if (!make_parts(authd)) {
		destroy(authd);
		return NULL;
	}
	nonces_note_clock(&authd->nonces, clock_wall_s(), clock_ms() / 1000);
	return authd;
}

static int start(mosquitto_plugin_id_t *identifier, const struct options *options, void **userdata)
{
	struct authd *authd;
	int rc;

	if (sodium_init() < 0 || curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK) {
		mosquitto_log_printf(MOSQ_LOG_ERR, "authd: libsodium or libcurl cannot be used");
		return MOSQ_ERR_UNKNOWN;
	}
	authd = create(identifier, options);
	if (authd == NULL) {
		mosquitto_log_printf(MOSQ_LOG_ERR, "authd: memory is short");
		return MOSQ_ERR_NOMEM;
	}
	rc = register_all(authd);
	if (rc != MOSQ_ERR_SUCCESS) {
		mosquitto_log_printf(MOSQ_LOG_ERR, "authd: the broker refused a callback (%d)", rc);
		unregister_all(authd);
		destroy(authd);
		return rc;
	}
	*userdata = authd;
	return MOSQ_ERR_SUCCESS;
}

EXPORTED int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *options,
				   int option_count)
{
	char problem[PROBLEM_MAX_CHARS + 1];
	struct options read;
	int rc;

	mosquitto_log_printf(MOSQ_LOG_NOTICE, "authd: %s", PLUGIN_VERSION);
	if (!options_read(&read, options, option_count, problem)) {
		mosquitto_log_printf(MOSQ_LOG_ERR, "authd: %s", problem);
		return MOSQ_ERR_INVAL;
	}
	if (loaded) {
		mosquitto_log_printf(MOSQ_LOG_ERR, "authd: the plugin is loaded twice; write `per_listener_settings false` "
						   "and one `plugin` line above all listeners");
		return MOSQ_ERR_INVAL;
	}
	rc = start(identifier, &read, userdata);
	loaded = rc == MOSQ_ERR_SUCCESS;
	return rc;
}

EXPORTED int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int option_count)
{
	struct authd *authd = userdata;

	(void)options;
	(void)option_count;
	if (authd != NULL) {
		unregister_all(authd);
		destroy(authd);
		loaded = false;
	}
	return MOSQ_ERR_SUCCESS;
}
