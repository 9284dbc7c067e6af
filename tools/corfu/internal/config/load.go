package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"corfu/tools/corfu/internal/strictyaml"
)

// Sources are where settings may come from. Zero fields are none.
type Sources struct {
	File  string         // path of a YAML file; it must be there
	Env   []string       // "NAME=value" each, as os.Environ gives it
	Flags *pflag.FlagSet // parsed
}

// Setting is a key with where its value came from.
type Setting struct {
	Key
	From string // "default", "file unit.yaml line 3", "environment CORFU_ID", "flag --id"
}

// Overridden tells whether the environment or the command line said the value.
func (s Setting) Overridden() bool {
	return strings.HasPrefix(s.From, "environment ") || strings.HasPrefix(s.From, "flag ")
}

// Load takes what the sources say into c, a pointer to a struct that holds the defaults, and
// lists all its settings. An error is one line, and names the file or variable and the key.
func Load(s Sources, c any) ([]Setting, error) {
	said := given(s.Flags, Keys(c))
	lines := map[string]int{}
	if s.File != "" {
		b, err := os.ReadFile(s.File)
		if err != nil {
			return nil, err // names the path already
		}
		if err := strictyaml.Decode(b, c); err != nil {
			return nil, fmt.Errorf("%s: %w", s.File, err)
		}
		lines = strictyaml.Lines(b)
	}
	env := environment(s.Env)
	var all []Setting
	for _, k := range Keys(c) {
		from := "default"
		if n := lines[k.Path]; n > 0 {
			from = fmt.Sprintf("file %s line %d", s.File, n)
		}
		for _, name := range []string{k.OldEnv, k.Env} {
			if v := env[name]; v != "" {
				if err := k.Set(v); err != nil {
					return nil, fmt.Errorf("environment: %s (%s): %w", name, k.Path, err)
				}
				from = "environment " + name
			}
		}
		if text, ok := said[k.Flag]; ok {
			from = "flag --" + k.Flag
			if !k.composed {
				if err := k.Set(text); err != nil {
					return nil, fmt.Errorf("--%s: %w", k.Flag, err)
				}
			}
		}
		all = append(all, Setting{k, from})
	}
	return all, nil
}

// given are the texts of the flags that the command line had. They are taken before anything else is: a flag's variable
// may be the field that the file is about to write to.
func given(flags *pflag.FlagSet, keys []Key) map[string]string {
	m := map[string]string{}
	if flags == nil {
		return m
	}
	for _, k := range keys {
		if f := flags.Lookup(k.Flag); f != nil && f.Changed {
			m[k.Flag] = flagText(f)
		}
	}
	return m
}

// flagText is the flag's value as Key.Set reads it.
func flagText(f *pflag.Flag) string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ",")
	}
	return f.Value.String()
}

func environment(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, e := range list {
		if name, v, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, Prefix) {
			m[name] = v
		}
	}
	return m
}

// Unknown gives a line for each variable that begins like ours and means nothing to any of the keys: a misspelt one
// would be ignored in silence. others are names, or beginnings of names that end in _, that mean something else.
func Unknown(env []string, keys []Key, others ...string) []string {
	known := map[string]bool{}
	for _, k := range keys {
		known[k.Env] = true
		known[k.OldEnv] = true
	}
	var out []string
	for name := range environment(env) {
		if known[name] || slices.ContainsFunc(others, func(o string) bool { return name == o || strings.HasSuffix(o, "_") && strings.HasPrefix(name, o) }) {
			continue
		}
		line := fmt.Sprintf("variable %s of the environment means nothing to corfu", name)
		if near := strictyaml.Nearest(name, known); near != "" {
			line += fmt.Sprintf(" (did you mean %s?)", near)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func decodeStrict(s string, out any) error { return strictyaml.Decode([]byte(s), out) }

// Peek reads one top-level key of a file that is not known to be sound otherwise: "" if it is not there or no plain text.
func Peek(path, key string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err // names the path already
	}
	var all map[string]any
	if err := yaml.Unmarshal(b, &all); err != nil {
		return "", fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	s, _ := all[key].(string)
	return s, nil
}
