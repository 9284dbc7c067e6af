package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"corfu/internal/control"
	"corfu/internal/wire/pb"
	"corfu/internal/wire/pbconv"
)

// recoverJSON is what a layout store would be built from, as scripts read it.
type recoverJSON struct {
	Layout       *layoutJSON       `json:"layout,omitempty"`
	Attempted    uint64            `json:"attempted,omitempty"` // the next epoch is above
	Clients      uint32            `json:"clients,omitempty"`   // no client id up to it is handed out again
	AcceptedLoss bool              `json:"accepted_loss,omitempty"`
	Units        []recoverUnitJSON `json:"units"`
	Unsure       []string          `json:"unsure,omitempty"`
	Refused      string            `json:"refused,omitempty"`
	Done         bool              `json:"done"`
}

type recoverUnitJSON struct {
	Unit       uint32 `json:"unit"`
	Control    string `json:"control"`
	Member     bool   `json:"member"`
	Log        string `json:"log,omitempty"`
	Reconciled uint64 `json:"reconciled,omitempty"` // epochs
	Active     uint64 `json:"active,omitempty"`
	Promise    uint64 `json:"promise,omitempty"`
	Entries    bool   `json:"entries"`
	Error      string `json:"error,omitempty"`
	Missing    string `json:"missing,omitempty"` // why a member has to be given up
}

func (a *app) layoutRecoverCommand() *cobra.Command {
	var yes, dry bool
	var loss []uint
	var ask []string
	cmd := &cobra.Command{
		Use: "recover", Short: "Build the layout store from what the storage units hold", Args: cobra.NoArgs,
		Long: `Build the layout store anew after the directories of all layout servers were lost. The
layout servers run, with empty directories and the first layout in their configuration.
They ask the units of that layout, and all units that the layouts found name, for the
newest epoch that was active. Without --yes the command prints what would be done, and
does nothing. Where it is proven that no newer epoch was active, and no other layout
server asks the units, the layout servers do it by themselves.

A member of that epoch that does not answer, or whose store is empty or an old copy, may
know a newer epoch or hold the only copy of something. Start it, or give it up with
--accept-loss, which names each one.`,
		Example: "  corfu layout recover\n  corfu layout recover --yes\n  corfu layout recover --accept-loss 2,4 --yes",
	}
	f := cmd.Flags()
	f.BoolVar(&yes, "yes", false, "do it")
	f.BoolVar(&dry, "dry-run", false, "print what would be done (the default)")
	f.UintSliceVar(&loss, "accept-loss", nil, "`numbers` of members that are given up, with what they alone may hold")
	f.StringArrayVar(&ask, "ask", nil, "a unit to ask besides those that are known, `id=host:port`; once for each")
	cmd.MarkFlagsMutuallyExclusive("yes", "dry-run")
	cmd.RunE = a.body(func(ctx context.Context, _ []string) error {
		q := &pb.RecoverRequest{Execute: yes}
		for _, u := range loss {
			q.AcceptLoss = append(q.AcceptLoss, uint32(u))
		}
		for _, s := range ask {
			m, err := parseMember("--ask", s)
			if err != nil {
				return err
			}
			q.Ask = append(q.Ask, &pb.Unit{Id: m.ID, Control: m.Control})
		}
		r, err := askLayout(ctx, a, func(ctx context.Context, c pb.LayoutServiceClient) (*pb.RecoverReply, error) {
			return c.Recover(control.Begin(ctx), q)
		})
		if err != nil {
			return err
		}
		if err := a.printRecovery(r); err != nil {
			return err
		}
		if r.Refused != "" {
			return errors.New("nothing was done: " + r.Refused)
		}
		return nil
	})
	return cmd
}

func (a *app) printRecovery(r *pb.RecoverReply) error {
	if a.json() {
		return a.printRecoveryJSON(r)
	}
	rows := [][]string{{"UNIT", "CONTROL", "RECONCILED FOR", "KNOWS ACTIVE", "PROMISED", "LOG", "REMARK"}}
	for _, u := range r.Units {
		remark := strings.Join(nonEmpty(map[bool]string{true: "member"}[u.Member], u.Missing, u.Error), ": ")
		if u.Error != "" {
			rows = append(rows, []string{fmt.Sprint(u.Id), u.Control, "?", "?", "?", "?", remark})
			continue
		}
		s := pbconv.ToStoreState(u.State)
		log := "none"
		if len(u.Log) > 0 {
			log = fmt.Sprintf("%x", u.Log)
		}
		rows = append(rows, []string{fmt.Sprint(u.Id), u.Control, fmt.Sprint(uint64(s.Reconciled.Epoch)), fmt.Sprint(uint64(s.Active.Epoch)), fmt.Sprint(u.Promise), log, remark})
	}
	if err := a.printTable(rows); err != nil || r.Layout == nil {
		return err
	}
	l, err := pbconv.ToLayout(r.Layout)
	if err != nil {
		return err
	}
	fmt.Fprint(a.stdout, "\nthe newest layout that was active:\n\n")
	if err := a.printLayout(l); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nrecord      %016x\nnext epoch  above %d\nclient ids  above %d\n", r.Record.GetId(), r.Attempted, r.Clients)
	for _, why := range r.Unsure {
		fmt.Fprintf(a.stdout, "NOT PROVEN  %s\n", why)
	}
	if r.AcceptedLoss {
		fmt.Fprintln(a.stdout, "LOSS        what only the members that are given up hold is lost")
	}
	switch {
	case r.Done:
		fmt.Fprintln(a.stdout, "\nthe layout store was built: corfu status shows what follows")
	case r.Refused == "":
		fmt.Fprintln(a.stdout, "\nnothing was done: --yes does it")
	}
	return nil
}

func nonEmpty(all ...string) (list []string) {
	for _, s := range all {
		if s != "" {
			list = append(list, s)
		}
	}
	return list
}

func (a *app) printRecoveryJSON(r *pb.RecoverReply) error {
	out := recoverJSON{Attempted: r.Attempted, Clients: r.Clients, AcceptedLoss: r.AcceptedLoss, Unsure: r.Unsure, Refused: r.Refused, Done: r.Done, Units: []recoverUnitJSON{}}
	if r.Layout != nil {
		l, err := pbconv.ToLayout(r.Layout)
		if err != nil {
			return err
		}
		described := describeLayout(l)
		out.Layout = &described
	}
	for _, u := range r.Units {
		s := pbconv.ToStoreState(u.State)
		x := recoverUnitJSON{Unit: u.Id, Control: u.Control, Member: u.Member, Reconciled: uint64(s.Reconciled.Epoch), Active: uint64(s.Active.Epoch),
			Promise: u.Promise, Entries: s.Entries, Error: u.Error, Missing: u.Missing}
		if len(u.Log) > 0 {
			x.Log = fmt.Sprintf("%x", u.Log)
		}
		out.Units = append(out.Units, x)
	}
	return a.printJSON(out)
}
