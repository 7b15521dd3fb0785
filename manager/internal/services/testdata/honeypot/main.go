// Command honeypot is what the engine tests run as a service: it says where it
// reports, and waits for its end. With an argument it takes more than its share
// of something.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	fmt.Printf("starting\nreports to %s:%s\n", os.Getenv("COLLECTOR_HOST"), os.Getenv("COLLECTOR_PORT"))
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM)
	for _, arg := range os.Args[1:] {
		if excess := (map[string]func(){"disk": disk, "fork": fork, "log": flood, "memory": memory, "write": write})[arg]; excess != nil {
			go excess()
		}
	}
	<-ends
}

// disk fills files of 1 MB.
func disk() {
	for n := 0; ; n++ {
		_ = os.WriteFile(fmt.Sprint("/filler", n), make([]byte, 1<<20), 0o600)
	}
}

// write writes one file again and again, 20 MB a second: many times what is allowed,
// and little enough for the engine to go on. Whether others suffer is tested in the
// lab, with a honeypot that writes as fast as it can.
func write() {
	file, err := os.Create("/again")
	if err != nil {
		return
	}
	pace := time.NewTicker(time.Second / 20)
	defer pace.Stop()
	for n := int64(0); ; n++ {
		<-pace.C
		_, _ = file.WriteAt(make([]byte, 1<<20), n%8<<20)
		_ = file.Sync()
	}
}

// fork makes processes without an end. It asks the kernel itself: a Go program that
// is refused a thread ends.
func fork() {
	runtime.GOMAXPROCS(1)
	// By then it has those that it needs.
	time.Sleep(time.Second)
	for {
		pid, _, err := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		for pid == 0 && err == 0 {
			_, _, _ = syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
		if err != 0 {
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
