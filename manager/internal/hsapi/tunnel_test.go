package hsapi

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"honeysens.org/dockersensor/manager/internal/config"
)

// rawProxy answers the requests of each connection by a script: one text for
// each request, and the end of the connection after the last one.
func rawProxy(t *testing.T, script func(connection int) []string) *config.Proxy {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			play(conn, script(n))
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	address := listener.Addr().(*net.TCPAddr)
	return &config.Proxy{Host: "127.0.0.1", Port: uint16(address.Port), User: "sensor", Password: "secret"}
}

func play(conn net.Conn, answers []string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, answer := range answers {
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
	// What is still on its way would reset the connection and lose the answer.
	_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = io.Copy(io.Discard, in)
}

const wants407 = "HTTP/1.1 407 Who?\r\nContent-Length: 2\r\n%s\r\nno"

func asks(headers ...string) string {
	return fmt.Sprintf(wants407, strings.Join(headers, "\r\n")+"\r\n")
}

// TestHostileProxy has proxies answer in all ways but the right one.
func TestHostileProxy(t *testing.T) {
	challenge := "Proxy-Authenticate: NTLM " + base64.StdEncoding.EncodeToString(oldChallenge())
	basic := base64.StdEncoding.EncodeToString([]byte("sensor:secret"))
	always := func(answers ...string) func(int) []string { return func(int) []string { return answers } }
	tests := []struct {
		name   string
		script func(int) []string
		says   string
	}{
		{"ends at once", always(""), "does not answer as a proxy does"},
		{"no HTTP", always("SSH-2.0-OpenSSH_9.2p1\r\n"), "does not answer as a proxy does"},
		{"endless head", always("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxProxyText)), "does not answer as a proxy does"},
		{"endless refusal", always("HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic\r\nContent-Length: 99999999\r\n\r\n" + strings.Repeat("x", 2*maxProxyText)), "407"},
		{"speaks before it is asked", always("HTTP/1.1 200 OK\r\n\r\nhello"), "sends before it is asked"},
		{"status of a thousand letters", always("HTTP/1.1 500 " + strings.Repeat("x", 1000) + "\r\n\r\n"), "proxy itself reaches"},
		{"repeats what it was told", always(asks("Proxy-Authenticate: Basic"), asks("Proxy-Authenticate: "+basic)), "does not accept user and password"},
		{"repeats it as its status", always(asks("Proxy-Authenticate: Basic"), "HTTP/1.1 500 "+basic+"\r\n\r\n"), "proxy itself reaches"},
		{"repeats it as a head that is none", always(asks("Proxy-Authenticate: Basic"), "HTTP/1.1 200 OK\r\n"+basic+"\r\n\r\n"), "not HTTP"},
		{"no scheme", always(asks("X: y")), `knows users by "" only`},
		{"unknown scheme", always(asks("Proxy-Authenticate: Digest realm=x", "Proxy-Authenticate: Negotiate")), `knows users by "Digest, Negotiate" only`},
		{"NTLM without a challenge", always(asks("Proxy-Authenticate: NTLM"), asks("Proxy-Authenticate: NTLM")), "does not accept user and password"},
		{"challenge that is none", always(asks("Proxy-Authenticate: NTLM"), asks("Proxy-Authenticate: NTLM aGVsbG8=")), "challenge is none"},
		{"challenge that is no base64", always(asks("Proxy-Authenticate: NTLM"), asks("Proxy-Authenticate: NTLM ====")), "does not accept user and password"},
		{"ends after the challenge", always(asks("Proxy-Authenticate: NTLM"), asks(challenge, "Connection: close")), "ends the connection instead of waiting"},
		{"challenge again and again", always(asks(challenge), asks(challenge), asks(challenge), asks(challenge)), "does not accept user and password"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, c := newServer(t, Config{}, func(http.ResponseWriter, *http.Request) { t.Error("a request got through") })
			settings := s.settings(t, s.leaf.cert)
			settings.Proxy = rawProxy(t, test.script)
			c.Configure(settings)
			_, err := c.PostStatus(t.Context(), Status{})
			if strings.Contains(fmt.Sprint(err), basic) {
				t.Errorf("the password shows: %v", err)
			}
			if ClassOf(err) != ClassProxy || !strings.Contains(err.Error(), test.says) || len(err.Error()) > 800 {
				t.Errorf("class %q, %v; want %q", ClassOf(err), err, test.says)
			}
		})
	}
}

// TestProxyThatPromisesABody connects all the same: there is none.
func TestProxyThatPromisesABody(t *testing.T) {
	for _, head := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
		server, client := net.Pipe()
		go func() {
			_, _ = http.ReadRequest(bufio.NewReader(server))
			_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n")
		}()
		talk := &proxyTalk{tunnel: &tunnel{}, address: "192.0.2.1:443", conn: client, in: bufio.NewReader(client)}
		began := time.Now()
		if refused, err := talk.ask(t.Context(), "", nil); refused != nil || err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v, %v after %s", head, refused, err, time.Since(began))
		}
		server.Close()
		client.Close()
	}
}

// TestProxyThatHangs ends with the request.
func TestProxyThatHangs(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s, c := newServer(t, Config{Timeout: 200 * time.Millisecond}, func(http.ResponseWriter, *http.Request) { t.Error("a request got through") })
	settings := s.settings(t, s.leaf.cert)
	settings.Proxy = &config.Proxy{Host: "127.0.0.1", Port: uint16(listener.Addr().(*net.TCPAddr).Port)}
	c.Configure(settings)
	if _, err := c.PostStatus(t.Context(), Status{}); ClassOf(err) != ClassRoute && ClassOf(err) != ClassProxy {
		t.Errorf("error %v", err)
	}
}

// TestProxyThatKeepsNothing ends the connection with each refusal, as old ones
// do: credentials go over another one.
func TestProxyThatKeepsNothing(t *testing.T) {
	refusal := "HTTP/1.0 407 Who?\r\nProxy-Authenticate: Basic realm=x\r\n\r\nno"
	s, c := newServer(t, Config{}, func(http.ResponseWriter, *http.Request) {})
	settings := s.settings(t, s.leaf.cert)
	settings.Proxy = rawProxy(t, func(n int) []string { return [][]string{{refusal}, {"HTTP/1.0 502 Bad\r\n\r\n"}}[min(n, 1)] })
	c.Configure(settings)
	if _, err := c.PostStatus(t.Context(), Status{}); ClassOf(err) != ClassProxy || !strings.Contains(err.Error(), "502") {
		t.Errorf("error %v", err)
	}
}

// oldChallenge is one of the first release: a head of 32 bytes.
func oldChallenge() []byte {
	b := append([]byte("NTLMSSP\x00\x02\x00\x00\x00"), make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint32(b, 0x201) // Unicode, NTLM
	return append(b, "12345678"...)
}

func TestAnswerNTLM(t *testing.T) {
	withInfo := append(oldChallenge(), make([]byte, 16)...)
	binary.LittleEndian.PutUint16(withInfo[atTargetInfo:], 4)
	binary.LittleEndian.PutUint32(withInfo[atTargetInfo+4:], challengeHead)
	withInfo = append(withInfo, 0, 0, 0, 0)
	nowhere := append(oldChallenge(), 0, 0, 0, 0, 0, 0, 0x3a, 0, 'W', 'O', 'R', 'K', 'G', 'R', 'O', 'U', 'P')
	for name, challenge := range map[string][]byte{"old": oldChallenge(), "with target information": withInfo, "information that is nowhere": nowhere} {
		answer, err := answerNTLM(challenge, `OFFICE\sensor`, "secret")
		if err != nil || !strings.HasPrefix(string(answer), "NTLMSSP\x00\x03") || !strings.Contains(string(answer), "s\x00e\x00n\x00s\x00o\x00r\x00") {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(oldChallenge())
	f.Add(append(oldChallenge(), make([]byte, 40)...))
	f.Fuzz(func(_ *testing.T, challenge []byte) {
		_, _ = answerNTLM(challenge, `OFFICE\sensor`, "secret")
	})
}
