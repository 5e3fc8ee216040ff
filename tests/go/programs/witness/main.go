// Does what it is told on standard input, and tells what its own runtime counted meanwhile.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"
)

var sink []byte

func burn(d time.Duration) {
	for begin := time.Now(); time.Since(begin) < d; {
	}
}

func goid() string {
	var text [64]byte
	return strings.Fields(string(text[:runtime.Stack(text[:], false)]))[1]
}

// Timers, channels, locks, garbage and a few busy goroutines.
func work(d time.Duration) {
	stop := time.Now().Add(d)
	var all sync.WaitGroup
	var lock sync.Mutex
	values := make(chan int, 4)
	for i := 0; i < 12; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			for n := i * 37; time.Now().Before(stop); n++ {
				switch i % 4 {
				case 0:
					burn(time.Duration(n%300) * time.Microsecond)
					time.Sleep(time.Duration(n%3000) * time.Microsecond)
				case 1:
					lock.Lock()
					burn(time.Duration(n%30) * time.Microsecond)
					lock.Unlock()
					time.Sleep(time.Duration(n%500) * time.Microsecond)
				case 2:
					select {
					case values <- i:
					case <-time.After(time.Millisecond):
					}
				case 3:
					select {
					case <-values:
						burn(5 * time.Microsecond)
					case <-time.After(time.Millisecond):
					}
					sink = make([]byte, 1<<18)
				}
			}
		}(i)
	}
	all.Wait()
}

// Goroutines that each handle one trace after the other, and log which.
func traced(d time.Duration) {
	stop := time.Now().Add(d)
	var all sync.WaitGroup
	var lock sync.Mutex
	log := [][2]string{}
	for i := 0; i < 6; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			me := goid()
			for n := 0; time.Now().Before(stop); n++ {
				id := fmt.Sprintf("%016x%016x", i+1, n+1)
				labels := pprof.Labels("trace_id", id, "span_id", id[16:], "route", "/api")
				lock.Lock()
				log = append(log, [2]string{me, id})
				lock.Unlock()
				pprof.Do(context.Background(), labels, func(context.Context) {
					for k := 0; k < 10; k++ {
						burn(100 * time.Microsecond)
						time.Sleep(200 * time.Microsecond)
					}
				})
			}
		}(i)
	}
	all.Wait()
	answer(log)
}

// Nothing but work, on two goroutines.
func spin(d time.Duration) {
	var all sync.WaitGroup
	for i := 0; i < 2; i++ {
		all.Add(1)
		go func() { burn(d); all.Done() }()
	}
	all.Wait()
}

// Two goroutines that take turns, as each gives way all the time.
func giveWay(d time.Duration) {
	stop := time.Now().Add(d)
	var all sync.WaitGroup
	for i := 0; i < 2; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Now().Before(stop) {
				burn(20 * time.Microsecond)
				runtime.Gosched()
			}
		}()
	}
	all.Wait()
}

// Two goroutines that take turns on one P, as they are made to: neither calls anything for long.
func count(d time.Duration) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	stop := time.Now().Add(d)
	var all sync.WaitGroup
	var totals [2]int
	for i := range totals {
		all.Add(1)
		go func(total *int) {
			defer all.Done()
			for time.Now().Before(stop) {
				for n := 0; n < 1<<26; n++ {
					*total += n
				}
			}
		}(&totals[i])
	}
	all.Wait()
}

// Does something on a thread that is not the first.
func elsewhere(do func()) {
	go func() {
		runtime.LockOSThread()
		if syscall.Gettid() == os.Getpid() {
			elsewhere(do)
			select {}
		}
		do()
	}()
}

// Waits a millisecond at a time, for ever.
func tick() {
	for {
		time.Sleep(time.Millisecond)
	}
}

// Switches between goroutines: hardly anything else costs a probe more. Many others sleep.
func chatter(d time.Duration) {
	stop := time.Now().Add(d)
	for i := 0; i < 4; i++ {
		there, back := make(chan int), make(chan int)
		go func() {
			for n := range there {
				back <- n
			}
		}()
		go func() {
			for n := 0; time.Now().Before(stop); n++ {
				there <- n
				burn(time.Duration(n%8) * time.Microsecond)
				<-back
			}
			close(there)
		}()
	}
	for i := 0; i < 800; i++ {
		go func(i int) {
			for time.Now().Before(stop) {
				time.Sleep(time.Duration(50+i%100) * time.Millisecond)
			}
		}(i)
	}
}

var (
	never   = make(chan int)
	neither = make(chan int)
	held    sync.Mutex
)

func receives() { <-never }

func selects() {
	select {
	case <-never:
	case <-neither:
	}
}

func locks() { held.Lock() }

// Only with C: so many of its threads, which call back once and end.
var callBacks func(n int)

func park(n int) {
	held.Lock()
	for i := 0; i < n; i++ {
		go []func(){receives, selects, locks}[i%3]()
	}
	time.Sleep(200 * time.Millisecond)
}

// Goroutines that nothing can wake; the collector finds that out where the runtime has a profile of them.
func leak(n int) {
	for i := 0; i < n; i++ {
		go func() { <-make(chan int) }()
	}
	time.Sleep(100 * time.Millisecond)
	if leaked := pprof.Lookup("goroutineleak"); leaked != nil {
		leaked.WriteTo(io.Discard, 0)
	}
}

// One goroutine wakes another over a channel, always after 3 ms; nobody else does.
func handOver(times int) {
	ready, taken := make(chan int), make(chan string, 1)
	go func() {
		me := goid()
		for i := 0; i < times; i++ {
			<-ready
		}
		taken <- me
	}()
	for i := 0; i < times; i++ {
		time.Sleep(3 * time.Millisecond)
		ready <- i
	}
	answer([]string{goid(), <-taken})
}

func counted() map[string][]uint64 {
	samples := []metrics.Sample{
		{Name: "/sched/latencies:seconds"},
		{Name: "/sched/pauses/total/gc:seconds"},
		{Name: "/sched/pauses/total/other:seconds"},
		{Name: "/sched/pauses/stopping/gc:seconds"},
		{Name: "/gc/pauses:seconds"},
	}
	metrics.Read(samples)
	found := map[string][]uint64{}
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindFloat64Histogram {
			found[s.Name] = s.Value.Float64Histogram().Counts
		}
	}
	return found
}

func answer(value any) {
	text, _ := json.Marshal(value)
	fmt.Println(string(text))
}

func main() {
	answer(os.Getpid())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var command string
		var n int
		fmt.Sscan(in.Text(), &command, &n)
		d := time.Duration(n) * time.Millisecond
		switch command {
		case "work":
			work(d)
			answer("done")
		case "traced":
			traced(d)
		case "spin":
			spin(d)
			answer("done")
		case "exec":
			syscall.Exec("/bin/cat", []string{"cat"}, nil)
		case "become":
			path := strings.Fields(in.Text())[1]
			syscall.Exec(path, []string{path}, nil)
		case "exec-elsewhere":
			elsewhere(func() { syscall.Exec("/bin/cat", []string{"cat"}, nil) })
			select {}
		case "give-way":
			giveWay(d)
			answer("done")
		case "count":
			count(d)
			answer("done")
		case "tick":
			go tick()
			answer("done")
		case "chatter":
			chatter(d)
			answer("done")
		case "park":
			park(n)
			answer("done")
		case "procs":
			runtime.GOMAXPROCS(n)
			answer("done")
		case "leak":
			leak(n)
			answer("done")
		case "collect":
			for i := 0; i < n; i++ {
				runtime.GC()
			}
			answer("done")
		case "callbacks":
			callBacks(n)
			answer("done")
		case "handover":
			handOver(n)
		case "metrics":
			answer(counted())
		case "goroutines":
			var text strings.Builder
			pprof.Lookup("goroutine").WriteTo(&text, 1)
			answer(text.String())
		}
	}
}
