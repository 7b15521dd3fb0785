package iface

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"honeysens.org/dockersensor/nethelper/internal/hosttest"
	"honeysens.org/dockersensor/shared/helperapi"
)

func authenticated(seen helperapi.InterfaceObserved) bool {
	return strings.Contains(seen.Note, "802.1X at eth0: authenticated")
}

func TestNetns8021X(t *testing.T) {
	ca, other := hosttest.NewAuthority(t), hosttest.NewAuthority(t)
	clientCert, clientKey := ca.Issue("client")
	strangerCert, strangerKey := other.Issue("client")
	cases := map[string]struct {
		wish helperapi.EAPOL
		ok   func(helperapi.InterfaceObserved) bool
	}{
		"md5":                 {helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "secret"}, authenticated},
		"md5 wrong password":  {helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "wrong"}, hasProblem("refused; check identity")},
		"tls":                 {helperapi.EAPOL{Method: helperapi.EAPOLTLS, Identity: "client", CA: ca.PEM, ClientCert: clientCert, ClientKey: clientKey}, authenticated},
		"tls of another CA":   {helperapi.EAPOL{Method: helperapi.EAPOLTLS, Identity: "client", CA: ca.PEM, ClientCert: strangerCert, ClientKey: strangerKey}, hasProblem("refused; check identity")},
		"peap":                {helperapi.EAPOL{Method: helperapi.EAPOLPEAP, Identity: "peap", AnonymousIdentity: "outer-peap", Password: "secret", CA: ca.PEM}, authenticated},
		"peap wrong password": {helperapi.EAPOL{Method: helperapi.EAPOLPEAP, Identity: "peap", Password: "wrong", CA: ca.PEM}, hasProblem("refused; check identity")},
		"peap wrong server":   {helperapi.EAPOL{Method: helperapi.EAPOLPEAP, Identity: "peap", Password: "secret", CA: other.PEM}, hasProblem("is not of the CA that is set")},
		"ttls":                {helperapi.EAPOL{Method: helperapi.EAPOLTTLS, Identity: "ttls", AnonymousIdentity: "outer-ttls", Password: "secret", CA: ca.PEM}, authenticated},
		"hostile values":      {helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: hosttest.HostileUser, Password: hosttest.HostilePassword}, authenticated},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host, router := lan(t, "hostapd", "wpa_supplicant")
			host.Run("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
			before := hosttest.Snapshot(host)
			hosttest.Authenticator(t, router, ca)
			k := startKeeper(t, host, testConfig(t))
			k.want(helperapi.Interface{Mode: helperapi.ModeNone, EAPOL: &c.wish})
			k.until("its end", c.ok)
			checkFiles(t, filepath.Join(k.cfg.Dir, "802.1x"))
			k.remove()
			if _, err := os.Stat(filepath.Join(k.cfg.Dir, "802.1x")); !os.IsNotExist(err) {
				t.Errorf("files stay: %v", err)
			}
			if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(hosttest.Snapshot(host), "\n")); diff != "" {
				t.Errorf("the host differs:\n%s", diff)
			}
		})
	}
}

func checkFiles(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Errorf("files of the supplicant: %v, %v", entries, err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", entry.Name(), info.Mode(), err)
		}
	}
}

func TestNetns8021XWithoutAnAuthenticator(t *testing.T) {
	host, _ := lan(t, "wpa_supplicant")
	k := startKeeper(t, host, testConfig(t))
	k.want(helperapi.Interface{Mode: helperapi.ModeNone, EAPOL: &helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "secret"}})
	k.until("a problem", hasProblem("802.1X at eth0: not authenticated yet"))
}

func TestNetns8021XWithoutTheProgram(t *testing.T) {
	host, _ := lan(t)
	cfg := testConfig(t)
	cfg.Supplicant = "no-such-supplicant"
	k := startKeeper(t, host, cfg)
	k.want(helperapi.Interface{Mode: helperapi.ModeNone, EAPOL: &helperapi.EAPOL{Method: helperapi.EAPOLMD5, Identity: "md5", Password: "secret"}})
	k.until("a problem", hasProblem("wpa_supplicant does not run"))
}

func TestSupplicantConfig(t *testing.T) {
	got, err := supplicantConfig("/run/nethelper/802.1x", &helperapi.EAPOL{
		Method: helperapi.EAPOLTTLS, Identity: hosttest.HostileUser, AnonymousIdentity: "a\nb", Password: hosttest.HostilePassword,
		CA: "x", ClientCert: "x", ClientKey: "x", ClientKeyPassword: "hash:1",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `ap_scan=0
network={
key_mgmt=IEEE8021X
eapol_flags=0
eap=TTLS
phase2="auth=MSCHAPV2"
identity=75732065727d235c7832323d7b
anonymous_identity=610a62
password=7022206e6574776f726b3d7b205c78323220c3a4
private_key_passwd=686173683a31
ca_cert="/run/nethelper/802.1x/ca.pem"
client_cert="/run/nethelper/802.1x/client.pem"
private_key="/run/nethelper/802.1x/client.key"
}
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := supplicantConfig(`/run/"`, &helperapi.EAPOL{Method: helperapi.EAPOLMD5}); err == nil {
		t.Error("a quote in the directory passes")
	}
}
