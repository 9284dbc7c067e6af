package strictyaml

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Provider  string `yaml:"provider"`
	HugePages bool   `yaml:"huge_pages"`
}

// Shared is exported because the decoder cannot reach into an embedded struct that is not.
type Shared struct {
	Control string `yaml:"control"`
}

type good struct {
	Shared  `yaml:",inline"`
	ID      uint32        `yaml:"id"`
	Timeout time.Duration `yaml:"timeout"`
	Fabric  inner         `yaml:"fabric"`
	Units   []inner       `yaml:"units"`
}

func TestDecodeReadsEveryField(t *testing.T) {
	var got good
	err := Decode([]byte("control: a:1\nid: 7\ntimeout: 3s\nfabric: {provider: tcp, huge_pages: true}\nunits:\n- provider: x\n"), &got)
	want := good{Shared{"a:1"}, 7, 3 * time.Second, inner{"tcp", true}, []inner{{Provider: "x"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestUnknownKeysNameTheNearest(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{"contrl: x\n", `line 1: unknown key "contrl" (did you mean "control"?)`},
		{"id: 1\nfabric:\n  hugepages: true\n", `line 3: unknown key "hugepages" (did you mean "huge_pages"?)`},
		{"units:\n- provder: x\n", `line 2: unknown key "provder" (did you mean "provider"?)`},
		{"zzzzzzzz: x\n", `line 1: unknown key "zzzzzzzz"`},
	} {
		var s good
		err := Decode([]byte(c.doc), &s)
		var key *KeyError
		if !errors.As(err, &key) || err.Error() != c.want {
			t.Errorf("%q: got %v, want %s", c.doc, err, c.want)
		}
	}
}

func TestEveryFaultIsOneLine(t *testing.T) {
	for _, doc := range []string{"id: x\ntimeout: y\n", "id: [\n", "- 1\n", "id: 1\n---\nid: 2\n", "id: 1\nid: 2\n", "id: -1\n"} {
		var s good
		err := Decode([]byte(doc), &s)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q is not a one-line error", doc, err)
		}
	}
	var s good
	if err := Decode(nil, &s); err != nil || !reflect.DeepEqual(s, good{}) {
		t.Errorf("an empty document: %+v, %v", s, err)
	}
}

func TestReadFileNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unit.yaml")
	if err := os.WriteFile(path, []byte("idd: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var s good
	for _, p := range []string{path, path + ".missing"} {
		if err := ReadFile(p, &s); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("%s: %v does not name the file", p, err)
		}
	}
}
