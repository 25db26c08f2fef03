/* What this plugin calls itself: in the log, in requests to the daemon, to `strings`. A test compares the number with
 * that of the daemon it is released with. */
#ifndef AUTHD_VERSION_H
#define AUTHD_VERSION_H

#define PLUGIN_VERSION "authd_mosquitto/0.1.0"

#endif
