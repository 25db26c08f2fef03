#include "threads.h"

#include <linux/close_range.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

bool threads_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
	sigset_t all, before;
	bool started;

	sigfillset(&all);
	if (pthread_sigmask(SIG_BLOCK, &all, &before) != 0) {
		return false;
	}
	started = pthread_create(thread, NULL, run, argument) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

void threads_own_files(void)
{
	/* The flag makes it one step: either the table is copied and the copy emptied, or nothing happens. */
	(void)syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_UNSHARE);
}

void threads_pause(int ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&time, NULL);
}
