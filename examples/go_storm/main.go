// Short connections: a client per connection that asks once and goes away.
// The disease: connections are opened as fast as they come, each with its own goroutines. The
// cure: a bounded number at once, over connections that are kept.
package main

import (
	"flag"
	"io"
	"net"
	"sync"
	"time"
)

func serve(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			buffer := make([]byte, 64)
			for {
				n, err := connection.Read(buffer)
				if err != nil {
					return
				}
				for begin := time.Now(); time.Since(begin) < 20*time.Microsecond; {
				}
				connection.Write(buffer[:n])
			}
		}()
	}
}

func ask(connection net.Conn) {
	answer := make([]byte, 5)
	connection.Write([]byte("hello"))
	io.ReadFull(connection, answer)
}

func main() {
	cured := flag.Bool("cured", false, "without the disease")
	length := flag.Duration("d", 10*time.Second, "how long to run")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go serve(listener)
	address := listener.Addr().String()
	clients, pause := 400, time.Duration(0)
	if *cured {
		clients, pause = 4, 2*time.Millisecond
	}
	stop := time.Now().Add(*length)
	var all sync.WaitGroup
	for c := 0; c < clients; c++ {
		all.Add(1)
		go func() {
			defer all.Done()
			var connection net.Conn
			var err error
			for time.Now().Before(stop) {
				if connection == nil {
					if connection, err = net.Dial("tcp", address); err != nil {
						continue
					}
				}
				ask(connection)
				if !*cured {
					connection.(*net.TCPConn).SetLinger(0)
					connection.Close()
					connection = nil
				}
				time.Sleep(pause)
			}
		}()
	}
	all.Wait()
}
