package render

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"leasehold/internal/client"
	"leasehold/internal/redact"
	"leasehold/internal/spec"
)

// The reference page of the functions is executed: what it says about a function is what the function does.

func readPage(t testing.TB, name string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// tables returns the rows of all tables of a page whose head begins with some column, each row as its cells. A cell in
// backquotes loses them.
func tables(page, column string) [][]string {
	var rows [][]string
	inside := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "| "+column+" |"):
			inside = true
		case !strings.HasPrefix(line, "|"):
			inside = false
		case inside && !strings.HasPrefix(line, "|-"):
			var cells []string
			for cell := range strings.SplitSeq(strings.Trim(cellBars.ReplaceAllString(line, "\x00"), "\x00"), "\x00") {
				cell = strings.TrimSpace(strings.ReplaceAll(cell, `\|`, "|"))
				if code, ok := strings.CutPrefix(cell, "`"); ok && strings.HasSuffix(code, "`") && strings.Count(cell, "`") == 2 {
					cell = strings.TrimSuffix(code, "`")
				}
				cells = append(cells, cell)
			}
			rows = append(rows, cells)
		}
	}
	return rows
}

// cellBars finds the bars of a table, and not those that are escaped since they belong to a cell.
var cellBars = regexp.MustCompile(`^\| | \| | \|$`)

// firstBlock returns the first block of code of a language.
func firstBlock(t *testing.T, page, language string) string {
	t.Helper()
	_, rest, found := strings.Cut(page, "```"+language+"\n")
	block, _, closed := strings.Cut(rest, "\n```")
	if !found || !closed {
		t.Fatalf("the page has no block of %s", language)
	}
	return block
}

// examples is what the page says that there is in its examples.
func examples(t *testing.T, page string) execution {
	t.Helper()
	var vault map[string]json.RawMessage
	if err := json.Unmarshal([]byte(firstBlock(t, page, "json")), &vault); err != nil {
		t.Fatal(err)
	}
	vault["write pki/issue/web"] = issuedExample(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	verbs := map[string]string{"GET": "read", "LIST": "list", "PUT": "write"}
	return execution{
		pod: spec.Pod{Namespace: "shop", Name: "web-0", UID: "2b3c5e0a", ServiceAccount: "web"},
		at:  at,
		ask: func(source spec.Source) (answer, error) {
			data, found := vault[verbs[source.Method]+" "+source.Path]
			if !found {
				return answer{}, &unreadError{source, fmt.Errorf("the page has no %s of %s", source.Method, source.Path), false}
			}
			return decode(client.Grant{Source: source, Data: redact.NewBytes(data), Obtained: at})
		},
	}
}

// issuedExample is what Vault's PKI answers: a certificate, its key, and an authority.
func issuedExample(t *testing.T) json.RawMessage {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string, isCA bool) string {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	authority := certificate("an authority", true)
	data, err := json.Marshal(map[string]any{
		"certificate": certificate("web.example", false), "issuing_ca": authority, "ca_chain": []string{authority},
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every example of the page makes what the page says. An arrow stands for the end of a line there.
func TestExamplesOfThePage(t *testing.T) {
	page := readPage(t, "template-functions.md")
	around := examples(t, page)
	for _, row := range tables(page, "function") {
		if len(row) != 3 {
			t.Errorf("%q: got %d cells, want function, example and result", row, len(row))
			continue
		}
		name, example, want := row[0], row[1], strings.ReplaceAll(row[2], "↵", "\n")
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(example) {
			t.Errorf("%s: the example %s does not call it", name, example)
		}
		got, err := New().execute(spec.Template{Text: example}, around)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s: got %q, %v, want %q", name, example, got, err, want)
		}
	}
}

// Every template of the page about templates makes the text below it. A certificate has none: it is another one each time.
func TestTemplatesOfThePage(t *testing.T) {
	around := examples(t, readPage(t, "template-functions.md"))
	shown := shownTemplate.FindAllStringSubmatch(readPage(t, "templates.md"), -1)
	for _, block := range shown {
		got, err := New().execute(spec.Template{Text: block[1]}, around)
		if err != nil || (block[2] != "" && string(got) != block[2]) {
			t.Errorf("%s\ngot\n%s\n%v, want\n%s", block[1], got, err, block[2])
		}
	}
	if len(shown) < 5 {
		t.Errorf("%d templates were found", len(shown))
	}
}

var shownTemplate = regexp.MustCompile("(?s)\n```gotemplate\n(.*?\n)```\n(?:\n```text\n(.*?\n)```\n)?")

// The page has each function that there is, and none that there is not; those that are not available with their reasons.
func TestThePageHasEachFunction(t *testing.T) {
	page := readPage(t, "template-functions.md")
	want := slices.Concat(slices.Collect(maps.Keys(testMachine().table())), slices.Collect(maps.Keys(builtins)))
	for method := range reflect.TypeFor[*scratch]().Methods() {
		if method.Name != "Format" { // package fmt calls it
			want = append(want, "scratch."+method.Name)
		}
	}
	want = slices.DeleteFunc(want, func(name string) bool { return name == "call" }) // there is nothing to call
	slices.Sort(want)
	var got []string
	for _, row := range tables(page, "function") {
		got = append(got, row[0])
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("the page has the functions\n%q, want\n%q", got, want)
	}

	reasons := maps.Clone(unavailable)
	maps.Copy(reasons, unavailableSprig)
	told := map[string]string{}
	for _, row := range tables(page, "not available") {
		for name := range strings.SplitSeq(row[0], ", ") {
			told[strings.Trim(name, "`")] = row[1]
		}
	}
	if !maps.Equal(told, reasons) {
		t.Errorf("the page tells the reasons\n%q, want\n%q", told, reasons)
	}
}

// The limits that the page about templates tells are those that hold.
func TestThePageHasTheLimits(t *testing.T) {
	want := map[string]string{
		"a template":                                         kib(mostText),
		"a file that a template makes":                       kib(mostOutput),
		"all files of a volume together":                     kib(maxTotal),
		"sources of a volume":                                strconv.Itoa(maxSources),
		"steps of all loops and defines":                     strconv.Itoa(mostSteps),
		"time to compute":                                    mostTime.String(),
		"time of all templates of a volume":                  mostSpent.String(),
		"templates of a volume at a time":                    strconv.Itoa(mostBegun),
		"`if`, `with`, `range` in one another":               strconv.Itoa(mostNesting),
		"depth of a value":                                   strconv.Itoa(mostDepth),
		"all texts and lists that are made":                  kib(mostBuilt),
		"what one function takes or returns":                 kib(mostValue),
		"what a volume's sources answer, once it is decoded": kib(mostDecoded),
		"texts that one function takes":                      kib(mostHanded),
		"a text that a sprig function makes":                 kib(maxMade),
		"values of a list that sprig makes":                  strconv.Itoa(maxListed),
		"a regular expression":                               kib(maxPattern),
		"a text for `parseYAML`":                             kib(maxYAML),
	}
	got := map[string]string{}
	for _, row := range tables(readPage(t, "templates.md"), "limit") {
		got[row[0]] = row[1]
	}
	if !maps.Equal(got, want) {
		t.Errorf("the page has the limits\n%q, want\n%q", got, want)
	}
}

func kib(bytes int) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%d KiB", bytes>>10)
}
