package hsapi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/shared/helperapi"
)

func TestDecodeRefuses(t *testing.T) {
	many := make([]string, helperapi.MaxServices+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"%d":{}`, i)
	}
	tests := []struct{ name, body, want string }{
		{"nothing", ``, "not JSON"},
		{"list", `[]`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"number", `1`, "not a JSON object"},
		{"two values", `{"services":{}}{}`, "data after"},
		{"cut", `{"services":{}`, "not JSON"},
		{"not UTF-8", "{\"services\":{},\"x\":\"\xff\"}", "not UTF-8"},
		{"key twice", `{"services":{},"services":{"1":{}}}`, `key "services" appears twice`},
		{"key twice, deep", `{"services":{"1":{"amd64":{"uri":"a:b","uri":"c:d"}}}}`, "twice"},
		{"deep", `{"services":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "nested"},
		{"services missing", `{"Services":{}}`, "no services"},
		{"services null", `{"services":null}`, "want an object"},
		{"services list", `{"services":[1]}`, "want an object"},
		{"services text", `{"services":"{}"}`, "want an object"},
		{"too many services", `{"services":{` + strings.Join(many, ",") + `}}`, "at most 250"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := decodeWanted([]byte(test.body), "amd64"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestDecodeLeavesOutWhatIsWrong(t *testing.T) {
	w, err := decodeWanted([]byte(`{"services":[],"firmware":{"docker_x86":{"revision":"1","uri":"https://x/y"}},"update_interval":"soon",
		"proxy_password":{"hush":1},"network_ip_mode":0,"proxy_host":null,"server_crt":[1],"eapol_ca_cert":null,"unhandledEvents":"maybe"}`), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"firmware: address", "update_interval:", "proxy_password:", "server_crt:", "unhandledEvents:"} {
		if !strings.Contains(strings.Join(w.Problems, "\n"), want) {
			t.Errorf("problems %q do not name %q", w.Problems, want)
		}
	}
	if strings.Contains(strings.Join(w.Problems, ""), "hush") {
		t.Errorf("a password shows: %q", w.Problems)
	}
	if w.Interval != 0 || w.Firmware != nil || len(w.Services) != 0 || w.Changes.ServerChain.Present || len(w.Problems) != 5 {
		t.Errorf("wanted %+v", w)
	}
	if ca := w.Changes.EAPOLCA; !ca.Present || ca.PEM != nil {
		t.Errorf("a certificate that shall go: %+v", ca)
	}
	for _, v := range w.Changes.Values {
		if v.Key == "mode" && (v.Text == nil || *v.Text != "0") || v.Key == "host" && v.Text != nil {
			t.Errorf("value %+v", v)
		}
	}
}

func TestLooseTypes(t *testing.T) {
	for _, body := range []string{
		`{"services":{},"firmware":[],"update_interval":7,"server_endpoint_port_https":8443}`,
		`{"services":[],"firmware":{},"update_interval":"7","server_endpoint_port_https":"8443"}`,
	} {
		w, err := decodeWanted([]byte(body), "amd64")
		if err != nil || w.Interval.Minutes() != 7 || len(w.Problems) > 0 {
			t.Fatalf("%s: %+v, %v", body, w, err)
		}
		if v := w.Changes.Values[0]; v.Key != "port_https" || *v.Text != "8443" {
			t.Errorf("value %+v", v)
		}
	}
}

func service(fields string) string {
	return `{"amd64":{"label":"x","uri":"a/b:c","rawNetworkAccess":false,"catchAll":false,"portAssignment":"{}"` + fields + `}}`
}

func TestServicesThatCannotRun(t *testing.T) {
	tests := []struct{ name, service, want string }{
		{"fine", service(``), ""},
		{"none", `{}`, "no revision"},
		{"none, as a list", `[]`, "no revision"},
		{"other", `{"arm64":{},"armhf":{}}`, `for "arm64, armhf" only`},
		{"null", `null`, "want an object"},
		{"revision null", `{"amd64":null}`, "want an object"},
		{"revision empty", `{"amd64":{}}`, "want an image"},
		{"climbing image", `{"amd64":{"uri":"a/../b:c"}}`, "want an image"},
		{"image elsewhere", `{"amd64":{"uri":"evil.test:443/a:c"}}`, "want an image"},
		{"image without tag", `{"amd64":{"uri":"a/b"}}`, "want an image"},
		{"image by digest", `{"amd64":{"uri":"a@sha256:0"}}`, "want an image"},
		{"image with blanks", `{"amd64":{"uri":"a:b c"}}`, "want an image"},
		{"odd flag", `{"amd64":{"uri":"a:b","catchAll":"perhaps"}}`, "catchAll"},
		{"ports no JSON", `{"amd64":{"uri":"a:b","portAssignment":"{22: 2222}"}}`, "not JSON"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, err := decodeWanted([]byte(`{"services":{"7":`+test.service+`,"8":`+service("")+`}}`), "amd64")
			if err != nil {
				t.Fatal(err)
			}
			got := w.Services["7"].Problem
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("problem %q, want %q", got, test.want)
			}
			if w.Services["7"].ID != "7" || w.Services["8"].Problem != "" {
				t.Errorf("services %+v", w.Services)
			}
		})
	}
}

func TestServiceIDsAndLabels(t *testing.T) {
	w, err := decodeWanted([]byte(`{"services":{"../x":{},"":{},"1":{"amd64":{"uri":"a:b","label":"x\u001b[31m\u0000y"}}}}`), "amd64")
	if err != nil || len(w.Services) != 1 || len(w.Problems) != 2 {
		t.Fatalf("%+v, %v", w, err)
	}
	if got := w.Services["1"].Label; got != "x?[31m?y" {
		t.Errorf("label %q", got)
	}
}

func TestConflictsAreSettledAlike(t *testing.T) {
	port := func(assignment string) string {
		return `{"amd64":{"uri":"a:b","portAssignment":` + assignment + `}}`
	}
	catchAll := `{"amd64":{"uri":"a:b","catchAll":true}}`
	raw := `{"amd64":{"uri":"a:b","catchAll":true,"rawNetworkAccess":true,"portAssignment":"{\"22/tcp\":22}"}}`
	body := `{"services":{"10":` + port(`"{\"1/tcp\":22}"`) + `,"9":` + port(`"{\"2/tcp\":22}"`) + `,"11":` + port(`"{\"1/udp\":22}"`) +
		`,"3":` + catchAll + `,"2":` + catchAll + `,"1":` + raw + `}}`
	for range 20 {
		w, err := decodeWanted([]byte(body), "amd64")
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]string{"1": "", "2": "", "9": "", "11": "", "10": "port 22/tcp is assigned to service 9 already", "3": "service 2 is the catch-all already"} {
			if got := w.Services[id].Problem; (got == "") != (want == "") || !strings.HasPrefix(got, want) {
				t.Errorf("service %s: %q, want %q", id, got, want)
			}
		}
	}
}

func TestPorts(t *testing.T) {
	tcp := func(outer, inner uint16) helperapi.Assignment {
		return helperapi.Assignment{Port: helperapi.Port{Protocol: helperapi.TCP, Number: outer}, To: inner}
	}
	udp := helperapi.Assignment{Port: helperapi.Port{Protocol: helperapi.UDP, Number: 161}, To: 1161}
	tests := []struct {
		text string
		want []helperapi.Assignment
		err  string
	}{
		{`{"2222/tcp":22}`, []helperapi.Assignment{tcp(22, 2222)}, ""},
		{`{"1161/udp":161, "2222/TCP":"22"}`, []helperapi.Assignment{tcp(22, 2222), udp}, ""},
		{`{"80":[80,8080]}`, []helperapi.Assignment{tcp(80, 80), tcp(8080, 80)}, ""},
		{`{}`, nil, ""},
		{`[]`, nil, ""},
		{``, nil, ""},
		{` `, nil, ""},
		{`null`, nil, "not a JSON object"},
		{`22`, nil, "not a JSON object"},
		{`hello`, nil, "not JSON"},
		{`{"0/tcp":22}`, nil, "not a port"},
		{`{"22/sctp":22}`, nil, "neither tcp nor udp"},
		{`{"22/tcp":0}`, nil, "not a port"},
		{`{"22/tcp":65536}`, nil, "not a port"},
		{`{"22/tcp":-1}`, nil, "not a port"},
		{`{"22/tcp":2.5}`, nil, "not a port"},
		{`{"22/tcp":null}`, nil, "not a port"},
		{`{"22/tcp":true}`, nil, "not a port"},
		{`{"22/tcp":{"x":1}}`, nil, "not a port"},
		{`{"22/tcp":["127.0.0.1",22]}`, nil, "not a port"},
		{`{"1/tcp":22,"2/tcp":22}`, nil, "leads to two ports"},
		{`{"22/tcp":22,"22/tcp":23}`, nil, "twice"},
		{`{"22/tcp":` + strings.Repeat("[", 1000) + `}`, nil, "nested"},
		{strings.Repeat(" ", maxAssignment) + `{}`, nil, "more than"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.30s", test.text), func(t *testing.T) {
			quoted, err := json.Marshal(test.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodePorts(quoted)
			if (err == nil) != (test.err == "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, data := range []string{`null`, `{}`, `[]`, `""`} {
		if got, err := decodePorts(json.RawMessage(data)); err != nil || got != nil {
			t.Errorf("%s: %v, %v", data, got, err)
		}
	}
}

func TestStatusFitsTheServersColumns(t *testing.T) {
	services := map[string]ServiceState{"1000": ServiceError, "1001": ServiceScheduled}
	for i := range 100 {
		services[fmt.Sprint(i)] = ServiceRunning
	}
	s := Status{IP: netip.MustParseAddr("fe80::1%eth0"), FreeMemory: math.MaxInt, DiskUsage: -1,
		Version: "1.0 \U0001f36f" + strings.Repeat("ü", 300), Services: services}
	body, err := s.encode(5)
	if err != nil {
		t.Fatal(err)
	}
	var outer map[string]*string
	if err := json.Unmarshal(body, &outer); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"srv_crt_fp", "eapol_ca_crt_fp", "eapol_client_crt_fp"} {
		if fp, ok := outer[key]; !ok || fp != nil {
			t.Errorf("%s is %v", key, fp)
		}
	}
	text, err := base64.StdEncoding.DecodeString(*outer["status"])
	if err != nil {
		t.Fatal(err)
	}
	var inner struct {
		IP       string
		FreeMem  int64                      `json:"free_mem"`
		Disk     int64                      `json:"disk_usage"`
		Version  string                     `json:"sw_version"`
		Services map[string]json.RawMessage `json:"service_status"`
	}
	unmarshal(t, text, &inner)
	spaced := "{"
	for id, state := range inner.Services {
		spaced += fmt.Sprintf(`"%s": %s, `, id, state)
	}
	if len(spaced)-1 > 255 || len(inner.Services) < 22 || string(inner.Services["1000"]) != "2" || string(inner.Services["1001"]) != "1" {
		t.Errorf("%d characters, services %s", len(spaced)-1, inner.Services)
	}
	if inner.IP != "fe80::1" || inner.FreeMem != math.MaxInt32 || inner.Disk != 0 {
		t.Errorf("status %+v", inner)
	}
	if runes := []rune(inner.Version); len(runes) != 255 || string(runes[:6]) != "1.0 ?ü" {
		t.Errorf("version %q", inner.Version)
	}
	empty, err := (&Status{}).encode(5)
	if err != nil {
		t.Fatal(err)
	}
	unmarshal(t, empty, &outer)
	if text, _ = base64.StdEncoding.DecodeString(*outer["status"]); !strings.Contains(string(text), `"service_status":{}`) || !strings.Contains(string(text), `"ip":"0.0.0.0"`) {
		t.Errorf("empty status %s", text)
	}
}

func FuzzDecodeWanted(f *testing.F) {
	for name, e := range recorded(f) {
		if strings.HasPrefix(name, "poll") {
			f.Add(e.responseBody)
		}
	}
	f.Add([]byte(`{"services":{"1":` + service(`,"x":[[{}]]`) + `},"firmware":{"docker_x86":{}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := decodeWanted(body, "amd64")
		if err != nil {
			return
		}
		ports := map[helperapi.Port]bool{}
		for id, s := range w.Services {
			if s.ID != id || (s.Problem == "" && !imageName.MatchString(s.Image)) {
				t.Fatalf("service %q: %+v", id, s)
			}
			if s.Problem != "" || s.Raw {
				continue
			}
			for _, a := range s.Ports {
				if ports[a.Port] || a.Port.Number == 0 || a.To == 0 {
					t.Fatalf("port %+v of service %s", a, id)
				}
				ports[a.Port] = true
			}
		}
	})
}
