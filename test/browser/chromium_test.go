package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// patience is how long the browser, or a page, has for anything; far longer than it takes.
const patience = time.Minute

// chromium is a headless one, spoken to by its DevTools protocol over a pair of pipes (--remote-debugging-pipe): JSON
// messages, each ended by a zero byte. It ends when the pipes do, so none outlives a test, however that ends.
type chromium struct {
	t  *testing.T
	in io.Writer

	mu      sync.Mutex
	last    int
	waiting map[int]chan reply
	// complaints are what the browser has said about security, such as what a page's policy forbids it.
	complaints []string
}

// reply is a message from the browser: the answer to the call of that id, or else an event.
type reply struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

func launch(t *testing.T, program string) *chromium {
	t.Helper()
	profile, err := os.MkdirTemp("", "chromium") //nolint:usetesting // TempDir fails the test if a helper process still writes
	must(t, err)
	toBrowser, in, err := os.Pipe()
	must(t, err)
	out, fromBrowser, err := os.Pipe()
	must(t, err)
	args := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + profile, "--no-first-run", "--disable-gpu",
		"--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--no-proxy-server", "--window-size=900,640",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // for root there is none
	}
	ctx, end := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, append(args, "about:blank")...)
	cmd.Cancel, cmd.WaitDelay = in.Close, patience
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser} // 3 and 4, where it expects them
	var said bytes.Buffer
	cmd.Stderr = &said
	must(t, cmd.Start())
	must(t, errors.Join(toBrowser.Close(), fromBrowser.Close()))
	c := &chromium{t: t, in: in, waiting: make(map[int]chan reply)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.read(out)
	}()
	t.Cleanup(func() {
		end()
		_ = cmd.Wait()
		<-read
		_ = out.Close()
		_ = os.RemoveAll(profile)
		if t.Failed() {
			t.Logf("%s said:\n%s", program, said.String())
		}
	})
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read hands each reply to who waits for it, until the browser is gone; who still waits then finds the channel closed.
func (c *chromium) read(out io.Reader) {
	for r := bufio.NewReader(out); ; {
		message, err := r.ReadBytes(0)
		if err != nil {
			break
		}
		var got reply
		if json.Unmarshal(bytes.TrimSuffix(message, []byte{0}), &got) == nil {
			c.take(got)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, waiting := range c.waiting {
		close(waiting)
	}
	c.waiting = nil
}

func (c *chromium) take(got reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if waiting, ok := c.waiting[got.ID]; ok {
		delete(c.waiting, got.ID)
		waiting <- got
		return
	}
	var event struct {
		Entry struct{ Source, Text string }
	}
	if got.Method == "Log.entryAdded" && json.Unmarshal(got.Params, &event) == nil && event.Entry.Source == "security" {
		c.complaints = append(c.complaints, event.Entry.Text)
	}
}

// mustBeContent checks that no page has tried what it may not.
func (c *chromium) mustBeContent(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.complaints) > 0 {
		t.Errorf("the browser complains: %q", c.complaints)
	}
}

type params map[string]any

// call has the browser, or one tab of it, do something, and reads what it answers.
func (c *chromium) call(session, method string, p params, into any) error {
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return fmt.Errorf("%s: the browser is gone", method)
	}
	c.last++
	message := params{"id": c.last, "method": method, "params": p}
	if session != "" {
		message["sessionId"] = session
	}
	answered := make(chan reply, 1)
	c.waiting[c.last] = answered
	text, err := json.Marshal(message)
	if err == nil {
		_, err = c.in.Write(append(text, 0))
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case got, ok := <-answered:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser is gone", method)
		case got.Error != nil:
			return fmt.Errorf("%s: %s", method, got.Error.Message)
		case into == nil:
			return nil
		}
		return json.Unmarshal(got.Result, into)
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer within %v", method, patience)
	}
}

func (c *chromium) must(session, method string, p params, into any) {
	c.t.Helper()
	must(c.t, c.call(session, method, p, into))
}

// profile makes a set of cookies of its own, as another person's browser has.
func (c *chromium) profile() string {
	c.t.Helper()
	var made struct{ BrowserContextID string }
	c.must("", "Target.createBrowserContext", params{}, &made)
	return made.BrowserContextID
}

// tab is one page of the browser.
type tab struct {
	*chromium
	session string
}

func (c *chromium) open(profile string) *tab {
	c.t.Helper()
	var target struct{ TargetID string }
	c.must("", "Target.createTarget", params{"url": "about:blank", "browserContextId": profile}, &target)
	var attached struct{ SessionID string }
	c.must("", "Target.attachToTarget", params{"targetId": target.TargetID, "flatten": true}, &attached)
	tab := &tab{c, attached.SessionID}
	for _, domain := range []string{"Page", "Log"} {
		c.must(tab.session, domain+".enable", params{}, nil)
	}
	return tab
}

// visit goes to an address.
func (b *tab) visit(address string) {
	b.t.Helper()
	var got struct{ ErrorText string }
	b.must(b.session, "Page.navigate", params{"url": address}, &got)
	if got.ErrorText != "" {
		b.t.Fatalf("%s: %s", address, got.ErrorText)
	}
}

// eval gives the value of an expression in the page. It fails while the page is being replaced.
func (b *tab) eval(expression string, into any) error {
	var got struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	err := b.call(b.session, "Runtime.evaluate", params{"expression": expression, "returnByValue": true}, &got)
	switch {
	case err != nil:
		return err
	case got.ExceptionDetails != nil:
		return fmt.Errorf("%s: %s", expression, got.ExceptionDetails.Text)
	}
	return json.Unmarshal(got.Result.Value, into)
}

// await waits until an expression is true in a page that has loaded.
func (b *tab) await(what, expression string) {
	b.t.Helper()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; <-poll.C {
		var ok bool
		err := b.eval("document.readyState === 'complete' && !!("+expression+")", &ok)
		if err == nil && ok {
			return
		}
		if time.Now().After(deadline) {
			var page string
			_ = b.eval("location.href + '\\n' + document.body.innerText", &page)
			b.t.Fatalf("waited %v in vain for %s (%v). The page is\n%s", patience, what, err, page)
		}
	}
}

// sees waits for a text in the page.
func (b *tab) sees(text string) {
	b.t.Helper()
	b.await(strconv.Quote(text), "document.body.innerText.includes("+strconv.Quote(text)+")")
}

// write puts text into a field, as the keyboard does.
func (b *tab) write(selector, text string) {
	b.t.Helper()
	b.click(selector)
	b.must(b.session, "Input.insertText", params{"text": text}, nil)
}

// click presses the mouse at the middle of an element.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.await(selector, "document.querySelector("+strconv.Quote(selector)+")")
	var at struct{ X, Y float64 }
	must(b.t, b.eval("(r => ({X: r.x + r.width / 2, Y: r.y + r.height / 2}))(document.querySelector("+
		strconv.Quote(selector)+").getBoundingClientRect())", &at))
	for _, event := range []string{"mousePressed", "mouseReleased"} {
		b.must(b.session, "Input.dispatchMouseEvent",
			params{"type": event, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// picture keeps what the page looks like; `go test -artifacts` says where.
func (b *tab) picture(name string) {
	b.t.Helper()
	var shot struct{ Data string }
	b.must(b.session, "Page.captureScreenshot", params{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	must(b.t, err)
	must(b.t, os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), png, 0o600))
}
