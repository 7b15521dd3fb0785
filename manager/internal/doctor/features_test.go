package doctor

import (
	"testing"

	"golang.org/x/sys/unix"

	"honeysens.org/dockersensor/manager/internal/config"
)

func TestFeatures(t *testing.T) {
	const check = "kernel features"
	tests := []struct {
		name  string
		found features
		wants []want
	}{
		{"all", features{landlock: 7}, []want{{check, OK, "version 7"}}},
		{"no netfilter", features{netfilter: unix.EPROTONOSUPPORT, landlock: 7}, []want{{check, Problem, "CONFIG_NF_TABLES"}}},
		{"no Landlock", features{}, []want{{check, Note, "no Landlock"}}},
		{"old Landlock", features{landlock: 2}, []want{{check, Note, "from Linux 6.7"}}},
		{"nothing", features{netfilter: unix.EPROTONOSUPPORT}, []want{{check, Problem, ""}, {check, Note, ""}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := alone(Config{})
			d.judgeFeatures(test.found)
			expect(t, d.findings, test.wants...)
		})
	}
	if found := kernelFeatures(); found.netfilter != nil {
		t.Errorf("this kernel: %+v", found)
	}
}

func TestNames(t *testing.T) {
	root := write(t, map[string]string{"etc/resolv.conf": "# x\nnameserver 192.0.2.53\nsearch example\nnameserver 2001:db8::53\n"})
	tests := []struct {
		name     string
		settings config.Settings
		want     want
	}{
		{"address", config.Settings{Server: config.Server{Host: "192.0.2.1"}}, want{"DNS", OK, "not needed"}},
		{"name", config.Settings{Server: config.Server{Host: "localhost"}}, want{"DNS", OK, "localhost is "}},
		{"unknown name", config.Settings{Server: config.Server{Host: "nowhere.invalid"}}, want{"DNS", Problem, "192.0.2.53, 2001:db8::53"}},
		{"name behind a proxy", config.Settings{Server: config.Server{Host: "nowhere.invalid"}, Proxy: &config.Proxy{Host: "192.0.2.2"}}, want{"DNS", OK, "not needed"}},
		{"name of the proxy", config.Settings{Server: config.Server{Host: "192.0.2.1"}, Proxy: &config.Proxy{Host: "nowhere.invalid"}}, want{"DNS", Problem, "nowhere.invalid"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := alone(Config{Root: root})
			d.settings = &test.settings
			d.examineNames(t.Context())
			expect(t, d.findings, test.want)
		})
	}
}
