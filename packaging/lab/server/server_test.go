package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"honeysens.org/dockersensor/packaging/lab/admin"
	"honeysens.org/dockersensor/packaging/services/archive"
)

// lab is a running server with its registry.
type lab struct {
	admin   *admin.Client
	sensors string
	data    string
}

func start(t *testing.T) *lab {
	t.Helper()
	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(images.Close)
	l := &lab{data: t.TempDir(), sensors: freePort(t)}
	socket := filepath.Join(t.TempDir(), "admin.sock")
	l.admin = admin.New("unix:" + socket)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- app().RunContext(ctx, []string{"server", "--data", l.data, "--name", "hs.lab", "--listen", l.sensors,
			"--admin", "unix:" + socket, "--registry", images.URL, "--log-level", "error"})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server ended with %v", err)
		}
	})
	ready, cancelReady := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelReady()
	if err := l.admin.Wait(ready); err != nil {
		t.Fatal(err)
	}
	return l
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// client trusts what the configuration archive of a sensor says.
func (l *lab) client(t *testing.T, sensor int) *http.Client {
	t.Helper()
	data, err := l.admin.Archive(t.Context(), sensor)
	if err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	in := tar.NewReader(zip)
	if m, err := in.Next(); err != nil || m.Name != "server-cert.pem" {
		t.Fatalf("first member %v, %v", m, err)
	}
	chain, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(chain) {
		t.Fatal("no certificate in the archive")
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "hs.lab"}, DisableKeepAlives: true}}
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestServiceUpload wants an uploaded image to be in the registry that sensors
// see, and its service to be assignable.
func TestServiceUpload(t *testing.T) {
	l := start(t)
	image, err := random.Image(1000, 2)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "service.tar.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	m := archive.Metadata{Name: "recon", Repository: "honeysens/recon", Architecture: "amd64", Revision: "1.0", CatchAll: true, PortAssignment: "{}"}
	if err := errors.Join(archive.Write(file, m, image), file.Close()); err != nil {
		t.Fatal(err)
	}
	service, err := l.admin.UploadService(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	sensor, err := l.admin.Register(t.Context(), admin.NewSensor{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.admin.Assign(t.Context(), sensor.ID, admin.Assignment{Service: service.ID}); err != nil {
		t.Fatal(err)
	}
	uri := strings.Replace(service.Revisions[0].URI, ":", "/manifests/", 1)
	if status, body := get(t, l.client(t, sensor.ID), "https://"+l.sensors+"/v2/"+uri); status != http.StatusOK || !strings.Contains(body, "layers") {
		t.Errorf("%d %s", status, body)
	}
	if sensor, err = l.admin.Sensor(t.Context(), sensor.ID); err != nil || len(sensor.Services) != 1 {
		t.Errorf("%+v, %v", sensor, err)
	}
	if err := l.admin.Unassign(t.Context(), sensor.ID, service.ID); err != nil {
		t.Error(err)
	}
}

func firmware(t *testing.T, members map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "firmware.tar.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	zip := gzip.NewWriter(file)
	out := tar.NewWriter(zip)
	for name, text := range members {
		if err := out.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(out, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(out.Close(), zip.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFirmwareUpload(t *testing.T) {
	l := start(t)
	metadata := func(platform, version string) string {
		return fmt.Sprintf("<firmware><name>n</name><platform>%s</platform><version>%s</version></firmware>", platform, version)
	}
	for _, members := range []map[string]string{
		{"metadata.xml": metadata("docker_x86", "1")},
		{"./metadata.xml": metadata("docker_x86", "1"), "./firmware.img": "x"},
		{"metadata.xml": metadata("toaster", "1"), "firmware.img": "x"},
		{"metadata.xml": metadata("docker_x86", strings.Repeat("x", 256)), "firmware.img": "x"},
	} {
		_, err := l.admin.UploadFirmware(t.Context(), firmware(t, members))
		var refused *admin.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Errorf("%v: %v", members, err)
		}
	}
	got, err := l.admin.UploadFirmware(t.Context(), firmware(t, map[string]string{"metadata.xml": metadata("docker_x86", "2.0"), "firmware.img": "x"}))
	if err != nil || got.Revision != "2.0" || got.ID != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	sensor, err := l.admin.Register(t.Context(), admin.NewSensor{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.admin.WantFirmware(t.Context(), sensor.ID, got.ID); err != nil {
		t.Error(err)
	}
	if err := l.admin.WantFirmware(t.Context(), sensor.ID, 99); err == nil {
		t.Error("firmware that does not exist was assigned")
	}
}

// TestCertificateChange wants the old certificate to be served until the new one
// has been announced for a while.
func TestCertificateChange(t *testing.T) {
	l := start(t)
	sensor, err := l.admin.Register(t.Context(), admin.NewSensor{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	old := l.client(t, sensor.ID)
	cert, err := l.admin.RenewCertificate(t.Context(), true)
	if err != nil || cert.Serving == cert.Announced {
		t.Fatalf("%+v, %v", cert, err)
	}
	get(t, old, "https://"+l.sensors+"/")
	fresh := l.client(t, sensor.ID)
	if cert, err = l.admin.ServeCertificate(t.Context()); err != nil || cert.Serving != cert.Announced {
		t.Fatalf("%+v, %v", cert, err)
	}
	get(t, fresh, "https://"+l.sensors+"/")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.sensors+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := old.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("who trusts the old authority only still gets through")
	}
}

func TestPageHoldsNothingForeign(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("internal", "adminapi", "page.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []string{"http://", "https://", "innerHTML", " src="} {
		if strings.Contains(string(text), banned) {
			t.Errorf("the page holds %s", banned)
		}
	}
}

func TestNothingThere(t *testing.T) {
	l := start(t)
	_, err := l.admin.Sensor(t.Context(), 7)
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		t.Errorf("error %v", err)
	}
	if err := l.admin.AddFault(t.Context(), admin.Fault{Path: "moon", Kind: "503"}); err == nil {
		t.Error("an unknown fault was taken")
	}
}
