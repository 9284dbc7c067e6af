package main

import "github.com/spf13/cobra"

// examples are those of commands that do not bring their own, by path. Each has the shape of a session: what one types.
var examples = map[string]string{
	"corfu": `  corfu dev &
  corfu append hello
  corfu read 0`,
	"corfu append":             "  corfu append hello world\n  seq 1000 | corfu append -\n  seq 1000 | corfu append - --batch=false\n  corfu append --file picture.jpg",
	"corfu bench":              "  corfu bench\n  corfu bench --only 'Append' --rounds 9 --check",
	"corfu bench-flash":        "  corfu bench-flash --dir /mnt/nvme/bench",
	"corfu chain":              "  corfu chain add --dry-run 5,6\n  corfu chain add 5=10.0.0.5:7780,6=10.0.0.6:7780",
	"corfu demo":               "  corfu demo\n  corfu demo --source /usr/share/doc --size 16",
	"corfu dev":                "  corfu dev\n  corfu dev --dir ~/log --chains 3 --replicas 3 --layout-servers 3",
	"corfu devices":            "  corfu devices\n  corfu devices -o json | jq '.[] | select(.usable) | .name'",
	"corfu devices remove-rxe": "  corfu devices remove-rxe --netdev eth1",
	"corfu dump":               "  corfu dump /var/lib/corfu/unit-1\n  corfu dump -o json /dev/nvme1n1",
	"corfu fill":               "  corfu fill 17",
	"corfu fsck":               "  corfu fsck /var/lib/corfu/unit-1",
	"corfu layout show":        "  corfu layout show\n  corfu layout show -o json",
	"corfu layout status":      "  corfu layout status --cluster 10.0.0.1:7770,10.0.0.2:7770,10.0.0.3:7770",
	"corfu layout reconfigure": "  corfu layout reconfigure --reason 'switch 3 is replaced'",
	"corfu read":               "  corfu read 0 17\n  corfu read 42/7\n  corfu read --from 0 --to 100",
	"corfu seq":                "  corfu seq --dir /var/lib/corfu/seq\n  corfu seq --config /etc/corfu/seq.yaml",
	"corfu seq failover":       "  corfu seq failover --dry-run",
	"corfu status":             "  corfu status\n  corfu status --watch\n  corfu status -o json | jq -r .verdict",
	"corfu tail":               "  corfu tail\n  corfu tail --follow --from 0",
	"corfu top":                "  corfu top\n  corfu top -n 1",
	"corfu trim":               "  corfu trim 17\n  corfu trim --prefix 1000000",
	"corfu unit add":           "  corfu unit add 5=10.0.0.9:7780",
	"corfu unit drain":         "  corfu unit drain --dry-run 2\n  corfu unit drain 2 --wait 1h",
	"corfu unit remove":        "  corfu unit remove --dry-run 2",
	"corfu unit replace":       "  corfu unit replace 2 5\n  corfu unit replace 2 5=10.0.0.9:7780",
	"corfu version":            "  corfu version -o json",
}

// longs are those of commands whose short description left nothing to say but this.
var longs = map[string]string{
	"corfu chain": `Change the chains of the cluster, while the log goes on. Units of a chain are changed by corfu unit.`,
	"corfu devices": `Print the RDMA devices of this machine: driver, firmware, atomics, ports, MTUs and GIDs by type, and
for each whether the provider verbs can use it, and if not, why. corfu doctor looks deeper.`,
	"corfu layout show": `Print the layout in force: epoch, sequencer, units, and which chains serve which positions.`,
	"corfu layout status": `Print the state of every member as the leader of the layout servers sees it, and the state of each layout
server as it tells itself. Members that do not answer are said to be unreachable.`,
	"corfu tail": `Print the first position that was not handed out yet: the length of the log. With --follow print entries as
they come, until interrupted; a hole that stays is filled after a while.`,
	"corfu version": `Print the version, the revision that it was built from, and the platform.`,
}

// describeCommands gives commands the texts above where they have none.
func describeCommands(cmd *cobra.Command) {
	if cmd.Example == "" {
		cmd.Example = examples[cmd.CommandPath()]
	}
	if cmd.Long == "" {
		cmd.Long = longs[cmd.CommandPath()]
	}
	for _, c := range cmd.Commands() {
		describeCommands(c)
	}
}
