// Command honeypot is what the engine tests run as a service: it says where it
// reports, and waits for its end. With an argument it takes more than its share
// of something.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	fmt.Printf("starting\nreports to %s:%s\n", os.Getenv("COLLECTOR_HOST"), os.Getenv("COLLECTOR_PORT"))
	for _, arg := range os.Args[1:] {
		if excess := (map[string]func(){"disk": disk, "fork": fork, "log": flood, "memory": memory, "write": write})[arg]; excess != nil {
			go excess()
		}
	}
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	<-ends
}

// disk fills files of 1 MB.
func disk() {
	for n := 0; ; n++ {
		_ = os.WriteFile(fmt.Sprint("/filler", n), make([]byte, 1<<20), 0o600)
	}
}

// write writes one file again and again.
func write() {
	file, err := os.Create("/again")
	if err != nil {
		return
	}
	for n := int64(0); ; n++ {
		_, _ = file.WriteAt(make([]byte, 1<<20), n%8<<20)
		_ = file.Sync()
	}
}

// fork starts itself without an end.
func fork() {
	for {
		if exec.Command("/honeypot", "idle").Start() != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func flood() {
	for n := 0; ; n++ {
		fmt.Println("line", n)
	}
}

// memory keeps what it takes.
func memory() {
	var kept [][]byte
	for {
		page := make([]byte, 1<<20)
		for n := range page {
			page[n] = byte(n)
		}
		kept = append(kept, page)
		if len(kept) > 1<<20 {
			return
		}
	}
}
