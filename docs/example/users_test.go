package main

import (
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyquorum/keyquorum/client/clienttest"
)

func TestAnUnknownUserGetsTheAnswerOfAWrongPassword(t *testing.T) {
	app := start(t, clienttest.New(t).Client(), io.Discard)
	b := newBrowser(t)
	unknown, wrong := b.logIn(app, "eve", "x"), b.logIn(app, "ada", "x")
	if unknown.status != wrong.status || strings.ReplaceAll(unknown.body, "eve", "ada") != wrong.body {
		t.Errorf("%d\n%s\nand\n%d\n%s", unknown.status, unknown.body, wrong.status, wrong.body)
	}
	if !strings.Contains(wrong.body, "The name or the password is wrong") {
		t.Errorf("it does not say so:\n%s", wrong.body)
	}
}

// The hash takes its 19 MiB, and so its time, for whoever it is.
func TestAnUnknownUserCostsTheSameWork(t *testing.T) {
	u := demoUsers()
	for _, name := range []string{"ada", "eve"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if ok, err := u.check(t.Context(), name, "x"); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took < 19<<20 {
			t.Errorf("%s: the check took %d bytes, which is no hash", name, took)
		}
	}
}

// As many passwords as come at once are not all checked at once.
func TestPasswordsWaitForTheirTurnWhoeverTheUserIs(t *testing.T) {
	u := demoUsers()
	synctest.Test(t, func(t *testing.T) {
		u := &users{u.hashes, u.nobody, make(chan struct{}, atATime)}
		for range atATime {
			u.turns <- struct{}{}
		}
		for _, name := range []string{"ada", "eve"} {
			began := time.Now()
			if ok, err := u.check(t.Context(), name, adasPassword); ok || err == nil || time.Since(began) != patience {
				t.Errorf("%s: %v, %v after %v", name, ok, err, time.Since(began))
			}
		}
		time.AfterFunc(patience/2, func() { <-u.turns })
		if ok, err := u.check(t.Context(), "ada", adasPassword); !ok || err != nil {
			t.Errorf("after a wait: %v, %v", ok, err)
		}
		if len(u.turns) != atATime-1 {
			t.Error("a check that is done keeps its turn")
		}
	})
}
