// Package strictyaml reads configuration files and refuses what it does not
// know: a misspelt key is an error that names its line and the nearest known key,
// never a setting that is silently ignored.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// KeyError is an unknown key. The operator mends the file.
type KeyError struct {
	Line    int
	Key     string
	Nearest string // the known key that is most like it; "" if none is
}

func (e *KeyError) Error() string {
	s := fmt.Sprintf("line %d: unknown key %q", e.Line, e.Key)
	if e.Nearest != "" {
		s += fmt.Sprintf(" (did you mean %q?)", e.Nearest)
	}
	return s
}

// ReadFile decodes the file at path into out, a pointer to a struct with yaml tags.
// Every error names the file.
func ReadFile(path string, out any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err // names the path already
	}
	if err := Decode(b, out); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Decode decodes one YAML document into out, a pointer to a struct with yaml
// tags. An unknown key is a *KeyError; an empty document leaves out as it is.
func Decode(b []byte, out any) error {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return plain(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	if len(doc.Content) == 1 {
		if err := checkKeys(doc.Content[0], reflect.TypeOf(out)); err != nil {
			return err
		}
	}
	strict := yaml.NewDecoder(bytes.NewReader(b))
	strict.KnownFields(true)
	if err := strict.Decode(out); err != nil && !errors.Is(err, io.EOF) {
		return plain(err)
	}
	return nil
}

// plain takes the decoder's several lines together into one.
func plain(err error) error {
	var t *yaml.TypeError
	if errors.As(err, &t) {
		return errors.New(strings.Join(t.Errors, "; "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

// checkKeys walks the document beside the type that it goes into.
func checkKeys(n *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for _, c := range n.Content {
			if err := checkKeys(c, t.Elem()); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		known := keys(t)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			ft, ok := known[k.Value]
			if !ok {
				return &KeyError{Line: k.Line, Key: k.Value, Nearest: Nearest(k.Value, known)}
			}
			if err := checkKeys(n.Content[i+1], ft); err != nil {
				return err
			}
		}
	}
	return nil
}

// Lines tells on which line each key of a document stands, sections with a dot behind them: "fabric.addr". b was decoded before.
func Lines(b []byte) map[string]int {
	lines := map[string]int{}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err == nil && len(doc.Content) == 1 {
		note(doc.Content[0], "", lines)
	}
	return lines
}

func note(n *yaml.Node, path string, lines map[string]int) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		lines[path+k.Value] = k.Line
		note(n.Content[i+1], path+k.Value+".", lines)
	}
}

// keys of a struct as its yaml tags name them, those of inlined structs included.
func keys(t reflect.Type) map[string]reflect.Type {
	m := make(map[string]reflect.Type)
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case strings.Contains(opts, "inline"):
			for k, v := range keys(f.Type) {
				m[k] = v
			}
		case name == "-" || !f.IsExported():
		case name == "":
			m[strings.ToLower(f.Name)] = f.Type
		default:
			m[name] = f.Type
		}
	}
	return m
}

// Nearest is the known name with the smallest edit distance, upper and lower case being the same, if that is small enough to be a
// slip of the pen; else "".
func Nearest[V any](name string, known map[string]V) string {
	best, bestD := "", 1+max(2, min(len(name)/2, 6))
	for k := range known {
		d := distance(strings.ToLower(name), strings.ToLower(k))
		if d < bestD || d == bestD && best != "" && k < best {
			best, bestD = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
