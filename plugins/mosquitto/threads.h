/* Starting a thread inside somebody else's process. */
#ifndef AUTHD_THREADS_H
#define AUTHD_THREADS_H

#include <pthread.h>
#include <stdbool.h>

/* Start `run(argument)` with all signals blocked: they belong to the broker's own thread. */
bool threads_start(pthread_t *thread, void *(*run)(void *), void *argument);

/* First thing in a thread: give it a table of open files of its own, empty but for the standard streams. The kernel
 * looks up files faster in a table that only one thread uses, and that is what the broker does a million times a second.
 * From here on no file may pass between this thread and the broker's; they talk through memory. Where the kernel does
 * not know the call (before 5.9) nothing changes. */
void threads_own_files(void);

/* Sleep for `ms`. */
void threads_pause(int ms);

#endif
