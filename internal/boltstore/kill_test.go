package boltstore

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestMain also plays the process that TestKilledProcessLosesNothing kills.
func TestMain(m *testing.M) {
	if path := os.Getenv("BOLTSTORE_TEST_WRITE"); path != "" {
		fmt.Println(writeForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver appends, compacts and saves a term, and prints each index once it is stored.
func writeForEver(path string) error {
	s, err := Open(path, Options{})
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	for i := last + 1; err == nil; i += 3 {
		if err = s.StoreLogs(entries(i, i+2, 1)); err == nil {
			err = s.SetUint64([]byte("CurrentTerm"), i+2)
		}
		if err == nil && i > 100 && i%7 == 0 {
			err = s.DeleteRange(1, i-50)
		}
		if err == nil {
			fmt.Println(i + 2)
		}
	}
	return err
}

func TestKilledProcessLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	for life := range 8 {
		acknowledged := writeAndKill(t, path, 40+life)
		s := open(t, path, Options{MustExist: true})
		last, err := s.LastIndex()
		must(t, err)
		term, err := s.GetUint64([]byte("CurrentTerm"))
		must(t, err)
		if last < acknowledged || term < acknowledged {
			t.Fatalf("%d was acknowledged; the log ends at %d, the term is %d", acknowledged, last, term)
		}
		first, err := s.FirstIndex()
		must(t, err)
		if n := countLogs(t, s, last+1); uint64(n) != last-first+1 {
			t.Errorf("%d entries from %d to %d", n, first, last)
		}
		must(t, s.Close())
	}
}

// writeAndKill lets another process write, kills it after so many acknowledgements, and gives the last one.
func writeAndKill(t *testing.T, path string, after int) uint64 {
	t.Helper()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "BOLTSTORE_TEST_WRITE="+path)
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	lines := bufio.NewReader(out)
	var acknowledged uint64
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		must(t, err)
		if acknowledged, err = strconv.ParseUint(strings.TrimSpace(line), 10, 64); err != nil {
			t.Fatalf("the other process: %s", line)
		}
		if n == after {
			must(t, other.Process.Kill())
		}
	}
	_ = other.Wait()
	return acknowledged
}
