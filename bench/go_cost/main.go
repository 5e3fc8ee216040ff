// Serves HTTP to itself, or passes a value between two goroutines, all the time, and says when asked
// what CPU time that took so far, in ns, and how often it did so.
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
	"sync/atomic"
	"syscall"
)

var done atomic.Int64

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
	made := make(chan answer)
	go func() { made <- answer{"hello", []int{1, 2, 3, 5, 8, 13}} }()
	json.NewEncoder(w).Encode(<-made)
}

func requests() {
	server := httptest.NewServer(http.HandlerFunc(handle))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for c := 0; c < 8; c++ {
		go func() {
			for {
				if response, err := client.Get(server.URL); err == nil {
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
					done.Add(1)
				}
			}
		}()
	}
}

func switches() {
	there, back := make(chan int), make(chan int)
	go func() {
		for n := range there {
			back <- n
		}
	}()
	for {
		for i := 0; i < 1000; i++ {
			there <- i
			<-back
		}
		done.Add(2000)
	}
}

func main() {
	if os.Args[1] == "http" {
		requests()
	} else {
		go switches()
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "trace":
			trace.Start(io.Discard)
		case "untrace":
			trace.Stop()
		}
		fmt.Println(cpu(), done.Load())
	}
}
