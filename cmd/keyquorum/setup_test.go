package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What setup writes is its owner's alone, but for what is no secret; and the nodes' folders have nothing of the CA's key.
func TestSetupKeepsWhatIsSecretToItsOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	(&shell{t: t}).must(0, "setup", dir)
	keys := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		open := info.Mode().Perm()&0o077 != 0
		text := ""
		if !d.IsDir() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(b)
		}
		secret := d.IsDir() || strings.Contains(text, "PRIVATE KEY") || d.Name() == keyringFile
		if secret && open {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if d.Name() == "ca.key" {
			keys++
		}
		return nil
	})
	if err != nil || keys != 1 {
		t.Errorf("%d keys of a CA, %v", keys, err)
	}
}

// What others could have read or planted is not handed on as if it had been secret all the while.
func TestSetupHandsOnNoOpenKeyring(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	sh := &shell{t: t}
	sh.must(0, "setup", dir)
	if err := os.Chmod(filepath.Join(dir, rootFolder, keyringFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "n1", keyringFile)); err != nil {
		t.Fatal(err)
	}
	r := sh.run("setup", "--if-missing", dir)
	if _, err := os.Stat(filepath.Join(dir, "n1", keyringFile)); r.code == 0 || err == nil {
		t.Errorf("it was copied: exit %d, %s", r.code, r.errors)
	}
	wants(t, r.errors, "chmod 600")
}
