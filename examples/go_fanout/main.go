// A chat room: each message goes to every member.
// The disease: one goroutine per message and member, so thousands become runnable at once. The
// cure: a fixed pool that takes members in batches.
package main

import (
	"flag"
	"hash/crc32"
	"sync"
	"time"
)

const members = 2000

var message = make([]byte, 2048)

func deliver(member int) uint32 { return crc32.ChecksumIEEE(message) + uint32(member) }

func perMessage() {
	var all sync.WaitGroup
	for m := 0; m < members; m++ {
		all.Add(1)
		go func(m int) {
			deliver(m)
			all.Done()
		}(m)
	}
	all.Wait()
}

func inBatches(batches chan int, all *sync.WaitGroup) {
	for m := 0; m < members; m += 200 {
		all.Add(1)
		batches <- m
	}
	all.Wait()
}

func main() {
	cured := flag.Bool("cured", false, "without the disease")
	length := flag.Duration("d", 10*time.Second, "how long to run")
	flag.Parse()
	batches := make(chan int)
	var all sync.WaitGroup
	for w := 0; w < 2; w++ {
		go func() {
			for m := range batches {
				for i := m; i < m+200; i++ {
					deliver(i)
				}
				all.Done()
			}
		}()
	}
	for stop := time.Now().Add(*length); time.Now().Before(stop); {
		if *cured {
			inBatches(batches, &all)
			time.Sleep(2 * time.Millisecond)
		} else {
			perMessage()
		}
	}
}
