// Spans: one that ends where its parent was begun comes first, then what is within spans and not.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"
)

//go:noinline
func within(naps int) {
	for i := 0; i < naps; i++ {
		time.Sleep(time.Millisecond)
	}
}

//go:noinline
func outside(naps int) {
	for i := 0; i < naps; i++ {
		time.Sleep(time.Millisecond)
	}
}

// Another goroutine begins a child of a span, which ends where the span was begun.
func handedBack() {
	parent := trace.Begin(1, 1, nil)
	children := make(chan trace.Span)
	go func() { children <- trace.Begin(1, 2, parent) }()
	(<-children).End()
	parent.End()
}

func main() {
	stdin := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	stdin.Scan()
	handedBack()
	done := make(chan bool)
	go func() {
		// The first that may teach where a span's context is.
		trace.Begin(2, 3, nil).End()
		root := trace.Begin(3, 4, nil)
		within(50)
		child := trace.Begin(3, 5, root)
		within(50)
		child.End()
		within(50)
		root.End()
		outside(50)
		done <- true
	}()
	<-done
	fmt.Println("done")
	stdin.Scan()
}
