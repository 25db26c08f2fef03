/* A second plugin for the same broker, as careless as plugins get. `plugin_opt_neighbour <what>`:
 *   defer    has no opinion on anything
 *   admit    lets everybody connect
 *   phrase   lets those connect whose password is `open sesame`
 *   allow    allows every message
 *   rewrite  gives each message another topic, `secret/a`, after it was checked */
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <mosquitto.h>
#include <stddef.h>
#include <string.h>

static mosquitto_plugin_id_t *self;
static const char *what = "defer";

static int on_basic_auth(int event, void *data, void *userdata)
{
	const struct mosquitto_evt_basic_auth *shown = data;
	int is_phrase = strcmp(what, "phrase") == 0 && shown->password != NULL && strcmp(shown->password, "open sesame") == 0;

	(void)event, (void)userdata;
	return is_phrase || strcmp(what, "admit") == 0 ? MOSQ_ERR_SUCCESS : MOSQ_ERR_PLUGIN_DEFER;
}

static int on_acl_check(int event, void *data, void *userdata)
{
	(void)event, (void)data, (void)userdata;
	return strcmp(what, "allow") == 0 ? MOSQ_ERR_SUCCESS : MOSQ_ERR_PLUGIN_DEFER;
}

static int on_message(int event, void *data, void *userdata)
{
	struct mosquitto_evt_message *message = data;

	(void)event, (void)userdata;
	if (strcmp(what, "rewrite") == 0) {
		mosquitto_free(message->topic);
		message->topic = mosquitto_strdup("secret/a");
	}
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_version(int count, const int *versions)
{
	(void)count, (void)versions;
	return 5;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata, struct mosquitto_opt *options, int count)
{
	(void)userdata;
	self = identifier;
	for (int i = 0; i < count; i++) {
		what = options[i].value;
	}
	mosquitto_callback_register(self, MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL, NULL);
	mosquitto_callback_register(self, MOSQ_EVT_ACL_CHECK, on_acl_check, NULL, NULL);
	mosquitto_callback_register(self, MOSQ_EVT_MESSAGE, on_message, NULL, NULL);
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int count)
{
	(void)userdata, (void)options, (void)count;
	mosquitto_callback_unregister(self, MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL);
	mosquitto_callback_unregister(self, MOSQ_EVT_ACL_CHECK, on_acl_check, NULL);
	mosquitto_callback_unregister(self, MOSQ_EVT_MESSAGE, on_message, NULL);
	return MOSQ_ERR_SUCCESS;
}
