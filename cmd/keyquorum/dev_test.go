package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// startDev runs dev until the test ends, and gives its greeting up to the curl line.
func startDev(t *testing.T) (url, curl string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	read, write := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"dev", "--listen", "127.0.0.1:0"}, nil, write, io.Discard, noEnv)
		_ = write.Close()
	}()
	lines := bufio.NewScanner(read)
	for curl == "" && lines.Scan() {
		if url == "" {
			url = lines.Text()
		}
		if text := strings.TrimSpace(lines.Text()); strings.HasPrefix(text, "curl ") {
			curl = text
		}
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	t.Cleanup(func() {
		cancel()
		if got := <-code; got != 0 {
			t.Errorf("dev ended with exit %d", got)
		}
	})
	return url, curl
}

func TestWhatDevPrintsWorksWhenPasted(t *testing.T) {
	url, curl := startDev(t)
	parts := regexp.MustCompile(`^curl -s (\S+) -H '([^:]+): ([^']+)' -d '([^']+)'$`).FindStringSubmatch(curl)
	if len(parts) != 5 || !strings.HasPrefix(parts[1], url+"/") {
		t.Fatalf("the first line is %q, and the line to try %q", url, curl)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, parts[1], strings.NewReader(parts[4]))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(parts[2], parts[3])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var issued struct{ Token, KeyID string }
	if err := json.NewDecoder(res.Body).Decode(&issued); err != nil || res.StatusCode != http.StatusOK || issued.Token == "" {
		t.Fatalf("%s: %v, %+v", res.Status, err, issued)
	}

	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"verify", "-", "--addr", url}, strings.NewReader(issued.Token), &out, &errs, noEnv); code != 0 {
		t.Errorf("verify: exit %d\n%s%s", code, out.String(), errs.String())
	}
	if code := run(t.Context(), []string{"revoke", "ada", "--addr", url}, nil, &out, &errs, noEnv); code != 0 {
		t.Errorf("revoke: exit %d\n%s%s", code, out.String(), errs.String())
	}
	out.Reset()
	if code := run(t.Context(), []string{"verify", "-", "--addr", url}, strings.NewReader(issued.Token), &out, &errs, noEnv); code != 1 || !strings.Contains(out.String(), "KEY_NOT_FOUND") {
		t.Errorf("verify after revoke: exit %d\n%s", code, out.String())
	}
}

func TestDevListensOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":7400", "192.0.2.1:7400", "[::]:0", "example.com:7400", "7400"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"dev", "--listen", address}, nil, &out, &errs, noEnv); code != 2 {
			t.Errorf("dev --listen %s: exit %d, want 2\n%s", address, code, errs.String())
		}
		if !strings.Contains(errs.String(), "--listen") {
			t.Errorf("dev --listen %s does not name the flag: %s", address, errs.String())
		}
	}
}

// A script takes the first line of a pipe and goes, as head does: a second write would find nobody.
func TestDevGreetsInOneWrite(t *testing.T) {
	var writes writeCounter
	greet(newPrinter(&writes, noEnv), "http://127.0.0.1:7400")
	if writes != 1 {
		t.Errorf("%d writes", writes)
	}
}

type writeCounter int

func (c *writeCounter) Write(b []byte) (int, error) {
	*c++
	return len(b), nil
}
