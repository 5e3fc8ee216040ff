/* Threads of C that call back for ever, and rest between the calls. */

#include <pthread.h>
#include <unistd.h>

static void (*callback)(void);
static int rests, rest_us;

static void *call(void *unused)
{
	(void)unused;
	for (;;) {
		for (int i = 0; i < rests; i++)
			usleep(rest_us);
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
