// Command mischief is a honeypot for the lab that somebody else has taken over.
// It answers on port 2222, and then takes all that it can get of one thing, or
// of nothing.
//
//	mischief fork|memory|disk|write|log|events|dial|nothing [GREETING]
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"honeysens.org/dockersensor/shared/event"
	"honeysens.org/dockersensor/shared/zmtp"
)

// child is what a copy of the program is called with.
const child = "fork-child"

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: mischief fork|memory|disk|write|log|events|dial|nothing [GREETING]")
		os.Exit(2)
	}
	greeting := "mischief"
	if len(os.Args) == 3 {
		greeting = os.Args[2]
	}
	kinds := map[string]func(){
		"fork": fork, child: fork, "memory": memory, "disk": disk, "write": write, "log": talk, "events": events, "dial": dial, "nothing": func() {},
	}
	do, ok := kinds[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "mischief: no kind %q\n", os.Args[1])
		os.Exit(2)
	}
	if os.Args[1] != child {
		listener, err := net.Listen("tcp", ":2222")
		if err != nil {
			fmt.Fprintln(os.Stderr, "mischief:", err)
			os.Exit(1)
		}
		go answer(listener, greeting)
	}
	do()
	select {}
}

// answer keeps the program a honeypot that is healthy from outside.
func answer(listener net.Listener, greeting string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			continue
		}
		_, _ = io.WriteString(conn, greeting+"\r\n")
		_ = conn.Close()
	}
}

// fork has every copy make copies, without an end.
func fork() {
	self, err := os.Executable()
	if err != nil {
		self = "/mischief"
	}
	for {
		// At the limit of processes this fails at once, and is tried again.
		cmd := exec.Command(self, child)
		_ = cmd.Start()
	}
}

// memory takes pages and writes to each.
func memory() {
	for taken := [][]byte{}; ; {
		block := make([]byte, 8<<20)
		for at := 0; at < len(block); at += 4096 {
			block[at] = 1
		}
		taken = append(taken, block)
		_ = taken
	}
}

// disk writes file after file.
func disk() {
	signal.Ignore(syscall.SIGXFSZ)
	block := make([]byte, 1<<20)
	for n := 0; ; n++ {
		file, err := os.Create(fmt.Sprintf("/fill-%d", n))
		if err != nil {
			continue
		}
		for range 100 {
			if _, err := file.Write(block); err != nil {
				break
			}
		}
		_ = file.Close()
	}
}

// write writes one file again and again, and has the disk take it each time.
func write() {
	file, err := os.Create("/again")
	if err != nil {
		return
	}
	block := make([]byte, 1<<20)
	for n := int64(0); ; n++ {
		_, _ = file.WriteAt(block, n%100<<20)
		_ = file.Sync()
	}
}

// talk prints without a pause.
func talk() {
	line := strings.Repeat("mischief ", 20) + "\n"
	for {
		_, _ = os.Stdout.WriteString(line)
	}
}

// events reports attacks that never were, over as many connections as it can.
func events() {
	address := net.JoinHostPort(os.Getenv("COLLECTOR_HOST"), os.Getenv("COLLECTOR_PORT"))
	for n := range 64 {
		do := report
		if n < 8 {
			do = reportOn
		}
		go func() {
			for {
				do(address)
			}
		}()
	}
}

// reportOn keeps its connection for as long as it lasts.
func reportOn(address string) {
	raw, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer raw.Close()
	conn, err := zmtp.NewConn(raw, zmtp.Config{Type: zmtp.TypeREQ, Peers: []string{zmtp.TypeREP}, MaxMessage: 64 << 10})
	for err == nil {
		if err = conn.Send(nil, falseEvent()); err == nil {
			_, err = conn.Receive()
		}
	}
}

// report makes a connection for one event.
func report(address string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _ = zmtp.Request(ctx, address, falseEvent())
}

func falseEvent() []byte {
	now := time.Now().Unix()
	body, err := json.Marshal(event.Event{
		Timestamp: now, Service: event.ServiceGeneric, Source: "203.0.113.66", Summary: "mischief",
		Details: []event.Detail{{Timestamp: now, Data: strings.Repeat("x", 200)}}, Packets: []event.Packet{},
	})
	if err != nil {
		return nil
	}
	return body
}

// dial begins 10,000 connections to a machine that the sensor can reach, and
// keeps them.
func dial() {
	for n := range 10_000 {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			continue
		}
		_ = syscall.Connect(fd, &syscall.SockaddrInet4{Port: 1 + n, Addr: [4]byte{192, 0, 2, 10}})
	}
}
