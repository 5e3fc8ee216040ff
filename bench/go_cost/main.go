// Serves HTTP to itself, or passes a value between two goroutines, and says what CPU that took.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/trace"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func cpu() int64 {
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return used.Utime.Nano() + used.Stime.Nano()
}

type answer struct {
	Message string
	Numbers []int
}

func handle(w http.ResponseWriter, r *http.Request) {
	done := make(chan answer)
	go func() { done <- answer{"hello", []int{1, 2, 3, 5, 8, 13}} }()
	json.NewEncoder(w).Encode(<-done)
}

func requests(server *httptest.Server, length time.Duration) int64 {
	var all sync.WaitGroup
	var served atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for stop, c := time.Now().Add(length), 0; c < 8; c++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Now().Before(stop) {
				if response, err := client.Get(server.URL); err == nil {
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
					served.Add(1)
				}
			}
		}()
	}
	all.Wait()
	return served.Load()
}

func switches(length time.Duration) int64 {
	there, back := make(chan int), make(chan int)
	go func() {
		for n := range there {
			back <- n
		}
	}()
	var n int64
	for stop := time.Now().Add(length); time.Now().Before(stop); {
		for i := 0; i < 1000; i++ {
			there <- i
			<-back
			n += 2
		}
	}
	close(there)
	return n
}

func main() {
	server := httptest.NewServer(http.HandlerFunc(handle))
	fmt.Println(os.Getpid())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var command, traced string
		var ms int
		fmt.Sscan(in.Text(), &command, &ms, &traced)
		if traced == "traced" {
			trace.Start(io.Discard)
		}
		begin, n := cpu(), int64(0)
		if command == "http" {
			n = requests(server, time.Duration(ms)*time.Millisecond)
		} else {
			n = switches(time.Duration(ms) * time.Millisecond)
		}
		used := cpu() - begin
		if traced == "traced" {
			trace.Stop()
		}
		fmt.Println(used, n)
	}
}
