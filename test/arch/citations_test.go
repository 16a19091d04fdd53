package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// citation is a link whose text is the name of something in the file that it leads to.
var citation = regexp.MustCompile("\\[`([A-Za-z0-9]+)`\\]\\(([^)#]+)\\)")

func TestDocumentsCiteTestsThatExist(t *testing.T) {
	for _, name := range []string{"THREAT_MODEL.md", "COMPLIANCE.md", "AUDIT.md"} {
		file := filepath.Join(root(t), "docs", name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found, seen := deadCitations(file, string(text))
		for _, f := range found {
			t.Error(f)
		}
		if seen == 0 {
			t.Errorf("%s cites no test", name)
		}
	}
}

// deadCitations tells which names a document cites that the files do not have, and how many it cites.
func deadCitations(file, text string) (found []string, seen int) {
	for _, m := range citation.FindAllStringSubmatch(text, -1) {
		seen++
		cited, err := os.ReadFile(filepath.Join(filepath.Dir(file), filepath.FromSlash(m[2])))
		word := regexp.MustCompile(`(?m)^(func |message |type |func \([^)]*\) )` + m[1] + `\b`)
		if err != nil || !word.Match(cited) {
			found = append(found, fmt.Sprintf("%s cites %s, which is not in %s", filepath.Base(file), m[1], m[2]))
		}
	}
	return found, seen
}

func TestCitationsFinds(t *testing.T) {
	file := filepath.Join(root(t), "docs", "x.md")
	text := "[`TestCitationsFinds`](../test/arch/citations_test.go) [`TestNone`](../test/arch/citations_test.go) [`TestX`](../none_test.go)"
	found, seen := deadCitations(file, text)
	if seen != 3 || len(found) != 2 || !strings.Contains(found[0], "TestNone") || !strings.Contains(found[1], "TestX") {
		t.Errorf("%d seen, %q", seen, found)
	}
}
