package services

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"honeysens.org/dockersensor/shared/helperapi"
)

// revision is the ssh service with another image and another port in it.
func revision(id, image string, to uint16) Wanted {
	w := ssh(id)
	w.Image, w.Ports = image, []helperapi.Assignment{tcp(22, to)}
	return w
}

// changing begins with a service of one revision and wants another one.
func changing(t *testing.T, w *world, newer Wanted) *Services {
	t.Helper()
	s, _ := begin(t, w, Config{})
	s.SetWanted([]Wanted{ssh("1")})
	after(time.Second)
	w.take()
	s.SetWanted([]Wanted{newer})
	return s
}

func TestMuteRevisionDoesNotReplaceOneThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mute["cowrie:2"] = true
		s := changing(t, w, revision("1", "cowrie:2", 2222))
		after(10 * time.Second)
		wantState(t, s, "1", Scheduled, "the old one runs until then")
		after(2 * answerPatience)
		wantState(t, s, "1", Failed, "the new revision is not used, the old one stays: it runs, but does not wait at its port 2222/tcp")
		if id := w.network[0].Sandbox.ContainerID; id != w.names["s1.net.old"] {
			t.Errorf("attackers are led to %s", id)
		}
		w.change(func() { w.mute = nil })
		after(lookAgain + drain + 2*time.Second)
		wantState(t, s, "1", Running, "")
		if len(w.containers) != 2 || len(w.network) != 1 || w.network[0].Sandbox.ContainerID != w.names["s1.net"] {
			t.Errorf("there are %v and %v", w.names, w.network)
		}
	})
}

func TestMuteRevisionReplacesAMuteOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mute["cowrie:1"], w.mute["cowrie:2"] = true, true
		s := changing(t, w, revision("1", "cowrie:2", 2222))
		after(2 * answerPatience)
		state := wantState(t, s, "1", Failed, "does not wait at its port 2222/tcp")
		if state.ContainerID != w.names["s1"] || len(w.containers) != 2 {
			t.Errorf("attackers are led to %s of %v", state.ContainerID, w.names)
		}
	})
}

func TestRevisionThatEndsIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mute["cowrie:2"] = true
		s := changing(t, w, revision("1", "cowrie:2", 2222))
		after(2 * time.Second)
		for range 4 {
			w.end("s1", 1)
			s.Wake()
			after(9 * time.Second)
		}
		w.end("s1", 1)
		s.Wake()
		synctest.Wait()
		wantState(t, s, "1", Failed, "it ended with code 1")
		if w.network[0].Sandbox.ContainerID != w.names["s1.net.old"] {
			t.Errorf("attackers are led to %v", w.network)
		}
	})
}

// TestPortsChangeWithTheRevision keeps the ports of a revision until the next
// one, which has others, answers.
func TestPortsChangeWithTheRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.slow["cowrie:2"] = make(chan struct{})
		s := changing(t, w, revision("1", "cowrie:2", 2223))
		after(time.Minute)
		wantDeeds(t, w, "apply [1 22/tcp:2222]")
		close(w.slow["cowrie:2"])
		after(drain + 2*time.Second)
		wantDeeds(t, w, "rename s1 to s1.old", "rename s1.net to s1.net.old", "create s1.net", "start s1.net",
			"apply [1 22/tcp:2222 1-other]", "create s1", "start s1", "apply [1 22/tcp:2223 1-other]",
			"remove s1.old", "remove s1.net.old", "apply [1 22/tcp:2223]", "drop image cowrie:1")
		wantState(t, s, "1", Running, "")
	})
}

func TestPortOfAnOldRevisionGoesToWhoGetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.slow["cowrie:2"] = make(chan struct{})
		s := changing(t, w, revision("1", "cowrie:2", 2222))
		defer close(w.slow["cowrie:2"])
		after(time.Second)
		newer := revision("1", "cowrie:2", 2222)
		newer.Ports = []helperapi.Assignment{tcp(23, 2222)}
		s.SetWanted([]Wanted{newer, revision("2", "cowrie:1", 2222)})
		after(5 * time.Second)
		wantState(t, s, "2", Running, "")
		if len(w.network[0].Ports) != 0 || len(w.network[1].Ports) != 1 {
			t.Errorf("network is %v", w.network)
		}
	})
}

func TestBothHoneypotsOfAServiceReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mute["cowrie:2"] = true
		s := changing(t, w, revision("1", "cowrie:2", 2222))
		after(10 * time.Second)
		for _, address := range []string{"10.10.10.10", "10.10.10.11"} {
			if id, ok := s.Identify(netip.MustParseAddr(address)); id != "1" || !ok {
				t.Errorf("%s belongs to %q", address, id)
			}
		}
	})
}

// TestFewServicesChangeTogether wants no more than changesTogether services with
// two honeypots at a time.
func TestFewServicesChangeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{})
		ids := []string{"1", "2", "3", "4", "5"}
		list := func(image string) (list []Wanted) {
			for _, id := range ids {
				list = append(list, Wanted{ID: id, Image: image})
			}
			return list
		}
		s.SetWanted(list("a:1"))
		after(2 * time.Second)
		s.SetWanted(list("a:2"))
		most := 0
		for range 60 {
			after(time.Second)
			w.change(func() { most = max(most, len(w.containers)) })
		}
		if want := 2 * (len(ids) + changesTogether); most > want {
			t.Errorf("there were %d containers at a time, want %d at most", most, want)
		}
		for _, id := range ids {
			if wantState(t, s, id, Running, ""); w.containers[w.names["s"+id]].Ref != "a:2" {
				t.Errorf("service %s has the old image", id)
			}
		}
	})
}

func TestHoneypotThatAcceptsNothingIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s, _ := begin(t, w, Config{Resync: time.Minute})
		s.SetWanted([]Wanted{ssh("1")})
		after(time.Second)
		peer := netip.MustParseAddrPort("192.0.2.1:1000")
		w.change(func() { w.unaccepted = map[waiting]bool{{2222, peer}: true} })
		after(time.Minute)
		wantState(t, s, "1", Running, "")
		after(2 * acceptPatience)
		wantState(t, s, "1", Failed, "accepts no connection at its port 2222/tcp")
		w.change(func() { w.unaccepted = nil })
		after(lookAgain)
		wantState(t, s, "1", Running, "")
	})
}

func TestHoneypotThatWaitsAtNoPortIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.mute["cowrie:1"] = true
		s, _ := begin(t, w, Config{})
		s.SetWanted([]Wanted{ssh("1")})
		after(2 * time.Second)
		wantState(t, s, "1", Scheduled, "does not wait at its port 2222/tcp")
		after(answerPatience)
		wantState(t, s, "1", Failed, "does not wait at its port 2222/tcp")
		w.change(func() { w.mute = nil })
		after(lookAgain)
		wantState(t, s, "1", Running, "")
	})
}
