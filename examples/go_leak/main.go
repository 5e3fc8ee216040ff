// A chat server's subscribers: each connection starts a goroutine that forwards messages.
// The disease: the goroutine of a connection that is gone waits for ever. The cure: it also waits
// for the connection's end.
package main

import (
	"context"
	"flag"
	"time"
)

func forward(ctx context.Context, messages chan string, cured bool) {
	if !cured {
		<-messages
		return
	}
	select {
	case <-messages:
	case <-ctx.Done():
	}
}

func connection(cured bool) {
	ctx, end := context.WithCancel(context.Background())
	defer end()
	go forward(ctx, make(chan string), cured)
	time.Sleep(5 * time.Millisecond)
}

func main() {
	cured := flag.Bool("cured", false, "without the disease")
	length := flag.Duration("d", 10*time.Second, "how long to run")
	flag.Parse()
	for stop := time.Now().Add(*length); time.Now().Before(stop); time.Sleep(time.Millisecond) {
		go connection(*cured)
	}
}
