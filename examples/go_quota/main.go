// A service whose container has half a CPU.
// The disease: it runs as many Ps as the machine has CPUs, and their threads use the quota up in
// the first part of each period. The cure: one P, and work that fits the quota.
package main

import (
	"flag"
	"runtime"
	"time"
)

func burn(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

func main() {
	cured := flag.Bool("cured", false, "without the disease")
	length := flag.Duration("d", 10*time.Second, "how long to run")
	flag.Parse()
	workers, pause := 8, time.Duration(0)
	runtime.GOMAXPROCS(4)
	if *cured {
		runtime.GOMAXPROCS(1)
		workers, pause = 1, 20*time.Millisecond
	}
	stop := time.Now().Add(*length)
	for w := 0; w < workers; w++ {
		go func() {
			for time.Now().Before(stop) {
				burn(2 * time.Millisecond)
				time.Sleep(pause)
			}
		}()
	}
	time.Sleep(*length)
}
