/* Threads of C that call back for ever, and rest in epoll between the calls. */

#include <pthread.h>
#include <stddef.h>
#include <sys/epoll.h>

static void (*callback)(void);
static int rests, rest_us;

static void *call(void *unused)
{
	int nothing = epoll_create1(0);
	struct epoll_event event;

	(void)unused;
	for (;;) {
		for (int i = 0; i < rests; i++)
			epoll_wait(nothing, &event, 1, rest_us / 1000);
		callback();
	}
	return NULL;
}

int start(void (*function)(void), int threads, int times, int us)
{
	pthread_t thread;

	callback = function;
	rests = times;
	rest_us = us;
	while (threads--)
		if (pthread_create(&thread, NULL, call, NULL))
			return -1;
	return 0;
}
