package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"corfu/tools/corfu/internal/config"
)

// referenceHead is what stands before the tables.
//
//go:embed config_reference.md
var referenceHead string

// roleTitles and examples of the reference; each example passes config check.
var roleReference = map[string]struct{ title, example string }{
	"layout": {"A layout server", `role: layout
id: 1
dir: /var/lib/corfu/layout
control: 10.0.0.1:7770
servers:
- {id: 1, control: 10.0.0.1:7770, raft: 10.0.0.1:7772}
- {id: 2, control: 10.0.0.2:7770, raft: 10.0.0.2:7772}
- {id: 3, control: 10.0.0.3:7770, raft: 10.0.0.3:7772}
bootstrap:
  sequencer: {id: 1, control: 10.0.0.4:7771}
  units:
  - {id: 1, control: 10.0.0.5:7780}
  - {id: 2, control: 10.0.0.6:7780}
  chains: [[1, 2]]
`},
	"seq": {"A sequencer", `role: seq
id: 1
dir: /var/lib/corfu/seq
control: 10.0.0.4:7771
fabric: {provider: verbs, device: mlx5_0}
`},
	"unit": {"A storage unit", `role: unit
id: 1
store: /dev/nvme1n1
control: 10.0.0.5:7780
scrub_rate: 32MiB
fabric:
  provider: verbs
  device: mlx5_0
  huge_pages: true
`},
	"client": {"Clients", `role: client
layout_servers: ["10.0.0.1:7770", "10.0.0.2:7770", "10.0.0.3:7770"]
fabric: {provider: verbs}
timeout: 5s
`},
}

// configReference is docs/config.md.
func (a *app) configReference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, role := range roleNames {
		s := a.roles[role]
		r := roleReference[role]
		fmt.Fprintf(&b, "\n## %s (`role: %s`)\n\n```yaml\n%s```\n\n", r.title, role, r.example)
		b.WriteString("| key | is | default | variable | flag | meaning |\n|---|---|---|---|---|---|\n")
		for _, k := range config.Keys(s.c) {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", k.Path, k.Type(), code(k.Text()), code(k.Env), code(dashes(k.Flag)), cell(meaning(k, s.cmd)))
		}
	}
	return b.String()
}

// meaning of a key: its own words, or those of its flag.
func meaning(k config.Key, cmd *cobra.Command) string {
	if k.Doc != "" {
		return k.Doc
	}
	f := cmd.Flag(k.Flag)
	if f == nil {
		return ""
	}
	_, usage := pflag.UnquoteUsage(f)
	return usage
}

func dashes(flag string) string {
	if flag == "" {
		return ""
	}
	return "--" + flag
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + cell(s) + "`"
}

func cell(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "|", `\|`) }
