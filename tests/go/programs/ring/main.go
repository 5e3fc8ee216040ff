// A ring of io_uring whose thread polls for requests, beside a goroutine that computes.
//
// The kernel's thread is of this process. It sleeps where no request came for 20 ms, and is woken
// again. Prints the number of the ring's file, below 0 if there is none; ends with its input.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const (
	setup             = 425 // io_uring_setup(2)
	enter             = 426
	polledByTheKernel = 2
	wakeUp            = 2
	idleMs            = 20
)

func main() {
	// So that the thread that makes the ring has a goroutine.
	runtime.LockOSThread()
	parameters := [30]uint32{2: polledByTheKernel, 4: idleMs}
	ring, _, errno := syscall.Syscall(setup, 8, uintptr(unsafe.Pointer(&parameters)), 0)
	if errno != 0 {
		fmt.Println(-1)
		return
	}
	fmt.Println(int(ring))
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		for until := time.Now().Add(50 * time.Millisecond); time.Now().Before(until); {
		}
		syscall.Syscall6(enter, ring, 0, 0, wakeUp, 0, 0)
	}
}
