// Loads the plugin that its argument names, and waits for the end of its standard input.
package main

import (
	"fmt"
	"io"
	"os"
	"plugin"
)

func main() {
	if _, err := plugin.Open(os.Args[1]); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}
