// Command honeypot is what the engine tests run as a service: it says where it
// reports, and waits for its end.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	fmt.Printf("starting\nreports to %s:%s\n", os.Getenv("COLLECTOR_HOST"), os.Getenv("COLLECTOR_PORT"))
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	<-ends
}
