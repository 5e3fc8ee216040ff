// Handles with a finalizer that computes a checksum over what it closes.
// The disease: the runtime cannot preempt it (here: asynchronous preemption is switched off, as
// some profilers and debuggers require), so it keeps its P. The cure: it gives the P away between
// blocks.
package main

import (
	"flag"
	"os"
	"runtime"
	"syscall"
	"time"
)

type handle struct{ blocks [64]uint64 }

func spin(rounds int) uint64 {
	x := uint64(1)
	for i := 0; i < rounds; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

func finalize(h *handle, blocks int, cured bool) {
	for b := 0; b < blocks; b++ {
		h.blocks[b%64] += spin(500_000)
		if cured {
			runtime.Gosched()
		}
	}
}

func main() {
	cured := flag.Bool("cured", false, "without the disease")
	length := flag.Duration("d", 10*time.Second, "how long to run")
	flag.Parse()
	const setting = "asyncpreemptoff=1"
	if os.Getenv("GODEBUG") != setting {
		// Read once, when the runtime starts.
		os.Setenv("GODEBUG", setting)
		self, _ := os.Executable()
		syscall.Exec(self, os.Args, os.Environ())
	}
	blocks := 1000
	if *cured {
		blocks = 20
	}
	for stop := time.Now().Add(*length); time.Now().Before(stop); time.Sleep(100 * time.Millisecond) {
		h := new(handle)
		runtime.SetFinalizer(h, func(h *handle) { finalize(h, blocks, *cured) })
		h = nil
		runtime.GC()
	}
}
