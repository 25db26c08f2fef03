#include "neighbours.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "compat.h"

/* Where the object lies that `address` is in. Names do not tell: brokers load plugins into one name space, where the
 * first of two equal names stands for both. */
static const void *object_of(const void *address)
{
	Dl_info info;

	return dladdr(address, &info) == 0 ? NULL : info.dli_fbase;
}

static bool is_other_plugin(void *handle, const void *own)
{
	static const char *const names[] = {"mosquitto_plugin_version", "mosquitto_auth_plugin_version"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const void *entry_point = dlsym(handle, names[i]);

		if (entry_point != NULL && object_of(entry_point) != own) {
			return true;
		}
	}
	return false;
}

static const ElfW(Dyn) *dynamic_of(const struct dl_phdr_info *info)
{
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) {
			return (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
		}
	}
	return NULL;
}

/* To open every library would cost each of them a list that the C library never releases, so first its names are
 * searched. Some C libraries relocate the table's address, others leave it as it is in the file. */
static bool mentions_plugins(const struct dl_phdr_info *info)
{
	static const char part[] = "plugin_version";
	ElfW(Addr) names = 0;
	size_t length = 0;

	for (const ElfW(Dyn) *one = dynamic_of(info); one != NULL && one->d_tag != DT_NULL; one++) {
		names = one->d_tag == DT_STRTAB ? one->d_un.d_ptr : names;
		length = one->d_tag == DT_STRSZ ? one->d_un.d_val : length;
	}
	if (names == 0) {
		return false;
	}
	names += names < info->dlpi_addr ? info->dlpi_addr : 0;
	return memmem((const void *)names, length, part, sizeof(part)) != NULL;
}

static int look_at(struct dl_phdr_info *info, size_t size, void *own)
{
	bool worth_it = info->dlpi_name[0] != '\0' && mentions_plugins(info);
	void *handle = worth_it ? dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD) : NULL;

	(void)size;
	if (handle == NULL) {
		return 0;
	}
	if (is_other_plugin(handle, own)) {
		mosquitto_log_printf(MOSQ_LOG_WARNING,
				     "authd: another plugin is loaded, %s: what it allows before authd is asked is "
				     "allowed, and what it changes after is not checked again; load authd alone",
				     info->dlpi_name);
	}
	dlclose(handle);
	return 0;
}

void neighbours_report(void)
{
	static const char mark;

	dl_iterate_phdr(look_at, (void *)object_of(&mark));
}
