// Two goroutines hand over to each other for 1.5 s. In a bubble, as the runtime counts these
// switches as changes of state only there.
package main

import (
	"iter"
	"testing"
	"testing/synctest"
	"time"
)

func pull(*testing.T) {
	next, stop := iter.Pull(func(yield func(int) bool) {
		for i := 0; yield(i); i++ {
		}
	})
	for i := 0; i < 100; i++ {
		next()
	}
	stop()
}

func pulls(t *testing.T) {
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		synctest.Test(t, pull)
		time.Sleep(time.Millisecond)
	}
}

func main() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "pulls", F: pulls}}, nil, nil)
}
