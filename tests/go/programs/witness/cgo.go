package main

/*
#include <pthread.h>
#include <unistd.h>

extern void calledBack(long number);

static void *one(void *number)
{
	calledBack((long)number);
	usleep(100000);
	return number;
}

static void callBacks(int n)
{
	pthread_t threads[64];

	for (int i = 0; i < n; i++)
		pthread_create(&threads[i], 0, one, (void *)(long)(i + 1));
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], 0);
}
*/
import "C"

import "time"

//export calledBack
func calledBack(C.long) { time.Sleep(time.Millisecond) }

func init() {
	callBacks = func(n int) { C.callBacks(C.int(n)) }
}
