// Package config gathers a command's settings from a YAML file, the environment and
// the command line, and knows of each where it came from.
//
// One struct describes the settings of a role (a daemon, or the clients). Its tags
// are the only place that says what there is:
//
//	Listen string `yaml:"listen" flag:"fabric-listen" doc:"host:port that …"`
//
// yaml names the key; sections are structs, and a dot stands between section and key
// ("fabric.listen"). flag names the command-line flag that sets the same; without a doc tag
// the meaning is that flag's. env names an older variable, which counts if the generated one
// is not set. What the struct holds before [Load] are the defaults.
//
// A value given on the command line beats the environment, that beats the file, and
// that the default. The variable of a key is CORFU_ and its name in capitals, with _ for the
// dot: CORFU_FABRIC_LISTEN; env:"-" says that a key has none. One that is empty counts as not set. Lists are written as in YAML: [a, b].
package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Prefix begins the name of every variable of the environment that is ours.
const Prefix = "CORFU_"

// Key is one setting.
type Key struct {
	Path     string // as in the file: "fabric.listen"
	Env      string // variable that overrides the file
	OldEnv   string // the same under an older name; "" if it has none
	Flag     string // flag that overrides both; "" if there is none
	Doc      string // what it means; "" where only the flag says so
	composed bool   // the flag's text is not the key's: the command itself takes it
	v        reflect.Value
}

// Keys lists the settings in c, a pointer to a struct, in its order. They read and write c.
func Keys(c any) []Key { return walk(reflect.ValueOf(c).Elem(), "", "", nil) }

func walk(v reflect.Value, path, flag string, keys []Key) []Key {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case strings.Contains(opts, "inline"):
			keys = walk(v.Field(i), path, flag, keys)
			continue
		case name == "" || name == "-":
			continue
		}
		full := path + name
		if f.Type.Kind() == reflect.Struct {
			keys = walk(v.Field(i), full+".", f.Tag.Get("flag"), keys)
			continue
		}
		k := Key{Path: full, Env: envName(full), OldEnv: f.Tag.Get("env"), Flag: f.Tag.Get("flag"), Doc: f.Tag.Get("doc"), v: v.Field(i)}
		if k.OldEnv == "-" { // what a file is, not a setting
			k.Env, k.OldEnv = "", ""
		}
		if k.Flag == "" && flag != "" {
			k.Flag, k.composed = flag, true
		}
		if f.Type.Kind() == reflect.Slice {
			k.composed = k.composed || f.Type.Elem().Kind() != reflect.String
		}
		keys = append(keys, k)
	}
	return keys
}

func envName(path string) string {
	return Prefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(path))
}

// Type names the kind of value in a word or two, for people.
func (k Key) Type() string {
	switch t := k.v.Type(); {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Slice:
		return "list"
	}
	return "number"
}

// Text is the value as one would write it into the file, on one line. Text that is empty is "".
func (k Key) Text() string {
	switch x := k.v.Interface().(type) {
	case time.Duration:
		return x.String()
	case string:
		return x
	case bool:
		return strconv.FormatBool(x)
	}
	if k.v.Kind() != reflect.Slice {
		return fmt.Sprint(k.v.Interface())
	}
	if k.v.Len() == 0 {
		return ""
	}
	var n yaml.Node
	if err := n.Encode(k.v.Interface()); err != nil {
		return fmt.Sprint(k.v.Interface())
	}
	flow(&n)
	b, err := yaml.Marshal(&n)
	if err != nil {
		return fmt.Sprint(k.v.Interface())
	}
	return strings.Join(strings.Fields(string(b)), " ") // the encoder breaks long lines
}

func flow(n *yaml.Node) {
	n.Style = yaml.FlowStyle
	for _, c := range n.Content {
		if c.Kind != yaml.ScalarNode {
			flow(c)
		}
	}
}

// Value is the setting itself, for JSON.
func (k Key) Value() any {
	if d, ok := k.v.Interface().(time.Duration); ok {
		return d.String()
	}
	return k.v.Interface()
}

// Set takes the value from its text in a variable or flag. The error does not name the key.
func (k Key) Set(s string) (err error) {
	switch t := k.v.Type(); {
	case t == reflect.TypeFor[time.Duration]():
		var d time.Duration
		if d, err = time.ParseDuration(s); err != nil {
			return fmt.Errorf("%q is not a duration, as in 250ms", s)
		}
		k.v.SetInt(int64(d))
	case t.Kind() == reflect.String:
		k.v.SetString(s)
	case t.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", s)
		}
		k.v.SetBool(b)
	case t.Kind() == reflect.Slice:
		return k.setList(s)
	case k.v.CanInt():
		n, err := strconv.ParseInt(s, 10, t.Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number in range", s)
		}
		k.v.SetInt(n)
	case k.v.CanUint():
		n, err := strconv.ParseUint(s, 10, t.Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number in range", s)
		}
		k.v.SetUint(n)
	default:
		panic("config: key " + k.Path + " of type " + t.String())
	}
	return nil
}

// isYAML reports whether a list is in brackets. Those of an IPv6 address are no list's: [::1]:7770 and [fe80::1%eth0] are words.
func isYAML(s string) bool {
	inner, ok := strings.CutPrefix(strings.TrimSpace(s), "[")
	if !ok {
		return false
	}
	inner, ok = strings.CutSuffix(inner, "]")
	_, err := netip.ParseAddr(inner)
	return ok && err != nil
}

// setList takes YAML; of a list of words also the words alone, with commas between.
func (k Key) setList(s string) error {
	if k.v.Type().Elem().Kind() == reflect.String && !isYAML(s) {
		var words []string
		for w := range strings.SplitSeq(s, ",") {
			words = append(words, strings.TrimSpace(w))
		}
		k.v.Set(reflect.ValueOf(words))
		return nil
	}
	list := reflect.New(k.v.Type())
	if err := decodeStrict(s, list.Interface()); err != nil {
		return fmt.Errorf("%q is not such a list, as in [a, b]: %w", s, err)
	}
	k.v.Set(list.Elem())
	return nil
}
