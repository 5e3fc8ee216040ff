// Connection handlers that are locked to their thread, for a C library that wants it, under GC.
// The disease: after each stop of the world they need their own thread woken, not just a P. The
// cure: handlers on any thread, with far fewer collections, that rest.
package main

import (
	"flag"
	"runtime"
	"runtime/debug"
	"time"
)

var garbage []*[256]byte

// Of a request that is handled: enough of them for collections all the time.
const request = 32 << 10

func handle(stop time.Time, locked bool) {
	if locked {
		runtime.LockOSThread()
	}
	for time.Now().Before(stop) {
		body := make([]byte, request)
		for begin := time.Now(); time.Since(begin) < 300*time.Microsecond; {
			body[0]++
		}
		if locked {
			runtime.Gosched()
		} else {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

func main() {
	cured := flag.Bool("cured", false, "without the disease")
	length := flag.Duration("d", 10*time.Second, "how long to run")
	flag.Parse()
	if *cured {
		debug.SetGCPercent(1000)
	} else {
		debug.SetGCPercent(20)
	}
	stop := time.Now().Add(*length)
	for c := 0; c < 8; c++ {
		go handle(stop, !*cured)
	}
	for time.Now().Before(stop) {
		for i := 0; i < 2000; i++ {
			garbage = append(garbage[max(0, len(garbage)-5000):], new([256]byte))
		}
		time.Sleep(5 * time.Millisecond)
	}
}
