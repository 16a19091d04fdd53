package arch

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	inlineLink = regexp.MustCompile(`\]\(\s*<?([^)\s>]+)>?[^)]*\)`) // images too
	definition = regexp.MustCompile(`(?m)^[ \t]*\[[^\]]+\]:[ \t]+<?([^\s>]+)>?`)
	htmlLink   = regexp.MustCompile(`(?:href|src)="([^"]+)"`)
	fence      = regexp.MustCompile("(?ms)^[ \t]*(```|~~~).*?\n[ \t]*(```|~~~)[ \t]*$")
	inlineCode = regexp.MustCompile("`[^`\n]+`")
	heading    = regexp.MustCompile(`(?m)^#{1,6}\s+(.+?)\s*#*$`)
)

func TestDocumentsLinkToWhatExists(t *testing.T) {
	dir := root(t)
	seen := 0
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if filepath.Ext(file) != ".md" {
			return nil
		}
		seen++
		text, err := os.ReadFile(file)
		for _, f := range deadLinks(file, string(text)) {
			t.Error(f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen == 0 {
		t.Fatal("no document was found")
	}
}

// deadLinks tells which of a document's links to files and headings of this repository lead nowhere.
func deadLinks(file, text string) []string {
	var found []string
	text = prose(text)
	for _, form := range []*regexp.Regexp{inlineLink, definition, htmlLink} {
		for _, m := range form.FindAllStringSubmatch(text, -1) {
			if why := dead(file, m[1]); why != "" {
				found = append(found, fmt.Sprintf("%s links to %s: %s", file, m[1], why))
			}
		}
	}
	return found
}

// dead says why a link leads nowhere; links out of the repository are not followed.
func dead(file, target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return err.Error()
	}
	if u.Scheme != "" || u.Host != "" {
		return ""
	}
	to := file
	if u.Path != "" {
		to = filepath.Join(filepath.Dir(file), filepath.FromSlash(u.Path))
	}
	text, err := os.ReadFile(to)
	if info, statErr := os.Stat(to); statErr == nil && info.IsDir() {
		return ""
	}
	switch {
	case err != nil:
		return "there is no such file"
	case u.Fragment != "" && filepath.Ext(to) == ".md" && !hasHeading(string(text), u.Fragment):
		return "there is no such heading"
	}
	return ""
}

func hasHeading(text, anchor string) bool {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		if slug(m[1]) == anchor {
			return true
		}
	}
	return false
}

// slug is the anchor that the usual renderers give a heading.
func slug(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, title)
}

// prose leaves out code, where brackets are no links.
func prose(text string) string {
	return inlineCode.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
}

func TestDeadLinksFinds(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.md")
	text := "# The First, of `two`\n" +
		"[dead](gone.md) ![dead](gone.png \"title\") [dead](#nothing) <a href=\"gone.html\">\n" +
		"[dead]: gone.txt\n" +
		"[fine](a.md) [fine](#the-first-of-two) [fine](a.md#the-first-of-two) [fine](https://example.com/gone) [fine](.)\n" +
		"`[code](gone)`\n```\n[code](gone)\n```\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := deadLinks(file, text)
	if len(got) != 5 {
		t.Errorf("found %d dead links, want 5:\n%s", len(got), strings.Join(got, "\n"))
	}
}
