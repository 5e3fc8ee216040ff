package main

/*
#include <pthread.h>
#include <unistd.h>

extern void calledBack(void);

static void *one(void *unused)
{
	calledBack();
	usleep(100000);
	return unused;
}

static void callBacks(int n)
{
	pthread_t threads[64];

	for (int i = 0; i < n; i++)
		pthread_create(&threads[i], 0, one, 0);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], 0);
}
*/
import "C"

import "time"

//export calledBack
func calledBack() { time.Sleep(time.Millisecond) }

func init() {
	callBacks = func(n int) { C.callBacks(C.int(n)) }
}
