// Command probe prints the interfaces that it sees, or stays, in a container of
// a test.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "stay" {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		return
	}
	links, err := net.Interfaces()
	fmt.Println(links, err)
}
